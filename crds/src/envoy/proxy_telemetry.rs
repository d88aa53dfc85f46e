//! What an EnvoyProxy says of access logs, traces and metrics.

use std::collections::BTreeMap;

use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::backend_traffic::Compression;
use super::health_check::ProxyHealthCheckLog;
use super::policy::{BackendCluster, StringMatch};
use super::telemetry::Tracing;
use crate::gateway::{Fraction, HTTPHeader};

/// Schema of a [`ProxyTelemetry`] as manifests write it. No field has a default value: the API server would fill it in,
/// and then a Gateway's parameters would seem to say what only their class's do.
pub(super) fn telemetry_schema(generator: &mut SchemaGenerator) -> Schema {
    struct NoDefaults;
    impl Transform for NoDefaults {
        fn transform(&mut self, schema: &mut Schema) {
            schema.remove("default");
            transform_subschemas(self, schema);
        }
    }
    let mut schema = generator.subschema_for::<ProxyTelemetry>();
    NoDefaults.transform(&mut schema);
    schema
}

macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
        /// Logs of health checks.
        health_check_log: Option<ProxyHealthCheckLog>,
        /// What is done about requests' identifiers.
        #[serde(rename = "requestID")]
        request_id: Option<RequestIDSettings>,
    }
    /// What is done about requests' identifiers.
    RequestIDSettings {
        /// What they tell of traces.
        tracing: Option<String>,
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
        /// `Listener`, `Route` or `Upstream`; unset: of routes, and of listeners where no route is found.
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
        /// Trailers of responses.
        response_trailers: Vec<String>,
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
        /// Which spans are told.
        sampler: Option<OpenTelemetrySampler>,
    }
    /// Which spans are told.
    OpenTelemetrySampler {
        /// `AlwaysOn`, `AlwaysOff`, `TraceIdRatio`, or one of these with `ParentBased` before it.
        #[serde(rename = "type")]
        type_: Option<String>,
        /// For the ratio.
        sampling_percentage: Option<Fraction>,
    }
    /// Zipkin's settings.
    ZipkinTracing {
        /// New traces have identifiers of 128 bits.
        #[serde(rename = "enable128BitTraceId")]
        enable_128_bit_trace_id: bool,
        /// Client and server have a span each.
        disable_shared_span_context: bool,
    }
    /// Metrics.
    ProxyMetrics {
        /// Those that are fetched.
        prometheus: Option<Prometheus>,
        /// Those that are sent.
        sinks: Vec<MetricSink>,
        /// Which there are.
        matches: Vec<StringMatch>,
        /// Those of Envoy's virtual hosts.
        enable_virtual_host_stats: bool,
        /// Those of each endpoint.
        enable_per_endpoint_stats: bool,
        /// Sizes of requests and responses.
        enable_request_response_sizes_stats: bool,
        /// Those of gRPC.
        #[serde(rename = "enableGRPCStats")]
        enable_grpc_stats: bool,
        /// Names of Envoy's clusters in metrics.
        cluster_stat_name: Option<String>,
    }
    /// Metrics that are fetched.
    Prometheus {
        /// True: there are none.
        disable: bool,
        /// Set: they may be compressed.
        compression: Option<Compression>,
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
