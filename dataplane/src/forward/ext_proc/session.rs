//! One processor's stream for one request.
//!
//! Owns what has been shown and is not answered, the clock of the next answer, and what becomes of a message if there is
//! none. It reads a body only when there is room for it here, and never holds more of one than [`MAX_HELD`].

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use prost_types::Struct;
use prost_types::value::Kind;

use super::super::downstream::Chunk;
use super::super::limits::{Deadline, Stop};
use super::super::reply::Reply;
use super::super::{Conn, grpc};
use super::bounds::Bounds;
use super::messages::{answered, piece, too_long};
use super::side::{Expected, Side};
use super::stream::{Ended, Stream};
use crate::filter::ext_proc::proto::{self, Answer, CommonResponse, Shown};
use crate::filter::ext_proc::{self, BodyMode, Processor};

/// Bytes of a body that are held for a processor that wants to see it as a whole.
pub(super) const MAX_HELD: usize = 1024 * 1024;
/// Pieces of a body that may wait for their answers.
const WINDOW: usize = 8;
/// Under which a processor finds attributes.
const FILTER: &str = "envoy.filters.http.ext_proc";

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::forward) enum Way {
    /// To the backend.
    Request,
    /// To the client.
    Response,
}

/// Where a body comes from.
pub(in crate::forward) type Raw<'r> =
    &'r mut dyn FnMut(&mut Context<'_>) -> Poll<Result<Option<Chunk>, Stop>>;

enum Link {
    /// Nothing has been shown.
    New,
    Open(Box<Stream>),
    /// There is nobody to be asked any more.
    Over,
}

/// One processor and one request.
pub(super) struct Session {
    pub(super) processor: Arc<Processor>,
    link: Link,
    request: Side,
    response: Side,
    /// Attributes that go with the response's head.
    pub(super) attributes: Option<Struct>,
    /// What of the request's metadata the processor is shown.
    pub(super) context: Option<proto::Metadata>,
    /// What the processor has said of the request, and nobody has taken yet: by namespace.
    pub(super) said: Vec<(String, Struct)>,
    first: bool,
    /// Of the next answer.
    timer: Option<Deadline>,
    /// Of the call as a whole.
    bounds: Bounds,
}

impl Session {
    pub(super) fn new(processor: &Arc<Processor>) -> Self {
        Self {
            request: Side::new(processor.request.as_ref()),
            response: Side::new(processor.response.as_ref()),
            processor: Arc::clone(processor),
            link: Link::New,
            attributes: None,
            context: None,
            said: Vec::new(),
            first: true,
            timer: None,
            bounds: Bounds::default(),
        }
    }

    pub(super) fn side(&self, way: Way) -> &Side {
        match way {
            Way::Request => &self.request,
            Way::Response => &self.response,
        }
    }

    pub(super) fn side_mut(&mut self, way: Way) -> &mut Side {
        match way {
            Way::Request => &mut self.request,
            Way::Response => &mut self.response,
        }
    }

    /// Connects, if there is something to be shown and that has not been done.
    pub(super) async fn open(&mut self, conn: &Conn, way: Way) -> Result<(), Stop> {
        if !matches!(self.link, Link::New) || !self.side(way).shown {
            return Ok(());
        }
        let whole = self.processor.lasts.map(Deadline::after);
        match Stream::connect(&self.processor, conn).await {
            Ok(stream) => {
                self.bounds = Bounds::new(whole, stream.idle());
                self.link = Link::Open(Box::new(stream));
                Ok(())
            }
            Err(failed) => self.fail(&failed.to_string(), failed.is_late()),
        }
    }

    /// Shows a head. `empty`: no body follows it.
    pub(super) fn show_head(
        &mut self,
        way: Way,
        headers: proto::HeaderMap,
        empty: bool,
        attributes: Option<Struct>,
    ) -> Result<(), Stop> {
        let watches = self.processor.only_watches;
        let side = self.side_mut(way);
        side.begin(empty, watches);
        if !side.shown || matches!(self.link, Link::Over) {
            return Ok(());
        }
        let head = proto::HttpHeaders {
            headers: Some(headers),
            end_of_stream: empty,
        };
        let shown = match way {
            Way::Request => Shown::RequestHeaders(head),
            Way::Response => Shown::ResponseHeaders(head),
        };
        self.send(way, shown, attributes, Some(Expected::Head))
    }

    fn send(
        &mut self,
        way: Way,
        shown: Shown,
        attributes: Option<Struct>,
        expected: Option<Expected>,
    ) -> Result<(), Stop> {
        let Link::Open(stream) = &mut self.link else {
            return Ok(());
        };
        let protocol_config = std::mem::take(&mut self.first).then(|| proto::ProtocolConfiguration {
            request_body_mode: self.request.mode.number(),
            response_body_mode: self.response.mode.number(),
        });
        let message = proto::ProcessingRequest {
            request: Some(shown),
            metadata_context: self.context.clone(),
            attributes: attributes.map(|of| (FILTER.to_owned(), of)).into_iter().collect(),
            observability_mode: self.processor.only_watches,
            protocol_config,
        };
        let sent = stream.up().push(grpc::frame(&message));
        self.bounds.heard();
        if let Some(expected) = expected.filter(|_| !self.processor.only_watches) {
            // Who answers in his own time is bounded by the request's own timeouts.
            let side = self.side_mut(way);
            let timed = side.mode != BodyMode::FullDuplex || side.empty;
            side.expected.push_back(expected);
            if timed && self.timer.is_none() {
                self.timer = Some(Deadline::after(self.processor.timeout));
            }
        }
        match sent {
            Ok(()) => Ok(()),
            Err(failure) => self.fail(&failure.to_string(), false),
        }
    }

    /// What was answered to a head; `None`: nothing will be.
    pub(super) fn poll_head(
        &mut self,
        way: Way,
        cx: &mut Context<'_>,
        raw: Raw<'_>,
    ) -> Poll<Result<Option<CommonResponse>, Stop>> {
        loop {
            let side = self.side_mut(way);
            if let Some(answer) = side.head.take() {
                return Poll::Ready(Ok(Some(answer)));
            }
            if !side.expects_head() {
                return Poll::Ready(Ok(None));
            }
            let feeds = side.mode == BodyMode::FullDuplex && !side.input_ended;
            if self.poll_answers(cx)? {
                continue;
            }
            if feeds
                && self.has_room(way, cx)
                && let Poll::Ready(chunk) = raw(cx)
            {
                self.feed(way, chunk?)?;
                continue;
            }
            if self.is_late(cx)? {
                continue;
            }
            return Poll::Pending;
        }
    }

    /// What was answered to a body that is shown as a whole; `None`: nothing will be.
    pub(super) fn poll_whole(
        &mut self,
        way: Way,
        cx: &mut Context<'_>,
        raw: Raw<'_>,
    ) -> Poll<Result<Option<CommonResponse>, Stop>> {
        loop {
            let side = self.side_mut(way);
            if let Some(answer) = side.whole.take() {
                return Poll::Ready(Ok(Some(answer)));
            }
            if !side.mode.holds() || side.input_ended && side.expected.is_empty() {
                return Poll::Ready(Ok(None));
            }
            if side.expected.is_empty() {
                let Poll::Ready(chunk) = raw(cx) else {
                    return Poll::Pending;
                };
                self.hold(way, chunk?)?;
                continue;
            }
            if self.poll_answers(cx)? || self.is_late(cx)? {
                continue;
            }
            return Poll::Pending;
        }
    }

    /// Takes a piece of a body that is shown as a whole.
    fn hold(&mut self, way: Way, chunk: Option<Chunk>) -> Result<(), Stop> {
        let side = self.side_mut(way);
        let last = match chunk {
            Some(Chunk::Data(data)) => {
                side.held.extend_from_slice(&data);
                if side.held.len() <= MAX_HELD {
                    return Ok(());
                }
                if side.mode == BodyMode::Buffered {
                    return Err(Stop::Answer(too_long(way).into()));
                }
                false
            }
            Some(Chunk::Trailers(trailers)) => {
                side.input_ended = true;
                let last = !side.trailers;
                side.held_trailers = Some(trailers);
                last
            }
            None => {
                side.input_ended = true;
                true
            }
        };
        let body = side.held.split().freeze();
        let expected = Expected::Whole(body.clone());
        self.send(way, piece(way, body, last), None, Some(expected))
    }

    /// The next piece that goes on.
    pub(super) fn poll_chunk(
        &mut self,
        way: Way,
        cx: &mut Context<'_>,
        raw: Raw<'_>,
    ) -> Poll<Result<Option<Chunk>, Stop>> {
        loop {
            let side = self.side_mut(way);
            if let Some(chunk) = side.output.pop_front() {
                return Poll::Ready(Ok(Some(chunk)));
            }
            if side.is_done() {
                return Poll::Ready(Ok(None));
            }
            if side.passes() && !side.discards {
                return raw(cx).map_ok(|chunk| {
                    side.input_ended |= !matches!(chunk, Some(Chunk::Data(_)));
                    chunk
                });
            }
            let discards = side.discards;
            if !discards && self.poll_answers(cx)? {
                continue;
            }
            let side = self.side_mut(way);
            if !side.input_ended
                && (discards || self.has_room(way, cx))
                && let Poll::Ready(chunk) = raw(cx)
            {
                self.feed(way, chunk?)?;
                continue;
            }
            if self.is_late(cx)? {
                continue;
            }
            return Poll::Pending;
        }
    }

    /// True if a further piece may be shown.
    fn has_room(&mut self, way: Way, cx: &mut Context<'_>) -> bool {
        if self.side(way).expected.len() >= WINDOW {
            return false;
        }
        let Link::Open(stream) = &mut self.link else {
            return true;
        };
        // What fails here is told by the answers.
        let has_room = stream.up().poll_room(cx).is_ready();
        if self.processor.only_watches {
            // Who only watches has no answer to be late with, but may not read.
            if has_room {
                self.timer = None;
            } else if self.timer.is_none() {
                self.timer = Some(Deadline::after(self.processor.timeout));
            }
        }
        has_room
    }

    /// Takes a piece of a body that goes by in pieces.
    fn feed(&mut self, way: Way, chunk: Option<Chunk>) -> Result<(), Stop> {
        let watches = self.processor.only_watches;
        let is_open = matches!(self.link, Link::Open(_));
        let side = self.side_mut(way);
        side.input_ended = !matches!(chunk, Some(Chunk::Data(_)));
        if side.discards {
            return Ok(());
        }
        if watches || !is_open || side.mode == BodyMode::None {
            side.output.extend(chunk.clone());
            if !is_open || side.mode == BodyMode::None {
                return Ok(());
            }
        }
        let duplex = side.mode == BodyMode::FullDuplex;
        side.lost |= duplex && !watches;
        match chunk {
            Some(Chunk::Data(data)) => {
                let expected = (!duplex).then(|| Expected::Piece(data.clone()));
                self.send(way, piece(way, data, false), None, expected)
            }
            Some(Chunk::Trailers(trailers)) if side.trailers => self.show_trailers(way, trailers),
            Some(Chunk::Trailers(trailers)) => {
                side.held_trailers = Some(trailers).filter(|_| !watches);
                side.settle();
                Ok(())
            }
            None => {
                let expected = (!duplex).then(|| Expected::Piece(Bytes::new()));
                self.send(way, piece(way, Bytes::new(), true), None, expected)
            }
        }
    }

    fn show_trailers(&mut self, way: Way, trailers: HeaderMap) -> Result<(), Stop> {
        let shown = proto::HttpTrailers {
            trailers: Some(ext_proc::headers(&trailers)),
        };
        let shown = match way {
            Way::Request => Shown::RequestTrailers(shown),
            Way::Response => Shown::ResponseTrailers(shown),
        };
        self.send(way, shown, None, Some(Expected::Trailers(trailers)))
    }

    /// Takes what has been answered; says whether anything has changed.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        let Link::Open(stream) = &mut self.link else {
            return Ok(false);
        };
        match stream.poll_message(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(_)) if self.processor.only_watches => {
                self.bounds.heard();
                Ok(true)
            }
            Poll::Ready(Ok(message)) => {
                self.bounds.heard();
                if let Err(reason) = self.take(message)? {
                    self.fail(reason, false)?;
                }
                Ok(true)
            }
            Poll::Ready(Err(Ended::Well)) if self.may_pass_on() => {
                self.pass_on();
                Ok(true)
            }
            Poll::Ready(Err(Ended::Well)) => self.fail("closed too early", false).map(|()| true),
            Poll::Ready(Err(Ended::Failed(reason))) => self.fail(&reason, false).map(|()| true),
        }
    }

    /// Does what an answer asks for. The inner error says what is wrong with it.
    fn take(&mut self, message: proto::ProcessingResponse) -> Result<Result<(), &'static str>, Stop> {
        if let Some(said) = message.dynamic_metadata {
            self.note(said);
        }
        let overrides = message
            .mode_override
            .filter(|_| self.processor.allow_mode_override);
        let (way, taken) = match message.response {
            // Asks for more time, which the configuration does not grant.
            None => return Ok(Ok(())),
            Some(Answer::Immediate(response)) => return Err(Stop::Answer(answered(response).into())),
            Some(Answer::RequestHeaders(answer)) => {
                let taken = self.request.take_head(answer.response.unwrap_or_default());
                if let Some(mode) = overrides.filter(|_| taken.is_ok()) {
                    self.request
                        .switch(mode.request_body_mode, mode.request_trailer_mode);
                    self.response
                        .switch(mode.response_body_mode, mode.response_trailer_mode);
                    self.response.shown &= mode.response_header_mode != 2;
                }
                (Way::Request, taken)
            }
            Some(Answer::ResponseHeaders(answer)) => {
                let taken = self.response.take_head(answer.response.unwrap_or_default());
                if let Some(mode) = overrides.filter(|_| taken.is_ok()) {
                    self.response
                        .switch(mode.response_body_mode, mode.response_trailer_mode);
                }
                (Way::Response, taken)
            }
            Some(Answer::RequestBody(answer)) => {
                let taken = self.request.take_body(answer.response.unwrap_or_default());
                (Way::Request, taken)
            }
            Some(Answer::ResponseBody(answer)) => {
                let taken = self.response.take_body(answer.response.unwrap_or_default());
                (Way::Response, taken)
            }
            Some(Answer::RequestTrailers(answer)) => (Way::Request, self.request.take_trailers(&answer)),
            Some(Answer::ResponseTrailers(answer)) => (Way::Response, self.response.take_trailers(&answer)),
        };
        let waits = !self.request.expected.is_empty() || !self.response.expected.is_empty();
        match &mut self.timer {
            Some(timer) if waits => timer.reset(self.processor.timeout),
            _ => self.timer = None,
        }
        // A body that was shown as a whole has been answered: now its trailers.
        let side = self.side_mut(way);
        if side.trailers && side.expected.is_empty() && side.whole.is_some() {
            if let Some(trailers) = side.held_trailers.take() {
                self.show_trailers(way, trailers)?;
            }
        } else {
            side.settle();
        }
        Ok(taken)
    }

    /// Remembers what the processor says of the request where it may.
    fn note(&mut self, said: Struct) {
        for (namespace, value) in said.fields {
            if let Some(Kind::StructValue(fields)) = value.kind
                && self.processor.writes.iter().any(|may| **may == *namespace)
            {
                self.said.push((namespace, fields));
            }
        }
    }

    /// Fails if the answer has been waited for too long; true if that changes anything.
    fn is_late(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        if self.bounds.have_passed(cx) {
            return self.fail("the call has lasted too long", false).map(|()| true);
        }
        if !self.timer.as_mut().is_some_and(|timer| timer.has_passed(cx)) {
            return Ok(false);
        }
        self.timer = None;
        self.fail("timeout", true).map(|()| true)
    }

    /// True if nothing has been given away that only the processor could give back.
    fn may_pass_on(&self) -> bool {
        [&self.request, &self.response]
            .iter()
            .all(|side| !side.lost || side.output_ended)
    }

    /// From here on everything passes as it is.
    fn pass_on(&mut self) {
        self.link = Link::Over;
        self.timer = None;
        self.bounds = Bounds::default();
        self.request.pass_on();
        self.response.pass_on();
    }

    fn fail(&mut self, reason: &str, late: bool) -> Result<(), Stop> {
        let open = (self.processor.fail_open && self.may_pass_on()) || self.processor.only_watches;
        tracing::debug!(reason, open, "external processing failed");
        if open {
            self.pass_on();
            return Ok(());
        }
        self.link = Link::Over;
        let fitting = if late {
            StatusCode::GATEWAY_TIMEOUT
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        let status = self.processor.status_on_error.unwrap_or(fitting);
        let details = if late {
            "ext_proc_timeout"
        } else {
            "ext_proc_error"
        };
        Err(Stop::Answer(Reply::error(status, "", "", details).into()))
    }
}
