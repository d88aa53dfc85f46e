//! A request over HTTP/2.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use http::header::{CONTENT_LENGTH, HOST, HeaderValue, TE};
use http::{HeaderMap, Method, Uri, Version, request, response};
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_http::RequestHeader;

use super::{BodyKind, Broken, Chunk, Downstream, Failure};
use crate::forward::downstream::poll_capacity;

/// The backend's side of one try over HTTP/2.
pub struct H2 {
    session: Box<Http2Session>,
    body: Option<SendStream<Bytes>>,
    local: SocketAddr,
    reused: bool,
    responded: bool,
    data_done: bool,
    /// CONNECT: the stream stays open for what follows an agreement.
    connecting: bool,
}

impl H2 {
    pub(super) fn start(
        mut session: Box<Http2Session>,
        local: SocketAddr,
        reused: bool,
        head: &request::Parts,
        body: BodyKind,
        tls: bool,
    ) -> Result<Self, Failure> {
        let mut head = head.clone();
        if super::lacks_length(&head, body) {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let authority = head
            .headers
            .remove(HOST)
            .unwrap_or_else(|| HeaderValue::from_static(""));
        head.version = Version::HTTP_2;
        let connecting = head.method == Method::CONNECT;
        head.uri = if connecting {
            destination(&authority)?
        } else {
            absolute(&head.uri, &authority, tls)?
        };
        let ends = body == BodyKind::Empty && !connecting;
        if head.headers.get(TE).is_some_and(|te| te != "trailers") {
            head.headers.remove(TE);
        }
        session
            .write_request_header(Box::new(RequestHeader::from(head)), ends)
            .map_err(|e| Failure::Protocol(e.to_string()))?;
        let body = if ends {
            None
        } else {
            session.take_request_body_writer()
        };
        Ok(Self {
            session,
            body,
            local,
            reused,
            responded: false,
            data_done: false,
            connecting,
        })
    }

    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, Failure>> {
        ready!(self.session.poll_read_response_header(cx)).map_err(|e| self.failure(&e))?;
        self.responded = true;
        match self.session.response_header() {
            Some(head) => {
                let mut head = head.as_owned_parts();
                if self.connecting && head.status.is_success() {
                    // It means nothing there (RFC 9110 section 9.3.6).
                    head.headers.remove(CONTENT_LENGTH);
                }
                Poll::Ready(Ok(head))
            }
            None => Poll::Ready(Err(Failure::Protocol("no response".into()))),
        }
    }

    pub(super) fn body_is_empty(&self) -> bool {
        self.session.response_finished()
    }

    pub(super) fn poll_forward(
        &mut self,
        down: &mut Downstream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Broken>> {
        let passed = match ready!(self.poll_body(cx)) {
            Ok(Some(Chunk::Data(data))) => down.push(data).map(|()| false),
            Ok(Some(Chunk::Trailers(trailers))) => down.finish(Some(trailers)).map(|()| true),
            Ok(None) => down.finish(None).map(|()| true),
            Err(failure) => return Poll::Ready(Err(Broken::Upstream(failure))),
        };
        Poll::Ready(passed.map_err(Broken::Downstream))
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Failure>> {
        if !self.data_done {
            match ready!(self.session.poll_read_response_body(cx)) {
                Some(Ok(data)) => return Poll::Ready(Ok(Some(Chunk::Data(data)))),
                Some(Err(e)) => return Poll::Ready(Err(self.failure(&e))),
                None => self.data_done = true,
            }
        }
        let trailers = ready!(pin!(self.session.read_trailers()).poll(cx));
        Poll::Ready(
            trailers
                .map(|t| t.map(Chunk::Trailers))
                .map_err(|e| Failure::Closed(e.to_string())),
        )
    }

    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self.body.as_mut() {
            Some(body) => poll_capacity(body, cx).map_err(|e| Failure::Closed(e.to_string())),
            None => Poll::Ready(Ok(())),
        }
    }

    pub(super) fn push(&mut self, data: Bytes) -> Result<(), Failure> {
        match self.body.as_mut() {
            Some(body) if !data.is_empty() => body
                .send_data(data, false)
                .map_err(|e| Failure::Closed(e.to_string())),
            _ => Ok(()),
        }
    }

    pub(super) fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), Failure> {
        let Some(body) = self.body.as_mut() else {
            return Ok(());
        };
        match trailers {
            Some(trailers) => body.send_trailers(trailers),
            None => body.send_data(Bytes::new(), true),
        }
        .map_err(|e| Failure::Closed(e.to_string()))
    }

    pub(super) fn switch_protocols(&mut self) -> bool {
        self.connecting
    }

    pub(super) fn may_be_stale(&self) -> bool {
        self.reused && !self.responded
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    fn failure(&self, error: &h2::Error) -> Failure {
        let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
        if refused || (error.is_go_away() && !self.responded && error.reason() == Some(h2::Reason::NO_ERROR))
        {
            return Failure::Refused(error.to_string());
        }
        Failure::Closed(error.to_string())
    }
}

/// Where a tunnel is to lead: there is no other pseudo-header field (RFC 9113 section 8.5).
fn destination(authority: &HeaderValue) -> Result<Uri, Failure> {
    Uri::try_from(authority.as_bytes())
        .map_err(|_| Failure::Protocol("the host cannot stand in :authority".into()))
}

/// Pseudo-header fields come from an absolute URI.
fn absolute(target: &Uri, authority: &HeaderValue, tls: bool) -> Result<Uri, Failure> {
    let path = target.path_and_query().map_or("/", |p| p.as_str());
    Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(authority.as_bytes())
        .path_and_query(path)
        .build()
        .map_err(|_| Failure::Protocol("the host cannot stand in :authority".into()))
}
