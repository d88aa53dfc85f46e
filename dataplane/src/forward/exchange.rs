//! One try: the request flows to the backend and the response to the client, both at once, on one task.
//!
//! Owns the pump. Each direction moves only while the other side has room, and neither waits for the other; output
//! leaves when there is nothing more to gather, so that head and body of a small message are one `send`. It never
//! decides what a failure means.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, StatusCode, response};

use super::Conn;
use super::after::{Ending, Lanes, poll_lane};
use super::coder::{Coder, poll_coder};
use super::downstream::{Chunk, Downstream, Gone};
use super::limits::{Deadline, Limits, Stop};
use super::source::Source;
use super::upstream::{Failure, Upstream};
use crate::filter::compress::Encoder;

/// How long nothing may move before an exchange is given up; Envoy's stream idle timeout.
const STALL: Duration = Duration::from_mins(5);

/// What all tries of a request work on.
pub struct Flow<'a> {
    /// The client's side.
    pub down: &'a mut Downstream,
    /// The request's body.
    pub source: &'a mut Source,
    /// Bounds.
    pub limits: &'a mut Limits,
}

/// One try in progress.
pub struct Exchange<'a> {
    /// The client's side.
    pub down: &'a mut Downstream,
    /// The request's body.
    pub source: &'a mut Source,
    /// The backend's side.
    pub up: Upstream,
    /// Bounds.
    pub limits: &'a mut Limits,
    request_done: bool,
    /// The backend stopped taking the request; what it answers may still come.
    deaf: bool,
    /// The response goes through processors.
    processed: bool,
    responding: bool,
    stall: Option<Deadline>,
    /// Set: the response's body is compressed, before processors see it or after that.
    coder: Option<Box<Coder>>,
    outer_coder: Option<Box<Coder>>,
    /// Limits on the pace of bodies.
    pub(super) lanes: Lanes,
    /// What the response's trailers are looked at for.
    pub(super) ending: Option<Box<Ending>>,
}

impl<'a> Exchange<'a> {
    /// A try whose request head is on its way; `empty` says that no body follows.
    pub fn new(flow: &'a mut Flow<'_>, up: Upstream, empty: bool) -> Self {
        Self {
            down: flow.down,
            source: flow.source,
            up,
            limits: flow.limits,
            request_done: empty,
            deaf: false,
            processed: false,
            responding: false,
            stall: None,
            coder: None,
            outer_coder: None,
            lanes: Lanes::default(),
            ending: None,
        }
    }

    /// Sends the request until the head of the final response has come. Informational responses are passed on.
    pub async fn head(&mut self) -> Result<response::Parts, Stop> {
        let head = std::future::poll_fn(|cx| self.poll_head_of_response(cx)).await;
        self.stall = None;
        head
    }

    /// Compresses the response's body, if there is something to do that, before processors see it.
    pub(super) fn compress(&mut self, encoder: Option<Box<Encoder>>) {
        self.coder = encoder.map(Coder::new).map(Box::new);
    }

    /// As [`Self::compress`], of what processors have made of it.
    pub(super) fn compress_processed(&mut self, encoder: Option<Box<Encoder>>) {
        self.outer_coder = encoder.map(Coder::new).map(Box::new);
    }

    /// Passes the response's body on until its end.
    pub async fn body(&mut self) -> Result<(), Stop> {
        self.responding = true;
        std::future::poll_fn(|cx| self.poll_rest(cx)).await
    }

    /// Goes on as a tunnel. False if the backend's side cannot.
    pub fn switch_protocols(&mut self) -> bool {
        self.source.become_tunnel();
        self.request_done = false;
        self.limits.request = None;
        self.limits.attempt = None;
        self.limits.received = None;
        self.up.switch_protocols()
    }

    /// The backend's side, after the end.
    pub fn into_upstream(self) -> Upstream {
        self.up
    }

    fn poll_head_of_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, Stop>> {
        let mut moved_at_all = false;
        loop {
            let moved = self.pump_request(cx)?;
            moved_at_all |= moved;
            self.flush(cx)?;
            match self.up.poll_head(cx) {
                Poll::Ready(Ok(head)) => {
                    if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                        // The client has been, or will be, told to continue by us.
                        if head.status != StatusCode::CONTINUE {
                            self.down.inform(head);
                        }
                        continue;
                    }
                    return Poll::Ready(Ok(head));
                }
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(Stop::Upstream(failure))),
                Poll::Pending => {}
            }
            if !moved {
                self.flush(cx)?;
                self.limits.check(cx)?;
                // Once the request is out only its timeouts bound the wait, as in Envoy.
                if !self.request_done {
                    self.check_stall(cx, moved_at_all)?;
                }
                return Poll::Pending;
            }
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let mut moved_at_all = false;
        loop {
            let mut moved = self.pump_request(cx)?;
            while self.down.poll_room(cx).map_err(Stop::Client)?.is_ready()
                && poll_lane(&mut self.lanes.response, cx).is_ready()
            {
                match self.poll_forward(cx) {
                    Poll::Ready(Ok(false)) => moved = true,
                    Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Err(stop)) => return Poll::Ready(Err(stop)),
                    Poll::Pending => break,
                }
            }
            if !moved {
                break;
            }
            moved_at_all = true;
        }
        self.flush(cx)?;
        self.limits.check(cx)?;
        self.check_stall(cx, moved_at_all)?;
        Poll::Pending
    }

    /// Passes the next piece of the response on; ready with `true` at its end.
    fn poll_forward(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Stop>> {
        let coded = self.coder.is_some() || self.outer_coder.is_some();
        let seen = coded || self.processed || self.ending.is_some();
        if self.lanes.response.is_none() && !seen {
            return self.up.poll_forward(self.down, cx).map_err(Stop::from);
        }
        let before = self.down.bytes_sent();
        let passed = if seen {
            self.poll_seen(cx)
        } else {
            self.up.poll_forward(self.down, cx).map_err(Stop::from)
        };
        if let Some(lane) = &mut self.lanes.response {
            lane.spend(self.down.bytes_sent().saturating_sub(before));
        }
        passed
    }

    /// As [`Self::poll_forward`], piece by piece.
    fn poll_seen(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Stop>> {
        let passed = match ready!(self.poll_piece(cx))? {
            Some(Chunk::Data(data)) => self.down.push(data).map(|()| false),
            Some(Chunk::Trailers(trailers)) => self.finish(Some(trailers)).map(|()| true),
            None => self.finish(None).map(|()| true),
        };
        Poll::Ready(passed.map_err(Stop::Client))
    }

    /// Ends the response.
    fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), Gone> {
        let trailers = match &mut self.ending {
            None => trailers,
            Some(ending) => ending.trailers(trailers, &self.lanes),
        };
        self.down.finish(trailers)
    }

    /// The next piece of the response.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Stop>> {
        let Self {
            up,
            source,
            coder,
            outer_coder,
            processed,
            ..
        } = self;
        let mut pipe = source.pipe().filter(|_| *processed);
        let mut raw = |cx: &mut Context<'_>| up.poll_body(cx).map_err(Stop::Upstream);
        let mut coded = |cx: &mut Context<'_>| poll_coder(coder, cx, &mut raw);
        let mut piece = |cx: &mut Context<'_>| match &mut pipe {
            Some(pipe) => pipe.poll_response(&mut coded, cx),
            None => coded(cx),
        };
        poll_coder(outer_coder, cx, &mut piece)
    }

    /// Lets processors see the response, the one that saw the request last first. Says whether the response has a body
    /// then. What is left of the request goes on meanwhile.
    pub async fn process(&mut self, conn: &Conn, response: &mut response::Parts) -> Result<bool, Stop> {
        let known = self.up.body_is_empty();
        let count = self.source.pipe().map_or(0, |pipe| pipe.count());
        for at in (0..count).rev() {
            if let Some(pipe) = self.source.pipe() {
                pipe.show_response(at, conn, response, known).await?;
            }
            std::future::poll_fn(|cx| self.poll_processors(at, response, cx)).await?;
        }
        self.processed = count > 0;
        let pipe = self.source.pipe();
        Ok(pipe.map_or(known, |pipe| pipe.response_is_empty(known, &mut response.headers)))
    }

    fn poll_processors(
        &mut self,
        at: usize,
        response: &mut response::Parts,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stop>> {
        loop {
            let moved = self.pump_request(cx)?;
            self.flush_upstream(cx)?;
            if let Some(pipe) = self.source.pipe() {
                let (up, coder) = (&mut self.up, &mut self.coder);
                let mut raw = |cx: &mut Context<'_>| up.poll_body(cx).map_err(Stop::Upstream);
                let mut coded = |cx: &mut Context<'_>| poll_coder(coder, cx, &mut raw);
                if let Poll::Ready(done) = pipe.poll_response_head(at, response, &mut coded, cx) {
                    return Poll::Ready(done);
                }
            } else {
                return Poll::Ready(Ok(()));
            }
            if !moved {
                self.limits.check(cx)?;
                return Poll::Pending;
            }
        }
    }

    /// Moves what can be moved of the request; says whether anything was.
    fn pump_request(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        if self.request_done {
            self.limits.received = None;
            // What a tunnel's client said last still goes out.
            self.flush_upstream(cx)?;
            return match self.down.poll_gone(cx) {
                Poll::Ready(gone) => Err(Stop::Client(gone)),
                Poll::Pending => Ok(false),
            };
        }
        let mut moved = false;
        while !self.request_done {
            if !self.deaf {
                match self.up.poll_room(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(failure)) => self.stop_sending(failure)?,
                    Poll::Pending => break,
                }
            }
            if self.deaf || poll_lane(&mut self.lanes.request, cx).is_pending() {
                break;
            }
            let Poll::Ready(chunk) = self.source.poll(self.down, cx) else {
                break;
            };
            moved = true;
            let sent = match chunk? {
                Some(Chunk::Data(data)) => {
                    if let Some(lane) = &mut self.lanes.request {
                        lane.spend(data.len() as u64);
                    }
                    self.up.push(data)
                }
                Some(Chunk::Trailers(trailers)) => {
                    self.request_done = true;
                    self.up.finish(Some(trailers))
                }
                None => {
                    self.request_done = true;
                    self.up.finish(None)
                }
            };
            if let Err(failure) = sent {
                self.stop_sending(failure)?;
            }
        }
        Ok(moved)
    }

    /// A backend may answer before it has read the whole request, and close its side. What it said is still worth
    /// having, so only reading decides whether the try has failed.
    fn stop_sending(&mut self, failure: Failure) -> Result<(), Stop> {
        tracing::debug!(%failure, "the backend takes no more of the request");
        self.deaf = true;
        if self.responding && self.request_done {
            Err(Stop::Upstream(failure))
        } else {
            Ok(())
        }
    }

    fn flush_upstream(&mut self, cx: &mut Context<'_>) -> Result<(), Stop> {
        if !self.deaf
            && let Poll::Ready(Err(failure)) = self.up.poll_drain(cx)
        {
            self.stop_sending(failure)?;
        }
        Ok(())
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), Stop> {
        self.flush_upstream(cx)?;
        if let Poll::Ready(Err(gone)) = self.down.poll_drain(cx) {
            return Err(Stop::Client(gone));
        }
        Ok(())
    }

    fn check_stall(&mut self, cx: &mut Context<'_>, moved: bool) -> Result<(), Stop> {
        let idle = self.limits.idle.unwrap_or(STALL);
        if idle.is_zero() {
            return Ok(());
        }
        let stall = self.stall.get_or_insert_with(|| Deadline::after(idle));
        if moved {
            stall.reset(idle);
        }
        if stall.has_passed(cx) {
            Err(Stop::Stalled)
        } else {
            Ok(())
        }
    }
}
