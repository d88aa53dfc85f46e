//! TLS towards backends.
//!
//! Owns the rustls client configuration of one backend: what is offered, and what certificate is believed. Names and
//! trust come from the resource only; nothing is ever verified less than it says.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sluice_config::v1;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::extensions::GeneralName;

use super::material::{KeyPair, provider};
use super::{parameters, signatures};
use crate::wire::Socket;

/// Where system trust anchors are looked for, in this order.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The next [`ClientTls::identity`].
static IDENTITY: AtomicU64 = AtomicU64::new(1);

/// TLS settings of one backend.
#[derive(Debug)]
pub struct ClientTls {
    name: ServerName<'static>,
    /// Without ALPN, for a byte stream.
    raw: TlsConnector1,
    h1: TlsConnector1,
    h2_or_h1: TlsConnector1,
    identity: u64,
}

#[derive(Clone)]
struct TlsConnector1(TlsConnector);

impl std::fmt::Debug for TlsConnector1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl ClientTls {
    /// Builds the settings. `roots` holds the anchors of the resource's CA bundles.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn build(
        config: &v1::UpstreamTls,
        mut roots: RootCertStore,
        client_certificate: Option<&KeyPair>,
    ) -> Result<Self, String> {
        if config.system_ca {
            add_system_anchors(&mut roots);
        }
        let verifier: Arc<dyn ServerCertVerifier> = if config.insecure_skip_verify {
            Arc::new(AnyCertificate(provider()))
        } else if roots.is_empty() {
            return Err("tls.ca_secrets: no trust anchor".into());
        } else {
            Arc::new(Verifier::build(Arc::new(roots), &config.subject_alt_names)?)
        };
        let name = if config.hostname.is_empty() {
            // Endpoints or requests have their names, or none is needed: no certificate holds this one. An address is never sent as SNI.
            ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into())
        } else {
            ServerName::try_from(config.hostname.clone())
                .map_err(|_| format!("tls.hostname: `{}` is not a host name", config.hostname))?
        };
        let settings = config.parameters.as_ref();
        let (provider, versions) = parameters::choose(settings)?;
        let schemes = signatures::choose(settings, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|e| format!("tls: {e}"))?
            .dangerous()
            .with_custom_certificate_verifier(signatures::verifying(verifier, schemes.clone()));
        let mut h1 = match client_certificate {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let certified = signatures::signing(pair.certified(), &schemes);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        let raw = h1.clone();
        h1.alpn_protocols = parameters::alpn(settings, &[b"http/1.1"]);
        let mut h2_or_h1 = h1.clone();
        h2_or_h1.alpn_protocols = parameters::alpn(settings, &[b"h2", b"http/1.1"]);
        Ok(Self {
            name,
            raw: TlsConnector1(Arc::new(raw).into()),
            h1: TlsConnector1(Arc::new(h1).into()),
            h2_or_h1: TlsConnector1(Arc::new(h2_or_h1).into()),
            identity: IDENTITY.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Differs between any two settings, so that no connection is reused under others than it was opened with.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// The same settings for another host. `None`: it is neither a name nor an address.
    pub fn named(&self, host: &str) -> Option<Self> {
        Some(Self {
            name: ServerName::try_from(host.to_owned()).ok()?,
            raw: self.raw.clone(),
            h1: self.h1.clone(),
            h2_or_h1: self.h2_or_h1.clone(),
            identity: IDENTITY.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Handshakes on a connected socket; `name` is that of its endpoint, if it has its own, and `h2` says whether HTTP/2 is offered.
    ///
    /// # Errors
    /// Those of the handshake.
    pub async fn handshake(
        &self,
        socket: Socket,
        h2: bool,
        name: Option<&ServerName<'static>>,
    ) -> io::Result<TlsStream<Socket>> {
        let connector = if h2 { &self.h2_or_h1 } else { &self.h1 };
        connector
            .0
            .connect(name.unwrap_or(&self.name).clone(), socket)
            .await
    }
}

impl ClientTls {
    /// Handshakes on a connected socket that carries no HTTP: no application protocol is offered.
    ///
    /// # Errors
    /// Those of the handshake.
    pub async fn handshake_raw(
        &self,
        socket: Socket,
        name: Option<&ServerName<'static>>,
    ) -> io::Result<TlsStream<Socket>> {
        self.raw
            .0
            .connect(name.unwrap_or(&self.name).clone(), socket)
            .await
    }
}

fn add_system_anchors(roots: &mut RootCertStore) {
    let from_env = std::env::var("SSL_CERT_FILE").ok();
    let paths = from_env
        .iter()
        .map(String::as_str)
        .chain(SYSTEM_BUNDLES.iter().copied());
    for path in paths {
        if let Ok(pem) = std::fs::read(path) {
            let certificates = super::material::certificates(&pem).unwrap_or_default();
            roots.add_parsable_certificates(certificates);
            return;
        }
    }
}

/// Verifies a backend's certificate: by its name, or by a list of subject alternative names of which one must be there.
#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    webpki: Arc<WebPkiServerVerifier>,
    dns: Vec<ServerName<'static>>,
    uris: Vec<String>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn build(roots: Arc<RootCertStore>, names: &[String]) -> Result<Self, String> {
        let provider = provider();
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|e| format!("tls.ca_secrets: {e}"))?;
        let (mut dns, mut uris) = (Vec::new(), Vec::new());
        for (i, name) in names.iter().enumerate() {
            let field = format!("tls.subject_alt_names[{i}]: `{name}`");
            match name.split_once(':') {
                Some(("dns", host)) => {
                    dns.push(
                        ServerName::try_from(host.to_owned())
                            .map_err(|_| format!("{field} is not a host name"))?,
                    );
                }
                Some(("uri", uri)) => uris.push(uri.to_owned()),
                _ => return Err(format!("{field} has neither `dns:` nor `uri:` in front")),
            }
        }
        Ok(Self {
            roots,
            webpki,
            dns,
            uris,
            provider,
        })
    }

    fn has_wanted_name(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        if self
            .dns
            .iter()
            .any(|name| rustls::client::verify_server_name(&parsed, name).is_ok())
        {
            return Ok(());
        }
        let (_, x509) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let names = x509.subject_alternative_name().ok().flatten();
        let found = names.is_some_and(|names| {
            names.value.general_names.iter().any(|name| match name {
                GeneralName::URI(uri) => self.uris.iter().any(|wanted| wanted == uri),
                _ => false,
            })
        });
        if found {
            Ok(())
        } else {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName))
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.dns.is_empty() && self.uris.is_empty() {
            return self.webpki.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        self.has_wanted_name(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Takes whatever certificate a backend shows, as the resource asks for; only that the backend has its key is verified.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
