//! Two certificate authorities, what they issue, and the objects that hold it. The Gateway's clients and its backend are
//! trusted by way of a ClusterTrustBundle each.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// The names of the ClusterTrustBundles, which belong to no namespace.
pub const BUNDLES: [&str; 2] = [CLIENTS, BACKENDS];
/// Whom the Gateway's clients' certificates must come from.
pub const CLIENTS: &str = "sluice-features-clients";
/// Whom the backend's certificate must come from.
pub const BACKENDS: &str = "sluice-features-backends";

/// The Gateway's name in its certificate.
pub const GATEWAY_HOST: &str = "gateway.features.test";
/// The backend's.
pub const BACKEND_HOST: &str = "backend.features.test";

/// The authorities' certificates, and a directory with what curl needs: `ca.crt`, and of either authority's client
/// `good.crt`, `good.key`, `bad.crt` and `bad.key`; the servers' are there too, by the names of their Secrets.
pub struct Certificates {
    directory: PathBuf,
    /// The authority that is trusted.
    pub good: String,
    /// One that is not.
    pub bad: String,
    servers: Vec<Value>,
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    /// Makes everything anew: in `namespace` a Secret for each server, given by its name and the server's.
    pub fn make(directory: &Path, namespace: &str, hosts: &[(&str, &str)]) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let (good, bad) = (Authority::new("good")?, Authority::new("bad")?);
        let write = |name: &str, content: &str| {
            let path = directory.join(name);
            fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
        };
        write("ca.crt", &good.pem)?;
        for (name, authority) in [("good", &good), ("bad", &bad)] {
            let (certificate, key) = authority.issue("client.features.test")?;
            write(&format!("{name}.crt"), &certificate)?;
            write(&format!("{name}.key"), &key)?;
        }
        let mut servers = Vec::new();
        for (name, host) in hosts {
            let (certificate, key) = good.issue(host)?;
            write(&format!("{name}.crt"), &certificate)?;
            write(&format!("{name}.key"), &key)?;
            servers.push(json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "kubernetes.io/tls",
                "metadata": {"name": name, "namespace": namespace},
                "stringData": {"tls.crt": certificate, "tls.key": key},
            }));
        }
        Ok(Self {
            directory: directory.to_owned(),
            good: good.pem,
            bad: bad.pem,
            servers,
        })
    }

    /// Creates the Secrets and the ClusterTrustBundles.
    pub fn apply(&self, cluster: &Cluster) -> Result<()> {
        self.apply_secrets(cluster)?;
        BUNDLES
            .iter()
            .try_for_each(|name| trust(cluster, name, &self.good))
    }

    /// Creates the Secrets alone.
    pub fn apply_secrets(&self, cluster: &Cluster) -> Result<()> {
        self.servers
            .iter()
            .try_for_each(|server| cluster.apply(&server.to_string()))
    }

    /// A file for curl.
    pub fn file(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }
}

/// Writes the ClusterTrustBundle.
pub fn trust(cluster: &Cluster, name: &str, pem: &str) -> Result<()> {
    let bundle = json!({
        "apiVersion": "certificates.k8s.io/v1beta1",
        "kind": "ClusterTrustBundle",
        "metadata": {"name": name},
        "spec": {"trustBundle": pem},
    });
    cluster.apply(&bundle.to_string())
}

impl Authority {
    fn new(name: &str) -> Result<Self> {
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name
            .push(DnType::CommonName, format!("sluice-features-{name}"));
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        Ok(Self {
            pem: ca.self_signed(&key)?.pem(),
            issuer: Issuer::new(ca, key),
        })
    }

    fn issue(&self, host: &str) -> Result<(String, String)> {
        let mut leaf = CertificateParams::new(vec![host.to_owned()])?;
        leaf.distinguished_name.push(DnType::CommonName, host);
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        leaf.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}
