//! Writes the metrics in the OpenMetrics text format.

mod details;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::cells::{BOUNDS, Requests, Sharded};
use super::export::Counts;
use super::metrics::{BackendMetrics, ConfigMetrics, ListenerMetrics, RouteMetrics};

pub(super) use details::only;

type Held<T> = Vec<(Box<str>, Arc<T>)>;

/// Label values of the status classes.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// All metrics as text.
pub(super) fn text(
    listeners: Held<ListenerMetrics>,
    routes: Held<RouteMetrics>,
    backends: Held<BackendMetrics>,
    config: &ConfigMetrics,
    telemetry: &Counts,
) -> String {
    let mut registry = Registry::with_prefix("sluice");
    let config = ConfigValues {
        updates: config.updates.load(Ordering::Relaxed),
        rejected: config.rejected.load(Ordering::Relaxed),
        connected: config.connected.load(Ordering::Relaxed),
        resources: config.resources.load(Ordering::Relaxed),
    };
    registry.register_collector(Box::new(Snapshot {
        listeners,
        routes,
        backends,
        config,
        sent: telemetry.sent.load(Ordering::Relaxed),
        dropped: telemetry.dropped.load(Ordering::Relaxed),
    }));
    let mut text = String::new();
    if let Err(error) = encode(&mut text, &registry) {
        tracing::error!(%error, "metrics cannot be written");
    }
    text
}

#[derive(Debug)]
struct ConfigValues {
    updates: u64,
    rejected: u64,
    connected: i64,
    resources: i64,
}

#[derive(Debug)]
struct Snapshot {
    listeners: Held<ListenerMetrics>,
    routes: Held<RouteMetrics>,
    backends: Held<BackendMetrics>,
    config: ConfigValues,
    sent: u64,
    dropped: u64,
}

impl Collector for Snapshot {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        self.listeners(&mut to)?;
        self.routes(&mut to)?;
        self.backends(&mut to)?;
        self.details(&mut to)?;
        self.config(&mut to)
    }
}

impl Snapshot {
    fn listeners(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        let (label, held) = ("listener", &self.listeners);
        counter(
            to,
            "listener_connections",
            "Connections accepted",
            label,
            held,
            |l| l.0.sum(|c| &c.connections),
        )?;
        gauge(
            to,
            "listener_connections_active",
            "Connections open",
            label,
            held,
            |l| l.0.total(|c| &c.active),
        )?;
        counter(
            to,
            "listener_tls_errors",
            "Failed TLS handshakes",
            label,
            held,
            |l| l.0.sum(|c| &c.tls_errors),
        )?;
        counter(to, "listener_received_bytes", "From clients", label, held, |l| {
            l.0.sum(|c| &c.received)
        })?;
        counter(to, "listener_sent_bytes", "To clients", label, held, |l| {
            l.0.sum(|c| &c.sent)
        })?;
        counter(
            to,
            "listener_dropped",
            "Connections and datagrams nobody took",
            label,
            held,
            |l| l.0.sum(|c| &c.dropped),
        )
    }

    fn routes(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        let (label, held) = ("route", &self.routes);
        classes(
            to,
            "route_requests",
            "Requests by class of their status",
            label,
            held,
            |r, class| r.0.sum(|c| &c.requests.classes[class]),
        )?;
        durations(
            to,
            "route_request_duration",
            "Request to end of response",
            label,
            held,
            |r| histogram(&r.0, |c| &c.requests),
        )?;
        counter(to, "route_connections", "Connections routed", label, held, |r| {
            r.0.sum(|c| &c.connections)
        })?;
        counter(
            to,
            "route_csrf_request_valid",
            "Requests that may change something, of an origin that may send them",
            label,
            held,
            |r| r.0.sum(|c| &c.csrf_valid),
        )?;
        counter(
            to,
            "route_csrf_request_invalid",
            "Requests that may change something, of another origin",
            label,
            held,
            |r| r.0.sum(|c| &c.csrf_invalid),
        )
    }

    fn backends(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        let (label, held) = ("backend", &self.backends);
        classes(
            to,
            "backend_requests",
            "Tries by class of their status",
            label,
            held,
            |b, class| b.0.sum(|c| &c.requests.classes[class]),
        )?;
        durations(
            to,
            "backend_request_duration",
            "Try to end of response",
            label,
            held,
            |b| histogram(&b.0, |c| &c.requests),
        )?;
        gauge(
            to,
            "backend_active",
            "Requests and connections under way",
            label,
            held,
            |b| b.0.total(|c| &c.active),
        )?;
        counter(
            to,
            "backend_connections",
            "Connections opened",
            label,
            held,
            |b| b.0.sum(|c| &c.connections),
        )?;
        counter(
            to,
            "backend_connect_failures",
            "Connections that failed",
            label,
            held,
            |b| b.0.sum(|c| &c.connect_failures),
        )?;
        counter(to, "backend_retries", "Requests tried again", label, held, |b| {
            b.0.sum(|c| &c.retries)
        })?;
        counter(
            to,
            "backend_overflows",
            "Requests that a circuit breaker had no room for",
            label,
            held,
            |b| b.0.sum(|c| &c.overflows),
        )?;
        let watched: Held<BackendMetrics> = held
            .iter()
            .filter(|(_, backend)| backend.1.watched.load(Ordering::Relaxed))
            .cloned()
            .collect();
        gauge(
            to,
            "backend_endpoints",
            "Endpoints to choose from",
            label,
            &watched,
            |b| b.1.endpoints.load(Ordering::Relaxed),
        )?;
        gauge(
            to,
            "backend_endpoints_healthy",
            "Those of them that are healthy",
            label,
            &watched,
            |b| b.1.healthy.load(Ordering::Relaxed),
        )
    }

    fn config(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        let config = &self.config;
        to.encode_descriptor("config_updates", "Updates applied", None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&config.updates, None)?;
        to.encode_descriptor("config_rejected", "Resources refused", None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&config.rejected, None)?;
        to.encode_descriptor("config_resources", "Resources held", None, MetricType::Gauge)?
            .encode_gauge(&config.resources)?;
        to.encode_descriptor(
            "config_connected",
            "1: the controller is there",
            None,
            MetricType::Gauge,
        )?
        .encode_gauge(&config.connected)?;
        to.encode_descriptor(
            "telemetry_sent",
            "Records, spans and reports that collectors took",
            None,
            MetricType::Counter,
        )?
        .encode_counter::<NoLabelSet, _, f64>(&self.sent, None)?;
        to.encode_descriptor(
            "telemetry_dropped",
            "Those that were lost",
            None,
            MetricType::Counter,
        )?
        .encode_counter::<NoLabelSet, _, f64>(&self.dropped, None)
    }
}

fn counter<T>(
    to: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    label: &str,
    held: &Held<T>,
    value: impl Fn(&T) -> u64,
) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (object, handle) in held {
        metric
            .encode_family(&[(label, object.as_ref())])?
            .encode_counter::<NoLabelSet, _, f64>(&value(handle), None)?;
    }
    Ok(())
}

fn gauge<T>(
    to: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    label: &str,
    held: &Held<T>,
    value: impl Fn(&T) -> i64,
) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (object, handle) in held {
        metric
            .encode_family(&[(label, object.as_ref())])?
            .encode_gauge(&value(handle))?;
    }
    Ok(())
}

/// One series for each status class that has occurred.
fn classes<T>(
    to: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    label: &str,
    held: &Held<T>,
    value: impl Fn(&T, usize) -> u64,
) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (object, handle) in held {
        for (i, class) in CLASSES.iter().enumerate() {
            let value = value(handle, i);
            if value > 0 {
                let labels = [(label, object.as_ref()), ("class", *class)];
                metric
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, f64>(&value, None)?;
            }
        }
    }
    Ok(())
}

struct Histogram {
    sum: f64,
    buckets: Vec<(f64, u64)>,
}

fn histogram<T: Default>(cells: &Sharded<T>, requests: impl Fn(&T) -> &Requests) -> Histogram {
    let count = |i: usize| cells.sum(|cell| &requests(cell).buckets[i]);
    let bounds = BOUNDS.iter().copied().chain([f64::INFINITY]);
    let sum_us: u64 = cells.sum(|cell| -> &AtomicU64 { &requests(cell).sum_us });
    #[allow(clippy::cast_precision_loss, reason = "a sum of durations need not be exact")]
    let sum = sum_us as f64 / 1e6;
    Histogram {
        sum,
        buckets: bounds.enumerate().map(|(i, bound)| (bound, count(i))).collect(),
    }
}

/// One histogram in seconds for each object that has served anything.
fn durations<T>(
    to: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    label: &str,
    held: &Held<T>,
    value: impl Fn(&T) -> Histogram,
) -> fmt::Result {
    let mut metric: MetricEncoder =
        to.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for (object, handle) in held {
        let Histogram { sum, buckets } = value(handle);
        let count = buckets.iter().map(|(_, count)| count).sum();
        if count > 0 {
            let labels = [(label, object.as_ref())];
            metric
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
    }
    Ok(())
}
