//! What one processor has been shown of one direction, and what goes on from there.
//!
//! Owns the pieces that wait for an answer and those that have theirs. It sends nothing.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::super::downstream::Chunk;
use crate::filter::ext_proc::proto::{self, Body, CommonResponse};
use crate::filter::ext_proc::{BodyMode, Direction, Start, apply};

/// What has been shown and is not answered.
pub(super) enum Expected {
    Head,
    /// With what passes if the answer changes nothing.
    Piece(Bytes),
    Whole(Bytes),
    Trailers(HeaderMap),
}

/// One direction.
#[derive(Default)]
pub(super) struct Side {
    /// The processor sees it at all.
    pub(super) shown: bool,
    pub(super) mode: BodyMode,
    /// It sees trailers.
    pub(super) trailers: bool,
    /// There is no body.
    pub(super) empty: bool,
    pub(super) expected: VecDeque<Expected>,
    /// The answer to the head.
    pub(super) head: Option<CommonResponse>,
    /// The answer to the whole body.
    pub(super) whole: Option<CommonResponse>,
    pub(super) held: BytesMut,
    pub(super) held_trailers: Option<HeaderMap>,
    pub(super) output: VecDeque<Chunk>,
    pub(super) input_ended: bool,
    /// The processor's own pieces have come to their end.
    pub(super) output_ended: bool,
    /// What comes in is thrown away: the processor has put something in its place.
    pub(super) discards: bool,
    /// Pieces have been given away that only the processor can give back.
    pub(super) lost: bool,
    /// The body is not, or may not be, what it was.
    pub(super) touched: bool,
    /// The route is to be chosen anew.
    pub(super) reroutes: bool,
}

impl Side {
    pub(super) fn new(from: Option<&Direction>) -> Self {
        let mode = from.map(|from| from.body).unwrap_or_default();
        Self {
            shown: from.is_some(),
            mode,
            trailers: mode == BodyMode::FullDuplex,
            ..Self::default()
        }
    }

    /// A message of this direction begins.
    pub(super) fn begin(&mut self, empty: bool, watches: bool) {
        self.empty = empty;
        self.input_ended = empty;
        self.output_ended = empty;
        if empty || !self.shown {
            self.mode = BodyMode::None;
        }
        self.touched = self.mode != BodyMode::None && !watches;
        if self.mode != BodyMode::None && watches {
            // The body goes by and is held for nobody.
            self.mode = BodyMode::Streamed;
        }
    }

    /// The processor has chosen what it sees from now on.
    pub(super) fn switch(&mut self, mode: i32, trailers: i32) {
        if !self.shown || self.empty || self.discards {
            return;
        }
        if let Some(mode) = BodyMode::of_number(mode) {
            self.mode = mode;
            self.trailers = trailers == 1 || mode == BodyMode::FullDuplex;
            self.touched |= mode != BodyMode::None;
        }
    }

    pub(super) fn expects_head(&self) -> bool {
        self.expected
            .iter()
            .any(|expected| matches!(expected, Expected::Head))
    }

    /// True if pieces go by unseen.
    pub(super) fn passes(&self) -> bool {
        self.mode == BodyMode::None && self.expected.is_empty()
    }

    /// True if nothing more comes out.
    pub(super) fn is_done(&self) -> bool {
        self.input_ended
            && self.output.is_empty()
            && self.expected.is_empty()
            && (self.mode != BodyMode::FullDuplex || self.output_ended || self.discards)
    }

    /// Bytes that come out in all, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        let is_whole = self.discards || (self.input_ended && self.passes());
        let data = |chunk: &Chunk| match chunk {
            Chunk::Data(data) => Some(data.len() as u64),
            Chunk::Trailers(_) => None,
        };
        self.output
            .iter()
            .map(data)
            .sum::<Option<u64>>()
            .filter(|_| is_whole)
    }

    pub(super) fn take_head(&mut self, answer: CommonResponse) -> Result<(), &'static str> {
        let at = self
            .expected
            .iter()
            .position(|expected| matches!(expected, Expected::Head));
        let at = at.ok_or("an answer to a head that nobody asked for")?;
        self.expected.remove(at);
        if answer.replaces() {
            self.replace(answer.body_mutation.as_ref());
        }
        self.head = Some(answer);
        Ok(())
    }

    /// Puts a body in the place of the one that comes in.
    fn replace(&mut self, with: Option<&proto::BodyMutation>) {
        self.mode = BodyMode::None;
        self.expected.clear();
        self.output.clear();
        self.discards = true;
        self.touched = true;
        self.lost = false;
        if let Some(Body::Bytes(bytes)) = with.and_then(|with| with.mutation.as_ref()) {
            self.push(bytes.clone());
        }
    }

    pub(super) fn take_body(&mut self, answer: CommonResponse) -> Result<(), &'static str> {
        let mutation = answer
            .body_mutation
            .clone()
            .and_then(|mutation| mutation.mutation);
        if self.mode == BodyMode::FullDuplex {
            let Some(Body::Streamed(piece)) = mutation else {
                return Err("an answer to a piece in a stream of pieces");
            };
            self.push(piece.body);
            self.output_ended |= piece.end_of_stream;
            return Ok(());
        }
        let Some(Expected::Piece(original) | Expected::Whole(original)) = self.expected.pop_front() else {
            return Err("an answer to a body that nobody asked for");
        };
        if answer.replaces() && self.mode != BodyMode::Streamed {
            self.discards = !self.input_ended;
        }
        match mutation {
            Some(Body::Bytes(bytes)) => self.push(bytes),
            Some(Body::Clear(true)) => {}
            None | Some(Body::Clear(false)) => self.push(original),
            Some(Body::Streamed(_)) => return Err("a piece of its own where there is none"),
        }
        if self.mode.holds() {
            self.whole = Some(answer);
            // What may follow is not seen.
            self.mode = BodyMode::None;
        }
        Ok(())
    }

    pub(super) fn take_trailers(&mut self, answer: &proto::TrailersResponse) -> Result<(), &'static str> {
        match self.expected.pop_front() {
            Some(Expected::Trailers(mut trailers)) => {
                if let Some(mutation) = &answer.header_mutation {
                    apply(mutation, &mut trailers, Start::Trailers);
                }
                self.output.push_back(Chunk::Trailers(trailers));
                self.output_ended = true;
                Ok(())
            }
            _ => Err("an answer to trailers that nobody asked for"),
        }
    }

    /// Lets trailers go that have waited for what came before them.
    pub(super) fn settle(&mut self) {
        if self.expected.is_empty()
            && let Some(trailers) = self.held_trailers.take()
        {
            self.output.push_back(Chunk::Trailers(trailers));
        }
    }

    /// Lets everything pass as it is.
    pub(super) fn pass_on(&mut self) {
        self.mode = BodyMode::None;
        self.shown = false;
        let held = self.held.split().freeze();
        self.push(held);
        for expected in std::mem::take(&mut self.expected) {
            match expected {
                Expected::Head => {}
                Expected::Piece(bytes) | Expected::Whole(bytes) => self.push(bytes),
                Expected::Trailers(trailers) => self.output.push_back(Chunk::Trailers(trailers)),
            }
        }
        self.settle();
    }

    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.output.push_back(Chunk::Data(bytes));
        }
    }
}
