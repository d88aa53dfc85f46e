//! What an EnvoyProxy says of access logs, traces and metrics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::policy::{BackendCluster, StringMatch};
use super::telemetry::Tracing;
use crate::gateway::HTTPHeader;

macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
    )*};
}

objects! {
    /// Telemetry of a proxy.
    ProxyTelemetry {
        /// Access logs.
        access_log: Option<ProxyAccessLog>,
        /// Traces.
        tracing: Option<ProxyTracing>,
        /// Metrics.
        metrics: Option<ProxyMetrics>,
    }
    /// Access logs.
    ProxyAccessLog {
        /// True: there are none.
        disable: bool,
        /// Each of them; none: the default one.
        settings: Vec<ProxyAccessLogSetting>,
    }
    /// An access log.
    ProxyAccessLogSetting {
        /// Unset: the default one.
        format: Option<ProxyAccessLogFormat>,
        /// CEL; one must be true.
        matches: Vec<String>,
        /// Where it goes.
        sinks: Vec<ProxyAccessLogSink>,
        /// `Listener` or `Route`; unset: both.
        #[serde(rename = "type")]
        type_: Option<String>,
    }
    /// A format with command operators.
    ProxyAccessLogFormat {
        /// `Text`, `JSON` or `Mix`.
        #[serde(rename = "type")]
        type_: Option<String>,
        /// A line.
        text: Option<String>,
        /// Fields.
        json: BTreeMap<String, String>,
    }
    /// Where an access log goes.
    ProxyAccessLogSink {
        /// `ALS`, `File` or `OpenTelemetry`.
        #[serde(rename = "type")]
        type_: Option<String>,
        /// Envoy's access log service.
        als: Option<AlsSink>,
        /// A file.
        file: Option<FileSink>,
        /// A collector.
        open_telemetry: Option<OpenTelemetrySink>,
    }
    /// Envoy's access log service.
    AlsSink {
        /// The service.
        #[serde(flatten)]
        cluster: BackendCluster,
        /// Name of the log.
        log_name: Option<String>,
        /// `HTTP` or `TCP`.
        #[serde(rename = "type")]
        type_: Option<String>,
        /// Further fields of HTTP logs.
        http: Option<AlsHttp>,
    }
    /// Further fields of HTTP logs.
    AlsHttp {
        /// Headers of requests.
        request_headers: Vec<String>,
        /// Headers of responses.
        response_headers: Vec<String>,
    }
    /// A file.
    FileSink {
        /// Its path.
        path: String,
    }
    /// A collector of OpenTelemetry.
    OpenTelemetrySink {
        /// The collector.
        #[serde(flatten)]
        cluster: BackendCluster,
        /// Its host, if there is no reference.
        host: Option<String>,
        /// Its port; 4317 if unset.
        port: Option<u16>,
        /// What is said of the proxy.
        resources: BTreeMap<String, String>,
        /// What is said of the proxy.
        resource_attributes: BTreeMap<String, String>,
        /// Further headers.
        headers: Vec<HTTPHeader>,
        /// Counters are told since the last time.
        report_counters_as_deltas: bool,
        /// Histograms are told since the last time.
        report_histograms_as_deltas: bool,
    }
    /// Traces.
    ProxyTracing {
        /// What a route may say as well.
        #[serde(flatten)]
        tracing: Tracing,
        /// Percent.
        sampling_rate: Option<u32>,
        /// Who is told.
        provider: TracingProvider,
    }
    /// Who is told of traces.
    TracingProvider {
        /// The collector.
        #[serde(flatten)]
        cluster: BackendCluster,
        /// `OpenTelemetry`, `Zipkin` or `Datadog`.
        #[serde(rename = "type")]
        type_: Option<String>,
        /// Its host, if there is no reference.
        host: Option<String>,
        /// Its port; 4317 if unset.
        port: Option<u16>,
        /// Name of the service that spans are of.
        service_name: Option<String>,
        /// For OpenTelemetry.
        open_telemetry: Option<OpenTelemetryTracing>,
        /// For Zipkin.
        zipkin: Option<ZipkinTracing>,
    }
    /// OpenTelemetry's settings.
    OpenTelemetryTracing {
        /// Further headers.
        headers: Vec<HTTPHeader>,
        /// What is said of the proxy.
        resource_attributes: BTreeMap<String, String>,
    }
    /// Zipkin's settings.
    ZipkinTracing {
        /// New traces have identifiers of 128 bits.
        #[serde(rename = "enable128BitTraceId")]
        enable_128_bit_trace_id: bool,
    }
    /// Metrics.
    ProxyMetrics {
        /// Those that are fetched.
        prometheus: Option<Prometheus>,
        /// Those that are sent.
        sinks: Vec<MetricSink>,
        /// Which there are.
        matches: Vec<StringMatch>,
    }
    /// Metrics that are fetched.
    Prometheus {
        /// True: there are none.
        disable: bool,
        /// Set: they may be compressed.
        compression: Option<serde_json::Value>,
    }
    /// Metrics that are sent.
    MetricSink {
        /// `OpenTelemetry`.
        #[serde(rename = "type")]
        type_: Option<String>,
        /// The collector.
        open_telemetry: Option<OpenTelemetrySink>,
    }
}
