//! The request's body on its way from the client to the backend, to mirrors, and to a second try.
//!
//! Owns the bounded copy that a retry replays. Everything else streams: a piece is asked for only when there is room
//! for it on the other side.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use super::downstream::{Chunk, Downstream};
use super::ext_proc::Pipe;
use super::limits::Stop;
use super::mirror;

/// Bytes of a body that are kept for a retry. A longer one is sent once only.
const REPLAY_LIMIT: usize = 64 * 1024;

/// A request's body.
#[derive(Default)]
pub struct Source {
    /// What has been read and is still needed: for a retry, or because it has not been sent yet.
    kept: VecDeque<Chunk>,
    kept_bytes: usize,
    /// How much of `kept` this try has sent.
    sent: usize,
    /// True while `kept` holds all from the start.
    replayable: bool,
    ended: bool,
    received: u64,
    mirrors: Vec<mirror::Feed>,
    /// Processors that see the body before anyone else does.
    pipe: Option<Box<Pipe>>,
}

impl Source {
    /// The body of a request that has one or not; `replayable` says whether a retry may want it again.
    pub fn new(empty: bool, replayable: bool) -> Self {
        Self {
            replayable,
            ended: empty,
            ..Self::default()
        }
    }

    /// Bytes read from the client so far.
    pub fn received(&self) -> u64 {
        self.received + self.pipe.as_ref().map_or(0, |pipe| pipe.received())
    }

    /// From now on the body goes through these processors, what has been read of it as well.
    pub(super) fn process(&mut self, make: impl FnOnce(VecDeque<Chunk>, bool) -> Pipe) {
        let backlog = std::mem::take(&mut self.kept);
        self.kept_bytes = 0;
        self.pipe = Some(Box::new(make(backlog, self.ended)));
        self.ended = false;
    }

    /// The processors, if there are any.
    pub(super) fn pipe(&mut self) -> Option<&mut Pipe> {
        self.pipe.as_deref_mut()
    }

    /// Copies all that is read from now on.
    pub fn mirror_to(&mut self, mut feed: mirror::Feed) {
        for chunk in &self.kept {
            feed.push(chunk);
        }
        if self.ended {
            feed.end();
        } else {
            self.mirrors.push(feed);
        }
    }

    /// Starts again from the beginning for another try. False if the beginning is gone.
    pub fn rewind(&mut self) -> bool {
        self.sent = 0;
        self.replayable || (self.ended && self.received == 0 && self.pipe.is_none())
    }

    /// From now on nothing is kept: there will be no further try.
    pub fn commit(&mut self) {
        self.replayable = false;
        self.kept.drain(..self.sent);
        self.sent = 0;
    }

    /// An upgraded connection has no end that could be known.
    pub fn become_tunnel(&mut self) {
        self.commit();
        self.ended = false;
        self.pipe = None;
        self.mirrors.clear();
    }

    /// The next piece to send; `None` once at the end.
    pub fn poll(&mut self, down: &mut Downstream, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Stop>> {
        if let Some(chunk) = self.kept.get(self.sent) {
            let chunk = chunk.clone();
            if self.replayable {
                self.sent += 1;
            } else {
                self.kept.pop_front();
            }
            return Poll::Ready(Ok(Some(chunk)));
        }
        let chunk = ready!(self.poll_read(down, cx))?;
        if let Some(chunk) = &chunk
            && self.replayable
        {
            self.keep(chunk.clone());
            if self.replayable {
                self.sent += 1;
            }
        }
        Poll::Ready(Ok(chunk))
    }

    /// Reads ahead until the end, or until more than `limit` bytes are held; says whether the end was reached.
    pub fn poll_fill(
        &mut self,
        limit: usize,
        down: &mut Downstream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Stop>> {
        while !self.ended && self.kept_bytes <= limit {
            if let Some(chunk) = ready!(self.poll_read(down, cx))? {
                self.kept_bytes += len(&chunk);
                self.kept.push_back(chunk);
            }
        }
        Poll::Ready(Ok(self.ended))
    }

    /// What has been read ahead.
    pub fn held(&self) -> impl Iterator<Item = &Chunk> {
        self.kept.iter()
    }

    /// Bytes that are held.
    pub fn held_bytes(&self) -> usize {
        self.kept_bytes
    }

    fn poll_read(
        &mut self,
        down: &mut Downstream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Chunk>, Stop>> {
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let chunk = match &mut self.pipe {
            Some(pipe) => ready!(pipe.poll_request(down, cx))?,
            None => ready!(down.poll_body(cx)).map_err(Stop::Client)?,
        };
        if let Some(chunk) = &chunk {
            if self.pipe.is_none() {
                self.received += len(chunk) as u64;
            }
            self.mirrors.iter_mut().for_each(|mirror| mirror.push(chunk));
        } else {
            self.ended = true;
            self.mirrors.drain(..).for_each(mirror::Feed::end);
        }
        Poll::Ready(Ok(chunk))
    }

    /// Keeps a piece that is being sent.
    fn keep(&mut self, chunk: Chunk) {
        self.kept_bytes += len(&chunk);
        if self.kept_bytes > REPLAY_LIMIT {
            self.replayable = false;
            self.kept.clear();
            self.sent = 0;
        } else {
            self.kept.push_back(chunk);
        }
    }
}

fn len(chunk: &Chunk) -> usize {
    match chunk {
        Chunk::Data(data) => data.len(),
        Chunk::Trailers(_) => 0,
    }
}
