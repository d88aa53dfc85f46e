//! An HTTP/1.1 request and its response.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use futures::FutureExt;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, StatusCode, Version, request, response};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::http::v1::server::HttpSession;
use pingora_http::authority::{RawTargetAuthority, raw_target_authority};
use pingora_http::{RequestHeader, ResponseHeader};

use super::{Chunk, Gone};
use crate::forward::encode::{self, Framing};
use crate::forward::tap::Tap;
use crate::wire::Wire;

/// The client's side of one HTTP/1.1 request.
pub struct H1 {
    session: Box<HttpSession>,
    pub(super) wire: Wire,
    tap: Tap,
    version: Version,
    is_head: bool,
    chunked: bool,
    expects_continue: bool,
    upgraded: bool,
    pub(super) request_done: bool,
    trailers_taken: bool,
    pub(super) responded: bool,
    framing: Framing,
    keepalive: bool,
    aborted: bool,
    pub(super) sent: u64,
}

/// A request whose framing cannot be believed, or is not supported.
#[derive(Debug, Clone, Copy)]
pub struct Refused(pub StatusCode);

impl H1 {
    /// Takes over a session whose request head has been read; gives the head away.
    ///
    /// # Errors
    /// [`Refused`] if two recipients could disagree on where the request ends (RFC 9112 section 11.2).
    pub fn new(
        mut session: Box<HttpSession>,
        wire: Wire,
        tap: Tap,
    ) -> Result<(Self, request::Parts), Refused> {
        let chunked = check_framing(&session)?;
        let authority = absolute_authority(session.req_header());
        // Both read the head's framing fields, so they come before it is moved out.
        let request_done = session.is_body_done();
        let keepalive = session.will_keepalive();
        let mut placeholder = RequestHeader::build_no_case(Method::GET, b"/", None)
            .map_err(|_| Refused(StatusCode::BAD_REQUEST))?;
        if let Some(upgrade) = session.req_header().headers.get(UPGRADE) {
            // The session looks it up again when it switches protocols.
            let _ = placeholder.insert_header(UPGRADE, upgrade.clone());
        }
        let mut head: request::Parts = std::mem::replace(session.req_header_mut(), placeholder).into();
        if let Some(authority) = authority {
            head.headers.entry(HOST).or_insert(authority);
        }
        tap.head_done(chunked);
        let this = Self {
            session,
            wire,
            tap,
            version: head.version,
            is_head: head.method == Method::HEAD,
            chunked,
            expects_continue: head.version == Version::HTTP_11
                && head
                    .headers
                    .get(EXPECT)
                    .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue")),
            upgraded: false,
            request_done,
            trailers_taken: request_done,
            responded: false,
            framing: Framing::None,
            keepalive,
            aborted: false,
            sent: 0,
        };
        Ok((this, head))
    }

    /// From now on the response carries `Connection: close`.
    pub fn close_after(&mut self) {
        self.keepalive = false;
    }

    /// True if the connection may serve another request.
    pub fn may_continue(&self) -> bool {
        self.keepalive && !self.aborted
    }

    /// True if the response must not look complete.
    pub fn is_aborted(&self) -> bool {
        self.aborted
    }

    /// True if all of the request has been read.
    pub fn request_done(&self) -> bool {
        self.request_done
    }

    /// Gives the session up; returns what was read beyond the request, or `None` if the connection cannot go on.
    pub fn into_leftover(self) -> Option<BytesMut> {
        let reusable = self.session.reuse().now_or_never()?.ok()??;
        Some(reusable.into_parts().1.unwrap_or_default())
    }

    /// Reads and forgets what is left of the request's body; false if it is longer than `limit` or breaks off.
    pub async fn discard(&mut self, limit: usize) -> bool {
        // Nobody is told to continue now.
        self.expects_continue = false;
        let mut total = 0;
        loop {
            match std::future::poll_fn(|cx| self.poll_body(cx)).await {
                Ok(None) => return true,
                Ok(Some(Chunk::Trailers(_))) => {}
                Ok(Some(Chunk::Data(data))) => total += data.len(),
                Err(_) => return false,
            }
            if total > limit {
                return false;
            }
        }
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Gone>> {
        if std::mem::take(&mut self.expects_continue) && !self.request_done && !self.responded {
            self.wire
                .put(|out| encode::head(out, StatusCode::CONTINUE, &HeaderMap::new()));
        }
        if !self.request_done && !self.session.is_body_done() {
            match ready!(pin!(self.session.read_body_bytes()).poll(cx)) {
                Ok(Some(data)) => return Poll::Ready(Ok(Some(Chunk::Data(data)))),
                Ok(None) => {}
                Err(e) => {
                    self.keepalive = false;
                    return Poll::Ready(Err(Gone(e.to_string())));
                }
            }
        }
        self.request_done = true;
        if self.chunked
            && !std::mem::replace(&mut self.trailers_taken, true)
            && let Some(trailers) = self.tap.trailers()
        {
            return Poll::Ready(Ok(Some(Chunk::Trailers(trailers))));
        }
        Poll::Ready(Ok(None))
    }

    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        match ready!(pin!(self.session.read_body_or_idle(true)).poll(cx)) {
            Err(e) => Poll::Ready(Gone(e.to_string())),
            Ok(_) => Poll::Pending,
        }
    }

    pub(super) fn inform(&mut self, head: &response::Parts) {
        if self.version == Version::HTTP_11 && !self.responded {
            self.wire.put(|out| encode::head(out, head.status, &head.headers));
        }
    }

    pub(super) fn respond(&mut self, mut head: response::Parts, end: bool) {
        self.responded = true;
        if self.expects_continue && !self.request_done {
            // The client waits with the body and may or may not send it: the connection cannot be used again.
            self.keepalive = false;
        }
        self.framing = if end || self.is_head || encode::is_bodiless(head.status) {
            if !self.is_head && !encode::is_bodiless(head.status) {
                head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            Framing::None
        } else if head.headers.contains_key(CONTENT_LENGTH) {
            Framing::Length
        } else if self.version == Version::HTTP_11 {
            head.headers
                .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            Framing::Chunked
        } else {
            self.keepalive = false;
            Framing::UntilClose
        };
        if !head.headers.contains_key(DATE) {
            head.headers.insert(DATE, get_cached_date());
        }
        if !self.keepalive {
            head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        } else if self.version == Version::HTTP_10 {
            head.headers
                .insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        }
        self.wire.put(|out| encode::head(out, head.status, &head.headers));
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        if data.is_empty() || self.framing == Framing::None {
            return;
        }
        self.sent += data.len() as u64;
        self.wire.put(|out| encode::body(out, self.framing, data));
    }

    pub(super) fn finish(&mut self, trailers: Option<&HeaderMap>) {
        self.wire.put(|out| encode::end(out, self.framing, trailers));
    }

    pub(super) fn switch_protocols(&mut self, head: response::Parts) -> Result<(), Gone> {
        let header = Box::new(ResponseHeader::from(head));
        self.tap.head_done(false);
        // The wire takes all that is written to it, so the session has nothing to wait for.
        match self.session.write_response_header(header).now_or_never() {
            Some(Ok(())) => {}
            Some(Err(e)) => return Err(Gone(e.to_string())),
            None => return Err(Gone("the session did not switch protocols".into())),
        }
        self.responded = true;
        self.upgraded = true;
        self.request_done = false;
        self.chunked = false;
        self.keepalive = false;
        self.framing = Framing::UntilClose;
        Ok(())
    }

    pub(super) fn abort(&mut self) {
        self.keepalive = false;
        self.aborted = true;
    }
}

/// Refuses heads on whose framing recipients have been known to disagree; says whether the body is chunked.
fn check_framing(session: &HttpSession) -> Result<bool, Refused> {
    let head = session.req_header();
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    if lengths
        .next()
        .is_some_and(|length| !length.as_bytes().iter().all(u8::is_ascii_digit))
        || lengths.next().is_some()
    {
        return Err(Refused(StatusCode::BAD_REQUEST));
    }
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(false);
    };
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Refused(StatusCode::NOT_IMPLEMENTED));
    }
    // The session drops Content-Length where both are given, so only the bytes still tell.
    let raw = session.get_headers_raw_bytes();
    let has_length = raw.split(|b| *b == b'\n').any(|line| {
        line.split_at_checked(CONTENT_LENGTH.as_str().len())
            .is_some_and(|(name, _)| name.eq_ignore_ascii_case(CONTENT_LENGTH.as_str().as_bytes()))
    });
    if has_length {
        Err(Refused(StatusCode::BAD_REQUEST))
    } else {
        Ok(true)
    }
}

/// The authority of an absolute-form target (RFC 9112 section 3.2.2). One that differs from Host was refused before.
fn absolute_authority(head: &RequestHeader) -> Option<HeaderValue> {
    let target = head.raw_path();
    if target.first() == Some(&b'/') {
        return None;
    }
    match raw_target_authority(target) {
        RawTargetAuthority::Absolute { authority, .. } => HeaderValue::from_bytes(authority).ok(),
        _ => None,
    }
}
