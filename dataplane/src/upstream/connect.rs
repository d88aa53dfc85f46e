//! Opens connections to endpoints, or takes them from the worker's pool.
//!
//! Owns TCP connect, the TLS handshake and the choice between HTTP/1.1 and HTTP/2. Sends no request.

use std::io;

use pingora_core::connectors::http::v2::{H2HandshakeSettings, handshake};
use pingora_core::protocols::http::v1::client::HttpSession as Http1Session;
use pingora_core::protocols::http::v2::client::Http2Session;
use tokio::net::TcpStream;

use super::{Backend, Endpoint, Pool, Protocol};
use crate::wire::{Socket, Transport, Wire};

/// Concurrent streams on one HTTP/2 connection before another is opened.
const MAX_H2_STREAMS: usize = 256;

/// Why no connection could be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TCP said no.
    #[error("connection failure: {0}")]
    Tcp(#[source] io::Error),
    /// The TLS handshake failed.
    #[error("TLS error: {0}")]
    Tls(#[source] io::Error),
    /// The HTTP/2 handshake failed.
    #[error("HTTP/2 handshake: {0}")]
    H2(#[source] Box<pingora_core::Error>),
    /// It took longer than the backend's connect timeout.
    #[error("connection timeout")]
    Timeout,
}

/// A session that is ready to take a request.
pub enum Connected {
    /// HTTP/1.1 on this wire.
    H1 {
        /// The session.
        session: Box<Http1Session>,
        /// The stream below it.
        wire: Wire,
        /// True if the connection has served requests before.
        reused: bool,
    },
    /// A stream of an HTTP/2 connection.
    H2 {
        /// The session.
        session: Box<Http2Session>,
        /// True if the connection has served requests before.
        reused: bool,
    },
}

impl Connected {
    fn h1(wire: Wire, reused: bool) -> Self {
        Self::H1 { session: Box::new(Http1Session::new(Box::new(wire.clone()))), wire, reused }
    }
}

/// A session to `endpoint`, from the pool or new; `fresh` forbids the pool. `http2` says that the request needs
/// HTTP/2 where the backend leaves the choice open (gRPC), `http1` that it cannot do without HTTP/1.1 (an upgrade).
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(
    pool: &Pool,
    backend: &Backend,
    endpoint: &Endpoint,
    wants: Wants,
) -> Result<Connected, ConnectError> {
    let key = backend.pool_key(endpoint);
    let use_h2 = match (backend.protocol, wants.version) {
        (_, Version::Http1) | (Protocol::Http1, _) => false,
        (Protocol::H2c, _) | (_, Version::Http2) => true,
        (Protocol::Auto, Version::Any) => false,
    };
    let may_h2 = use_h2
        || (backend.tls.is_some() && backend.protocol == Protocol::Auto && wants.version == Version::Any);
    if !wants.fresh {
        if may_h2 && let Some(session) = reuse_h2(pool, &key).await {
            return Ok(Connected::H2 { session: Box::new(session), reused: true });
        }
        if !use_h2 && let Some(wire) = pool.take_h1(&key) {
            return Ok(Connected::h1(wire, true));
        }
    }
    let open = open(backend, endpoint, may_h2, use_h2);
    let (wire, is_h2) =
        tokio::time::timeout(backend.connect_timeout, open).await.map_err(|_| ConnectError::Timeout)??;
    if !is_h2 {
        return Ok(Connected::h1(wire, false));
    }
    let mut settings = H2HandshakeSettings::new();
    settings.max_streams = MAX_H2_STREAMS;
    settings.stream_window_size = Some(1 << 20);
    settings.connection_window_size = Some(1 << 23);
    let connection = tokio::time::timeout(backend.connect_timeout, handshake(Box::new(wire.unbuffered()), settings))
        .await
        .map_err(|_| ConnectError::Timeout)?
        .map_err(ConnectError::H2)?;
    let session = connection.spawn_stream().await.map_err(ConnectError::H2)?;
    pool.put_h2(key, connection);
    let session = session.ok_or(ConnectError::Timeout)?;
    Ok(Connected::H2 { session: Box::new(session), reused: false })
}

/// What a request needs of its connection.
#[derive(Debug, Clone, Copy)]
pub struct Wants {
    /// Not one from the pool.
    pub fresh: bool,
    /// The HTTP version.
    pub version: Version,
}

/// The HTTP version that a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// What the backend prefers.
    Any,
    /// HTTP/1.1, for an upgrade.
    Http1,
    /// HTTP/2, for gRPC.
    Http2,
}

async fn reuse_h2(pool: &Pool, key: &super::Key) -> Option<Http2Session> {
    while let Some(connection) = pool.get_h2(key) {
        match connection.spawn_stream().await {
            Ok(Some(session)) => return Some(session),
            Ok(None) if !connection.is_shutting_down() => return None,
            // The connection ends; look for another one.
            _ => connection.mark_shutdown(),
        }
    }
    None
}

/// Opens the transport; says whether HTTP/2 is to be spoken on it.
async fn open(
    backend: &Backend,
    endpoint: &Endpoint,
    may_h2: bool,
    use_h2: bool,
) -> Result<(Wire, bool), ConnectError> {
    let tcp = TcpStream::connect(endpoint.address()).await.map_err(ConnectError::Tcp)?;
    tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
    let local = tcp.local_addr().map_err(ConnectError::Tcp)?;
    let Some(tls) = &backend.tls else {
        return Ok((Wire::new(Transport::Tcp(Socket::new(tcp)), endpoint.address(), local), use_h2));
    };
    let stream = tls.handshake(Socket::new(tcp), may_h2).await.map_err(ConnectError::Tls)?;
    let alpn_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let transport = Transport::Tls(Box::new(tokio_rustls::TlsStream::Client(stream)));
    Ok((Wire::new(transport, endpoint.address(), local), alpn_h2))
}
