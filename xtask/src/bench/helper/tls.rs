//! TLS 1.3 as a client that trusts the run's certificate alone and resumes nothing.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version};

use super::tell;
use crate::bench::peer::HOST;

/// Connections that shake hands at the same time.
const AT_ONCE: u32 = 8;

/// Makes TLS connections.
#[derive(Clone)]
pub(super) struct Connector {
    inner: TlsConnector,
    name: ServerName<'static>,
}

/// A connector that trusts the certificate in a PEM file.
pub(super) fn connector(certificate: &Path) -> Result<Connector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).context("the certificate")?)?;
    let mut config = ClientConfig::builder_with_protocol_versions(&[&version::TLS13])
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Connector {
        inner: TlsConnector::from(Arc::new(config)),
        name: ServerName::try_from(HOST)?,
    })
}

impl Connector {
    /// Shakes hands.
    pub(super) async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
        Ok(self.inner.connect(self.name.clone(), stream).await?)
    }
}

/// Says `start`, makes connections for some seconds, and says `end` and their number.
pub(super) async fn handshakes(port: u16, seconds: u32, certificate: &Path) -> Result<()> {
    let connector = connector(certificate)?;
    let count = Rc::new(Cell::new(0_u64));
    tell("start")?;
    let end = Instant::now() + Duration::from_secs(seconds.into());
    let local = tokio::task::LocalSet::new();
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (connector, count) = (connector.clone(), Rc::clone(&count));
            local.spawn_local(async move {
                while Instant::now() < end {
                    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
                    stream.set_nodelay(true)?;
                    let mut stream = connector.connect(stream).await?;
                    ensure!(
                        stream.get_ref().1.protocol_version().is_some(),
                        "no TLS version was agreed on"
                    );
                    stream.shutdown().await?;
                    count.set(count.get() + 1);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    local
        .run_until(async {
            for worker in workers {
                worker.await??;
            }
            anyhow::Ok(())
        })
        .await?;
    tell(&format!("end {}", count.get()))
}
