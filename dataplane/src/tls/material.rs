//! Key material: parsed once when its Secret arrives, shared from then on.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use sluice_config::v1;

/// The one cryptography provider.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

/// A parsed `secret/...` resource.
#[derive(Debug, Clone)]
pub enum Material {
    /// A certificate chain with its key.
    KeyPair(Arc<KeyPair>),
    /// Trust anchors.
    Anchors(Arc<Vec<CertificateDer<'static>>>),
    /// Certificate revocation lists.
    Revocations(Arc<Vec<CertificateRevocationListDer<'static>>>),
}

impl Material {
    /// Parses the resource.
    ///
    /// # Errors
    /// Names the field that cannot be used.
    pub fn parse(config: &v1::Secret) -> Result<Self, String> {
        match &config.body {
            Some(v1::secret::Body::CertificateKeyPair(pair)) => {
                Ok(Self::KeyPair(Arc::new(KeyPair::parse(pair)?)))
            }
            Some(v1::secret::Body::TrustBundle(pem)) => {
                let anchors = certificates(pem).map_err(|e| format!("trust_bundle: {e}"))?;
                if anchors.is_empty() {
                    return Err("trust_bundle: no certificate".into());
                }
                Ok(Self::Anchors(Arc::new(anchors)))
            }
            Some(v1::secret::Body::RevocationList(pem)) => {
                let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(pem)
                    .collect::<Result<_, _>>()
                    .map_err(|e| format!("revocation_list: {e}"))?;
                if lists.is_empty() {
                    return Err("revocation_list: no list".into());
                }
                Ok(Self::Revocations(Arc::new(lists)))
            }
            // It is held apart, for the filters that name it.
            Some(v1::secret::Body::Data(_)) => Err("data: is no key material".into()),
            None => Err("body: empty".into()),
        }
    }
}

/// The certificates of a PEM text.
///
/// # Errors
/// Says what is wrong with the PEM.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())
}

/// The trust anchors of several bundles in one store.
pub fn root_store<'a>(
    bundles: impl IntoIterator<Item = &'a Arc<Vec<CertificateDer<'static>>>>,
) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for bundle in bundles {
        roots.add_parsable_certificates(bundle.iter().cloned());
    }
    roots
}

/// A certificate chain with its key.
#[derive(Debug)]
pub struct KeyPair {
    certified: Arc<CertifiedKey>,
}

impl KeyPair {
    fn parse(config: &v1::CertificateKeyPair) -> Result<Self, String> {
        let chain = certificates(&config.certificate_chain_pem)
            .map_err(|e| format!("certificate_key_pair.certificate_chain_pem: {e}"))?;
        let key = PrivateKeyDer::from_pem_slice(&config.private_key_pem)
            .map_err(|e| format!("certificate_key_pair.private_key_pem: {e}"))?;
        let certified = CertifiedKey::from_der(chain, key, &provider())
            .map_err(|e| format!("certificate_key_pair: {e}"))?;
        Ok(Self {
            certified: Arc::new(certified),
        })
    }

    /// The chain with the key.
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// The chain.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// True if the certificate is valid for this host.
    pub fn covers(&self, host: &str) -> bool {
        let Some(leaf) = self.certified.cert.first() else {
            return false;
        };
        let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(leaf), ServerName::try_from(host)) else {
            return false;
        };
        rustls::client::verify_server_name(&parsed, &name).is_ok()
    }
}
