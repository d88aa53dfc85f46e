//! Asking a rate limit service.
//!
//! Owns the question's journey, and what a request comes to that the service cannot be asked about. What a response costs
//! is told to the service when it has ended; nobody waits for that.

use std::sync::Arc;

use http::{StatusCode, request};

use super::grpc;
use super::reply::Reply;
use super::subrequest::{self, Call};
use crate::filter::Facts;
use crate::filter::metadata::Metadata;
use crate::filter::rate_limit::proto::{RateLimitRequest, RateLimitResponse, SHOULD_RATE_LIMIT};
use crate::filter::rate_limit::{Costs, GlobalRateLimit, Service, Tally};
use crate::upstream::connect::Version;
use crate::worker::Worker;

/// What a response costs. It is paid when it is dropped: when the response has ended, or the request has been given up.
pub(super) struct Charge {
    worker: Arc<Worker>,
    service: Arc<Service>,
    costs: Costs,
}

impl Charge {
    /// Takes in what metadata says that the response costs.
    pub(super) fn settle(&mut self, metadata: &Metadata) {
        self.costs.settle(metadata);
    }
}

/// Lets a request pass that is within its limits.
pub(super) async fn check(
    worker: &Arc<Worker>,
    limit: &GlobalRateLimit,
    head: &request::Parts,
    facts: &Facts<'_>,
    metadata: &Metadata,
    tally: &mut Tally,
) -> Result<Option<Charge>, Box<Reply>> {
    let Some(question) = limit.question(head, facts, metadata) else {
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
    Ok(question.of_response().map(|costs| Charge {
        worker: Arc::clone(worker),
        service: Arc::clone(&limit.service),
        costs,
    }))
}

async fn ask(
    worker: &Arc<Worker>,
    service: &Service,
    question: &RateLimitRequest,
) -> Result<RateLimitResponse, String> {
    let call = grpc::request(SHOULD_RATE_LIMIT, "rate-limit", question);
    let how = Call {
        version: Version::Http2,
        timeout: service.timeout,
        client: None,
    };
    let answer = subrequest::call(worker, &service.backend, call, how).await?;
    grpc::message(&answer)
}

impl Drop for Charge {
    fn drop(&mut self) {
        let (Some(request), Ok(runtime)) = (self.costs.request(), tokio::runtime::Handle::try_current())
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
