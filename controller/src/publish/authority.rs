//! The controller's own certificate authority: proxies know the controller by it.
//!
//! The CA lives in a Secret that all replicas share; each replica issues its own server certificate from it, keeps it in
//! memory and renews it. Proxies get the CA's certificate in a ConfigMap; the key never leaves the Secret.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Secret of the CA, in the controller's namespace.
const SECRET: &str = "sluice-controller-ca";
const DAY: Duration = Duration::from_hours(24);
const CA_LIFE: Duration = DAY.saturating_mul(3650);
/// A CA that has less than this is replaced; its successor's bundle holds both.
const CA_RENEW: Duration = DAY.saturating_mul(365);
const LEAF_LIFE: Duration = DAY.saturating_mul(30);
const LEAF_RENEW: Duration = DAY.saturating_mul(10);
/// How often the Secret and the leaf are looked at.
const CHECK: Duration = Duration::from_hours(1);
/// Certificates begin a little in the past, for clocks that are behind.
const BACKDATE: Duration = Duration::from_mins(5);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The Secret could not be read or written.
    #[error("Secret {SECRET}: {0}")]
    Api(#[from] kube::Error),
    /// The Secret's content is not a CA.
    #[error("Secret {SECRET}, key {key}: {reason}")]
    Invalid {
        /// Key of the Secret's data.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The key cannot be used.
    #[error("key cannot be used: {0}")]
    Key(#[from] rustls::Error),
}

/// A certificate authority.
#[derive(Clone, PartialEq, Eq)]
pub struct Ca {
    certificate_pem: String,
    key_pem: String,
    /// What others should trust: the certificate, and its predecessor if there is one.
    pub bundle_pem: String,
}

impl Ca {
    /// A new authority.
    pub fn generate() -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "sluice-controller-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = SystemTime::now();
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + CA_LIFE).into();
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self {
            bundle_pem: certificate_pem.clone(),
            certificate_pem,
            key_pem: key.serialize_pem(),
        })
    }

    /// Issues a server certificate for these names.
    pub fn issue(&self, names: &[String]) -> Result<CertifiedKey, AuthorityError> {
        let issuer = Issuer::from_ca_cert_pem(&self.certificate_pem, KeyPair::from_pem(&self.key_pem)?)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "sluice-controller");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = SystemTime::now();
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + LEAF_LIFE).into();
        let certificate: CertificateDer<'static> = params.signed_by(&key, &issuer)?.der().clone();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(CertifiedKey::new(
            vec![certificate],
            any_supported_type(&private)?,
        ))
    }

    fn from_secret(secret: &Secret) -> Result<Self, AuthorityError> {
        let text = |key: &'static str| {
            let data = secret.data.as_ref().and_then(|data| data.get(key));
            let data = data.ok_or(AuthorityError::Invalid {
                key,
                reason: "is missing".to_owned(),
            })?;
            String::from_utf8(data.0.clone()).map_err(|e| AuthorityError::Invalid {
                key,
                reason: e.to_string(),
            })
        };
        Ok(Self {
            certificate_pem: text("tls.crt")?,
            key_pem: text("tls.key")?,
            bundle_pem: text("ca.crt")?,
        })
    }

    fn data(&self) -> BTreeMap<String, ByteString> {
        [
            ("tls.crt", &self.certificate_pem),
            ("tls.key", &self.key_pem),
            ("ca.crt", &self.bundle_pem),
        ]
        .map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes())))
        .into()
    }

    fn expires_within(&self, time: Duration) -> Result<bool, AuthorityError> {
        let invalid = |reason: String| AuthorityError::Invalid {
            key: "tls.crt",
            reason,
        };
        let (_, pem) = x509_parser::pem::parse_x509_pem(self.certificate_pem.as_bytes())
            .map_err(|e| invalid(e.to_string()))?;
        let certificate = pem.parse_x509().map_err(|e| invalid(e.to_string()))?;
        let left = certificate.validity().time_to_expiration();
        Ok(left.is_none_or(|left| left.whole_seconds() < i64::try_from(time.as_secs()).unwrap_or(i64::MAX)))
    }

    fn successor(&self) -> Result<Self, AuthorityError> {
        let mut next = Self::generate()?;
        next.bundle_pem.push_str(&self.certificate_pem);
        Ok(next)
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

/// The present server certificate, for rustls.
#[derive(Debug)]
pub struct Leaf(RwLock<Arc<CertifiedKey>>);

impl Leaf {
    /// Starts with this certificate.
    pub fn new(key: CertifiedKey) -> Self {
        Self(RwLock::new(Arc::new(key)))
    }

    fn set(&self, key: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
    }
}

impl ResolvesServerCert for Leaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Keeps the CA's Secret and the server certificate.
pub struct Authority {
    api: Api<Secret>,
    names: Vec<String>,
    ca: Ca,
    leaf: Arc<Leaf>,
    bundle: watch::Sender<String>,
}

impl Authority {
    /// Reads the CA, or makes one if there is none, and issues a certificate for `names`.
    pub async fn open(client: Client, namespace: &str, names: Vec<String>) -> Result<Self, AuthorityError> {
        let api = Api::namespaced(client, namespace);
        let ca = read_or_create(&api).await?;
        let leaf = Arc::new(Leaf::new(ca.issue(&names)?));
        let bundle = watch::Sender::new(ca.bundle_pem.clone());
        Ok(Self {
            api,
            names,
            ca,
            leaf,
            bundle,
        })
    }

    /// The server certificate; stays current.
    pub fn leaf(&self) -> Arc<Leaf> {
        Arc::clone(&self.leaf)
    }

    /// PEM bundle that proxies trust; follows rotations.
    pub fn bundle(&self) -> watch::Receiver<String> {
        self.bundle.subscribe()
    }

    /// Renews what gets old, until `stop`.
    pub async fn keep(mut self, stop: CancellationToken) {
        let mut issued = SystemTime::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(CHECK) => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = self.renew(&mut issued).await {
                warn!(%error, "certificates not renewed");
            }
        }
    }

    async fn renew(&mut self, issued: &mut SystemTime) -> Result<(), AuthorityError> {
        let ca = read_or_create(&self.api).await?;
        let old = issued.elapsed().is_ok_and(|age| age + LEAF_RENEW >= LEAF_LIFE);
        if old || ca != self.ca {
            self.leaf.set(ca.issue(&self.names)?);
            *issued = SystemTime::now();
            self.bundle.send_if_modified(|bundle| {
                let changed = *bundle != ca.bundle_pem;
                bundle.clone_from(&ca.bundle_pem);
                changed
            });
            self.ca = ca;
            info!("server certificate renewed");
        }
        Ok(())
    }
}

async fn read_or_create(api: &Api<Secret>) -> Result<Ca, AuthorityError> {
    let metadata = ObjectMeta {
        name: Some(SECRET.to_owned()),
        ..Default::default()
    };
    let Some(mut secret) = api.get_opt(SECRET).await? else {
        let ca = Ca::generate()?;
        let secret = Secret {
            metadata,
            data: Some(ca.data()),
            ..Default::default()
        };
        return match api.create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(ca),
            // Another replica was faster; its CA is everybody's.
            Err(kube::Error::Api(status)) if status.code == 409 => Ca::from_secret(&api.get(SECRET).await?),
            Err(error) => Err(error.into()),
        };
    };
    let ca = Ca::from_secret(&secret)?;
    if !ca.expires_within(CA_RENEW)? {
        return Ok(ca);
    }
    let next = ca.successor()?;
    secret.data = Some(next.data());
    // The object carries the resourceVersion that we read.
    match api.replace(SECRET, &PostParams::default(), &secret).await {
        Ok(_) => Ok(next),
        Err(kube::Error::Api(status)) if status.code == 409 => Ca::from_secret(&api.get(SECRET).await?),
        Err(error) => Err(error.into()),
    }
}

/// Every name by which proxies may call a Service, given the address that they are told (`host[:port]`): for
/// `name.namespace.svc` also its shorter and its fully qualified forms.
pub fn server_names(address: &str) -> Vec<String> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let labels: Vec<_> = host.split('.').collect();
    match labels.as_slice() {
        [name, namespace, "svc", ..] => {
            let mut names = vec![
                (*name).to_owned(),
                format!("{name}.{namespace}"),
                format!("{name}.{namespace}.svc"),
                format!("{name}.{namespace}.svc.cluster.local"),
            ];
            if !names.iter().any(|n| n == host) {
                names.push(host.to_owned());
            }
            names
        }
        _ => vec![host.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_survives_its_secret_and_is_replaced_in_time() {
        let ca = Ca::generate().unwrap();
        let secret = Secret {
            data: Some(ca.data()),
            ..Default::default()
        };
        assert_eq!(Ca::from_secret(&secret).unwrap(), ca);
        assert!(!ca.expires_within(CA_RENEW).unwrap());
        assert!(ca.expires_within(CA_LIFE + DAY).unwrap());
        let next = ca.successor().unwrap();
        assert!(
            next.bundle_pem.contains(&ca.certificate_pem) && next.bundle_pem.contains(&next.certificate_pem)
        );
        assert!(!format!("{ca:?}").contains("PRIVATE"));
    }

    #[test]
    fn names_cover_every_form_of_a_service() {
        assert_eq!(
            server_names("sluice-controller.sys.svc:18000"),
            [
                "sluice-controller",
                "sluice-controller.sys",
                "sluice-controller.sys.svc",
                "sluice-controller.sys.svc.cluster.local"
            ]
        );
        assert_eq!(server_names("127.0.0.1:1"), ["127.0.0.1"]);
        assert_eq!(server_names("[::1]:1"), ["::1"]);
        assert_eq!(
            server_names("a.b.svc.example.org:1").last().unwrap(),
            "a.b.svc.example.org"
        );
    }
}
