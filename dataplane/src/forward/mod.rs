//! Serving HTTP on one connection: from the bytes of a request to its line in the access log.
//!
//! [`h1`] and [`h2`] read requests off a connection; [`request`] takes one through route, filters and tries to its
//! end; [`exchange`] is one try. Owns nothing that outlives the connection, and never opens or accepts one itself.
//!
//! HTTP/1.1 is read by [`message`] and written by [`encode`], on both sides; HTTP/2 connections to backends are Pingora's,
//! HTTP/2 from clients is the h2 crate's. All of it is driven from one task a request, so that no request waits for
//! another and a client that goes away takes its request to the backend with it.

mod after;
mod ahead;
mod answer;
mod attempt;
mod auth;
mod coder;
mod downstream;
mod edge;
mod effects;
mod encode;
mod exchange;
mod ext_proc;
mod filtered;
mod grpc;
mod h1;
mod h2;
mod h3;
mod jwt;
mod limits;
mod message;
mod mirror;
mod oidc;
mod path;
mod ping;
mod rate_limit;
mod record;
mod reply;
mod request;
mod source;
mod subrequest;
mod upstream;

pub(crate) use subrequest::{Call, tell};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio_util::sync::CancellationToken;

use crate::filter::authorization::Around;
use crate::filter::cel::request::{Tls, Wire as Ends};
use crate::listen::client::bound;
use crate::listen::{Client, Connection, Fingerprints, QuicConnection, TlsSession};
use crate::route::Port;
use crate::wire::Wire;
use crate::worker::Worker;

/// How long a connection may be silent between requests; Envoy's default.
const IDLE: Duration = Duration::from_hours(1);
/// How long a client may take for a request's head once it has begun it.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
/// What an HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
struct Line {
    peer: SocketAddr,
    local: SocketAddr,
}

impl Line {
    /// The other end's address.
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// This end's address.
    fn local(&self) -> SocketAddr {
        self.local
    }
}

/// What all requests of a connection share.
struct Conn {
    wire: Line,
    tls: Option<Arc<TlsSession>>,
    /// What its listener says of clients, if anything.
    client: Option<Arc<Client>>,
    port: Arc<Port>,
    worker: Arc<Worker>,
}

impl Conn {
    /// What authorization may know besides the request.
    fn around(&self) -> Around<'_> {
        let tls = self.tls.as_deref().map(|tls| Tls {
            server_name: tls.sni.as_deref(),
            version: tls.version,
            peer: tls.peer(),
        });
        Around {
            wire: Ends {
                peer: self.wire.peer(),
                local: self.wire.local(),
                tls,
            },
            geo: &self.worker.shared.geo,
        }
    }

    /// What was computed of the client's ClientHello, if anything.
    fn fingerprints(&self) -> Option<&Fingerprints> {
        self.tls.as_ref()?.fingerprints.as_deref()
    }

    /// How long it may be silent between requests.
    fn idle(&self) -> Duration {
        let setting = self.client.as_ref().and_then(|client| client.timeouts.http_idle);
        bound(setting, IDLE)
    }

    /// How long a request's head may take once it has begun.
    fn head_timeout(&self) -> Duration {
        let Some(client) = &self.client else {
            return HEAD_TIMEOUT;
        };
        let timeouts = &client.timeouts;
        bound(timeouts.headers_received, HEAD_TIMEOUT).min(bound(timeouts.request_received, HEAD_TIMEOUT))
    }

    /// How long it may live, and how many requests it may serve before it is asked to end. `None`: as long as it likes.
    fn life(&self) -> (Option<Duration>, Option<u64>) {
        let Some(client) = &self.client else {
            return (None, None);
        };
        let (age, requests) = (
            client.connections.max_connection_duration_ms,
            client.connections.max_requests_per_connection,
        );
        (
            (age != 0).then(|| Duration::from_millis(age)),
            (requests != 0).then_some(requests),
        )
    }
}

/// Serves a connection until its end.
pub async fn serve(connection: Connection) {
    let Connection {
        wire,
        alpn_h2,
        tls,
        client,
        port,
        worker,
        ..
    } = connection;
    let is_h2 = if tls.is_some() {
        alpn_h2
    } else {
        tokio::select! {
            () = worker.shared.drain.draining() => return,
            begins = tokio::time::timeout(first_idle(client.as_deref()), begins_with_preface(&wire)) => match begins {
                Ok(Ok(begins)) => begins,
                _ => return,
            },
        }
    };
    let conn = Arc::new(Conn {
        wire: Line {
            peer: wire.peer(),
            local: wire.local(),
        },
        tls,
        client,
        port,
        worker,
    });
    if is_h2 {
        h2::serve(conn, wire).await;
    } else {
        h1::serve(conn, wire).await;
    }
}

/// Serves an HTTP/3 connection until its end; `stop` asks it to end.
pub async fn serve_quic(connection: QuicConnection, stop: CancellationToken) {
    let conn = Arc::new(Conn {
        wire: Line {
            peer: connection.peer,
            local: connection.local,
        },
        tls: Some(connection.tls),
        client: connection.client,
        port: connection.port,
        worker: connection.worker,
    });
    // Held until the end.
    let _open = connection.open;
    h3::serve(conn, connection.quic, stop).await;
}

/// How long a client may take for its first bytes.
fn first_idle(client: Option<&Client>) -> Duration {
    bound(client.and_then(|client| client.timeouts.http_idle), IDLE)
}

/// Reads until it is certain whether the client speaks HTTP/2, and puts what was read back.
async fn begins_with_preface(wire: &Wire) -> io::Result<bool> {
    let mut read = BytesMut::new();
    let begins = std::future::poll_fn(|cx| {
        loop {
            let come = ready!(wire.poll_input(cx, |bytes| {
                read.extend_from_slice(bytes);
                !bytes.is_empty()
            }))?;
            let compared = read.len().min(PREFACE.len());
            let differs = read[..compared] != PREFACE[..compared];
            if !come || differs || compared == PREFACE.len() {
                return Poll::Ready(io::Result::Ok(come && !differs));
            }
        }
    })
    .await?;
    wire.unread(read);
    Ok(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    fn size2<A, B, F>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// What is held for a connection while nothing happens on it. Futures of rare waits are boxed to keep this so.
    #[test]
    fn a_connection_is_small() {
        let sizes = [size(serve), size2(h1::serve), size2(h2::serve)];
        assert!(sizes.iter().all(|size| *size <= 8 * 1024), "{sizes:?}");
    }
}
