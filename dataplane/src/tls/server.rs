//! TLS towards clients: the rustls configuration of one listener.
//!
//! Owns the choice of certificate within a listener and the validation of client certificates. Which listener a
//! connection belongs to is decided by its SNI before, in `listen`.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme};

use super::material::{KeyPair, provider};

/// What a client has to show.
#[derive(Debug)]
pub struct Validation {
    /// Who may have signed the client's certificate.
    pub roots: RootCertStore,
    /// Let connections without a valid certificate through.
    pub insecure_fallback: bool,
}

/// The configuration of a listener that terminates TLS for HTTP (`http`: ALPN is offered) or for a byte stream.
///
/// # Errors
/// Names the field that cannot be honoured.
pub fn config(
    pairs: Vec<Arc<KeyPair>>,
    validation: Option<Validation>,
    http: bool,
) -> Result<Arc<ServerConfig>, String> {
    if pairs.is_empty() {
        return Err("tls.certificate_secrets: none".into());
    }
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("tls: {e}"))?;
    let builder = match validation {
        None => builder.with_no_client_auth(),
        Some(validation) => builder.with_client_cert_verifier(verifier(validation)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates(pairs)));
    if http {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|e| format!("tls: {e}"))?;
    Ok(Arc::new(config))
}

fn verifier(validation: Validation) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let strict = WebPkiClientVerifier::builder_with_provider(Arc::new(validation.roots), provider())
        .build()
        .map_err(|e| format!("tls.client_validation.ca_secrets: {e}"))?;
    if validation.insecure_fallback {
        Ok(Arc::new(Lenient(strict)))
    } else {
        Ok(strict)
    }
}

/// The certificates of a listener: the first that covers the SNI, else the first.
#[derive(Debug)]
struct Certificates(Vec<Arc<KeyPair>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let covering = match (self.0.as_slice(), hello.server_name()) {
            ([_], _) | (_, None) => None,
            (pairs, Some(name)) => pairs.iter().find(|pair| pair.covers(name)),
        };
        covering
            .or(self.0.first())
            .map(|pair| Arc::clone(pair.certified()))
    }
}

/// Asks for a certificate but takes any answer (AllowInsecureFallback).
#[derive(Debug)]
struct Lenient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Lenient {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
