//! The client's side of one request: the body that comes in, the response that goes out.
//!
//! Owns framing towards the client, HTTP/1.1, HTTP/2 and HTTP/3. Every write is accepted at once; back-pressure is what
//! [`Downstream::poll_room`] says. It never decides what is answered.

mod h1;
mod h2;
mod h3;
mod web;

use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, HeaderName, UPGRADE};
use http::{HeaderMap, StatusCode, response};

pub use h1::H1;
pub use h2::H2;
pub(super) use h2::poll_capacity;
pub use h3::H3;
pub use web::adopt;

/// A piece of a message body.
#[derive(Debug, Clone)]
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
    /// A stream of an HTTP/3 connection.
    H3(Box<H3>),
    /// Any of them, with a client that speaks gRPC-Web.
    Web(Box<web::Web>),
}

impl Downstream {
    /// True if the request has no body.
    pub fn body_is_empty(&self) -> bool {
        match self {
            Self::H1(h1) => h1.request_done,
            Self::H2(h2) => h2.body_is_empty(),
            Self::H3(h3) => h3.body_is_empty(),
            Self::Web(web) => web.inner().body_is_empty(),
        }
    }

    /// The next piece of the request body; `None` once at its end.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Gone>> {
        match self {
            Self::H1(h1) => h1.poll_body(cx),
            Self::H2(h2) => h2.poll_body(cx),
            Self::H3(h3) => h3.poll_body(cx),
            Self::Web(web) => web.poll_body(cx),
        }
    }

    /// Ready when the client goes away. To be polled only while no body is awaited.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        match self {
            Self::H1(h1) => h1.poll_gone(cx),
            Self::H2(h2) => h2.poll_gone(cx),
            Self::H3(h3) => h3.poll_gone(cx),
            Self::Web(web) => web.inner_mut().poll_gone(cx),
        }
    }

    /// Sends an informational response (not 101).
    pub fn inform(&mut self, head: response::Parts) {
        match self {
            Self::H1(h1) => h1.inform(&head),
            Self::H2(h2) => h2.inform(head),
            Self::H3(h3) => h3.inform(head),
            Self::Web(web) => web.inner_mut().inform(head),
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
            Self::H3(h3) => h3.respond(head, end),
            Self::Web(web) => web.respond(head, end),
        }
    }

    /// Agrees to an upgrade: what follows in both directions is raw bytes.
    ///
    /// # Errors
    /// [`Gone`] if the client is.
    pub fn switch_protocols(&mut self, head: response::Parts) -> Result<(), Gone> {
        match self {
            Self::H1(h1) => {
                h1.switch_protocols(&head);
                Ok(())
            }
            Self::H2(h2) => h2.switch_protocols(head),
            Self::H3(h3) => h3.switch_protocols(head),
            Self::Web(web) => web.inner_mut().switch_protocols(head),
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
            Self::H3(h3) => h3.push(data),
            Self::Web(web) => web.push(data),
        }
    }

    /// As [`Downstream::push`], from borrowed bytes: HTTP/1.1 copies them once, into its output buffer.
    ///
    /// # Errors
    /// [`Gone`] if the client is.
    pub fn push_slice(&mut self, data: &[u8]) -> Result<(), Gone> {
        match self {
            Self::H1(h1) => {
                h1.push(data);
                Ok(())
            }
            Self::H2(h2) => h2.push(Bytes::copy_from_slice(data)),
            Self::H3(h3) => h3.push(Bytes::copy_from_slice(data)),
            Self::Web(web) => web.push(Bytes::copy_from_slice(data)),
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
            Self::H3(h3) => h3.finish(trailers),
            Self::Web(web) => web.finish(trailers),
        }
    }

    /// Ends the response where it must not look complete.
    pub fn abort(&mut self) {
        match self {
            Self::H1(h1) => h1.abort(),
            Self::H2(h2) => h2.reset(::h2::Reason::INTERNAL_ERROR),
            Self::H3(h3) => h3.abort(),
            Self::Web(web) => web.inner_mut().abort(),
        }
    }

    /// Ready when more of the response may be written.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match self {
            Self::H1(h1) => h1.reader.wire().poll_room(cx).map_err(|e| Gone(e.to_string())),
            Self::H2(h2) => h2.poll_room(cx),
            Self::H3(h3) => h3.poll_room(cx),
            Self::Web(web) => web.inner_mut().poll_room(cx),
        }
    }

    /// Sends what is buffered.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match self {
            Self::H1(h1) => h1.reader.wire().poll_drain(cx).map_err(|e| Gone(e.to_string())),
            // The connection's own task sends.
            Self::H2(_) => Poll::Ready(Ok(())),
            Self::H3(h3) => h3.poll_drain(cx),
            Self::Web(web) => web.inner_mut().poll_drain(cx),
        }
    }

    /// From now on the connection ends after this response. HTTP/2 connections see to that themselves.
    pub fn close_after(&mut self) {
        match self {
            Self::H1(h1) => h1.close_after(),
            Self::Web(web) => web.inner_mut().close_after(),
            Self::H2(_) | Self::H3(_) => {}
        }
    }

    /// What the connection knows of the request, whatever is spoken on top of HTTP.
    pub fn into_plain(self) -> Self {
        match self {
            Self::Web(web) => web.into_inner(),
            plain => plain,
        }
    }

    /// Bytes of the response's body sent so far.
    pub fn bytes_sent(&self) -> u64 {
        match self {
            Self::H1(h1) => h1.sent,
            Self::H2(h2) => h2.sent,
            Self::H3(h3) => h3.sent,
            Self::Web(web) => web.inner().bytes_sent(),
        }
    }

    /// True once the head of the final response is out.
    pub fn responded(&self) -> bool {
        match self {
            Self::H1(h1) => h1.responded,
            Self::H2(h2) => h2.responded,
            Self::H3(h3) => h3.responded,
            Self::Web(web) => web.inner().responded(),
        }
    }
}

/// A backend's agreement to an upgrade as HTTP/2 and HTTP/3 have it (RFC 8441 section 5).
fn agreement(mut head: response::Parts) -> response::Parts {
    const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
    head.status = StatusCode::OK;
    for name in [CONNECTION, UPGRADE, ACCEPT] {
        head.headers.remove(name);
    }
    head
}
