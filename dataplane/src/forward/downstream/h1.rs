//! An HTTP/1.1 request and its response.

use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version, request, response};
use pingora_core::protocols::http::date::get_cached_date;

use super::{Chunk, Gone};
use crate::forward::encode::{self, Framing};
use crate::forward::message::spelling::Spelling;
use crate::forward::message::{Body, Reader, head};

/// The client's side of one HTTP/1.1 request.
pub struct H1 {
    pub(super) reader: Reader,
    version: Version,
    is_head: bool,
    expects_continue: bool,
    pub(super) request_done: bool,
    pub(super) responded: bool,
    framing: Framing,
    keepalive: bool,
    aborted: bool,
    /// Trailers are passed on, in both directions.
    trailers: bool,
    pub(super) sent: u64,
}

impl H1 {
    /// Takes over a connection from which a request's head has been read; gives the head away.
    pub fn new(mut reader: Reader, request: head::Request) -> (Self, request::Parts) {
        let head = request.parts;
        reader.begin_body(request.body);
        let this = Self {
            version: head.version,
            is_head: head.method == Method::HEAD,
            expects_continue: head.version == Version::HTTP_11
                && head
                    .headers
                    .get(EXPECT)
                    .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue")),
            request_done: reader.body_is_done(),
            responded: false,
            framing: Framing::None,
            keepalive: request.keepalive,
            aborted: false,
            trailers: true,
            sent: 0,
            reader,
        };
        (this, head)
    }

    /// From now on the response carries `Connection: close`.
    pub fn close_after(&mut self) {
        self.keepalive = false;
    }

    /// From now on trailers are dropped, in both directions.
    pub fn drop_trailers(&mut self) {
        self.trailers = false;
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

    /// The connection, with what was read beyond the request.
    pub fn into_reader(self) -> Reader {
        self.reader
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
            self.reader
                .wire()
                .put(|out| encode::head(out, StatusCode::CONTINUE, &HeaderMap::new(), None));
        }
        if !self.request_done {
            let mut data = BytesMut::new();
            match ready!(self.reader.poll_body(cx, |piece| data.extend_from_slice(piece))) {
                Ok(true) => return Poll::Ready(Ok(Some(Chunk::Data(data.freeze())))),
                Ok(false) => {}
                Err(e) => {
                    self.keepalive = false;
                    return Poll::Ready(Err(Gone(e.to_string())));
                }
            }
        }
        self.request_done = true;
        let trailers = self.reader.take_trailers().filter(|_| self.trailers);
        Poll::Ready(Ok(trailers.map(Chunk::Trailers)))
    }

    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        self.reader.poll_gone(cx).map(|e| Gone(e.to_string()))
    }

    pub(super) fn inform(&mut self, head: &response::Parts) {
        if self.version == Version::HTTP_11 && !self.responded {
            self.put_head(head);
        }
    }

    fn put_head(&self, head: &response::Parts) {
        let spelling = Spelling::of(&head.extensions);
        let wire = self.reader.wire();
        wire.put(|out| encode::head(out, head.status, &head.headers, spelling));
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
        self.put_head(&head);
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        if data.is_empty() || self.framing == Framing::None {
            return;
        }
        self.sent += data.len() as u64;
        encode::send(self.reader.wire(), self.framing, data);
    }

    pub(super) fn finish(&mut self, trailers: Option<&HeaderMap>) {
        let trailers = trailers.filter(|_| self.trailers);
        if self.framing == Framing::Chunked {
            self.reader
                .wire()
                .put(|out| encode::end(out, self.framing, trailers));
        }
    }

    pub(super) fn switch_protocols(&mut self, head: &response::Parts) {
        self.put_head(head);
        self.reader.begin_body(Body::UntilClose);
        self.responded = true;
        self.request_done = false;
        self.keepalive = false;
        self.framing = Framing::UntilClose;
    }

    pub(super) fn abort(&mut self) {
        self.keepalive = false;
        self.aborted = true;
    }
}
