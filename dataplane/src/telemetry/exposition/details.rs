//! Writes the metrics that exist only where the configuration asks for them.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{CLASSES, Histogram, Snapshot, histogram};
use crate::telemetry::cells::Sharded;
use crate::telemetry::details::{BackendDetails, Bytes, GRPC_STATUSES, OTHER, SIZES, SizeCells};

/// A counter by its labels.
type Line<'l, const N: usize> = ([(&'l str, &'l str); N], u64);

impl Snapshot {
    pub(super) fn details(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        self.hosts(to)?;
        self.endpoints(to)?;
        self.sizes(to)?;
        self.methods(to)
    }

    fn hosts(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        let listeners = self.listeners.iter();
        let held: Vec<_> = listeners
            .filter_map(|(name, listener)| Some((&**name, listener.1.get()?.held())))
            .collect();
        let mut requests = Vec::new();
        for (listener, hosts) in &held {
            for (host, cells) in hosts {
                for (class, name) in CLASSES.iter().enumerate() {
                    let labels = [("listener", *listener), ("host", &**host), ("class", *name)];
                    requests.push((labels, cells.sum(|cells| &cells.classes[class])));
                }
            }
        }
        counters(to, "host_requests", "Requests for a host of routes", &requests)?;
        if held.is_empty() {
            return Ok(());
        }
        let mut metric = to.encode_descriptor(
            "host_request_duration",
            "Request to end of response",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (listener, hosts) in &held {
            for (host, cells) in hosts {
                let Histogram { sum, buckets } = histogram(cells, |cells| cells);
                let count = buckets.iter().map(|(_, count)| count).sum();
                metric
                    .encode_family(&[("listener", *listener), ("host", &**host)])?
                    .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }

    /// Backends that have any of these.
    fn detailed(&self) -> impl Iterator<Item = (&str, &BackendDetails)> {
        let backends = self.backends.iter();
        backends.filter_map(|(name, backend)| Some((&**name, &**backend.2.get()?)))
    }

    fn endpoints(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        let held: Vec<_> = self
            .detailed()
            .map(|(name, details)| (name, details.endpoints.held()))
            .collect();
        let (mut requests, mut failures) = (Vec::new(), Vec::new());
        for (backend, endpoints) in &held {
            for (endpoint, cells) in endpoints {
                let (backend, endpoint) = (("backend", *backend), ("endpoint", &**endpoint));
                for (class, name) in CLASSES.iter().enumerate() {
                    let count = cells.sum(|cells| &cells.classes[class]);
                    requests.push(([backend, endpoint, ("class", *name)], count));
                }
                let count = cells.sum(|cells| &cells.connect_failures);
                failures.push(([backend, endpoint], count));
            }
        }
        counters(to, "endpoint_requests", "Tries at an endpoint", &requests)?;
        counters(
            to,
            "endpoint_connect_failures",
            "Connections to an endpoint that failed",
            &failures,
        )
    }

    fn sizes(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        type Of = fn(&SizeCells) -> &Bytes;
        let kinds: [(&str, &str, Of); 4] = [
            (
                "backend_request_headers",
                "Header fields that were sent",
                |cells| &cells.request_headers,
            ),
            ("backend_request_body", "Bodies that were sent", |cells| {
                &cells.request_body
            }),
            ("backend_response_headers", "Header fields that came", |cells| {
                &cells.response_headers
            }),
            ("backend_response_body", "Bodies that came", |cells| {
                &cells.response_body
            }),
        ];
        for (name, help, of) in kinds {
            let held = self
                .detailed()
                .map(|(backend, details)| (backend, bytes(&details.sizes, of)))
                .filter(|(_, sizes)| sizes.buckets.iter().any(|(_, count)| *count > 0));
            let held: Vec<_> = held.collect();
            if held.is_empty() {
                continue;
            }
            let mut metric = to.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Histogram)?;
            for (backend, Histogram { sum, buckets }) in held {
                let count = buckets.iter().map(|(_, count)| count).sum();
                metric
                    .encode_family(&[("backend", backend)])?
                    .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }

    fn methods(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        let held: Vec<_> = self
            .detailed()
            .map(|(name, details)| (name, details.methods.held()))
            .collect();
        if held.iter().all(|(_, methods)| methods.is_empty()) {
            return Ok(());
        }
        let mut metric = to.encode_descriptor(
            "grpc_requests",
            "Calls by status of gRPC",
            None,
            MetricType::Counter,
        )?;
        for (backend, methods) in &held {
            for (name, cells) in methods {
                let (service, method) = name.split_once('/').unwrap_or((OTHER, OTHER));
                for status in 0..=GRPC_STATUSES {
                    let count = cells.sum(|cells| &cells.statuses[status]);
                    if count == 0 {
                        continue;
                    }
                    let status = match status {
                        GRPC_STATUSES => "none".to_owned(),
                        known => known.to_string(),
                    };
                    let labels = [
                        ("backend", *backend),
                        ("service", service),
                        ("method", method),
                        ("status", &status),
                    ];
                    metric
                        .encode_family(&labels)?
                        .encode_counter::<NoLabelSet, _, f64>(&count, None)?;
                }
            }
        }
        Ok(())
    }
}

/// Those that have counted anything.
fn counters<const N: usize>(
    to: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    lines: &[Line<'_, N>],
) -> fmt::Result {
    if lines.iter().all(|(_, count)| *count == 0) {
        return Ok(());
    }
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, count) in lines.iter().filter(|(_, count)| *count > 0) {
        metric
            .encode_family(labels)?
            .encode_counter::<NoLabelSet, _, f64>(count, None)?;
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "a sum of sizes need not be exact")]
fn bytes(cells: &Sharded<SizeCells>, of: fn(&SizeCells) -> &Bytes) -> Histogram {
    let count = |i: usize| cells.sum(|cells| -> &AtomicU64 { &of(cells).buckets[i] });
    let bounds = SIZES.iter().map(|bound| *bound as f64).chain([f64::INFINITY]);
    Histogram {
        sum: cells.sum(|cells| -> &AtomicU64 { &of(cells).sum }) as f64,
        buckets: bounds.enumerate().map(|(i, bound)| (bound, count(i))).collect(),
    }
}

/// The text with only those metrics whose names, or names of whose lines, are accepted.
pub(in crate::telemetry) fn only(text: &str, accepts: impl Fn(&str) -> bool) -> String {
    let mut kept = String::with_capacity(text.len());
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let goes_on = |_: &&str, next: &&str| !next.starts_with("# HELP ") && !next.starts_with("# EOF");
    for block in lines.chunk_by(goes_on) {
        let is_wanted = block.iter().any(|line| match line.strip_prefix("# ") {
            Some("EOF\n") => true,
            Some(comment) => comment.split(' ').nth(1).is_some_and(&accepts),
            None => line.split(['{', ' ']).next().is_some_and(&accepts),
        });
        if is_wanted {
            kept.extend(block.iter().copied());
        }
    }
    kept
}
