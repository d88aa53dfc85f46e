//! Opens TCP connections to the controller. Names are resolved by asking DNS ourselves: a static binary has no
//! resolver of the C library.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hickory_resolver::{ResolverBuilder, TokioResolver};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::codegen::Service;

/// Bound on connecting to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to the host and port of a URI.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connector;

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move { connect(&uri).await.map(TokioIo::new) })
    }
}

async fn connect(uri: &Uri) -> io::Result<TcpStream> {
    let host = uri
        .host()
        .ok_or_else(|| io::Error::other(format!("`{uri}` names no host")))?;
    let port = uri.port_u16().unwrap_or(443);
    let mut last = io::Error::other(format!("`{host}` has no address"));
    for address in resolve(host).await? {
        let connecting = TcpStream::connect(SocketAddr::new(address, port));
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(io::Error::other)
            .flatten()
        {
            Ok(tcp) => {
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Err(error) => last = io::Error::new(error.kind(), format!("{address}:{port}: {error}")),
        }
    }
    Err(last)
}

async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(vec![address]);
    }
    // The system's settings are read anew: they may have changed since, and connections are rare.
    let resolver = TokioResolver::builder_tokio()
        .and_then(ResolverBuilder::build)
        .map_err(io::Error::other)?;
    let found = resolver
        .lookup_ip(host)
        .await
        .map_err(|error| io::Error::other(format!("`{host}`: {error}")))?;
    Ok(found.iter().collect())
}
