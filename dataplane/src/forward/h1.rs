//! An HTTP/1.1 connection: one request after the other.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue};
use pingora_core::protocols::http::v1::server::HttpSession;
use tokio::time::{Instant, Sleep};

use super::downstream::{Downstream, H1};
use super::tap::{Tap, Tapped};
use super::{Conn, IDLE, encode, request};

/// How long a client may take for a request's head once it has begun it.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
/// How long what is left of a request's body is read after the response, so that the connection can go on, or the
/// client can read the response before the connection is reset.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// The same in bytes.
const DISCARD_LIMIT: usize = 1 << 20;
/// How long the last bytes of a response may take.
const DRAIN_TIMEOUT: Duration = Duration::from_mins(1);

/// Why no request head was read.
enum NoHead {
    /// The client has ended the connection, or it is to be ended.
    End,
    /// The head is not valid, or too slow, or too large.
    Bad(StatusCode),
}

/// Serves the connection until its end.
pub(super) async fn serve(conn: Arc<Conn>) {
    let tap = Tap::default();
    let mut clock = Box::pin(tokio::time::sleep(HEAD_TIMEOUT));
    let drain = conn.worker.shared.drain.clone();
    let mut draining = std::pin::pin!(drain.draining());
    let mut leftover = BytesMut::new();
    loop {
        tap.begin(&leftover);
        let mut session = Box::new(HttpSession::new(Box::new(Tapped {
            wire: conn.wire.clone(),
            tap: tap.clone(),
        })));
        session.set_read_timeout(None);
        session.set_pipelining_enabled(true);
        if !leftover.is_empty() {
            session.set_pipelined_prefix(std::mem::take(&mut leftover));
        }
        let mut head = Head {
            tap: &tap,
            clock: &mut clock,
            begun: None,
            idle_since: Instant::now(),
        };
        let read = {
            let mut reading = std::pin::pin!(session.read_request());
            std::future::poll_fn(|cx| {
                if let Poll::Ready(read) = reading.as_mut().poll(cx) {
                    return Poll::Ready(head.judge(read.is_ok_and(|n| n.is_some()), tap.has_begun()));
                }
                if !tap.has_begun() && draining.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(NoHead::End));
                }
                head.poll_timeout(cx)
            })
            .await
        };
        let parsed = read.and_then(|()| {
            H1::new(session, conn.wire.clone(), tap.clone()).map_err(|refused| NoHead::Bad(refused.0))
        });
        match parsed {
            Err(NoHead::End) => return,
            Err(NoHead::Bad(status)) => return refuse(&conn, status).await,
            Ok((h1, head)) => {
                let mut down = Downstream::H1(h1);
                request::serve(&conn, &mut down, head).await;
                match finish(&conn, down).await {
                    Some(rest) => leftover = rest,
                    None => return,
                }
            }
        }
    }
}

/// The wait for a request's head.
struct Head<'a> {
    tap: &'a Tap,
    /// Runs through all waits of the connection, so that no request has to set it.
    clock: &'a mut std::pin::Pin<Box<Sleep>>,
    /// When the clock first found the head begun.
    begun: Option<Instant>,
    idle_since: Instant,
}

impl Head<'_> {
    fn judge(&self, complete: bool, begun: bool) -> Result<(), NoHead> {
        match (complete, begun) {
            (true, _) => Ok(()),
            (false, false) => Err(NoHead::End),
            (false, true) if self.tap.too_large() => {
                Err(NoHead::Bad(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE))
            }
            (false, true) => Err(NoHead::Bad(StatusCode::BAD_REQUEST)),
        }
    }

    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NoHead>> {
        while self.clock.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            self.clock.as_mut().reset(now + HEAD_TIMEOUT);
            if self.tap.has_begun() {
                let begun = *self.begun.get_or_insert(now);
                if now.saturating_duration_since(begun) >= HEAD_TIMEOUT {
                    return Poll::Ready(Err(NoHead::Bad(StatusCode::REQUEST_TIMEOUT)));
                }
            } else if now.saturating_duration_since(self.idle_since) >= IDLE {
                return Poll::Ready(Err(NoHead::End));
            }
        }
        Poll::Pending
    }
}

/// Answers what could not be read, and ends the connection.
async fn refuse(conn: &Conn, status: StatusCode) {
    let mut headers = http::HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    headers.insert(
        http::header::DATE,
        pingora_core::protocols::http::date::get_cached_date(),
    );
    conn.wire.put(|out| encode::head(out, status, &headers));
    close(conn).await;
}

/// Ends one request on the connection; what was read beyond it, if the connection goes on.
async fn finish(conn: &Conn, down: Downstream) -> Option<BytesMut> {
    let Downstream::H1(mut h1) = down else { return None };
    if h1.is_aborted() {
        // What has been sent must not look complete, so the connection is cut as it is.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, conn.wire.drain()).await;
        return None;
    }
    match tokio::time::timeout(DRAIN_TIMEOUT, conn.wire.drain()).await {
        Ok(Ok(())) => {}
        _ => return None,
    }
    if !h1.may_continue() {
        close(conn).await;
        return None;
    }
    if !h1.request_done() {
        let done = tokio::time::timeout(DISCARD_TIMEOUT, h1.discard(DISCARD_LIMIT)).await;
        if done != Ok(true) {
            close(conn).await;
            return None;
        }
    }
    h1.into_leftover()
}

/// Closes so that the client can still read what was sent (RFC 9112 section 9.6): our side first, then what it is
/// still sending is read for a while.
async fn close(conn: &Conn) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut wire = conn.wire.clone();
    if !matches!(
        tokio::time::timeout(DRAIN_TIMEOUT, wire.shutdown()).await,
        Ok(Ok(()))
    ) {
        return;
    }
    let discard = async {
        let mut buffer = [0; 4096];
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
