//! A listener's resource, read once.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use sluice_config::v1;

use super::slots::Slots;
use crate::filter::Filter;
use crate::listen::fingerprint::Wanted;
use crate::listen::{Client, Http3};
use crate::route::{Kind, Listener, Termination};
use crate::tls::client_check::{ClientCheck, only_pinned, takes_any};
use crate::tls::material::{KeyPair, root_store};
use crate::tls::server;

/// Where a listener's socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    /// The port of the socket.
    pub(super) bind_port: u16,
    /// UDP has ports of its own.
    pub(super) udp: bool,
}

/// A listener that is ready to be put in its place.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    pub(super) config: v1::Listener,
    pub(super) version: String,
    pub(super) place: Place,
    pub(super) kind: Kind,
    pub(super) listener: Arc<Listener>,
}

impl Compiled {
    /// Compiles the resource with this key.
    pub(super) fn new(
        key: &str,
        version: &str,
        config: &v1::Listener,
        slots: &mut Slots,
    ) -> Result<Self, String> {
        let kind = match config.protocol() {
            v1::Protocol::Http => Kind::Http,
            v1::Protocol::Https | v1::Protocol::Tls => Kind::Tls,
            v1::Protocol::Tcp => Kind::Tcp,
            v1::Protocol::Udp => Kind::Udp,
            v1::Protocol::Unspecified => {
                return Err("protocol: not set, or one that this version does not know".into());
            }
        };
        let port = port("port", config.port)?;
        let bind_port = self::port("bind_port", config.bind_port)?;
        // TCP and UDP know no names.
        let hostname = if matches!(kind, Kind::Tcp | Kind::Udp) {
            String::new()
        } else {
            hostname(&config.hostname)?
        };
        let https = config.protocol() == v1::Protocol::Https;
        let tls = match (&config.tls, kind) {
            (Some(tls), Kind::Tls) => terminate(tls, &key_pairs(tls, slots), https, &config.name, slots)?,
            (None, Kind::Tls) if https => return Err("tls: not set, but the protocol is HTTPS".into()),
            (None, Kind::Tls) => Termination::Passthrough,
            _ => Termination::Cleartext,
        };
        let mut client = match &config.client {
            None => None,
            Some(client) => Some(Client::compile(client).map_err(|e| format!("client.{e}"))?),
        };
        if let (Some(client), Some(tls)) = (&mut client, &config.tls) {
            client.serve_certificates(&key_pairs(tls, slots));
        }
        if let (Some(client), Termination::Terminate(tls)) = (&mut client, &tls)
            && https
            && config.client.as_ref().is_some_and(|client| client.http3)
        {
            let at = match config.http3_bind_port {
                0 => bind_port,
                at => self::port("http3_bind_port", at)?,
            };
            client.http3 = Some(Http3::compile(tls, port, at).map_err(|e| format!("client.http3: {e}"))?);
        }
        let listener = Listener {
            key: key.into(),
            name: config.name.as_str().into(),
            https,
            port,
            hostname: hostname.into(),
            filters: Filter::compile_all(&config.filters, slots)?,
            tls,
            client: client.map(Arc::new),
            fingerprints: Wanted::new(config.tls.as_ref().and_then(|tls| tls.parameters.as_ref())),
            metrics: slots.metrics().listener(&config.name),
        };
        Ok(Self {
            config: config.clone(),
            version: version.to_owned(),
            place: Place {
                bind_port,
                udp: kind == Kind::Udp,
            },
            kind,
            listener: Arc::new(listener),
        })
    }

    /// True if `other` can take its place without anyone noticing but by what it does.
    pub(super) fn same_place(&self, other: &Self) -> bool {
        self.place == other.place
            && self.kind == other.kind
            && self.listener.port == other.listener.port
            && self.listener.hostname == other.listener.hostname
    }
}

/// The Secrets that a listener names.
pub(super) fn secrets_of(config: &v1::Listener) -> Vec<&String> {
    let Some(tls) = &config.tls else { return Vec::new() };
    let validation = tls
        .client_validation
        .iter()
        .flat_map(|validation| validation.ca_secrets.iter().chain(&validation.crl_secrets));
    tls.certificate_secrets.iter().chain(validation).collect()
}

fn port(field: &str, port: u32) -> Result<u16, String> {
    match u16::try_from(port) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("{field}: {port} is not a port")),
    }
}

fn hostname(name: &str) -> Result<String, String> {
    let bare = name.strip_prefix("*.").unwrap_or(name);
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !bare.chars().all(is_name) || (bare.is_empty() && !name.is_empty()) {
        return Err(format!("hostname: `{name}` is not a host name"));
    }
    Ok(name.to_ascii_lowercase())
}

/// The certificates that are there.
fn key_pairs(config: &v1::TlsTermination, slots: &Slots) -> Vec<Arc<KeyPair>> {
    let keys = config.certificate_secrets.iter();
    keys.filter_map(|key| slots.key_pair(key)).cloned().collect()
}

/// What is missing makes the listener refuse connections, never serve them with less than was asked for.
fn terminate(
    config: &v1::TlsTermination,
    pairs: &[Arc<KeyPair>],
    http: bool,
    name: &str,
    slots: &Slots,
) -> Result<Termination, String> {
    if pairs.is_empty() {
        tracing::warn!(listener = name, "no certificate: connections are refused");
        return Ok(Termination::Refused);
    }
    let mut check = None;
    if let Some(validation) = &config.client_validation {
        let anchors: Vec<_> = validation
            .ca_secrets
            .iter()
            .filter_map(|key| slots.anchors(key))
            .collect();
        if anchors.is_empty() && !takes_any(validation) && !only_pinned(validation) {
            tracing::warn!(
                listener = name,
                "nothing to verify clients with: connections are refused"
            );
            return Ok(Termination::Refused);
        }
        let mut lists = Vec::new();
        for key in &validation.crl_secrets {
            let Some(list) = slots.revocations(key) else {
                tracing::warn!(listener = name, "no revocation list: connections are refused");
                return Ok(Termination::Refused);
            };
            lists.extend(list.iter().cloned());
        }
        let roots = root_store(anchors);
        check = Some(move |provider: &Arc<CryptoProvider>| {
            ClientCheck::build(validation, roots, lists, config.parameters.as_ref(), provider)
        });
    }
    server::config(pairs.to_vec(), config.parameters.as_ref(), check, http).map(Termination::Terminate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(change: impl FnOnce(&mut v1::Listener)) -> Result<Compiled, String> {
        let mut config = v1::Listener {
            name: "default/gw/web".into(),
            port: 80,
            bind_port: 10080,
            protocol: v1::Protocol::Http.into(),
            ..Default::default()
        };
        change(&mut config);
        Compiled::new(
            "listener/Gateway/default/gw/web",
            "1",
            &config,
            &mut Slots::new(Arc::default(), None),
        )
    }

    #[test]
    fn reasons_name_the_field() {
        let reason = |change: fn(&mut v1::Listener)| compile(change).unwrap_err();
        assert_eq!(reason(|c| c.port = 0), "port: 0 is not a port");
        assert_eq!(reason(|c| c.bind_port = 70_000), "bind_port: 70000 is not a port");
        assert_eq!(
            reason(|c| c.hostname = "a/b".into()),
            "hostname: `a/b` is not a host name"
        );
        assert_eq!(
            reason(|c| c.hostname = "*.".into()),
            "hostname: `*.` is not a host name"
        );
        assert!(reason(|c| c.protocol = 0).starts_with("protocol: "));
        assert!(reason(|c| c.protocol = v1::Protocol::Https.into()).starts_with("tls: "));
        assert!(reason(|c| c.filters.push(v1::Filter::default())).starts_with("filters[0]."));
    }

    #[test]
    fn without_a_certificate_it_refuses() {
        let compiled = compile(|c| {
            c.protocol = v1::Protocol::Https.into();
            c.tls = Some(v1::TlsTermination {
                certificate_secrets: vec!["secret/x".into()],
                ..Default::default()
            });
        });
        assert!(matches!(compiled.unwrap().listener.tls, Termination::Refused));
    }
}
