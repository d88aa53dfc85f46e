//! What a rule's policy does once a response comes: other responses in the place of some, compression, pace.
//!
//! Owns what has to be remembered of a request until then. A rule without such a policy has none of this.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, StatusCode, request, response};

use super::limits::Deadline;
use super::reply::Reply;
use crate::filter::Facts;
use crate::filter::bandwidth::{Bandwidth, Pace};
use crate::filter::compress::{Choice, Encoder};
use crate::filter::overrides::{Origin, Prepared};
use crate::filter::policy::Extras;

/// Remembered for the response.
pub(super) struct After<'a> {
    extras: &'a Extras,
    route: &'a str,
    coding: Option<Choice>,
    overrides: Option<Prepared>,
}

impl<'a> After<'a> {
    /// Looks at a request before its filters run.
    pub(super) fn new(extras: &'a Extras, route: &'a str, head: &request::Parts, facts: &Facts<'_>) -> Self {
        Self {
            extras,
            route,
            coding: (!extras.compressors.is_empty()).then(|| extras.compressors.choose(&head.headers)),
            overrides: (!extras.overrides.is_empty()).then(|| extras.overrides.prepare(head, facts)),
        }
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

/// The pace of both directions of an exchange.
#[derive(Default)]
pub(super) struct Lanes {
    pub(super) request: Option<Lane>,
    pub(super) response: Option<Lane>,
}

impl Lanes {
    /// As a rule's limits ask for.
    pub(super) fn new(limits: Option<&Bandwidth>) -> Self {
        let lane = |pace: &Arc<Pace>| Lane {
            pace: Arc::clone(pace),
            timer: None,
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
}

impl Lane {
    /// Ready when something may pass.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(wait) = self.pace.wait() {
            let timer = self.timer.get_or_insert_with(|| Deadline::after(wait));
            if !timer.has_passed(cx) {
                return Poll::Pending;
            }
            self.timer = None;
        }
        self.timer = None;
        Poll::Ready(())
    }

    /// Counts what has passed.
    pub(super) fn spend(&self, bytes: u64) {
        self.pace.spend(bytes);
    }
}

/// Ready when `lane` lets something pass; one that is not there always does.
pub(super) fn poll_lane(lane: &mut Option<Lane>, cx: &mut Context<'_>) -> Poll<()> {
    match lane {
        None => Poll::Ready(()),
        Some(lane) => lane.poll_ready(cx),
    }
}
