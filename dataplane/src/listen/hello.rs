//! The first moments of a TLS connection.
//!
//! Reads the ClientHello, bounded in size (by rustls) and in time, chooses the listener by its SNI, and ends TLS here or
//! passes on what was read. A name that nobody serves ends the connection without a word, as if the port did not know
//! TLS (the conformance suite asks for it, and Envoy does so); a listener that cannot serve answers with an alert. Neither
//! falls back to another listener.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::server::Acceptor;
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::client::bound;
use super::{Connection, Fingerprints, Open, TlsSession};
use crate::l4;
use crate::route::{Port, Site, Termination};
use crate::wire::{Socket, Transport, Wire};
use crate::worker::Worker;

/// How long a client may take from its first byte to the end of the handshake, unless the listener says otherwise.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long an alert may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// The alert handshake_failure as a record: type alert, of TLS 1.2 as every record says it is, two bytes: fatal, and which
/// (RFC 8446, 6.2).
const HANDSHAKE_FAILURE: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

struct Client {
    peer: SocketAddr,
    local: SocketAddr,
    server_name: Option<Box<str>>,
    fingerprints: Option<Box<Fingerprints>>,
    /// End of the handshake.
    deadline: Instant,
}

/// Ends TLS, and gives back a connection that HTTP is spoken on. Anything else is served here until it ends.
pub(super) async fn open(
    socket: Socket,
    peer: SocketAddr,
    local: SocketAddr,
    port: Arc<Port>,
    inspected_by: Option<Instant>,
    worker: Arc<Worker>,
) -> Option<Connection> {
    let deadline = inspected_by.unwrap_or_else(|| Instant::now() + HANDSHAKE);
    let acceptor = LazyConfigAcceptor::new(Acceptor::default(), socket.recording());
    let start = match timeout_at(deadline, acceptor).await {
        Ok(Ok(start)) => start,
        Ok(Err(error)) => {
            tracing::debug!(port = port.number(), %peer, %error, "no ClientHello");
            return count_failure(&port);
        }
        Err(_) => return count_failure(&port),
    };
    let server_name = start
        .client_hello()
        .server_name()
        .map(|name| name.to_ascii_lowercase().into_boxed_str());
    let Some(site) = port.site(server_name.as_deref().unwrap_or_default()) else {
        return count_failure(&port);
    };
    let wanted = site
        .listener
        .client
        .as_ref()
        .and_then(|client| client.timeouts.tls_handshake);
    let client = Client {
        peer,
        local,
        server_name,
        fingerprints: Fingerprints::of(start.io.recorded(), site.listener.fingerprints),
        deadline: if wanted.is_some() || inspected_by.is_some() {
            Instant::now() + bound(wanted, HANDSHAKE)
        } else {
            deadline
        },
    };
    let open = Open::new(&worker, Some(&site.listener));
    match &site.listener.tls {
        Termination::Passthrough => {
            let traffic = start.io.traffic();
            let (tcp, hello) = start.io.into_recorded();
            let transport = Transport::Tcp(Socket::replaying(tcp, hello).counted(traffic));
            stream(transport, &client, &site, worker).await;
        }
        Termination::Terminate(config) => {
            let config = Arc::clone(config);
            let tls = terminate(start, config, &client, &site).await?;
            if site.listener.https {
                return Some(http(tls, client, &site, port, worker, open));
            }
            stream(Transport::Tls(Box::new(tls.into())), &client, &site, worker).await;
        }
        Termination::Refused | Termination::Cleartext => {
            site.listener.metrics.tls_error();
            refuse(start.io).await;
        }
    }
    None
}

/// A connection that did not become one.
fn count_failure(port: &Port) -> Option<Connection> {
    if let Some(listener) = port.any_listener() {
        listener.metrics.tls_error();
    }
    None
}

async fn terminate(
    mut start: StartHandshake<Socket>,
    config: Arc<ServerConfig>,
    client: &Client,
    site: &Site,
) -> Option<TlsStream<Socket>> {
    start.io.stop_recording();
    let error = match timeout_at(client.deadline, start.into_stream(config)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => error,
        Err(elapsed) => elapsed.into(),
    };
    site.listener.metrics.tls_error();
    tracing::debug!(listener = %site.listener.name, peer = %client.peer, %error, "TLS handshake");
    None
}

fn http(
    stream: TlsStream<Socket>,
    client: Client,
    site: &Site,
    port: Arc<Port>,
    worker: Arc<Worker>,
    open: Open,
) -> Connection {
    let alpn_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let session = stream.get_ref().1;
    let settings = site.listener.client.clone();
    let certificate = settings.as_ref().and_then(|settings| {
        let name = client.server_name.as_deref();
        settings.headers.describe(session.peer_certificates(), name)
    });
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => Some("TLSv1.2"),
        Some(ProtocolVersion::TLSv1_3) => Some("TLSv1.3"),
        _ => None,
    };
    let leaf = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .cloned();
    let transport = Transport::Tls(Box::new(stream.into()));
    let wire = Wire::new(transport, client.peer, client.local)
        .with_buffer_limit(settings.as_ref().map_or(0, |settings| settings.buffer_limit()));
    let session = TlsSession {
        sni: client.server_name,
        listener: Arc::clone(&site.listener),
        certificate,
        fingerprints: client.fingerprints,
        version,
        leaf,
        peer: OnceLock::default(),
    };
    Connection {
        wire,
        alpn_h2,
        tls: Some(Arc::new(session)),
        client: settings,
        port,
        worker,
        open,
    }
}

/// A byte stream: TLS as it came, or what was inside the TLS that ended here.
async fn stream(transport: Transport, client: &Client, site: &Site, worker: Arc<Worker>) {
    let server_name = client.server_name.as_deref();
    let Some(route) = site.l4(server_name.unwrap_or_default()) else {
        return site.listener.metrics.dropped();
    };
    let ends = (client.peer, client.local);
    l4::tcp(
        transport,
        ends,
        server_name,
        &site.listener,
        Arc::clone(route),
        worker,
    )
    .await;
}

/// Ends a connection whose listener cannot serve it.
async fn refuse(mut socket: Socket) {
    let goodbye = async {
        socket.write_all(&HANDSHAKE_FAILURE).await?;
        socket.shutdown().await
    };
    // The client is told if it still listens.
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use arc_swap::ArcSwap;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::route::Kind;
    use crate::telemetry::{AccessLog, AccessLogTarget};
    use crate::worker::Shared;

    /// Time passes by itself when nothing else happens.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_not_waited_for() {
        let shared = Shared {
            telemetry: arc_swap::ArcSwapOption::empty(),
            metrics: Arc::default(),
            access_log: AccessLog::start(&AccessLogTarget::Off).unwrap(),
            settings: ArcSwap::default(),
            geo: ArcSwap::default(),
            drain: crate::drain::Drain::new(),
        };
        let worker = Arc::new(Worker {
            id: 0,
            pool: crate::upstream::Pool::default(),
            shared: Arc::new(shared),
        });
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut client = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        let (tcp, peer) = socket.accept().await.unwrap();
        // The beginning of a handshake record, and no more.
        client.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
        let began = Instant::now();
        let port = Arc::new(Port::new(443, Kind::Tls));
        let opened = open(
            Socket::new(tcp),
            peer,
            socket.local_addr().unwrap(),
            port,
            None,
            worker,
        )
        .await;
        assert!(opened.is_none());
        assert_eq!(began.elapsed().as_secs(), HANDSHAKE.as_secs());
        assert_eq!(
            client.read_u8().await.unwrap_err().kind(),
            std::io::ErrorKind::UnexpectedEof
        );
    }
}
