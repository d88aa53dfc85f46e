//! TLS towards clients: the rustls configuration of one listener.
//!
//! Owns the choice of certificate within a listener and the validation of client certificates. Which listener a
//! connection belongs to is decided by its SNI before, in `listen`.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use sluice_config::v1;

use super::client_check::ClientCheck;
use super::material::KeyPair;
use super::{parameters, signatures};

/// Sessions that are remembered where they are resumed by ID.
const SESSIONS: usize = 4096;

/// The configuration of a listener that terminates TLS for HTTP (`http`: ALPN is offered) or for a byte stream. `check`
/// makes what a client has to show, if anything.
///
/// # Errors
/// Names the field that cannot be honoured.
pub fn config(
    pairs: Vec<Arc<KeyPair>>,
    settings: Option<&v1::TlsParameters>,
    check: Option<impl FnOnce(&Arc<CryptoProvider>) -> Result<Arc<ClientCheck>, String>>,
    http: bool,
) -> Result<Arc<ServerConfig>, String> {
    if pairs.is_empty() {
        return Err("tls.certificate_secrets: none".into());
    }
    let (provider, versions) = parameters::choose(settings)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|e| format!("tls: {e}"))?;
    let builder = match check {
        None => builder.with_no_client_auth(),
        Some(check) => builder.with_client_cert_verifier(check(&provider)?),
    };
    let schemes = signatures::choose(settings, &provider)?;
    let signing = |pair: Arc<KeyPair>| (signatures::signing(pair.certified(), &schemes), pair);
    let certificates = Certificates(pairs.into_iter().map(signing).collect());
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    let offered: &[&[u8]] = if http { &[b"h2", b"http/1.1"] } else { &[] };
    config.alpn_protocols = parameters::alpn(settings, offered);
    resumption(
        &mut config,
        settings.and_then(|settings| settings.resumption.as_ref()),
    )?;
    Ok(Arc::new(config))
}

/// How sessions are resumed; by ticket unless something else is asked for.
fn resumption(
    config: &mut ServerConfig,
    settings: Option<&v1::tls_parameters::SessionResumption>,
) -> Result<(), String> {
    let (stateless, stateful) = settings.map_or((true, true), |s| (s.stateless, s.stateful));
    if stateless {
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|e| format!("tls: {e}"))?;
    } else if stateful {
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    }
    if !stateful {
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    if !stateless && !stateful {
        config.send_tls13_tickets = 0;
    }
    Ok(())
}

/// The one that is served to a client that asks for `name`: the first that covers it, else the first.
pub fn served<'a, T>(all: &'a [T], pair: impl Fn(&T) -> &KeyPair, name: Option<&str>) -> Option<&'a T> {
    let covering = match (all, name) {
        ([_], _) | (_, None) => None,
        (all, Some(name)) => all.iter().find(|one| pair(one).covers(name)),
    };
    covering.or(all.first())
}

/// The certificates of a listener: the first that covers the SNI, else the first.
#[derive(Debug)]
struct Certificates(Vec<(Arc<CertifiedKey>, Arc<KeyPair>)>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        served(&self.0, |(_, pair)| pair, hello.server_name()).map(|(certified, _)| Arc::clone(certified))
    }
}
