//! Sockets towards clients.
//!
//! Owns the listening sockets, which come and go while others serve, and a connection's first moments: which listener
//! it belongs to by its SNI, and the TLS handshake. Then hands it over to [`crate::forward`] or [`crate::l4`]. Never
//! reads a request.

mod accept;
pub mod client;
pub mod fingerprint;
mod forwarded_cert;
mod hello;
mod line;
mod proxy_header;
mod quic;
mod socket;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use client::Client;
pub use fingerprint::Fingerprints;
pub use quic::{Http3, QuicConnection};

use crate::filter::cel::request::Peer;
use crate::route::{Kind, Listener, Port};
use crate::state::Bind;
use crate::wire::Wire;
use crate::worker::{Worker, WorkerHandle};
use crate::{l4, telemetry};

/// A connection that speaks HTTP, ready to be served.
pub struct Connection {
    /// The stream.
    pub wire: Wire,
    /// True if TLS agreed on HTTP/2.
    pub alpn_h2: bool,
    /// Set if the client spoke TLS.
    pub tls: Option<Arc<TlsSession>>,
    /// What its listener says of clients, if anything.
    pub client: Option<Arc<Client>>,
    /// Where it came in.
    pub port: Arc<Port>,
    /// Who serves it.
    pub worker: Arc<Worker>,
    /// Counts it as open for as long as it is.
    pub open: Open,
}

/// Counts a connection as open until it is dropped.
pub struct Open {
    _drain: crate::drain::Guard,
    _listener: Option<telemetry::metrics::ListenerConnection>,
}

impl Open {
    fn new(worker: &Worker, listener: Option<&Listener>) -> Self {
        Self {
            _drain: worker.shared.drain.guard(),
            _listener: listener.map(|listener| listener.metrics.connection()),
        }
    }
}

/// What TLS says about a connection.
#[derive(Debug)]
pub struct TlsSession {
    /// The name that the client asked for, lower case.
    pub sni: Option<Box<str>>,
    /// The listener whose certificate was served.
    pub listener: Arc<Listener>,
    /// What X-Forwarded-Client-Cert says of the client's certificate, if it showed one and the listener wants it said.
    pub certificate: Option<http::HeaderValue>,
    /// What was computed of its ClientHello, if the listener wants that.
    pub fingerprints: Option<Box<Fingerprints>>,
    /// The version, by Envoy's name.
    pub version: Option<&'static str>,
    /// The client's certificate, if it showed one.
    leaf: Option<CertificateDer<'static>>,
    /// What it says, once somebody has asked.
    peer: OnceLock<Option<Peer>>,
}

impl TlsSession {
    /// What the client's certificate says, if it showed one that can be read.
    pub fn peer(&self) -> Option<&Peer> {
        let leaf = self.leaf.as_ref()?;
        self.peer.get_or_init(|| forwarded_cert::peer(leaf)).as_ref()
    }
}

/// Opens sockets, one for each worker on each port.
pub struct Sockets {
    bind: IpAddr,
    workers: Vec<WorkerHandle>,
}

impl Sockets {
    /// Opens sockets on this address, to be served by these workers.
    pub fn new(bind: IpAddr, workers: Vec<WorkerHandle>) -> Self {
        Self { bind, workers }
    }
}

impl Bind for Sockets {
    fn bind(&mut self, bind_port: u16, port: &Arc<Port>) -> std::io::Result<DropGuard> {
        let stop = CancellationToken::new();
        if port.kind() == Kind::Udp {
            let sockets: Vec<_> = self
                .workers
                .iter()
                .map(|_| socket::udp(self.bind, bind_port))
                .collect::<Result<_, _>>()?;
            for (handle, socket) in self.workers.iter().zip(sockets) {
                let (worker, port, stop) = (Arc::clone(&handle.worker), Arc::clone(port), stop.clone());
                handle.runtime.spawn(datagrams(socket, port, worker, stop));
            }
        } else {
            let sockets: Vec<_> = self
                .workers
                .iter()
                .map(|_| socket::tcp(self.bind, bind_port))
                .collect::<Result<_, _>>()?;
            let quic = Arc::new(quic::Sockets::new(self.bind, self.workers.len()));
            for (handle, socket) in self.workers.iter().zip(sockets) {
                let (worker, port, stop) = (Arc::clone(&handle.worker), Arc::clone(port), stop.clone());
                if port.kind() == Kind::Tls {
                    handle.runtime.spawn(quic::run(
                        Arc::clone(&quic),
                        Arc::clone(&port),
                        Arc::clone(&worker),
                        stop.clone(),
                    ));
                }
                handle.runtime.spawn(accept::run(socket, port, worker, stop));
            }
        }
        Ok(stop.drop_guard())
    }
}

async fn datagrams(
    socket: std::net::UdpSocket,
    port: Arc<Port>,
    worker: Arc<Worker>,
    stop: CancellationToken,
) {
    let socket = match tokio::net::UdpSocket::from_std(socket) {
        Ok(socket) => Arc::new(socket),
        Err(error) => return tracing::error!(port = port.number(), %error, "UDP socket cannot be served"),
    };
    // The table is published right after the sockets are opened.
    let listener = loop {
        if let Some(listener) = port.any_listener() {
            break listener;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(std::time::Duration::from_millis(5)) => {}
        }
    };
    l4::udp(
        socket,
        Arc::clone(&listener.name),
        Arc::clone(port.datagrams()),
        worker,
        stop,
    )
    .await;
}
