//! What a rule's policy does once a response comes: other responses in the place of some, compression, pace.
//!
//! Owns what has to be remembered of a request until then. A rule without such a policy has none of this.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode, request, response};

use super::limits::Deadline;
use super::reply::Reply;
use crate::filter::Facts;
use crate::filter::bandwidth::{Bandwidth, DelayNames, Pace, Spans};
use crate::filter::compress::{Choice, Encoder};
use crate::filter::overrides::{Origin, Prepared};
use crate::filter::policy::Extras;
use crate::upstream::Backend;
use crate::upstream::health::Member;

/// Remembered for the response.
pub(super) struct After<'a> {
    extras: &'a Extras,
    route: &'a str,
    coding: Option<Choice>,
    overrides: Option<Prepared>,
}

impl<'a> After<'a> {
    /// What is remembered before filters run.
    pub(super) fn new(extras: &'a Extras, route: &'a str) -> Self {
        Self {
            extras,
            route,
            coding: None,
            overrides: None,
        }
    }

    /// Chooses how the response is compressed.
    pub(super) fn choose_coding(&mut self, head: &request::Parts) {
        self.coding = Some(self.extras.compressors.choose(&head.headers));
    }

    /// True if responses are compressed.
    pub(super) fn compresses(&self) -> bool {
        self.coding.is_some()
    }

    /// From here on overrides take the place of responses.
    pub(super) fn begin_overrides(&mut self, head: &request::Parts, facts: &Facts<'_>) {
        self.overrides = Some(self.extras.overrides.prepare(head, facts));
    }

    /// True if overrides take the place of responses.
    pub(super) fn replaces(&self) -> bool {
        self.overrides.is_some()
    }

    /// What takes the place of a response with this status and these headers.
    pub(super) fn replace(&self, status: StatusCode, headers: &HeaderMap, origin: Origin) -> Option<Reply> {
        let prepared = self.overrides.as_ref()?;
        let overrides = &self.extras.overrides;
        let (status, headers, body) = overrides.replace(prepared, (status, headers), origin, self.route)?;
        let mut reply = Reply::direct(status, headers);
        reply.body = body;
        reply.details = "custom_response";
        reply.replaced = true;
        Some(reply)
    }

    /// Prepares a backend's response to be compressed.
    pub(super) fn compress(&self, response: &mut response::Parts, is_empty: bool) -> Option<Encoder> {
        let encoder = self.coding?.apply(response)?;
        (!is_empty).then_some(encoder)
    }
}

/// What a response's trailers are looked at for, or get.
pub(super) struct Ending {
    /// The backend, and its endpoint that may report its load.
    pub(super) reports: Option<(Arc<Backend>, Arc<Member>)>,
    /// Names of trailers that say how long bodies were held back.
    pub(super) delays: Option<Arc<DelayNames>>,
    /// They are kept for those who are told of the request.
    pub(super) keeps: bool,
    pub(super) kept: Option<HeaderMap>,
}

impl Ending {
    /// The trailers as they are sent.
    pub(super) fn trailers(&mut self, trailers: Option<HeaderMap>, lanes: &Lanes) -> Option<HeaderMap> {
        let mut trailers = trailers.unwrap_or_default();
        if let Some((backend, member)) = &self.reports {
            backend.take_load(member, &mut trailers);
        }
        if let Some(names) = &self.delays {
            let of = |lane: Option<&Lane>| lane.map(Lane::spans).unwrap_or_default();
            let (request, response) = (of(lanes.request.as_deref()), of(lanes.response.as_deref()));
            names.write(request, response, &mut trailers);
        }
        let trailers = (!trailers.is_empty()).then_some(trailers);
        if self.keeps {
            self.kept.clone_from(&trailers);
        }
        trailers
    }
}

/// The pace of both directions of an exchange.
#[derive(Default)]
pub(super) struct Lanes {
    pub(super) request: Option<Box<Lane>>,
    pub(super) response: Option<Box<Lane>>,
}

impl Lanes {
    /// As a rule's limits ask for.
    pub(super) fn new(limits: Option<&Bandwidth>) -> Self {
        let lane = |pace: &Arc<Pace>| {
            Box::new(Lane {
                pace: Arc::clone(pace),
                timer: None,
                began: None,
                passed: None,
                waits: None,
                waited: Duration::ZERO,
            })
        };
        Self {
            request: limits.and_then(|limits| limits.request.as_ref()).map(lane),
            response: limits.and_then(|limits| limits.response.as_ref()).map(lane),
        }
    }
}

/// The pace of one direction.
pub(super) struct Lane {
    pace: Arc<Pace>,
    timer: Option<Deadline>,
    /// When the first and the last piece passed, and since when the next one waits.
    began: Option<Instant>,
    passed: Option<Instant>,
    waits: Option<Instant>,
    waited: Duration,
}

impl Lane {
    /// Ready when something may pass.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(wait) = self.pace.wait() {
            let timer = self.timer.get_or_insert_with(|| Deadline::after(wait));
            if !timer.has_passed(cx) {
                self.waits.get_or_insert_with(Instant::now);
                return Poll::Pending;
            }
            self.timer = None;
        }
        self.timer = None;
        if let Some(since) = self.waits.take() {
            self.waited += since.elapsed();
        }
        Poll::Ready(())
    }

    /// Counts what has passed.
    pub(super) fn spend(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.pace.spend(bytes);
        let now = Instant::now();
        self.began.get_or_insert(now);
        self.passed = Some(now);
    }

    fn spans(&self) -> Spans {
        let transfer = self.began.zip(self.passed).map(|(began, passed)| passed - began);
        Spans {
            transfer: transfer.unwrap_or_default(),
            waited: self.waited,
        }
    }
}

/// Ready when `lane` lets something pass; one that is not there always does.
pub(super) fn poll_lane(lane: &mut Option<Box<Lane>>, cx: &mut Context<'_>) -> Poll<()> {
    match lane {
        None => Poll::Ready(()),
        Some(lane) => lane.poll_ready(cx),
    }
}
