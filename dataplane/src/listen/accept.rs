//! The accept loop of one socket.
//!
//! Owns what happens when the process runs out of file descriptors: it waits, says so once, and never spins.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::bound;
use super::line::Line;
use super::{Client, Connection, Open, hello, proxy_header};
use crate::route::{Entered, Kind, Listener, Port};
use crate::upstream::connect::set_buffers;
use crate::wire::{Socket, Transport, Wire};
use crate::worker::Worker;
use crate::{forward, l4};

/// How long nothing is accepted after there was nothing to accept it with.
const PAUSE: Duration = Duration::from_millis(200);

/// Accepts connections until `stop`, and then what the kernel has accepted already.
pub(super) async fn run(
    socket: std::net::TcpListener,
    port: Arc<Port>,
    worker: Arc<Worker>,
    stop: CancellationToken,
) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(port = port.number(), %error, "socket cannot be served"),
    };
    let mut exhausted = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => {
                if std::mem::take(&mut exhausted) {
                    tracing::info!(port = port.number(), "connections are accepted again");
                }
                tokio::spawn(serve(tcp, peer, Arc::clone(&port), Arc::clone(&worker)));
            }
            Err(error) if is_exhaustion(&error) => {
                if !std::mem::replace(&mut exhausted, true) {
                    tracing::error!(port = port.number(), %error, "no connection can be accepted for now");
                }
                tokio::time::sleep(PAUSE).await;
            }
            // The client has gone before it was its turn.
            Err(error) => tracing::debug!(port = port.number(), %error, "accept"),
        }
    }
    while let Some(Ok((tcp, peer))) = socket.accept().now_or_never() {
        tokio::spawn(serve(tcp, peer, Arc::clone(&port), Arc::clone(&worker)));
    }
}

/// True if the process or the machine has no more of what a connection needs.
fn is_exhaustion(error: &io::Error) -> bool {
    // ENOMEM, ENFILE, EMFILE, ENOBUFS
    matches!(error.raw_os_error(), Some(12 | 23 | 24 | 105))
}

async fn serve(tcp: TcpStream, peer: SocketAddr, port: Arc<Port>, worker: Arc<Worker>) {
    let peer = canonical(peer);
    let Ok(local) = tcp.local_addr().map(canonical) else {
        return;
    };
    if tcp.set_nodelay(true).is_err() {
        return;
    }
    let line = Line::begin(&worker, (peer, local));
    let arrived = Arrived {
        socket: Socket::new(tcp).counted(line.as_ref().map(|line| line.traffic())),
        peer,
        local,
        line,
        entered: None,
        inspected_by: None,
    };
    let first = port.any_listener();
    match first.as_ref().and_then(|listener| listener.client.as_deref()) {
        None => hand_over(arrived, first, port, worker).await,
        Some(client) => {
            // What listeners say is rarely more than nothing: such connections alone pay for it.
            if let Some(arrived) = Box::pin(receive(arrived, client, &port)).await {
                hand_over(arrived, first, port, worker).await;
            }
        }
    }
}

/// A connection that may be served.
struct Arrived {
    socket: Socket,
    peer: SocketAddr,
    local: SocketAddr,
    /// What is logged of it, if connections are.
    line: Option<Box<Line>>,
    entered: Option<Entered>,
    /// When all that is looked at before TLS must have come, if the listener says so.
    inspected_by: Option<Instant>,
}

/// Does what the port's listener asks for before anything is read but what it asks for. `None`: the connection is not
/// served.
async fn receive(mut arrived: Arrived, client: &Client, port: &Arc<Port>) -> Option<Arrived> {
    let most = client.connections.max_connections;
    if most != 0 {
        let Some(entered) = port.enter(most) else {
            if let Some(listener) = port.any_listener() {
                listener.metrics.dropped();
            }
            tokio::time::sleep(Duration::from_millis(client.connections.close_delay_ms)).await;
            return None;
        };
        arrived.entered = Some(entered);
    }
    if let Some(keepalive) = &client.keepalive {
        SockRef::from(arrived.socket.tcp())
            .set_tcp_keepalive(keepalive)
            .ok()?;
    }
    let buffers = client.socket_buffers();
    if buffers != 0 {
        set_buffers(&SockRef::from(arrived.socket.tcp()), buffers).ok()?;
    }
    if let Some(inspection) = client.timeouts.inspection {
        arrived.inspected_by = Instant::now().checked_add(bound(Some(inspection), Duration::ZERO));
    }
    let Some(optional) = client.proxy_protocol else {
        return Some(arrived);
    };
    let traffic = arrived.socket.traffic();
    let (mut tcp, _) = arrived.socket.into_recorded();
    match proxy_header::read(&mut tcp, optional, arrived.inspected_by).await {
        Ok((ends, rest)) => {
            if let Some(traffic) = &traffic {
                traffic.received.fetch_add(rest.len() as u64, Ordering::Relaxed);
            }
            arrived.socket = Socket::replaying(tcp, rest).counted(traffic);
            if let Some((source, destination)) = ends {
                (arrived.peer, arrived.local) = (canonical(source), canonical(destination));
            }
            if let Some(line) = &mut arrived.line {
                line.ends = (arrived.peer, arrived.local);
            }
            Some(arrived)
        }
        Err(error) => {
            tracing::debug!(port = port.number(), peer = %arrived.peer, %error, "PROXY protocol");
            if let Some(listener) = port.any_listener() {
                listener.metrics.dropped();
            }
            None
        }
    }
}

async fn hand_over(arrived: Arrived, first: Option<Arc<Listener>>, port: Arc<Port>, worker: Arc<Worker>) {
    let Arrived {
        socket,
        peer,
        local,
        // Held until the end, as what follows it.
        mut line,
        entered: _entered,
        inspected_by,
    } = arrived;
    if let Some(line) = &mut line {
        line.served(None);
    }
    let connection = match port.kind() {
        Kind::Http => {
            let open = Open::new(&worker, first.as_deref());
            let client = first.and_then(|listener| listener.client.clone());
            let wire = Wire::new(Transport::Tcp(socket), peer, local)
                .with_buffer_limit(client.as_ref().map_or(0, |client| client.buffer_limit()));
            Connection {
                wire,
                alpn_h2: false,
                tls: None,
                client,
                port,
                worker,
                open,
            }
        }
        // Boxed, so that what the beginning needs goes with it, and connections without TLS do not carry its size.
        Kind::Tls => match Box::pin(hello::open(socket, peer, local, port, inspected_by, worker)).await {
            Some(connection) => connection,
            None => return,
        },
        Kind::Tcp => {
            return tcp(Transport::Tcp(socket), (peer, local), &port, worker).await;
        }
        // Never accepted from.
        Kind::Udp => return,
    };
    if let Some(line) = &mut line {
        line.served(connection.tls.as_ref());
    }
    forward::serve(connection).await;
}

async fn tcp(stream: Transport, ends: (SocketAddr, SocketAddr), port: &Port, worker: Arc<Worker>) {
    let Some(site) = port.site("") else { return };
    let _open = Open::new(&worker, Some(&site.listener));
    match site.l4("") {
        Some(route) => l4::tcp(stream, ends, None, &site.listener, Arc::clone(route), worker).await,
        None => site.listener.metrics.dropped(),
    }
}

/// An IPv4 address that came in over an IPv6 socket, as what it is.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_they_are() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(canonical(mapped).to_string(), "192.0.2.1:80");
    }

    #[test]
    fn a_gone_client_is_no_exhaustion() {
        assert!(is_exhaustion(&io::Error::from_raw_os_error(24)));
        assert!(!is_exhaustion(&io::ErrorKind::ConnectionAborted.into()));
    }
}
