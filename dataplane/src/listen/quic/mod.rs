//! The QUIC sockets of a TLS port, one a worker, for listeners that serve HTTP/3.
//!
//! Owns when the sockets are open, and a connection's first moments. The kernel gives each client address to one worker;
//! a connection whose client's address changes may reach another worker, which does not know it, and is made anew.

mod hello;
mod sockets;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderValue;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, TokioRuntime, TransportConfig, VarInt};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

pub(super) use self::sockets::Sockets;

use super::client::bound;
use super::{Client, Open, TlsSession};
use crate::forward;
use crate::route::Port;
use crate::worker::Worker;

/// How long a client may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often a socket that could not be had is tried again.
const BIND_RETRY: Duration = Duration::from_secs(2);
/// How long nothing may come from a client; Envoy's default.
const SILENCE: Duration = Duration::from_mins(5);
/// Connections of a worker from which on clients have to prove their address first (RFC 9000 section 8.1.2).
const UNPROVEN: usize = 1000;
/// Requests that a client may have under way at once, as for HTTP/2.
const MAX_STREAMS: u32 = 100;
/// Bytes of one request's body that may be on their way to us unread.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all requests of the connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Streams of the client for its own purposes: control, and two for QPACK (RFC 9114 section 6.2), and as many spare.
const UNI_STREAMS: u8 = 6;

/// What a listener needs to serve HTTP/3.
pub struct Http3 {
    /// What responses say of it.
    pub alt_svc: HeaderValue,
    /// The UDP port of its socket.
    pub bind_port: u16,
    crypto: Arc<QuicServerConfig>,
}

impl fmt::Debug for Http3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http3")
            .field("alt_svc", &self.alt_svc)
            .field("bind_port", &self.bind_port)
            .finish_non_exhaustive()
    }
}

impl Http3 {
    /// HTTP/3 with the TLS of a listener at `port`, as clients know it, and at `bind_port`, as the socket does.
    ///
    /// # Errors
    /// If the TLS that was asked for cannot be spoken over QUIC.
    pub fn compile(tls: &ServerConfig, port: u16, bind_port: u16) -> Result<Self, String> {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        // Early data can be replayed.
        tls.max_early_data_size = 0;
        let tls = Arc::new(tls);
        // Said now, because a connection could not say it any more.
        rustls::quic::ServerConnection::new(Arc::clone(&tls), rustls::quic::Version::V1, Vec::new())
            .map_err(|error| format!("needs TLS 1.3: {error}"))?;
        let crypto = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
        Ok(Self {
            alt_svc: HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).map_err(|e| e.to_string())?,
            bind_port,
            crypto: Arc::new(crypto),
        })
    }
}

/// An HTTP/3 connection, ready to be served.
pub struct QuicConnection {
    /// The connection.
    pub quic: quinn::Connection,
    /// The client's address when the connection began.
    pub peer: SocketAddr,
    /// Our address.
    pub local: SocketAddr,
    /// What TLS says about it.
    pub tls: Arc<TlsSession>,
    /// What its listener says of clients, if anything.
    pub client: Option<Arc<Client>>,
    /// Where it came in.
    pub port: Arc<Port>,
    /// Who serves it.
    pub worker: Arc<Worker>,
    /// Counts it as open for as long as it is.
    pub open: Open,
}

/// Serves HTTP/3 whenever a listener of the port has it, until `stop`.
pub(super) async fn run(
    sockets: Arc<Sockets>,
    port: Arc<Port>,
    worker: Arc<Worker>,
    stop: CancellationToken,
) {
    let mut wanted = port.http3();
    let mut told = false;
    // Kept while connections stand: a second socket would be given some of their datagrams.
    let mut kept: Option<Socket> = None;
    loop {
        let idle = async {
            match &kept {
                Some(socket) => socket.endpoint.wait_idle().await,
                None => std::future::pending().await,
            }
        };
        let at = tokio::select! {
            () = stop.cancelled() => break,
            at = wanted.wait_for(Option::is_some) => match at {
                Ok(at) => *at,
                Err(_) => break,
            },
            () = idle => None,
        };
        let Some(bind_port) = at else {
            kept = None;
            sockets.release(worker.id);
            continue;
        };
        let socket = match kept.take().filter(|socket| socket.bind_port == bind_port) {
            Some(socket) => Ok(socket),
            None => Socket::open(&sockets, worker.id, bind_port, &port),
        };
        let mut socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(port = port.number(), %error, "HTTP/3: UDP socket cannot be had");
                }
                tokio::time::sleep(BIND_RETRY).await;
                continue;
            }
        };
        told = false;
        tracing::debug!(port = port.number(), worker = worker.id, "HTTP/3 is served");
        socket.endpoint.set_server_config(Some((*socket.config).clone()));
        let ends = stop.child_token();
        tokio::select! {
            () = stop.cancelled() => {}
            _ = wanted.wait_for(|at| *at != Some(bind_port)) => {}
            () = socket.accept(&port, &worker, &ends) => {}
        }
        // Those that stand end by themselves; nobody new is served.
        socket.endpoint.set_server_config(None);
        ends.cancel();
        kept = Some(socket);
    }
    if let Some(socket) = kept {
        socket.endpoint.wait_idle().await;
    }
}

/// An open socket.
struct Socket {
    endpoint: Endpoint,
    bind_port: u16,
    hellos: Arc<hello::Choosing>,
    /// What the bounds of new connections are made of.
    client: Option<Arc<Client>>,
    config: Arc<quinn::ServerConfig>,
}

impl Socket {
    fn open(sockets: &Sockets, worker: usize, bind_port: u16, port: &Arc<Port>) -> std::io::Result<Self> {
        let udp = sockets.acquire(worker, bind_port)?;
        let hellos = Arc::new(hello::Choosing::new(Arc::clone(port))?);
        let client = port.http3_client();
        let config = config(&hellos, client.as_deref());
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Some(config.clone()),
            udp,
            Arc::new(TokioRuntime),
        )?;
        Ok(Self {
            endpoint,
            bind_port,
            hellos,
            client,
            config: Arc::new(config),
        })
    }

    /// Accepts connections for as long as they come.
    async fn accept(&mut self, port: &Arc<Port>, worker: &Arc<Worker>, ends: &CancellationToken) {
        while let Some(incoming) = self.endpoint.accept().await {
            if self.endpoint.open_connections() > UNPROVEN && !incoming.remote_address_validated() {
                // Fails only for a client that has proven its address.
                let _ = incoming.retry();
                continue;
            }
            let client = port.http3_client();
            if client.as_ref().map(Arc::as_ptr) != self.client.as_ref().map(Arc::as_ptr) {
                self.config = Arc::new(config(&self.hellos, client.as_deref()));
                self.client = client;
            }
            let arrived = Arrived {
                incoming,
                bind_port: self.bind_port,
                config: Arc::clone(&self.config),
                most: self
                    .client
                    .as_ref()
                    .map_or(0, |client| client.connections.max_connections),
            };
            tokio::spawn(serve(arrived, Arc::clone(port), Arc::clone(worker), ends.clone()));
        }
    }
}

/// What new connections of a port begin with.
fn config(hellos: &Arc<hello::Choosing>, client: Option<&Client>) -> quinn::ServerConfig {
    let crypto: Arc<dyn quinn::crypto::ServerConfig> = Arc::<hello::Choosing>::clone(hellos);
    let mut config = quinn::ServerConfig::with_crypto(crypto);
    config.transport_config(Arc::new(transport(client)));
    // Another worker would be given what comes from another address; and what was decided by the client's address stands.
    config.migration(false);
    config
}

/// Bounds of a connection: those of HTTP/2.
fn transport(client: Option<&Client>) -> TransportConfig {
    let settings = client.map(|client| client.http2).unwrap_or_default();
    let or = |setting: u32, default: u32| if setting == 0 { default } else { setting };
    let idle = bound(client.and_then(|client| client.timeouts.http_idle), SILENCE).min(SILENCE);
    let window = or(settings.initial_connection_window, CONNECTION_WINDOW);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(or(settings.max_concurrent_streams, MAX_STREAMS).into())
        .max_concurrent_uni_streams(VarInt::from(UNI_STREAMS))
        .stream_receive_window(or(settings.initial_stream_window, STREAM_WINDOW).into())
        .receive_window(window.into())
        .send_window(u64::from(CONNECTION_WINDOW))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(idle.try_into().ok());
    config
}

/// A connection whose first packet has come.
struct Arrived {
    incoming: quinn::Incoming,
    bind_port: u16,
    config: Arc<quinn::ServerConfig>,
    /// Connections that the port may have; 0: any number.
    most: u64,
}

async fn serve(arrived: Arrived, port: Arc<Port>, worker: Arc<Worker>, ends: CancellationToken) {
    let Arrived {
        incoming,
        bind_port,
        config,
        most,
    } = arrived;
    let mut entered = None;
    if most != 0 {
        entered = port.enter(most);
        if entered.is_none() {
            if let Some(listener) = port.any_listener() {
                listener.metrics.dropped();
            }
            return incoming.refuse();
        }
    }
    let handshake = async { incoming.accept_with(config)?.await };
    let quic = match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(Ok(quic)) => quic,
        failed => {
            if let Ok(Err(error)) = failed {
                tracing::debug!(port = port.number(), %error, "QUIC handshake");
            }
            if let Some(listener) = port.any_listener() {
                listener.metrics.tls_error();
            }
            return;
        }
    };
    let chosen = quic
        .handshake_data()
        .and_then(|data| data.downcast::<hello::Chosen>().ok());
    let Some(chosen) = chosen else { return };
    let tls = session(&quic, *chosen);
    let ip = quic.local_ip().unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let connection = QuicConnection {
        peer: super::accept::canonical(quic.remote_address()),
        local: super::accept::canonical(SocketAddr::new(ip, bind_port)),
        client: tls.listener.client.clone(),
        open: Open::new(&worker, Some(&tls.listener)),
        tls: Arc::new(tls),
        quic,
        port,
        worker,
    };
    forward::serve_quic(connection, ends).await;
    drop(entered);
}

fn session(quic: &quinn::Connection, chosen: hello::Chosen) -> TlsSession {
    let chain = quic
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    let client = chosen.listener.client.as_ref();
    let certificate = client.and_then(|client| {
        let chain = chain.as_deref().map(Vec::as_slice);
        client.headers.describe(chain, chosen.sni.as_deref())
    });
    TlsSession {
        sni: chosen.sni,
        certificate,
        fingerprints: chosen.fingerprints,
        version: Some("TLSv1.3"),
        leaf: chain.and_then(|chain| chain.into_iter().next()),
        peer: OnceLock::default(),
        listener: chosen.listener,
    }
}
