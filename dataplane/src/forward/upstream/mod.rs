//! The backend's side of one try: the request that goes out, the response that comes in.
//!
//! Owns framing towards the backend, HTTP/1.1 and HTTP/2, and gives connections back to the pool. It never decides
//! what is sent or whether it is sent again.

mod h1;
mod h2;

use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, request, response};

use super::downstream::{Chunk, Downstream, Gone};
use crate::upstream::{Connected, Key, Pool};

/// What body a request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// None.
    Empty,
    /// As long as Content-Length says.
    Length,
    /// Of unknown length.
    Stream,
}

/// Why a try failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The connection ended, or the stream was reset.
    #[error("connection termination: {0}")]
    Closed(String),
    /// The backend said that it has not looked at the request.
    #[error("request refused: {0}")]
    Refused(String),
    /// The backend does not speak HTTP as it should.
    #[error("protocol error: {0}")]
    Protocol(String),
}

/// Why passing on a piece of the response failed.
pub enum Broken {
    /// On the backend's side.
    Upstream(Failure),
    /// On the client's side.
    Downstream(Gone),
}

/// The backend's side of one try.
pub enum Upstream {
    /// HTTP/1.1.
    H1(h1::H1),
    /// A stream of an HTTP/2 connection.
    H2(h2::H2),
}

impl Upstream {
    /// Sends the head of a request. `head` has an origin-form target, a Host header, and no hop-by-hop headers;
    /// `upgrade` is the protocol that an HTTP/1.1 request wants to go on with.
    ///
    /// # Errors
    /// [`Failure`] if the connection does not take it.
    pub fn start(
        connected: Connected,
        head: &request::Parts,
        body: BodyKind,
        upgrade: Option<&http::HeaderValue>,
        tls: bool,
    ) -> Result<Self, Failure> {
        Ok(match connected {
            Connected::H1 { wire, reused } => Self::H1(h1::H1::start(wire, reused, head, body, upgrade)),
            Connected::H2 {
                session,
                local,
                reused,
            } => Self::H2(h2::H2::start(session, local, reused, head, body, tls)?),
        })
    }

    /// A tunnel to the backend, which is told nothing: as if it had agreed to one.
    ///
    /// # Errors
    /// [`Failure`] if the connection is one of HTTP/2.
    pub fn tunnel(connected: Connected) -> Result<Self, Failure> {
        match connected {
            Connected::H1 { wire, .. } => Ok(Self::H1(h1::H1::tunnel(wire))),
            Connected::H2 { .. } => Err(Failure::Protocol("HTTP/2 carries no raw bytes".into())),
        }
    }

    /// The next head that the backend sends: informational ones, then the final one.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, Failure>> {
        match self {
            Self::H1(h1) => h1.poll_head(cx),
            Self::H2(h2) => h2.poll_head(cx),
        }
    }

    /// True if the response has no body. To be asked once its head has come.
    pub fn body_is_empty(&self) -> bool {
        match self {
            Self::H1(h1) => h1.body_is_empty(),
            Self::H2(h2) => h2.body_is_empty(),
        }
    }

    /// Passes the next piece of the response's body on to the client. Ready with `true` once it has ended, and the
    /// response with it.
    pub fn poll_forward(
        &mut self,
        down: &mut Downstream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Broken>> {
        match self {
            Self::H1(h1) => h1.poll_forward(down, cx),
            Self::H2(h2) => h2.poll_forward(down, cx),
        }
    }

    /// The next piece of the response's body.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Failure>> {
        match self {
            Self::H1(h1) => h1.poll_body(cx),
            Self::H2(h2) => h2.poll_body(cx),
        }
    }

    /// Ready when more of the request may be sent.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Self::H1(h1) => h1
                .wire()
                .poll_room(cx)
                .map_err(|e| Failure::Closed(e.to_string())),
            Self::H2(h2) => h2.poll_room(cx),
        }
    }

    /// Sends what is buffered.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Self::H1(h1) => h1.poll_drain(cx),
            // The connection's own task sends.
            Self::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Sends a piece of the request's body.
    ///
    /// # Errors
    /// [`Failure`] if the stream does not take it.
    pub fn push(&mut self, data: Bytes) -> Result<(), Failure> {
        match self {
            Self::H1(h1) => {
                h1.push(&data);
                Ok(())
            }
            Self::H2(h2) => h2.push(data),
        }
    }

    /// Ends the request.
    ///
    /// # Errors
    /// [`Failure`] if the stream does not take it.
    pub fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), Failure> {
        match self {
            Self::H1(h1) => {
                h1.finish(trailers.as_ref());
                Ok(())
            }
            Self::H2(h2) => h2.finish(trailers),
        }
    }

    /// After a response with status 101, or one that agrees to CONNECT: what follows is raw bytes. False if there is no such thing here.
    pub fn switch_protocols(&mut self) -> bool {
        match self {
            Self::H1(h1) => h1.switch_protocols(),
            Self::H2(h2) => h2.switch_protocols(),
        }
    }

    /// True if the connection had served requests before and nothing of this response has come: the backend may have
    /// closed it before the request arrived.
    pub fn may_be_stale(&self) -> bool {
        match self {
            Self::H1(h1) => h1.may_be_stale(),
            Self::H2(h2) => h2.may_be_stale(),
        }
    }

    /// The version of HTTP that the backend is spoken to in.
    pub fn version(&self) -> http::Version {
        match self {
            Self::H1(_) => http::Version::HTTP_11,
            Self::H2(_) => http::Version::HTTP_2,
        }
    }

    /// Our end of the connection.
    pub fn local(&self) -> SocketAddr {
        match self {
            Self::H1(h1) => h1.wire().local(),
            Self::H2(h2) => h2.local(),
        }
    }

    /// Gives the connection back, if request and response have both ended as they should.
    pub fn recycle(self, pool: &Pool, key: Key) {
        // An HTTP/2 connection has been in the pool all along.
        if let Self::H1(h1) = self
            && let Some(wire) = h1.into_wire()
        {
            pool.put_h1(key, wire);
        }
    }
}

/// True if a request without a body has to say `Content-Length: 0` (RFC 9110 section 8.6).
fn lacks_length(head: &request::Parts, body: BodyKind) -> bool {
    body == BodyKind::Empty
        && matches!(head.method, Method::POST | Method::PUT | Method::PATCH)
        && !head.headers.contains_key(CONTENT_LENGTH)
}
