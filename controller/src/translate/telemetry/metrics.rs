//! Metrics of a proxy.

use sluice_config::v1;
use sluice_crds::envoy::{ProxyMetrics, ProxyTelemetry, Raw, StringMatch, StringMatchType};

use super::{Translation, resource};
use crate::translate::policy::envoy::{Reader, stats, string_match};

impl Translation<'_, '_> {
    pub(super) fn metrics(&mut self, from: &ProxyMetrics) -> v1::Metrics {
        let names = self.names(&from.matches);
        let mut sinks = Vec::new();
        for (i, sink) in from.sinks.iter().enumerate() {
            let field = format!("telemetry.metrics.sinks[{i}].openTelemetry");
            let Some(sink) = &sink.open_telemetry else {
                self.remark(field, "not set");
                continue;
            };
            let Some(receiver) = self.otlp(sink, &field) else {
                continue;
            };
            sinks.push(v1::OtlpMetrics {
                receiver: Some(receiver),
                resource: resource(sink),
                interval_ms: 0,
                delta_counters: sink.report_counters_as_deltas,
                delta_histograms: sink.report_histograms_as_deltas,
            });
        }
        if from.cluster_stat_name.as_deref().is_some_and(stats::has_unknown) {
            self.remark(
                "telemetry.metrics.clusterStatName",
                "it has operators that have no value",
            );
        }
        let prometheus = from.prometheus.as_ref();
        v1::Metrics {
            no_prometheus: prometheus.is_some_and(|prometheus| prometheus.disable),
            compress: prometheus.is_some_and(|prometheus| prometheus.compression.is_some()),
            sinks,
            hosts: from.enable_virtual_host_stats,
            endpoints: from.enable_per_endpoint_stats,
            sizes: from.enable_request_response_sizes_stats,
            grpc: from.enable_grpc_stats,
            names,
        }
    }

    /// Patterns for names of metrics. Those of Envoy's names, which have dots, match none of ours and are passed over: that
    /// no metric at all is left is not what they are meant for.
    fn names(&mut self, from: &[StringMatch]) -> Vec<v1::StringMatch> {
        let field = "telemetry.metrics.matches";
        let mut reader = Reader::new(&self.context, String::new());
        let mut names = Vec::new();
        for pattern in from {
            let is_text = pattern.type_ != Some(StringMatchType::RegularExpression);
            if is_text && pattern.value.contains('.') {
                let why = format!("{:?}: metrics have names of their own", pattern.value);
                reader.warnings.push(format!("{field} ({why})"));
                continue;
            }
            let before = reader.faults.len();
            let compiled = string_match(&mut reader, pattern, field);
            if reader.faults.len() == before {
                names.push(compiled);
            }
        }
        let (faults, warnings) = (reader.faults, reader.warnings);
        self.told.remarks.extend(warnings);
        self.told
            .remarks
            .extend(faults.into_iter().map(|fault| fault.message));
        names
    }
}

/// Pattern of the name by which metrics know requests to a rule's backends.
pub fn backend_stat_name(from: &Raw<ProxyTelemetry>) -> Option<String> {
    // Read by itself, so that it does not go with another field that is wrong.
    let pattern = from.value.pointer("/metrics/clusterStatName")?.as_str()?;
    (!pattern.is_empty()).then(|| pattern.to_owned())
}
