//! The QUIC sockets of a TLS port, one a worker, for listeners that serve HTTP/3.
//!
//! Owns when the sockets are open, and a connection's first moments. The kernel gives each client address to one worker;
//! a connection whose client's address changes may reach another worker, which does not know it, and is made anew.

mod hello;

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

use super::client::bound;
use super::{Client, Open, TlsSession, forwarded_cert, socket};
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
    crypto: Arc<QuicServerConfig>,
}

impl fmt::Debug for Http3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http3")
            .field("alt_svc", &self.alt_svc)
            .finish_non_exhaustive()
    }
}

impl Http3 {
    /// HTTP/3 with the TLS of a listener at `port`, as clients know it.
    ///
    /// # Errors
    /// If the TLS that was asked for cannot be spoken over QUIC.
    pub fn compile(tls: &ServerConfig, port: u16) -> Result<Self, String> {
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

/// Serves HTTP/3 at `bind` whenever a listener of the port has it, until `stop`.
pub(super) async fn run(bind: (IpAddr, u16), port: Arc<Port>, worker: Arc<Worker>, stop: CancellationToken) {
    let mut wanted = port.http3();
    let mut told = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            is = wanted.wait_for(|is| *is) => if is.is_err() { return },
        }
        let endpoint = match open(bind, &port, &worker) {
            Ok(endpoint) => endpoint,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(port = port.number(), %error, "HTTP/3: UDP socket cannot be had");
                }
                tokio::time::sleep(BIND_RETRY).await;
                continue;
            }
        };
        told = false;
        let ends = stop.child_token();
        tokio::select! {
            () = stop.cancelled() => {}
            _ = wanted.wait_for(|is| !*is) => {}
            () = accept(&endpoint, bind.1, &port, &worker, &ends) => {}
        }
        // Those that stand end by themselves; nobody new is served.
        endpoint.set_server_config(None);
        ends.cancel();
        endpoint.wait_idle().await;
    }
}

fn open(bind: (IpAddr, u16), port: &Arc<Port>, worker: &Worker) -> std::io::Result<Endpoint> {
    let socket = socket::udp(bind.0, bind.1)?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(hello::Choosing::new(Arc::clone(port))?));
    server.transport_config(Arc::new(transport(port.http3_client().as_deref())));
    tracing::debug!(port = port.number(), worker = worker.id, "HTTP/3 is served");
    let runtime = Arc::new(TokioRuntime);
    Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime)
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

async fn accept(
    endpoint: &Endpoint,
    bind_port: u16,
    port: &Arc<Port>,
    worker: &Arc<Worker>,
    ends: &CancellationToken,
) {
    while let Some(incoming) = endpoint.accept().await {
        if endpoint.open_connections() > UNPROVEN && !incoming.remote_address_validated() {
            // Fails only for a client that has proven its address.
            let _ = incoming.retry();
            continue;
        }
        let serving = serve(
            incoming,
            bind_port,
            Arc::clone(port),
            Arc::clone(worker),
            ends.clone(),
        );
        tokio::spawn(serving);
    }
}

async fn serve(
    incoming: quinn::Incoming,
    bind_port: u16,
    port: Arc<Port>,
    worker: Arc<Worker>,
    ends: CancellationToken,
) {
    let most = port
        .http3_client()
        .map_or(0, |client| client.connections.max_connections);
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
    let handshake = async { incoming.accept()?.await };
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
    use sluice_config::v1::client_headers::ForwardedClientCert as Forwarded;
    let chain = quic
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    let headers = chosen.listener.client.as_ref().map(|client| &client.headers);
    let certificate = headers.and_then(|headers| match headers.client_cert {
        Forwarded::Unspecified | Forwarded::Sanitize => None,
        _ => forwarded_cert::element(chain.as_deref()?, &headers.cert_details),
    });
    TlsSession {
        sni: chosen.sni,
        certificate,
        version: Some("TLSv1.3"),
        leaf: chain.and_then(|chain| chain.into_iter().next()),
        peer: OnceLock::default(),
        listener: chosen.listener,
    }
}
