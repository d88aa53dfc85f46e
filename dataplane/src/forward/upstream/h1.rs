//! A request over HTTP/1.1.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, StatusCode, Version, request, response};
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_http::RequestHeader;

use super::{BodyKind, Broken, Chunk, Downstream, Failure};
use crate::forward::encode::{self, Framing};
use crate::forward::tap::{Tap, Tapped};
use crate::wire::Wire;

/// The backend's side of one try over HTTP/1.1.
pub struct H1 {
    session: Box<HttpSession>,
    pub(super) wire: Wire,
    tap: Tap,
    framing: Framing,
    reused: bool,
    request_done: bool,
    chunked: bool,
    upgrading: bool,
    upgraded: bool,
}

impl H1 {
    pub(super) fn start(
        wire: Wire,
        reused: bool,
        mut head: request::Parts,
        body: BodyKind,
        upgrade: Option<&HeaderValue>,
    ) -> Result<Self, Failure> {
        head.version = Version::HTTP_11;
        let framing = match body {
            BodyKind::Empty => Framing::None,
            BodyKind::Length => Framing::Length,
            BodyKind::Stream => {
                head.headers.remove(CONTENT_LENGTH);
                head.headers
                    .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                Framing::Chunked
            }
        };
        if let Some(protocol) = upgrade {
            head.headers
                .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            head.headers.insert(UPGRADE, protocol.clone());
        }
        let tap = Tap::default();
        tap.begin(&[]);
        let mut session = Box::new(HttpSession::new(Box::new(Tapped {
            wire: wire.clone(),
            tap: tap.clone(),
        })));
        // The wire takes all that is written to it, so the session has nothing to wait for.
        match session
            .write_request_header(Box::new(RequestHeader::from(head)))
            .now_or_never()
        {
            Some(Ok(_)) => {}
            Some(Err(e)) => return Err(Failure::Protocol(e.to_string())),
            None => return Err(Failure::Protocol("the head was not taken".into())),
        }
        Ok(Self {
            session,
            wire,
            tap,
            framing,
            reused,
            request_done: body == BodyKind::Empty,
            chunked: false,
            upgrading: upgrade.is_some(),
            upgraded: false,
        })
    }

    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, Failure>> {
        let read = ready!(pin!(self.session.read_response()).poll(cx));
        if let Err(e) = read {
            let begun = self.tap.has_begun();
            return Poll::Ready(Err(if begun {
                Failure::Protocol(e.to_string())
            } else {
                Failure::Closed(e.to_string())
            }));
        }
        let Some(head) = self
            .session
            .resp_header()
            .map(pingora_http::ResponseHeader::as_owned_parts)
        else {
            return Poll::Ready(Err(Failure::Protocol("no response".into())));
        };
        if head.status == StatusCode::SWITCHING_PROTOCOLS && !self.upgrading {
            return Poll::Ready(Err(Failure::Protocol("switched protocols unasked".into())));
        }
        if !head.status.is_informational() {
            self.chunked = head.headers.contains_key(TRANSFER_ENCODING);
            self.tap.head_done(self.chunked);
        }
        Poll::Ready(Ok(head))
    }

    pub(super) fn body_is_empty(&mut self) -> bool {
        self.session.is_body_done()
    }

    pub(super) fn poll_forward(
        &mut self,
        down: &mut Downstream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Broken>> {
        if !self.session.is_body_done() {
            match ready!(pin!(self.session.read_body_ref()).poll(cx)) {
                Ok(Some(data)) => {
                    return Poll::Ready(down.push_slice(data).map(|()| false).map_err(Broken::Downstream));
                }
                Ok(None) => {}
                Err(e) => return Poll::Ready(Err(Broken::Upstream(Failure::Closed(e.to_string())))),
            }
        }
        let trailers = if self.chunked { self.tap.trailers() } else { None };
        Poll::Ready(down.finish(trailers).map(|()| true).map_err(Broken::Downstream))
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Failure>> {
        if !self.session.is_body_done() {
            match ready!(pin!(self.session.read_body_bytes()).poll(cx)) {
                Ok(Some(data)) => return Poll::Ready(Ok(Some(Chunk::Data(data)))),
                Ok(None) => {}
                Err(e) => return Poll::Ready(Err(Failure::Closed(e.to_string()))),
            }
        }
        let trailers = if std::mem::take(&mut self.chunked) {
            self.tap.trailers()
        } else {
            None
        };
        Poll::Ready(Ok(trailers.map(Chunk::Trailers)))
    }

    pub(super) fn push(&mut self, data: &Bytes) {
        self.wire.put(|out| encode::body(out, self.framing, data));
    }

    pub(super) fn finish(&mut self, trailers: Option<&HeaderMap>) {
        self.request_done = true;
        self.wire.put(|out| encode::end(out, self.framing, trailers));
    }

    pub(super) fn switch_protocols(&mut self) -> bool {
        self.tap.head_done(false);
        self.upgraded = true;
        self.framing = Framing::UntilClose;
        self.session.was_upgraded()
    }

    pub(super) fn may_be_stale(&self) -> bool {
        self.reused && !self.tap.has_begun()
    }

    pub(super) fn into_wire(mut self) -> Option<Wire> {
        if !self.request_done || self.upgraded {
            return None;
        }
        self.session.respect_keepalive();
        if !self.session.will_keepalive() {
            return None;
        }
        // Says no if the body has not ended or if more has come than the response.
        self.session.reuse().now_or_never().flatten().map(|_| self.wire)
    }
}
