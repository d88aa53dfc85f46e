//! An HTTP/3 connection from a client: one task a stream.
//!
//! Owns the life of the connection and what makes a request malformed (RFC 9114 section 4.1.2) beyond what the h3 crate
//! sees: such a request's stream is reset, and the others go on.

mod frames;
mod protocol;
mod quic;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h3::error::{Code, StreamError};
use h3::server::RequestResolver;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{Method, StatusCode, Uri, request};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::quic::{Arrival, Arrivals};
pub(super) use self::quic::{Both, Receiving, Sending, Stopped};
use super::downstream::{Downstream, H3, adopt};
use super::record::Record;
use super::{Conn, request as exchange};

/// Largest head.
const MAX_HEAD: u64 = 64 * 1024;
/// How long a response that is complete may take to leave.
const SEND_TIMEOUT: Duration = Duration::from_mins(5);
/// How long what is under way may take once the client has said that it leaves.
const LINGER: Duration = Duration::from_secs(5);
/// Between telling a client that it is to leave and refusing its requests; three times to the client and back, within
/// these bounds.
const NOTICE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Requests that may still come after a client was told.
const ON_THEIR_WAY: usize = 1 << 20;
/// H3_NO_ERROR (RFC 9114 section 8.1).
const NO_ERROR: u32 = 0x100;
/// Numbers of a client's requests are so far apart (RFC 9000 section 2.1).
const NEXT_REQUEST: u64 = 4;

/// What the access log says of requests that are not served, in Envoy's words.
const INVALID: &str = "http3.invalid_header_field";
const TOO_LARGE: &str = "http3.headers_too_large";

type H3Connection = h3::server::Connection<quic::Connection, Bytes>;

/// How far a connection has come.
#[derive(Clone, Copy)]
enum Stage {
    Serving,
    /// The client was told; until then its requests are taken.
    Noticed(Instant),
    /// Requests are refused.
    Leaving,
}

/// Serves the connection until its end; `stop` asks it to end.
pub(super) async fn serve(conn: Arc<Conn>, quic: quinn::Connection, stop: CancellationToken) {
    let arrivals = Arc::<Arrivals>::default();
    let mut builder = h3::server::builder();
    builder
        .max_field_section_size(MAX_HEAD)
        .send_grease(false)
        .enable_extended_connect(true);
    let built = builder.build(quic::Connection::new(quic.clone(), Arc::clone(&arrivals)));
    let mut connection = match tokio::time::timeout(conn.head_timeout(), built).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "HTTP/3 connection"),
        Err(_) => return,
    };
    let requests = TaskTracker::new();
    if let Err(error) = run(&conn, &quic, &mut connection, &arrivals, &requests, &stop).await {
        return tracing::debug!(%error, "HTTP/3 connection");
    }
    requests.close();
    let _ = tokio::time::timeout(LINGER, requests.wait()).await;
    quic.close(NO_ERROR.into(), b"");
}

async fn run(
    conn: &Arc<Conn>,
    quic: &quinn::Connection,
    connection: &mut H3Connection,
    arrivals: &Arrivals,
    requests: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), h3::error::ConnectionError> {
    let drain = conn.worker.shared.drain.clone();
    let mut draining = std::pin::pin!(drain.draining());
    let (age, most) = conn.life();
    let end = age.and_then(|age| Instant::now().checked_add(age));
    let mut idle = std::pin::pin!(tokio::time::sleep(conn.idle()));
    let mut served: u64 = 0;
    // The number of the next request.
    let mut next = 0;
    let mut stage = Stage::Serving;
    loop {
        let serving = matches!(stage, Stage::Serving);
        let accepted = tokio::select! {
            accepted = connection.accept() => Some(accepted?),
            () = &mut draining, if serving => None,
            () = stop.cancelled(), if serving => None,
            () = &mut idle, if serving => None,
            () = until(end), if serving => None,
            () = refusing(stage), if !serving => None,
            // Each ends when the client has its response.
            () = requests.wait() => return Ok(()),
        };
        if let Some(accepted) = accepted {
            let Some(resolver) = accepted else { return Ok(()) };
            let Some(arrival) = arrivals.take() else { continue };
            next = arrival.id + NEXT_REQUEST;
            served += 1;
            idle.as_mut().reset(Instant::now() + conn.idle());
            requests.spawn(stream(Arc::clone(conn), resolver, arrival));
            if !serving || most.is_none_or(|most| served < most) {
                continue;
            }
        }
        stage = match stage {
            // The client first learns that it is to leave: what it has sent meanwhile is not refused (RFC 9114 section 5.2).
            Stage::Serving if next != 0 => {
                connection.shutdown(ON_THEIR_WAY).await?;
                Stage::Noticed(Instant::now() + (3 * quic.rtt()).clamp(NOTICE.0, NOTICE.1))
            }
            _ => {
                arrivals.refuse_from(next);
                // Says the number of the first request that is refused: one after the last.
                connection.shutdown(1).await?;
                requests.close();
                Stage::Leaving
            }
        };
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn refusing(stage: Stage) {
    match stage {
        Stage::Noticed(at) => tokio::time::sleep_until(at).await,
        Stage::Serving | Stage::Leaving => std::future::pending().await,
    }
}

async fn stream(conn: Arc<Conn>, resolver: RequestResolver<quic::Connection, Bytes>, arrival: Arrival) {
    let resolved = tokio::time::timeout(conn.head_timeout(), resolver.resolve_request()).await;
    let (request, mut stream) = match resolved {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => {
            unread(&conn, &error);
            return tracing::debug!(%error, "HTTP/3 request");
        }
        Err(_) => return,
    };
    let protocols = arrival.serve();
    let mut head = request.into_parts().0;
    head.version = http::Version::HTTP_3;
    let length = match check(&mut head, protocols) {
        Ok(length) => length,
        Err(reason) => {
            stream.stop_stream(Code::H3_MESSAGE_ERROR);
            stream.stop_sending(Code::H3_MESSAGE_ERROR);
            refused(&conn, &head, 0, INVALID);
            return tracing::debug!(reason, "malformed HTTP/3 request");
        }
    };
    let down = Downstream::H3(Box::new(H3::new(stream, &head, length, arrival.stopped)));
    let mut down = adopt(down, conn.client.as_deref(), &mut head);
    exchange::serve(&conn, &mut down, head).await;
    if let Downstream::H3(h3) = down.into_plain() {
        // Dropped, it resets the stream.
        let _ = tokio::time::timeout(SEND_TIMEOUT, h3.end()).await;
    }
}

/// Writes down a request that the h3 crate has refused: of those that break off or end the connection nobody is told.
fn unread(conn: &Conn, error: &StreamError) {
    let (status, details) = match error {
        StreamError::HeaderTooBig { .. } => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16(), TOO_LARGE),
        StreamError::StreamError { code, .. } if *code == Code::H3_MESSAGE_ERROR => (0, INVALID),
        _ => return,
    };
    // Nobody says what was in it.
    let mut head = http::Request::new(()).into_parts().0;
    head.version = http::Version::HTTP_3;
    head.uri = Uri::from_static("-");
    if let Ok(unknown) = Method::from_bytes(b"-") {
        head.method = unknown;
    }
    refused(conn, &head, status, details);
}

/// Writes down a request that is not served; without a status if it has been reset.
fn refused(conn: &Conn, head: &request::Parts, status: u16, details: &'static str) {
    let mut record = Record::begin(head);
    record.client.clone_from(&conn.client);
    record.look(conn, head);
    record.blame("DPE", details);
    record.close(conn, status, 0);
}

/// What the head says of the body's length, if it may be so in all else.
fn check(head: &mut request::Parts, protocols: usize) -> Result<Option<u64>, &'static str> {
    protocol::restore(head, protocols)?;
    lawful(head)?;
    length(head)
}

/// What the head says of the body's length.
fn length(head: &request::Parts) -> Result<Option<u64>, &'static str> {
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Ok(None);
    };
    if lengths.next().is_some() {
        return Err("several lengths");
    }
    let digits = length
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|text| text.parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => Err("invalid length"),
    }
}

/// Nothing that belongs to a connection of HTTP/1 may be there (RFC 9114 section 4.2).
fn lawful(head: &request::Parts) -> Result<(), &'static str> {
    const FORBIDDEN: [HeaderName; 5] = [
        CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    if FORBIDDEN.iter().any(|name| head.headers.contains_key(name)) {
        return Err("field of a connection");
    }
    let mut te = head.headers.get_all(TE).iter();
    if te.any(|te| !te.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        return Err("te other than trailers");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::builder();
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn lengths() {
        assert_eq!(length(&head(&[])), Ok(None));
        assert_eq!(length(&head(&[("content-length", "10")])), Ok(Some(10)));
        for bad in ["+1", "-1", "1, 1", "", "x", "99999999999999999999"] {
            assert!(length(&head(&[("content-length", bad)])).is_err(), "{bad}");
        }
        assert!(length(&head(&[("content-length", "1"), ("content-length", "1")])).is_err());
    }

    #[test]
    fn fields_of_a_connection() {
        assert!(lawful(&head(&[("te", "trailers"), ("x-connection", "close")])).is_ok());
        for (name, value) in [
            ("connection", "close"),
            ("keep-alive", "1"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("te", "gzip"),
        ] {
            assert!(lawful(&head(&[(name, value)])).is_err(), "{name}");
        }
    }
}
