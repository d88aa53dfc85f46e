//! A connection to the cluster's API server that stays open, so that the moment of an answer is known.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::bench::client::{Answer, Client};
use crate::cluster::Cluster;

/// The connection.
pub struct Api {
    client: Client,
    host: String,
    authorization: String,
}

/// A configuration of TLS that trusts certificates in PEM.
pub fn trusting(pem: &[u8], alpn: &[&[u8]]) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|&name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

impl Api {
    /// Connects as the cluster's kubeconfig says. The calling thread must be in the node's network namespace.
    pub fn open(cluster: &Cluster) -> Result<Self> {
        let path = &cluster.kubeconfig;
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let config: Value = serde_yaml_ng::from_slice(&text).with_context(|| path.display().to_string())?;
        let text = |value: &Value, what: &str| {
            let text = value.as_str().map(str::to_owned);
            text.with_context(|| format!("{}: no {what}", path.display()))
        };
        let server = text(&config["clusters"][0]["cluster"]["server"], "server")?;
        let authority = text(
            &config["clusters"][0]["cluster"]["certificate-authority"],
            "certificate-authority",
        )?;
        let token = text(&config["users"][0]["user"]["token"], "token")?;
        let host = server
            .strip_prefix("https://")
            .context("the API server is not at https://")?;
        let address: SocketAddr = host
            .to_socket_addrs()?
            .next()
            .context("the API server has no address")?;
        let pem = std::fs::read(&authority).with_context(|| format!("cannot read {authority}"))?;
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let client = Client::connect_tls(address, &trusting(&pem, &[b"http/1.1"])?, name)?;
        Ok(Self {
            client,
            host: host.to_owned(),
            authorization: format!("Authorization: Bearer {token}\r\nAccept: application/json\r\n"),
        })
    }

    /// Creates an object in a collection.
    pub fn create(&mut self, collection: &str, object: &Value) -> Result<()> {
        self.call("POST", collection, "application/json", object)
    }

    /// Merges a patch (RFC 7386) into an object.
    pub fn merge(&mut self, path: &str, patch: &Value) -> Result<()> {
        self.call("PATCH", path, "application/merge-patch+json", patch)
    }

    fn call(&mut self, method: &str, path: &str, kind: &str, body: &Value) -> Result<()> {
        let fields = format!("{}Content-Type: {kind}\r\n", self.authorization);
        let Answer { status, body, .. } =
            self.client
                .send(method, &self.host, path, &fields, &body.to_string())?;
        if !(200..300).contains(&status) {
            bail!("{method} {path}: {status} {body}");
        }
        Ok(())
    }
}
