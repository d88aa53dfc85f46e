//! How far the tries of a request have come, and whether there may be another.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, StatusCode};

use super::Tries;
use crate::forward::effects::End;
use crate::forward::exchange::Flow;
use crate::forward::reply::Reply;
use crate::forward::source::Source;
use crate::upstream::breaker::Permit;
use crate::upstream::{Active, ConnectError, RetryBudget};

/// How far the tries have come.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) tried: Vec<SocketAddr>,
    pub(super) retries: u32,
    /// How many of them there were when another priority was last thought of.
    pub(super) turned: u32,
    pub(super) stale: u32,
    pub(super) fresh: bool,
    /// Held by a retry if retries are bounded.
    pub(super) permit: Option<Permit>,
}

impl Progress {
    /// True if the rule and the body allow another try. Takes it from the budget; if that is used up, the client is
    /// told so (`retryConstraint` of XBackendTrafficPolicy asks for 503, whatever the last try met).
    pub(super) fn may_repeat(&mut self, tries: &Tries<'_>, source: &mut Source) -> Result<bool, Box<Reply>> {
        let Some(retry) = &tries.rule.retry else {
            return Ok(false);
        };
        if self.retries >= retry.attempts || !source.rewind() {
            return Ok(false);
        }
        if tries.backend.retry_budget.is_none()
            && let Some(breaker) = &tries.backend.breaker
        {
            self.permit = None;
            // The client is told what the last try met.
            let Ok(permit) = breaker.retry() else {
                tries.metrics().overflow();
                return Ok(false);
            };
            self.permit = Some(permit);
        }
        let granted = tries.backend.retry_budget.as_ref().is_none_or(RetryBudget::retry);
        granted.then_some(true).ok_or_else(|| {
            Reply::error(
                StatusCode::SERVICE_UNAVAILABLE,
                "retry budget exceeded",
                "UO",
                "retry_budget_exceeded",
            )
            .into()
        })
    }

    /// Pauses before another try that the rule asks for.
    pub(super) async fn repeat(
        &mut self,
        tries: &Tries<'_>,
        active: &Active,
        flow: &mut Flow<'_>,
    ) -> Result<(), End> {
        self.retries += 1;
        self.tried.push(active.endpoint().address());
        tries.metrics().retry();
        flow.limits.attempt = None;
        let pause = tries
            .rule
            .retry
            .as_ref()
            .map_or(Duration::ZERO, |retry| retry.pause(self.retries));
        flow.limits.bound(flow.down, tokio::time::sleep(pause)).await?;
        Ok(())
    }
}

/// What the client is told of a connection that could not be made.
pub(super) fn connect_error(error: &ConnectError) -> Reply {
    let (body, details) = match error {
        ConnectError::Timeout => (
            "upstream connect error or disconnect/reset before headers. reset reason: connection timeout",
            "upstream_reset_before_response_started{connection_timeout}",
        ),
        _ => (
            "upstream connect error or disconnect/reset before headers. reset reason: connection failure",
            "upstream_reset_before_response_started{connection_failure}",
        ),
    };
    Reply::error(StatusCode::SERVICE_UNAVAILABLE, body, "UF", details)
}

/// Methods that may be repeated where it is not known whether they were carried out (RFC 9110 section 9.2.2).
pub(in crate::forward) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
