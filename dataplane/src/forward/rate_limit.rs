//! Asking a rate limit service.
//!
//! Owns the question's journey, and what a request comes to that the service cannot be asked about. What a response costs
//! is told to the service when it has ended; nobody waits for that.

use std::sync::Arc;
use std::time::Instant;

use http::{StatusCode, request};

use super::reply::Reply;
use super::{grpc, subrequest};
use crate::filter::Facts;
use crate::filter::rate_limit::proto::{RateLimitRequest, RateLimitResponse, SHOULD_RATE_LIMIT};
use crate::filter::rate_limit::{GlobalRateLimit, Service, Tally};
use crate::upstream::connect::Version;
use crate::worker::Worker;

/// What a response costs. It is paid when it is dropped: when the response has ended, or the request has been given up.
pub(super) struct Charge {
    worker: Arc<Worker>,
    service: Arc<Service>,
    request: Option<RateLimitRequest>,
}

/// Lets a request pass that is within its limits.
pub(super) async fn check(
    worker: &Arc<Worker>,
    limit: &GlobalRateLimit,
    head: &request::Parts,
    facts: &Facts<'_>,
    tally: &mut Tally,
) -> Result<Option<Charge>, Box<Reply>> {
    let Some(question) = limit.question(head, facts) else {
        return Ok(None);
    };
    match ask(worker, &limit.service, &question.of_request()).await {
        Ok(answer) => question
            .judge(&answer, facts, tally)
            .map_err(|denial| Box::new(Reply::from(*denial)))?,
        Err(reason) => {
            tracing::debug!(
                reason,
                fail_closed = limit.fail_closed,
                "no answer of the rate limit service"
            );
            if limit.fail_closed {
                let details = "rate_limiter_error";
                return Err(Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "", "RLSE", details).into());
            }
        }
    }
    let request = question.of_response();
    Ok(request.map(|request| Charge {
        worker: Arc::clone(worker),
        service: Arc::clone(&limit.service),
        request: Some(request),
    }))
}

/// Counted as a request to the service's backend; without a status if there was no answer.
async fn ask(
    worker: &Worker,
    service: &Service,
    question: &RateLimitRequest,
) -> Result<RateLimitResponse, String> {
    let backend = service.backend.load().ok_or("no such backend")?;
    let began = Instant::now();
    let call = grpc::request(SHOULD_RATE_LIMIT, "rate-limit", question);
    let asking = subrequest::call(worker, &backend, call, Version::Http2);
    let answer = tokio::time::timeout(service.timeout, asking)
        .await
        .unwrap_or_else(|_| Err("timeout".into()))
        .and_then(|answer| grpc::message(&answer));
    let status = if answer.is_ok() { 200 } else { 0 };
    backend.metrics.request(status, began.elapsed());
    answer
}

impl Drop for Charge {
    fn drop(&mut self) {
        let (Some(request), Ok(runtime)) = (self.request.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let (worker, service) = (Arc::clone(&self.worker), Arc::clone(&self.service));
        runtime.spawn(async move {
            if let Err(reason) = ask(&worker, &service, &request).await {
                tracing::debug!(reason, "the cost of a response was not counted");
            }
        });
    }
}
