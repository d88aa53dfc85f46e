//! What the configuration asks to be told: access logs, traces and metrics, compiled.
//!
//! Owns what waits to be told under these settings; [`super::export`] sends it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use http::Method;
use sluice_config::v1;
use tokio::sync::Mutex as AsyncMutex;

use super::access_log::logger::Logger;
use super::access_log::template::Subject;
use super::access_log::{AccessLog, AccessLogTarget};
use super::details::Details;
use super::export::metrics::{Last, Period, Temporality};
use super::export::{Counts, Queue, Receiver, metrics, otlp, spans};
use super::trace::{Propagation, Span, Tracer};
use crate::filter::Lookup;
use crate::worker::WorkerHandle;

/// How often metrics are sent if the configuration does not say; Envoy's default.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);

/// All of it.
#[derive(Debug)]
pub struct Settings {
    /// Takes the place of the proxy's own access log.
    pub logs: Option<Vec<Logger>>,
    /// Traces.
    pub tracing: Option<Tracing>,
    metrics: Vec<MetricsSink>,
    /// Metrics cannot be fetched.
    pub no_prometheus: bool,
    /// Metrics may be fetched compressed.
    pub compress: bool,
    /// What is counted besides the usual.
    pub details: Details,
    /// Something speaks of headers, so they are kept until the request has ended.
    pub keeps_heads: bool,
    /// There are logs of connections.
    pub logs_connections: bool,
    /// There are logs of tries.
    pub logs_tries: bool,
    /// Something speaks of trailers of responses.
    pub keeps_trailers: bool,
    /// Files that are open.
    files: BTreeMap<PathBuf, AccessLog>,
}

/// Traces and who gets them.
#[derive(Debug)]
pub struct Tracing {
    /// Makes spans.
    pub tracer: Tracer,
    provider: v1::tracing::Provider,
    receiver: Receiver,
    service: String,
    resource: BTreeMap<String, String>,
    queue: Queue<Span>,
}

#[derive(Debug)]
struct MetricsSink {
    receiver: Receiver,
    resource: BTreeMap<String, String>,
    interval: Duration,
    temporality: Temporality,
    start: SystemTime,
    state: AsyncMutex<Option<(Instant, SystemTime, Last)>>,
}

impl Settings {
    /// Reads the resource. Files that `before` has open stay so.
    ///
    /// # Errors
    /// `field: reason` of what cannot be honoured.
    pub fn compile(
        config: &v1::Telemetry,
        lookup: &mut dyn Lookup,
        own_log: &AccessLog,
        before: Option<&Self>,
    ) -> Result<Self, String> {
        let files = Mutex::new(BTreeMap::new());
        let open = |path: &str| {
            if path == "/dev/stdout" {
                return Some(own_log.clone());
            }
            let path = PathBuf::from(path);
            let mut files = files.lock().ok()?;
            let held = files.get(&path).or_else(|| before?.files.get(&path)).cloned();
            let log = held.or_else(|| match AccessLog::start(&AccessLogTarget::File(path.clone())) {
                Ok(log) => Some(log),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "access log cannot be opened");
                    None
                }
            })?;
            files.insert(path, log.clone());
            Some(log)
        };
        let logs = match &config.access_logs {
            None => None,
            Some(config) => {
                let mut logs = Vec::new();
                for (i, log) in config.logs.iter().enumerate() {
                    let log = Logger::compile(log, lookup, &open);
                    logs.push(log.map_err(|e| format!("access_logs.logs[{i}].{e}"))?);
                }
                Some(logs)
            }
        };
        let tracing = config
            .tracing
            .as_ref()
            .map(|config| Tracing::compile(config, lookup))
            .transpose()
            .map_err(|e| format!("tracing.{e}"))?;
        let config = config.metrics.clone().unwrap_or_default();
        let metrics = config.sinks.iter().map(|sink| MetricsSink::compile(sink, lookup));
        let metrics = metrics
            .collect::<Result<_, _>>()
            .map_err(|e| format!("metrics.sinks.{e}"))?;
        let details = Details::compile(&config);
        let needs_heads = logs.iter().flatten().any(Logger::needs_head);
        let keeps_heads = tracing.is_some() || details.grpc || needs_heads;
        Ok(Self {
            logs_connections: logs.iter().flatten().any(Logger::is_of_connections),
            logs_tries: logs.iter().flatten().any(Logger::is_of_tries),
            keeps_trailers: details.grpc || logs.iter().flatten().any(Logger::needs_trailers),
            logs,
            tracing,
            metrics,
            no_prometheus: config.no_prometheus,
            compress: config.compress,
            details,
            keeps_heads,
            files: files.into_inner().unwrap_or_default(),
        })
    }

    /// Writes lines of logs.
    pub fn log(&self, counts: &Counts, subject: &Subject<'_>) {
        for log in self.logs.iter().flatten() {
            log.write(counts, subject);
        }
    }

    /// Sends what waits and writes files to their ends.
    pub async fn finish(&self, worker: &WorkerHandle) {
        self.flush(worker).await;
        futures::future::join_all(self.files.values().map(AccessLog::flush)).await;
    }

    /// Sends what waits to all who are told.
    pub async fn flush(&self, worker: &WorkerHandle) {
        let logs = self.logs.iter().flatten().map(|log| log.flush(worker));
        let tracing = self.tracing.iter().map(|tracing| tracing.flush(worker));
        let metrics = self.metrics.iter().map(|sink| sink.flush(worker));
        futures::join!(
            futures::future::join_all(logs),
            futures::future::join_all(tracing),
            futures::future::join_all(metrics)
        );
    }
}

impl Tracing {
    fn compile(config: &v1::Tracing, lookup: &mut dyn Lookup) -> Result<Self, String> {
        use v1::tracing::Provider;
        let provider = config.provider();
        let propagation = match provider {
            Provider::OpenTelemetry => Propagation::W3c,
            Provider::Zipkin => Propagation::B3,
            Provider::Datadog => Propagation::Datadog,
            Provider::Unspecified => {
                return Err("provider: not set, or one that this version does not know".into());
            }
        };
        let service = match config.service_name.as_str() {
            "" => "sluice",
            name => name,
        };
        let mut resource = config.resource.clone();
        resource.insert("service.name".into(), service.into());
        Ok(Self {
            tracer: Tracer::compile(config, propagation),
            provider,
            receiver: Receiver::compile(config.receiver.as_ref(), lookup)?,
            service: service.to_owned(),
            resource,
            queue: Queue::default(),
        })
    }

    /// A span has ended.
    pub fn push(&self, counts: &Counts, span: Span) {
        self.queue.push(counts, span);
    }

    async fn flush(&self, worker: &WorkerHandle) {
        let counts = worker.worker.shared.metrics.telemetry();
        self.queue.flush(counts, |batch| self.send(worker, batch)).await;
    }

    async fn send(&self, worker: &WorkerHandle, batch: Vec<Span>) -> Result<(), String> {
        use v1::tracing::Provider;
        match self.provider {
            Provider::Zipkin => {
                let body = spans::zipkin(&self.service, &batch);
                self.receiver
                    .json(worker, Method::POST, spans::ZIPKIN, &body)
                    .await
            }
            Provider::Datadog => {
                let body = spans::datadog(&self.service, &batch);
                self.receiver
                    .json(worker, Method::PUT, spans::DATADOG, &body)
                    .await
            }
            _ => {
                let message = otlp::traces(&self.resource, batch);
                self.receiver.grpc(worker, otlp::TRACES, &[message]).await
            }
        }
    }
}

impl MetricsSink {
    fn compile(config: &v1::OtlpMetrics, lookup: &mut dyn Lookup) -> Result<Self, String> {
        Ok(Self {
            receiver: Receiver::compile(config.receiver.as_ref(), lookup)?,
            resource: config.resource.clone(),
            interval: match config.interval_ms {
                0 => METRICS_INTERVAL,
                ms => Duration::from_millis(ms),
            },
            temporality: Temporality {
                delta_counters: config.delta_counters,
                delta_histograms: config.delta_histograms,
            },
            start: SystemTime::now(),
            state: AsyncMutex::default(),
        })
    }

    async fn flush(&self, worker: &WorkerHandle) {
        let mut state = self.state.lock().await;
        if state
            .as_ref()
            .is_some_and(|(at, ..)| at.elapsed() < self.interval)
        {
            return;
        }
        let (_, before, mut last) = state.take().unwrap_or((Instant::now(), self.start, Last::new()));
        let now = SystemTime::now();
        let period = Period {
            start: self.start,
            last: before,
            now,
        };
        let all = &worker.worker.shared.metrics;
        let message = metrics::report(&self.resource, &all.encode(), self.temporality, period, &mut last);
        *state = Some((Instant::now(), now, last));
        let outcome = self.receiver.grpc(worker, otlp::METRICS, &[message]).await;
        all.telemetry().note(1, outcome);
    }
}
