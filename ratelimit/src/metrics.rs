//! The service's metrics, and the HTTP server for them and for health checks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::counter::Counter as Count;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use sluice_dataplane::filter::rate_limit::proto::{Code, RateLimitResponse};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::counter::Counter;

/// What a question came to.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    /// Within all limits.
    Ok,
    /// Over one.
    OverLimit,
    /// Redis did not answer.
    Failed,
    /// It makes no sense.
    Invalid,
}

impl Outcome {
    /// Of an answer.
    pub fn of(answer: &RateLimitResponse) -> Self {
        if answer.overall_code == i32::from(Code::OverLimit) {
            Self::OverLimit
        } else {
            Self::Ok
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::OverLimit => "over_limit",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
        }
    }
}

/// Every metric of the service; names start with `sluice_ratelimit_`.
pub struct Metrics {
    registry: Registry,
    questions: Family<[(&'static str, &'static str); 1], Count>,
    redis: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("sluice_ratelimit");
        let questions = Family::default();
        let redis = Histogram::new(exponential_buckets(0.0001, 2.0, 14));
        let help = "Questions of proxies by what they came to";
        registry.register("questions", help, Family::clone(&questions));
        let help = "Round trips to Redis";
        registry.register_with_unit("redis_duration", help, Unit::Seconds, redis.clone());
        Self {
            registry,
            questions,
            redis,
        }
    }
}

impl Metrics {
    /// A question came to this.
    pub fn question(&self, outcome: Outcome) {
        self.questions
            .get_or_create(&[("outcome", outcome.label())])
            .inc();
    }

    /// A round trip to Redis took so long.
    pub fn redis(&self, took: Duration) {
        self.redis.observe(took.as_secs_f64());
    }

    /// The metrics in OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics` until `stop`. It is ready while Redis answers.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, counter: Counter, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, as a rule; they come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (metrics, counter) = (Arc::clone(&metrics), counter.clone());
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let (metrics, counter) = (Arc::clone(&metrics), counter.clone());
                async move { Ok::<_, Infallible>(answer(request.uri().path(), &metrics, &counter).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "metrics connection");
            }
        });
    }
}

async fn answer(path: &str, metrics: &Metrics, counter: &Counter) -> Response<Full<Bytes>> {
    let (status, kind, body) = match path {
        "/healthz" => (StatusCode::OK, "text/plain", "ok".to_owned()),
        "/readyz" if counter.is_ready().await => (StatusCode::OK, "text/plain", "ok".to_owned()),
        "/readyz" => {
            let why = "redis does not answer".to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, "text/plain", why)
        }
        "/metrics" => (
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            metrics.encode(),
        ),
        _ => (StatusCode::NOT_FOUND, "text/plain", "not found".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_counted_by_what_they_came_to() {
        let metrics = Metrics::default();
        metrics.question(Outcome::OverLimit);
        metrics.redis(Duration::from_millis(3));
        let text = metrics.encode();
        for line in [
            r#"sluice_ratelimit_questions_total{outcome="over_limit"} 1"#,
            "sluice_ratelimit_redis_duration_seconds_count 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
