//! An HTTP/1.1 connection: one request after the other.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use http::header::{CONNECTION, HeaderValue};
use tokio::time::{Instant, Sleep};

use super::downstream::{Downstream, H1, adopt};
use super::message::{NoHead, Reader, head};
use super::{Conn, encode, request};
use crate::wire::Wire;

/// How long what is left of a request's body is read after the response, so that the connection can go on, or the
/// client can read the response before the connection is reset.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// The same in bytes.
const DISCARD_LIMIT: usize = 1 << 20;
/// How long the last bytes of a response may take.
const DRAIN_TIMEOUT: Duration = Duration::from_mins(1);

/// Why no request follows.
enum Ended {
    /// The client has ended the connection, or it is to be ended.
    Quietly,
    /// The head is not valid, or too slow, or too large.
    With(StatusCode),
}

impl From<NoHead> for Ended {
    fn from(no_head: NoHead) -> Self {
        match no_head {
            NoHead::Closed => Self::Quietly,
            NoHead::BrokenOff | NoHead::Invalid(_) => Self::With(StatusCode::BAD_REQUEST),
            NoHead::TooLarge => Self::With(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            NoHead::Coding => Self::With(StatusCode::NOT_IMPLEMENTED),
        }
    }
}

/// Serves the connection until its end.
pub(super) async fn serve(conn: Arc<Conn>, wire: Wire) {
    let bounds = Bounds {
        head: conn.head_timeout(),
        idle: conn.idle(),
    };
    let http1 = conn.client.as_ref().and_then(|client| client.http1.as_ref());
    let spelled = http1.is_some_and(|http1| http1.spelled);
    let (age, most) = conn.life();
    let born = Instant::now();
    let aged = age
        .filter(|_| http1.is_some_and(|http1| http1.close_when_aged))
        .and_then(|age| born.checked_add(age));
    let mut served = 0;
    let mut clock = Box::pin(tokio::time::sleep_until(bounds.next(born, aged)));
    let drain = conn.worker.shared.drain.clone();
    let mut draining = Box::pin(drain.draining());
    let mut watches = false;
    let mut reader = Reader::new(wire.clone());
    loop {
        if aged.is_some_and(|aged| Instant::now() >= aged) && !reader.has_rest() {
            return;
        }
        let mut wait = Wait {
            clock: &mut clock,
            bounds,
            aged,
            begun: None,
            idle_since: Instant::now(),
        };
        let read = std::future::poll_fn(|cx| {
            if let Poll::Ready(read) = reader.poll_head(cx, |bytes| head::request(bytes, spelled)) {
                return Poll::Ready(read.map_err(Ended::from));
            }
            // While service goes on once is enough: the task stays registered.
            let ask = !std::mem::replace(&mut watches, true) || !drain.is_serving();
            let leave = ask && draining.as_mut().poll(cx).is_ready();
            if leave && !reader.has_rest() {
                return Poll::Ready(Err(Ended::Quietly));
            }
            wait.poll_timeout(cx, reader.has_rest())
        })
        .await;
        let (h1, mut head) = match read {
            Ok(request) => {
                let (mut h1, head) = H1::new(reader, request);
                if http1.is_some_and(|http1| !http1.trailers) {
                    h1.drop_trailers();
                }
                (h1, head)
            }
            Err(Ended::Quietly) => return,
            Err(Ended::With(status)) => return refuse(&wire, status).await,
        };
        let mut down = adopt(Downstream::H1(h1), conn.client.as_deref(), &mut head);
        served += 1;
        if most.is_some_and(|most| served >= most) || age.is_some_and(|age| born.elapsed() >= age) {
            down.close_after();
        }
        request::serve(&conn, &mut down, head).await;
        match finish(&wire, down).await {
            Some(rest) => reader = rest,
            None => return,
        }
    }
}

/// How long the waits for a request's head may take.
#[derive(Clone, Copy)]
struct Bounds {
    /// From its first byte.
    head: Duration,
    /// To its first byte.
    idle: Duration,
}

impl Bounds {
    /// When the clock looks next.
    fn next(self, now: Instant, aged: Option<Instant>) -> Instant {
        let next = now + self.head.min(self.idle);
        aged.filter(|aged| *aged > now)
            .map_or(next, |aged| next.min(aged))
    }
}

/// The wait for a request's head.
struct Wait<'a> {
    /// Runs through all waits of the connection, so that no request has to set it.
    clock: &'a mut std::pin::Pin<Box<Sleep>>,
    bounds: Bounds,
    /// When it ends in any case.
    aged: Option<Instant>,
    /// When the clock first found the head begun.
    begun: Option<Instant>,
    idle_since: Instant,
}

impl Wait<'_> {
    fn poll_timeout<T>(&mut self, cx: &mut Context<'_>, has_begun: bool) -> Poll<Result<T, Ended>> {
        while self.clock.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            self.clock.as_mut().reset(self.bounds.next(now, self.aged));
            if has_begun {
                let begun = *self.begun.get_or_insert(now);
                if now.saturating_duration_since(begun) >= self.bounds.head {
                    return Poll::Ready(Err(Ended::With(StatusCode::REQUEST_TIMEOUT)));
                }
            } else if now.saturating_duration_since(self.idle_since) >= self.bounds.idle
                || self.aged.is_some_and(|aged| now >= aged)
            {
                return Poll::Ready(Err(Ended::Quietly));
            }
        }
        Poll::Pending
    }
}

/// Answers what could not be read, and ends the connection.
async fn refuse(wire: &Wire, status: StatusCode) {
    let mut headers = http::HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    headers.insert(
        http::header::DATE,
        pingora_core::protocols::http::date::get_cached_date(),
    );
    wire.put(|out| encode::head(out, status, &headers, None));
    close(wire).await;
}

/// Ends one request on the connection; its reader, if the connection goes on.
async fn finish(wire: &Wire, down: Downstream) -> Option<Reader> {
    let Downstream::H1(mut h1) = down.into_plain() else {
        return None;
    };
    let sent = drain(wire).await;
    // What has been sent of an aborted response must not look complete, so the connection is cut as it is.
    if h1.is_aborted() || !sent {
        return None;
    }
    if !h1.may_continue() {
        close(wire).await;
        return None;
    }
    if !h1.request_done() {
        let done = tokio::time::timeout(DISCARD_TIMEOUT, h1.discard(DISCARD_LIMIT)).await;
        if done != Ok(true) {
            close(wire).await;
            return None;
        }
    }
    Some(h1.into_reader())
}

/// Sends what is buffered; false if that fails or takes too long.
async fn drain(wire: &Wire) -> bool {
    // Most often there is nothing to wait for, and no timer is needed.
    let first = std::future::poll_fn(|cx| Poll::Ready(wire.poll_drain(cx))).await;
    match first {
        Poll::Ready(sent) => sent.is_ok(),
        Poll::Pending => {
            let rest = tokio::time::timeout(DRAIN_TIMEOUT, wire.drain()).await;
            matches!(rest, Ok(Ok(())))
        }
    }
}

/// Closes so that the client can still read what was sent (RFC 9112 section 9.6): our side first, then what it is
/// still sending is read for a while.
async fn close(wire: &Wire) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut wire = wire.clone();
    if !matches!(
        tokio::time::timeout(DRAIN_TIMEOUT, wire.shutdown()).await,
        Ok(Ok(()))
    ) {
        return;
    }
    let discard = async {
        // On the heap: an array would be part of every connection for as long as it lasts.
        let mut buffer = vec![0; 4096];
        let mut total = 0;
        while let Ok(n @ 1..) = wire.read(&mut buffer).await {
            total += n;
            if total > DISCARD_LIMIT {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, discard).await;
}
