//! A request over HTTP/1.1.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, Method, StatusCode, request, response};
use tokio::io::AsyncWrite;

use super::{BodyKind, Broken, Chunk, Downstream, Failure};
use crate::forward::encode::{self, Framing};
use crate::forward::message::spelling::Spelling;
use crate::forward::message::{Body, NoHead, Reader, head};
use crate::wire::Wire;

/// The backend's side of one try over HTTP/1.1.
pub struct H1 {
    reader: Reader,
    framing: Framing,
    reused: bool,
    request_done: bool,
    to_head: bool,
    /// True once some of the response has come.
    begun: bool,
    upgrading: bool,
    /// CONNECT: a response that agrees has no body (RFC 9110 section 9.3.6).
    connecting: bool,
    /// The backend is sent no request, and counts as having agreed to a tunnel.
    raw: bool,
    keepalive: bool,
    /// A tunnel's client has ended its side, and ours is to end as well.
    closing: bool,
    /// The case of names is kept, as the client's was.
    spelled: bool,
}

impl H1 {
    pub(super) fn start(
        wire: Wire,
        reused: bool,
        head: &request::Parts,
        body: BodyKind,
        upgrade: Option<&HeaderValue>,
    ) -> Self {
        let framing = match body {
            BodyKind::Empty => Framing::None,
            BodyKind::Length => Framing::Length,
            BodyKind::Stream => Framing::Chunked,
        };
        let own = encode::Own {
            chunked: body == BodyKind::Stream,
            no_content: super::lacks_length(head, body),
            upgrade,
        };
        wire.put(|out| encode::request_head(out, head, own));
        Self {
            reader: Reader::new(wire),
            framing,
            reused,
            request_done: body == BodyKind::Empty,
            to_head: head.method == Method::HEAD,
            begun: false,
            upgrading: upgrade.is_some(),
            connecting: head.method == Method::CONNECT,
            raw: false,
            spelled: Spelling::of(&head.extensions).is_some(),
            keepalive: false,
            closing: false,
        }
    }

    pub(super) fn tunnel(wire: Wire) -> Self {
        Self {
            reader: Reader::new(wire),
            framing: Framing::None,
            reused: false,
            request_done: true,
            to_head: false,
            begun: false,
            upgrading: false,
            connecting: true,
            raw: true,
            spelled: false,
            keepalive: false,
            closing: false,
        }
    }

    pub(super) fn wire(&self) -> &Wire {
        self.reader.wire()
    }

    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, Failure>> {
        if self.raw {
            self.begun = true;
            return Poll::Ready(Ok(http::Response::new(()).into_parts().0));
        }
        let (to_head, spelled) = (self.to_head, self.spelled);
        let parse = |bytes: &[u8]| head::response(bytes, to_head, spelled);
        let read = ready!(self.reader.poll_head(cx, parse));
        let mut response = match read {
            Ok(response) => response,
            Err(e @ NoHead::Closed) if !self.begun => {
                return Poll::Ready(Err(Failure::Closed(e.to_string())));
            }
            Err(e) => {
                self.begun = true;
                return Poll::Ready(Err(Failure::Protocol(e.to_string())));
            }
        };
        self.begun = true;
        let status = response.parts.status;
        if status == StatusCode::SWITCHING_PROTOCOLS && !self.upgrading {
            return Poll::Ready(Err(Failure::Protocol("switched protocols unasked".into())));
        }
        if self.connecting && status.is_success() {
            response.body = Body::Done;
            response.parts.headers.remove(CONTENT_LENGTH);
        }
        self.keepalive = response.keepalive && !status.is_informational();
        self.reader.begin_body(response.body);
        Poll::Ready(Ok(response.parts))
    }

    pub(super) fn body_is_empty(&self) -> bool {
        self.reader.body_is_done()
    }

    pub(super) fn poll_forward(
        &mut self,
        down: &mut Downstream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Broken>> {
        let mut passed = Ok(());
        let read = ready!(self.reader.poll_body(cx, |data| {
            if passed.is_ok() {
                passed = down.push_slice(data);
            }
        }));
        Poll::Ready(match (passed, read) {
            (Err(gone), _) => Err(Broken::Downstream(gone)),
            (_, Err(e)) => Err(Broken::Upstream(Failure::Closed(e.to_string()))),
            (_, Ok(true)) => Ok(false),
            (_, Ok(false)) => {
                let trailers = self.reader.take_trailers();
                down.finish(trailers).map(|()| true).map_err(Broken::Downstream)
            }
        })
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Failure>> {
        let mut data = BytesMut::new();
        let read = ready!(self.reader.poll_body(cx, |piece| data.extend_from_slice(piece)));
        Poll::Ready(match read {
            Ok(true) => Ok(Some(Chunk::Data(data.freeze()))),
            Ok(false) => Ok(self.reader.take_trailers().map(Chunk::Trailers)),
            Err(e) => Err(Failure::Closed(e.to_string())),
        })
    }

    pub(super) fn push(&mut self, data: &Bytes) {
        encode::send(self.wire(), self.framing, data);
    }

    pub(super) fn finish(&mut self, trailers: Option<&HeaderMap>) {
        self.request_done = true;
        self.closing = self.framing == Framing::UntilClose;
        self.wire().put(|out| encode::end(out, self.framing, trailers));
    }

    /// Sends what is buffered, and then the end of a tunnel's side.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let drained = ready!(self.wire().poll_drain(cx));
        drained.map_err(|e| Failure::Closed(e.to_string()))?;
        if self.closing {
            let mut wire = self.wire().clone();
            // Fails where the backend has gone; what it has said may still be read.
            let _ = ready!(Pin::new(&mut wire).poll_shutdown(cx));
            self.closing = false;
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn switch_protocols(&mut self) -> bool {
        self.reader.begin_body(Body::UntilClose);
        self.keepalive = false;
        self.framing = Framing::UntilClose;
        true
    }

    pub(super) fn may_be_stale(&self) -> bool {
        self.reused && !self.begun && !self.reader.has_rest()
    }

    /// The connection, if both messages have ended and it may be used again. More than the response must not have come.
    pub(super) fn into_wire(self) -> Option<Wire> {
        let reusable =
            self.request_done && self.keepalive && self.reader.body_is_done() && !self.reader.has_rest();
        reusable.then(|| self.reader.into_wire())
    }
}
