//! The controller's metrics, and the HTTP server for them and for health checks.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// One label.
pub type Label = [(&'static str, &'static str); 1];

/// Every metric of the controller; names start with `sluice_controller_`.
pub struct Metrics {
    registry: Registry,
    ready: AtomicBool,
    /// Watch events that were translated, by kind.
    pub events: Family<Label, Counter>,
    /// Watch events that changed nothing we read, by kind.
    pub skipped_events: Family<Label, Counter>,
    /// Watches that failed and were started again, by kind.
    pub watch_errors: Family<Label, Counter>,
    /// Units that were translated.
    pub translated: Counter,
    /// Seconds from a batch of events to what follows from it.
    pub apply_seconds: Histogram,
    /// Resources that were published anew, over all gateways.
    pub published: Counter,
    /// Seconds from a change to its acknowledgement by a proxy.
    pub ack_seconds: Histogram,
    /// Proxies with an open stream.
    pub proxies: Gauge,
    /// Resources that a proxy refused.
    pub rejections: Counter,
    /// Streams that were refused, by reason.
    pub refused_streams: Family<Label, Counter>,
    /// Statuses written, by kind.
    pub status_writes: Family<Label, Counter>,
    /// Status writes that failed, by kind.
    pub status_errors: Family<Label, Counter>,
    /// Statuses that wait to be written.
    pub status_waiting: Gauge,
    /// Objects for proxies that were applied, by kind.
    pub infra_writes: Family<Label, Counter>,
    /// Gateways whose objects could not be applied or removed.
    pub infra_errors: Counter,
    /// 1 while this replica leads.
    pub leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        let mut metrics = Self {
            registry: Registry::with_prefix("sluice_controller"),
            ready: AtomicBool::new(false),
            events: Family::default(),
            skipped_events: Family::default(),
            watch_errors: Family::default(),
            translated: Counter::default(),
            apply_seconds: seconds(),
            published: Counter::default(),
            ack_seconds: seconds(),
            proxies: Gauge::default(),
            rejections: Counter::default(),
            refused_streams: Family::default(),
            status_writes: Family::default(),
            status_errors: Family::default(),
            status_waiting: Gauge::default(),
            infra_writes: Family::default(),
            infra_errors: Counter::default(),
            leader: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("events", "Watch events that were translated", self.events.clone());
        r.register(
            "skipped_events",
            "Watch events that changed nothing that is read",
            self.skipped_events.clone(),
        );
        r.register(
            "watch_errors",
            "Watches that failed and were started again",
            self.watch_errors.clone(),
        );
        r.register(
            "translated_units",
            "Units that were translated",
            self.translated.clone(),
        );
        r.register(
            "apply_seconds",
            "Time to translate a batch of events",
            self.apply_seconds.clone(),
        );
        r.register(
            "published_resources",
            "Resources published anew, over all gateways",
            self.published.clone(),
        );
        r.register(
            "ack_seconds",
            "Time from a change to its acknowledgement by a proxy",
            self.ack_seconds.clone(),
        );
        r.register(
            "connected_proxies",
            "Proxies with an open stream",
            self.proxies.clone(),
        );
        r.register(
            "rejections",
            "Resources that a proxy refused",
            self.rejections.clone(),
        );
        r.register(
            "refused_streams",
            "Streams that were refused",
            self.refused_streams.clone(),
        );
        r.register("status_writes", "Statuses written", self.status_writes.clone());
        r.register(
            "status_errors",
            "Status writes that failed",
            self.status_errors.clone(),
        );
        r.register(
            "status_waiting",
            "Statuses that wait to be written",
            self.status_waiting.clone(),
        );
        r.register(
            "infra_writes",
            "Objects for proxies that were applied",
            self.infra_writes.clone(),
        );
        r.register(
            "infra_errors",
            "Failures to apply or remove a Gateway's objects",
            self.infra_errors.clone(),
        );
        r.register("leader", "1 while this replica leads", self.leader.clone());
    }

    /// Says that configuration is served.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// The metrics in OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, kind, body) = match request.uri().path() {
            "/healthz" => (StatusCode::OK, "text/plain", "ok".to_owned()),
            "/readyz" if self.ready.load(Ordering::Relaxed) => {
                (StatusCode::OK, "text/plain", "ok".to_owned())
            }
            "/readyz" => (
                StatusCode::SERVICE_UNAVAILABLE,
                "text/plain",
                "not synced yet".to_owned(),
            ),
            "/metrics" => (
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                self.encode(),
            ),
            _ => (StatusCode::NOT_FOUND, "text/plain", "not found".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
        response
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics` until `stop`.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, stop: CancellationToken) {
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
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let service =
                service_fn(|request| std::future::ready(Ok::<_, Infallible>(metrics.answer(&request))));
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                debug!(%error, "metrics connection");
            }
        });
    }
}
