//! Opens connections to endpoints, or takes them from the worker's pool.
//!
//! Owns TCP connect, the TLS handshake and the choice between HTTP/1.1 and HTTP/2. Sends no request.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use pingora_core::protocols::http::v2::client::Http2Session;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::breaker::{Admission, Lease, Overflow};
use super::health::Member;
use super::{Active, Backend, Endpoint, Ends, Key, Pool, Protocol, h2, pool, proxy_protocol};
use crate::wire::{Socket, Transport, Wire};

/// Streams of an HTTP/2 connection, as good as without end.
const MANY: u32 = 1 << 16;

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
    /// The endpoint takes no further stream on a connection that it has just accepted.
    #[error("HTTP/2: no stream available")]
    NoStream,
    /// There are as many connections to the backend, or requests that wait for one, as there may be.
    #[error("overflow")]
    Overflow,
    /// It took longer than the backend's connect timeout.
    #[error("connection timeout")]
    Timeout,
}

/// What is ready to take a request.
pub enum Connected {
    /// An HTTP/1.1 connection.
    H1 {
        /// The connection.
        wire: Wire,
        /// True if it has served requests before.
        reused: bool,
    },
    /// A stream of an HTTP/2 connection.
    H2 {
        /// The session.
        session: Box<Http2Session>,
        /// Our end of the connection.
        local: SocketAddr,
        /// True if the connection has served requests before.
        reused: bool,
    },
}

/// What a request needs of its connection.
#[derive(Debug, Clone, Copy)]
pub struct Wants {
    /// Not one from the pool.
    pub fresh: bool,
    /// No HTTP is spoken on it, and none has been.
    pub raw: bool,
    /// The HTTP version.
    pub version: Version,
    /// Whose request it is, for backends that are told.
    pub client: Option<Ends>,
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

/// Whether HTTP/2 may or must be spoken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Http2 {
    No,
    /// If ALPN agrees on it.
    May,
    Must,
}

impl Http2 {
    fn choose(backend: &Backend, version: Version) -> Self {
        match (backend.protocol, version) {
            (_, Version::Http2) if backend.use_client_protocol => Self::Must,
            (_, Version::Http1) | (Protocol::Http1, _) => Self::No,
            (Protocol::H2c, _) | (Protocol::Auto, Version::Http2) => Self::Must,
            (Protocol::Auto, Version::Any) if backend.tls.is_some() => Self::May,
            (Protocol::Auto, Version::Any) => Self::No,
        }
    }
}

/// A connection to an endpoint, from the pool or new.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(
    pool: &Pool,
    backend: &Backend,
    active: &Active,
    wants: Wants,
) -> Result<Connected, ConnectError> {
    let endpoint = active.endpoint();
    let key = backend.pool_key(endpoint, wants.client);
    let http2 = Http2::choose(backend, wants.version);
    if !wants.fresh
        && !wants.raw
        && let Some(connected) = reuse(pool, &key, http2).await
    {
        return Ok(connected);
    }
    // Boxed, because most requests find a connection and should not carry room for a handshake.
    Box::pin(obtain(pool, key, backend, active, http2, wants)).await
}

/// Opens a connection ahead of need and leaves it in the pool, if the backend has room for one.
pub async fn prepare(
    pool: &Pool,
    backend: &Backend,
    endpoint: &Endpoint,
    member: Option<&Arc<Member>>,
    version: Version,
) {
    let lease = match &backend.breaker {
        None => None,
        Some(breaker) => match breaker.try_lease(member) {
            None => return,
            lease => lease,
        },
    };
    let key = backend.pool_key(endpoint, None);
    let http2 = Http2::choose(backend, version);
    match open_counted(pool, key, backend, endpoint, http2, None, lease).await {
        Ok(Connected::H1 { wire, .. }) => pool.put_h1(key, wire),
        // It is in the pool already.
        Ok(Connected::H2 { .. }) => {}
        Err(error) => tracing::debug!(endpoint = endpoint.display(), %error, "connection ahead of need"),
    }
}

/// Requests that could go to `endpoint` without another connection.
pub fn spare(pool: &Pool, backend: &Backend, endpoint: &Endpoint, version: Version) -> u32 {
    let key = backend.pool_key(endpoint, None);
    let http2 = Http2::choose(backend, version);
    if http2 != Http2::No && pool.has_free(&key, false, true) {
        return MANY;
    }
    if http2 == Http2::Must {
        return 0;
    }
    u32::try_from(pool.idle_h1(&key)).unwrap_or(MANY)
}

/// A new connection, or one that comes back while the backend has as many as it may.
async fn obtain(
    pool: &Pool,
    key: Key,
    backend: &Backend,
    active: &Active,
    http2: Http2,
    wants: Wants,
) -> Result<Connected, ConnectError> {
    let (endpoint, client) = (active.endpoint(), wants.client);
    let Some(breaker) = &backend.breaker else {
        return open_counted(pool, key, backend, endpoint, http2, client, None).await;
    };
    let (h1, h2) = (http2 != Http2::Must, http2 != Http2::No);
    let waiting = async {
        loop {
            let is_free = || (!wants.raw && pool.has_free(&key, h1, h2)).then_some(());
            match breaker.admit(active.member(), is_free).await {
                Err(Overflow) => return Err(ConnectError::Overflow),
                Ok((Admission::Open(lease), pending)) => return Ok((Err(lease), pending)),
                Ok((Admission::Reuse(()), pending)) => {
                    // Unless another one was quicker.
                    if let Some(connected) = reuse(pool, &key, http2).await {
                        return Ok((Ok(connected), pending));
                    }
                }
            }
        }
    };
    let waited = tokio::time::timeout(backend.connect_timeout, waiting).await;
    let (admitted, _pending) = waited.unwrap_or(Err(ConnectError::Timeout))?;
    match admitted {
        Ok(connected) => Ok(connected),
        Err(lease) => {
            lease.begin();
            open_counted(pool, key, backend, endpoint, http2, client, Some(lease)).await
        }
    }
}

/// A connection from the pool.
async fn reuse(pool: &Pool, key: &Key, http2: Http2) -> Option<Connected> {
    if http2 != Http2::No
        && let Some((session, local)) = reuse_h2(pool, key).await
    {
        return Some(Connected::H2 {
            session: Box::new(session),
            local,
            reused: true,
        });
    }
    if http2 == Http2::Must {
        return None;
    }
    let wire = pool.take_h1(key)?;
    Some(Connected::H1 { wire, reused: true })
}

async fn open_counted(
    pool: &Pool,
    key: Key,
    backend: &Backend,
    endpoint: &Endpoint,
    http2: Http2,
    client: Option<Ends>,
    lease: Option<Arc<Lease>>,
) -> Result<Connected, ConnectError> {
    let fresh = open(pool, key, backend, endpoint, http2, client, lease);
    let opened = tokio::time::timeout(backend.connect_timeout, fresh)
        .await
        .unwrap_or(Err(ConnectError::Timeout));
    match &opened {
        Ok(_) => backend.metrics.connected(),
        Err(_) => backend.metrics.connect_failure(),
    }
    opened
}

async fn reuse_h2(pool: &Pool, key: &Key) -> Option<(Http2Session, SocketAddr)> {
    while let Some(shared) = pool.get_h2(key) {
        match shared.connection.spawn_stream().await {
            Ok(Some(session)) => return Some((session, shared.local)),
            Ok(None) if !shared.connection.is_shutting_down() => return None,
            // The connection ends; look for another one.
            _ => shared.connection.mark_shutdown(),
        }
    }
    None
}

async fn open(
    pool: &Pool,
    key: Key,
    backend: &Backend,
    endpoint: &Endpoint,
    http2: Http2,
    client: Option<Ends>,
    lease: Option<Arc<Lease>>,
) -> Result<Connected, ConnectError> {
    let (wire, is_h2) = open_transport(backend, endpoint, http2, client).await?;
    let wire = wire.with_lease(lease.clone());
    if !is_h2 {
        return Ok(Connected::H1 { wire, reused: false });
    }
    let local = wire.local();
    let asked = backend.tuning.as_ref().map(|tuning| tuning.http2);
    let (connection, idle_ping) = h2::handshake(wire, asked.unwrap_or_default())
        .await
        .map_err(ConnectError::H2)?;
    let session = connection
        .spawn_stream()
        .await
        .map_err(ConnectError::H2)?
        .ok_or(ConnectError::NoStream)?;
    pool.put_h2(
        key,
        pool::Shared {
            connection,
            local,
            lease,
            idle_ping,
        },
    );
    Ok(Connected::H2 {
        session: Box::new(session),
        local,
        reused: false,
    })
}

/// Opens the transport; says whether HTTP/2 is to be spoken on it.
async fn open_transport(
    backend: &Backend,
    endpoint: &Endpoint,
    http2: Http2,
    client: Option<Ends>,
) -> Result<(Wire, bool), ConnectError> {
    let tcp = dial(backend, endpoint, endpoint.address(), client)
        .await
        .map_err(ConnectError::Tcp)?;
    let local = match endpoint.path() {
        None => tcp.local_addr().map_err(ConnectError::Tcp)?,
        Some(_) => endpoint.address(),
    };
    let limit = backend.tuning.as_ref().map_or(0, |tuning| tuning.buffer_limit);
    let wire = |transport| Wire::new(transport, endpoint.address(), local).with_buffer_limit(limit);
    let Some(tls) = &backend.tls else {
        return Ok((wire(Transport::Tcp(Socket::new(tcp))), http2 == Http2::Must));
    };
    let stream = tls
        .handshake(Socket::new(tcp), http2 != Http2::No, endpoint.server_name())
        .await
        .map_err(ConnectError::Tls)?;
    let is_h2 = match stream.get_ref().1.alpn_protocol() {
        Some(protocol) => protocol == b"h2",
        None => http2 == Http2::Must,
    };
    let transport = Transport::Tls(Box::new(tokio_rustls::TlsStream::Client(stream)));
    Ok((wire(transport), is_h2))
}

/// Connects to `endpoint`, at `address`, with all that comes before TLS. `client` are both ends of the client's connection.
///
/// # Errors
/// Those of the socket.
pub async fn dial(
    backend: &Backend,
    endpoint: &Endpoint,
    address: SocketAddr,
    client: Option<Ends>,
) -> io::Result<TcpStream> {
    let tuning = backend.tuning.as_deref();
    let buffers = tuning.map_or(0, |tuning| tuning.socket_buffers);
    let mut tcp = match endpoint.path() {
        Some(path) => open_unix(path, buffers).await?,
        None => open_tcp(address, buffers).await?,
    };
    let Some(tuning) = tuning else {
        return Ok(tcp);
    };
    if let Some(keepalive) = tuning.keepalive.as_ref().filter(|_| endpoint.path().is_none()) {
        SockRef::from(&tcp).set_tcp_keepalive(keepalive)?;
    }
    if let Some(version) = tuning.proxy_protocol {
        let (source, destination) = match client {
            Some(ends) => ends,
            None => (tcp.local_addr().unwrap_or(address), address),
        };
        let header = proxy_protocol::header(version, source, destination);
        tcp.write_all(&header).await?;
    }
    Ok(tcp)
}

async fn open_tcp(address: SocketAddr, buffers: usize) -> io::Result<TcpStream> {
    let tcp = if buffers == 0 {
        TcpStream::connect(address).await?
    } else {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Before connecting: the window's scale is settled then.
        set_buffers(&SockRef::from(&socket), buffers)?;
        socket.connect(address).await?
    };
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// A Unix socket, which is read and written as any stream socket is. Nothing that only TCP has may be asked of it.
async fn open_unix(path: &Path, buffers: usize) -> io::Result<TcpStream> {
    let unix = UnixStream::connect(path).await?;
    if buffers != 0 {
        set_buffers(&SockRef::from(&unix), buffers)?;
    }
    TcpStream::from_std(OwnedFd::from(unix.into_std()?).into())
}

/// Asks for buffers of so many bytes in either direction. The kernel bounds that, and keeps as much again for itself.
///
/// # Errors
/// Those of the socket.
pub fn set_buffers(socket: &SockRef<'_>, bytes: usize) -> io::Result<()> {
    socket.set_send_buffer_size(bytes)?;
    socket.set_recv_buffer_size(bytes)
}
