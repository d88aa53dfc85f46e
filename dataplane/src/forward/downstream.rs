//! The client's side of one request: the body that comes in, the response that goes out.
//!
//! Owns framing towards the client, HTTP/1.1 and HTTP/2. Every write is accepted at once; back-pressure is what
//! [`Downstream::poll_room`] says. It never decides what is answered.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version, request, response};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::http::v1::server::HttpSession;

use super::h1_encode::{self, Framing};
use crate::wire::Wire;

/// A piece of a message body.
#[derive(Debug)]
pub enum Chunk {
    /// Bytes.
    Data(Bytes),
    /// The trailers; nothing follows.
    Trailers(HeaderMap),
}

/// The client went away, or broke the protocol.
#[derive(Debug, thiserror::Error)]
#[error("downstream: {0}")]
pub struct Gone(pub String);

/// The client's side of one request.
pub enum Downstream {
    /// HTTP/1.1.
    H1(H1),
    /// A stream of an HTTP/2 connection.
    H2(H2),
}

impl Downstream {
    /// True if the request has no body.
    pub fn body_is_empty(&self) -> bool {
        match self {
            Self::H1(h1) => h1.request_done,
            Self::H2(h2) => h2.request_done,
        }
    }

    /// The next piece of the request body; `None` once at its end. After that it stays pending until the client
    /// goes away, which is an error.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Gone>> {
        match self {
            Self::H1(h1) => h1.poll_body(cx),
            Self::H2(h2) => h2.poll_body(cx),
        }
    }

    /// Sends an informational response (not 101).
    pub fn inform(&mut self, head: &response::Parts) {
        if let Self::H1(h1) = self
            && h1.version == Version::HTTP_11
            && !h1.responded
        {
            h1.wire.put(|out| h1_encode::head(out, head.status, &head.headers));
        }
    }

    /// Sends the response's head; `end` says that no body follows.
    ///
    /// # Errors
    /// [`Gone`] if the client is.
    pub fn respond(&mut self, head: response::Parts, end: bool) -> Result<(), Gone> {
        match self {
            Self::H1(h1) => {
                h1.respond(head, end);
                Ok(())
            }
            Self::H2(h2) => h2.respond(head, end),
        }
    }

    /// Sends a piece of the response's body.
    ///
    /// # Errors
    /// [`Gone`] if the client is.
    pub fn push(&mut self, data: Bytes) -> Result<(), Gone> {
        match self {
            Self::H1(h1) => {
                h1.push(&data);
                Ok(())
            }
            Self::H2(h2) => h2.push(data),
        }
    }

    /// Ends the response.
    ///
    /// # Errors
    /// [`Gone`] if the client is.
    pub fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), Gone> {
        match self {
            Self::H1(h1) => {
                h1.finish(trailers.as_ref());
                Ok(())
            }
            Self::H2(h2) => h2.finish(trailers),
        }
    }

    /// Ends the response where it must not look complete.
    pub fn abort(&mut self) {
        match self {
            Self::H1(h1) => {
                h1.keepalive = false;
                h1.aborted = true;
            }
            Self::H2(h2) => h2.reset(h2::Reason::INTERNAL_ERROR),
        }
    }

    /// Ready when more of the response may be written.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match self {
            Self::H1(h1) => h1.wire.poll_room(cx).map_err(|e| Gone(e.to_string())),
            Self::H2(h2) => match h2.send.as_mut() {
                Some(send) => poll_capacity(send, cx).map_err(|e| Gone(e.to_string())),
                None => Poll::Ready(Ok(())),
            },
        }
    }

    /// Sends what is buffered.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match self {
            Self::H1(h1) => h1.wire.poll_drain(cx).map_err(|e| Gone(e.to_string())),
            // The connection's own task sends.
            Self::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Bytes of the response's body sent so far.
    pub fn bytes_sent(&self) -> u64 {
        match self {
            Self::H1(h1) => h1.sent,
            Self::H2(h2) => h2.sent,
        }
    }

    /// True once the head of the final response is out.
    pub fn responded(&self) -> bool {
        match self {
            Self::H1(h1) => h1.responded,
            Self::H2(h2) => h2.responded,
        }
    }
}

/// Ready when the stream's window has room for at least one byte beyond what is queued already.
pub(super) fn poll_capacity(send: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
    if send.capacity() > 0 {
        return Poll::Ready(Ok(()));
    }
    send.reserve_capacity(1);
    loop {
        match ready!(send.poll_capacity(cx)) {
            // The stream is closed for sending; the next write says so.
            None => return Poll::Ready(Ok(())),
            Some(Ok(0)) => {}
            Some(Ok(_)) => return Poll::Ready(Ok(())),
            Some(Err(e)) => return Poll::Ready(Err(e)),
        }
    }
}

/// An HTTP/1.1 request and its response.
pub struct H1 {
    pub(crate) session: Box<HttpSession>,
    pub(crate) wire: Wire,
    version: Version,
    is_head: bool,
    expects_continue: bool,
    pub(crate) request_done: bool,
    pub(crate) responded: bool,
    framing: Framing,
    pub(crate) keepalive: bool,
    pub(crate) aborted: bool,
    sent: u64,
}

impl H1 {
    /// Takes over a session whose request head has been read; gives the head away.
    pub fn new(mut session: Box<HttpSession>, wire: Wire, placeholder: pingora_http::RequestHeader) -> (Self, request::Parts) {
        // Both read the head's framing fields, so they come before it is moved out.
        let request_done = session.is_body_done();
        let keepalive = session.will_keepalive();
        let head: request::Parts = std::mem::replace(session.req_header_mut(), placeholder).into();
        let this = Self {
            session,
            wire,
            version: head.version,
            is_head: head.method == Method::HEAD,
            expects_continue: head.headers.get(EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue")),
            request_done,
            responded: false,
            framing: Framing::None,
            keepalive,
            aborted: false,
            sent: 0,
        };
        (this, head)
    }

    /// From now on the response carries `Connection: close`.
    pub fn close_after(&mut self) {
        self.keepalive = false;
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Gone>> {
        if !self.request_done && self.session.is_body_done() {
            self.request_done = true;
            return Poll::Ready(Ok(None));
        }
        if std::mem::take(&mut self.expects_continue) && !self.request_done && !self.responded {
            self.wire.put(|out| h1_encode::head(out, StatusCode::CONTINUE, &HeaderMap::new()));
        }
        let read = pin!(self.session.read_body_or_idle(self.request_done)).poll(cx);
        match ready!(read) {
            Ok(Some(data)) => Poll::Ready(Ok(Some(Chunk::Data(data)))),
            Ok(None) => {
                self.request_done = true;
                Poll::Ready(Ok(None))
            }
            Err(e) => {
                self.keepalive = false;
                Poll::Ready(Err(Gone(e.to_string())))
            }
        }
    }

    fn respond(&mut self, mut head: response::Parts, end: bool) {
        self.responded = true;
        self.framing = if end || self.is_head || h1_encode::is_bodiless(head.status) {
            if end && !self.is_head && !h1_encode::is_bodiless(head.status) {
                head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            Framing::None
        } else if head.headers.contains_key(CONTENT_LENGTH) {
            Framing::Length
        } else if self.version == Version::HTTP_11 {
            head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
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
            head.headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        }
        self.wire.put(|out| h1_encode::head(out, head.status, &head.headers));
    }

    fn push(&mut self, data: &[u8]) {
        if data.is_empty() || self.framing == Framing::None {
            return;
        }
        self.sent += data.len() as u64;
        self.wire.put(|out| h1_encode::body(out, self.framing, data));
    }

    fn finish(&mut self, trailers: Option<&HeaderMap>) {
        self.wire.put(|out| h1_encode::end(out, self.framing, trailers));
    }

    /// Sends the head of a 101 response; what follows is raw bytes.
    pub fn switch_protocols(&mut self, head: &response::Parts) {
        self.responded = true;
        self.keepalive = false;
        self.wire.put(|out| h1_encode::head(out, head.status, &head.headers));
    }

    /// Counts bytes that a tunnel sent.
    pub fn add_sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }
}

/// A stream of an HTTP/2 connection.
pub struct H2 {
    recv: RecvStream,
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    data_done: bool,
    request_done: bool,
    responded: bool,
    ended: bool,
    is_head: bool,
    sent: u64,
}

impl H2 {
    /// A stream as the connection gave it.
    pub fn new(recv: RecvStream, respond: SendResponse<Bytes>, is_head: bool) -> Self {
        let request_done = recv.is_end_stream();
        Self {
            recv,
            respond,
            send: None,
            data_done: request_done,
            request_done,
            responded: false,
            ended: false,
            is_head,
            sent: 0,
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Gone>> {
        if self.request_done {
            let reset = match self.send.as_mut() {
                Some(send) => send.poll_reset(cx),
                None => self.respond.poll_reset(cx),
            };
            return match ready!(reset) {
                Ok(reason) => Poll::Ready(Err(Gone(format!("stream reset: {reason}")))),
                Err(e) => Poll::Ready(Err(Gone(e.to_string()))),
            };
        }
        if !self.data_done {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Only fails on a closed stream, which the next poll reports.
                    let _ = self.recv.flow_control().release_capacity(data.len());
                    return Poll::Ready(Ok(Some(Chunk::Data(data))));
                }
                Some(Err(e)) => return Poll::Ready(Err(Gone(e.to_string()))),
                None => self.data_done = true,
            }
        }
        let trailers = ready!(self.recv.poll_trailers(cx)).map_err(|e| Gone(e.to_string()))?;
        self.request_done = true;
        Poll::Ready(Ok(trailers.map(Chunk::Trailers)))
    }

    fn respond(&mut self, mut head: response::Parts, end: bool) -> Result<(), Gone> {
        head.version = Version::HTTP_2;
        if !head.headers.contains_key(DATE) {
            head.headers.insert(DATE, get_cached_date());
        }
        let end = end || self.is_head || h1_encode::is_bodiless(head.status);
        self.responded = true;
        self.ended = end;
        let response = http::Response::from_parts(head, ());
        let send = self.respond.send_response(response, end).map_err(|e| Gone(e.to_string()))?;
        self.send = Some(send);
        Ok(())
    }

    fn push(&mut self, data: Bytes) -> Result<(), Gone> {
        if data.is_empty() || self.ended {
            return Ok(());
        }
        let Some(send) = self.send.as_mut() else { return Ok(()) };
        self.sent += data.len() as u64;
        send.send_data(data, false).map_err(|e| Gone(e.to_string()))
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), Gone> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let Some(send) = self.send.as_mut() else { return Ok(()) };
        match trailers {
            Some(trailers) => send.send_trailers(trailers),
            None => send.send_data(Bytes::new(), true),
        }
        .map_err(|e| Gone(e.to_string()))?;
        if !self.request_done {
            // RFC 9113 section 8.1: a complete response may ask the client to stop sending.
            send.send_reset(h2::Reason::NO_ERROR);
        }
        Ok(())
    }

    fn reset(&mut self, reason: h2::Reason) {
        match self.send.as_mut() {
            Some(send) => send.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
        self.ended = true;
    }
}
