//! Processors on a request's way and on its response's.
//!
//! [`Pipe`] owns the processors of one request, in the order in which they see it, and sits where its body is read; the
//! response's body goes through it on its way to the client. [`session`] is the
//! exchange with one of them over a [`stream`], [`side`] what it
//! knows of one direction. It never decides what becomes of a request that a processor has refused.

mod attributes;
mod bounds;
mod messages;
mod session;
mod side;
mod stream;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONTENT_LENGTH, HOST, HeaderValue};
use http::{HeaderMap, request, response};
use prost_types::Struct;
use prost_types::value::Kind;

use super::Conn;
use super::downstream::{Chunk, Downstream};
use super::limits::Stop;
use super::upstream::BodyKind;
use crate::filter::Facts;
use crate::filter::ext_proc::{Processor, Start, apply, headers, proto, pseudo};
use crate::filter::metadata::Metadata;
pub(super) use session::Raw;
use session::{Session, Way};

/// The processors of one request.
pub(super) struct Pipe {
    sessions: Vec<Session>,
    /// Read before there was a pipe.
    backlog: VecDeque<Chunk>,
    ended: bool,
    received: u64,
}

impl Pipe {
    /// For a request of whose body `backlog` has been read; `ended`: to its end.
    pub(super) fn new(processors: &[Arc<Processor>], backlog: VecDeque<Chunk>, ended: bool) -> Self {
        Self {
            sessions: processors.iter().map(Session::new).collect(),
            backlog,
            ended,
            received: 0,
        }
    }

    /// Bytes read from the client here.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// How many processors there are.
    pub(super) fn count(&self) -> usize {
        self.sessions.len()
    }

    fn is_empty(&self, before: usize) -> bool {
        let touched = self.sessions[..before]
            .iter()
            .rev()
            .find(|session| session.side(Way::Request).touched);
        match touched {
            Some(session) => session.side(Way::Request).length() == Some(0),
            None => self.ended && self.backlog.is_empty(),
        }
    }

    /// Connects to a processor and shows it the request's head.
    pub(super) async fn show_request(
        &mut self,
        at: usize,
        conn: &Conn,
        head: &request::Parts,
        facts: &Facts<'_>,
        metadata: &Metadata,
    ) -> Result<(), Stop> {
        let empty = self.is_empty(at);
        let Some(session) = self.sessions.get_mut(at) else {
            return Ok(());
        };
        let reads = &session.processor.reads;
        session.context = (!reads.is_empty() && !metadata.is_empty()).then(|| proto::Metadata {
            filter_metadata: metadata.shown(reads.iter().map(|name| &**name)),
        });
        session.open(conn, Way::Request).await?;
        let of = attributes::Subject { conn, head, facts };
        let processor = Arc::clone(&session.processor);
        session.attributes = processor
            .response
            .as_ref()
            .and_then(|way| of.read(&way.attributes));
        let told = processor
            .request
            .as_ref()
            .and_then(|way| of.read(&way.attributes));
        let shown = request_headers(head, facts.https);
        session.show_head(Way::Request, shown, empty, told)
    }

    /// Waits for what a processor answers to the request's head and, if it sees that as a whole, its body. Ready with
    /// `true` if the route is to be chosen anew.
    pub(super) fn poll_request_head(
        &mut self,
        at: usize,
        head: &mut request::Parts,
        down: &mut Downstream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Stop>> {
        let Self {
            sessions,
            backlog,
            ended,
            received,
        } = self;
        let (before, rest) = sessions.split_at_mut(at);
        let Some(session) = rest.first_mut() else {
            return Poll::Ready(Ok(false));
        };
        let mut first = |cx: &mut Context<'_>| client(backlog, ended, received, down, cx);
        let mut raw = |cx: &mut Context<'_>| chain(Way::Request, before, cx, &mut first);
        let answer = ready!(session.poll_head(Way::Request, cx, &mut raw))?;
        if let Some(answer) = answer {
            session.side_mut(Way::Request).reroutes |= answer.clear_route_cache;
            change(
                answer.header_mutation.as_ref(),
                &mut head.headers,
                Start::Request(&mut head.uri),
            );
        }
        let answer = ready!(session.poll_whole(Way::Request, cx, &mut raw))?;
        if let Some(answer) = answer {
            session.side_mut(Way::Request).reroutes |= answer.clear_route_cache;
            change(
                answer.header_mutation.as_ref(),
                &mut head.headers,
                Start::Request(&mut head.uri),
            );
        }
        Poll::Ready(Ok(session.side(Way::Request).reroutes))
    }

    /// Takes in what processors have said of the request since the last time.
    pub(super) fn tell(&mut self, metadata: &mut Metadata) {
        for session in &mut self.sessions {
            for (namespace, fields) in session.said.drain(..) {
                metadata.say(&namespace, fields);
            }
        }
    }

    /// What body the request has now, and its head says so.
    pub(super) fn body_kind(&self, known: BodyKind, headers: &mut HeaderMap) -> BodyKind {
        let touched = self
            .sessions
            .iter()
            .rev()
            .map(|session| session.side(Way::Request));
        let Some(side) = touched.into_iter().find(|side| side.touched) else {
            return known;
        };
        set_length(side.length(), headers);
        match side.length() {
            Some(0) => BodyKind::Empty,
            Some(_) => BodyKind::Length,
            None => BodyKind::Stream,
        }
    }

    /// The next piece for the backend.
    pub(super) fn poll_request(
        &mut self,
        down: &mut Downstream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Chunk>, Stop>> {
        let Self {
            sessions,
            backlog,
            ended,
            received,
        } = self;
        let mut first = |cx: &mut Context<'_>| client(backlog, ended, received, down, cx);
        chain(Way::Request, sessions, cx, &mut first)
    }

    /// Connects to a processor and shows it the response's head; `empty`: the backend has sent no body.
    pub(super) async fn show_response(
        &mut self,
        at: usize,
        conn: &Conn,
        head: &response::Parts,
        empty: bool,
    ) -> Result<(), Stop> {
        let later = self.sessions[at + 1..]
            .iter()
            .map(|session| session.side(Way::Response));
        let touched = later.into_iter().find(|side| side.touched);
        let empty = touched.map_or(empty, |side| side.length() == Some(0));
        let session = &mut self.sessions[at];
        session.open(conn, Way::Response).await?;
        let mut shown = headers(&head.headers);
        pseudo(&[(":status", head.status.as_str().as_bytes())], &mut shown);
        let names = session.processor.response.as_ref().map(|way| &way.attributes);
        let code = names.is_some_and(|names| names.iter().any(|name| &**name == "response.code"));
        let mut told = session.attributes.take();
        if code {
            let told = told.get_or_insert_with(Struct::default);
            attributes::put(
                told,
                "response.code",
                Kind::NumberValue(head.status.as_u16().into()),
            );
        }
        session.show_head(Way::Response, shown, empty, told)
    }

    /// As [`Self::poll_request_head`], of the response, whose body comes from there.
    pub(super) fn poll_response_head(
        &mut self,
        at: usize,
        head: &mut response::Parts,
        body: Raw<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stop>> {
        let (rest, later) = self.sessions.split_at_mut(at + 1);
        let session = &mut rest[at];
        let mut raw = |cx: &mut Context<'_>| chain(Way::Response, later, cx, body);
        if let Some(answer) = ready!(session.poll_head(Way::Response, cx, &mut raw))? {
            change(
                answer.header_mutation.as_ref(),
                &mut head.headers,
                Start::Response(&mut head.status),
            );
        }
        if let Some(answer) = ready!(session.poll_whole(Way::Response, cx, &mut raw))? {
            change(
                answer.header_mutation.as_ref(),
                &mut head.headers,
                Start::Response(&mut head.status),
            );
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the response has no body now, and its head says how long it is.
    pub(super) fn response_is_empty(&self, known: bool, headers: &mut HeaderMap) -> bool {
        let mut sides = self.sessions.iter().map(|session| session.side(Way::Response));
        let Some(side) = sides.find(|side| side.touched) else {
            return known;
        };
        set_length(side.length(), headers);
        side.length() == Some(0)
    }

    /// The next piece for the client, of a body that comes from there.
    pub(super) fn poll_response(
        &mut self,
        body: Raw<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Chunk>, Stop>> {
        chain(Way::Response, &mut self.sessions, cx, body)
    }
}

/// What comes out of a row of processors.
fn chain(
    way: Way,
    sessions: &mut [Session],
    cx: &mut Context<'_>,
    raw: Raw<'_>,
) -> Poll<Result<Option<Chunk>, Stop>> {
    let split = match way {
        Way::Request => sessions.split_last_mut(),
        Way::Response => sessions.split_first_mut(),
    };
    match split {
        None => raw(cx),
        Some((session, rest)) => session.poll_chunk(way, cx, &mut |cx| chain(way, rest, cx, raw)),
    }
}

/// What the client sends.
fn client(
    backlog: &mut VecDeque<Chunk>,
    ended: &mut bool,
    received: &mut u64,
    down: &mut Downstream,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Chunk>, Stop>> {
    if let Some(chunk) = backlog.pop_front() {
        return Poll::Ready(Ok(Some(chunk)));
    }
    if *ended {
        return Poll::Ready(Ok(None));
    }
    let chunk = ready!(down.poll_body(cx)).map_err(Stop::Client)?;
    match &chunk {
        Some(Chunk::Data(data)) => *received += data.len() as u64,
        Some(Chunk::Trailers(_)) => {}
        None => *ended = true,
    }
    Poll::Ready(Ok(chunk))
}

fn change(mutation: Option<&proto::HeaderMutation>, headers: &mut HeaderMap, start: Start<'_>) {
    if let Some(mutation) = mutation {
        apply(mutation, headers, start);
    }
}

fn set_length(length: Option<u64>, headers: &mut HeaderMap) {
    match length {
        Some(length) => drop(headers.insert(CONTENT_LENGTH, HeaderValue::from(length))),
        None => drop(headers.remove(CONTENT_LENGTH)),
    }
}

fn request_headers(head: &request::Parts, https: bool) -> proto::HeaderMap {
    let mut shown = headers(&head.headers);
    shown.headers.retain(|field| field.key != HOST.as_str());
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = head.headers.get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let scheme: &[u8] = if https { b"https" } else { b"http" };
    let start = [
        (":method", head.method.as_str().as_bytes()),
        (":path", path.as_bytes()),
        (":authority", authority),
        (":scheme", scheme),
    ];
    pseudo(&start, &mut shown);
    shown
}
