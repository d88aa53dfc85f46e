//! What an EnvoyProxy says of access logs, traces and metrics.

use std::collections::BTreeMap;
use std::ops::Not;

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::backend_traffic::Compression;
use super::health_check::ProxyHealthCheckLog;
use super::policy::{BackendCluster, StringMatch};
use super::rules::NO_BACKEND_REF;
use super::telemetry::Tracing;
use crate::cel::{Cel, Rule};
use crate::gateway::{Fraction, HTTPHeader};
use crate::shape::Require;

/// Backends of a telemetry sink.
const BACKENDS: [Rule; 3] = [
    NO_BACKEND_REF,
    (
        "!has(self.backendRefs) || self.backendRefs.all(ref, ref.kind in ['Service', 'Backend'])",
        "backendRefs may be of kind Service or Backend",
    ),
    (
        "!has(self.backendRefs) || self.backendRefs.all(ref, ref.group in ['', 'gateway.envoyproxy.io'])",
        "backendRefs may be of the core group or gateway.envoyproxy.io",
    ),
];

/// A collector that is named one way or the other.
const HOST_OR_BACKENDS: Rule = (
    "has(self.host) || (has(self.backendRefs) && self.backendRefs.size() > 0)",
    "host or backendRefs must be set",
);

/// A default that the API server fills in.
struct Given<T>(&'static str, T);

impl<T: Clone + Into<Value>> Transform for Given<T> {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(Value::Object(field)) = schema.pointer_mut(&format!("/properties/{}", self.0)) {
            field.insert("default".to_owned(), self.1.clone().into());
        }
    }
}

/// Fields that a type has elsewhere, but not here.
struct Without(&'static [&'static str]);

impl Transform for Without {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(Value::Object(fields)) = schema.get_mut("properties") {
            fields.retain(|name, _| !self.0.contains(&name.as_str()));
        }
    }
}

/// Takes away the defaults that only serve to read what is left out.
fn no_defaults(schema: &mut Schema) {
    let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
    for field in fields.into_iter().flat_map(|fields| fields.values_mut()) {
        if let Value::Object(field) = field {
            field.remove("default");
        }
    }
}

/// A collector of metrics: what is for logs alone is not there, nor is the rule about it.
fn metrics_collector(schema: &mut Schema) {
    Without(&["resources"]).transform(schema);
    if let Some(Value::Object(port)) = schema.pointer_mut("/properties/port") {
        port.insert("maximum".to_owned(), u16::MAX.into());
    }
    if let Some(Value::Array(rules)) = schema.get_mut("x-kubernetes-validations") {
        rules.retain(|rule| {
            !rule["rule"]
                .as_str()
                .is_some_and(|rule| rule.contains("self.resources)"))
        });
    }
}

/// Ways to choose the spans that are told.
const SAMPLERS: [&str; 6] = [
    "AlwaysOn",
    "AlwaysOff",
    "TraceIdRatio",
    "ParentBasedAlwaysOn",
    "ParentBasedAlwaysOff",
    "ParentBasedTraceIdRatio",
];

macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[schemars(transform = no_defaults)]
        $(#[$doc])*
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
    )*};
}

objects! {
    /// Telemetry of a proxy.
    ProxyTelemetry {
        /// Access logs; one of requests to standard output if absent.
        access_log: Option<ProxyAccessLog>,
        /// Traces of requests; none if absent.
        tracing: Option<ProxyTracing>,
        /// Metrics, which can be fetched if nothing is said.
        metrics: Option<ProxyMetrics>,
        /// Logs of active health checks.
        health_check_log: Option<ProxyHealthCheckLog>,
        /// What becomes of requests' identifiers (`x-request-id`).
        #[serde(rename = "requestID")]
        request_id: Option<RequestIDSettings>,
    }
    /// What becomes of requests' identifiers.
    RequestIDSettings {
        /// Whether they tell that a request is traced (`Pack`), decide whether it is (`Sample`), both
        /// (`PackAndSample`, the default) or neither (`Disable`).
        #[schemars(extend("enum" = ["PackAndSample", "Sample", "Pack", "Disable"]))]
        tracing: Option<String>,
    }
    /// Access logs.
    ProxyAccessLog {
        /// True: there are none, not even the default one; false if absent.
        disable: bool,
        /// Each of the logs. None: the default one, to the proxy's standard output.
        #[schemars(length(min = 1, max = 50))]
        settings: Vec<ProxyAccessLogSetting>,
    }
    /// An access log.
    #[schemars(transform = Require(&["sinks"]))]
    ProxyAccessLogSetting {
        /// What an entry looks like; JSON of the usual fields if absent.
        format: Option<ProxyAccessLogFormat>,
        /// Expressions in CEL, one of which must be true for a request to be logged; none: all are.
        #[schemars(length(max = 10))]
        matches: Vec<String>,
        /// Where entries go.
        #[schemars(length(min = 1, max = 50))]
        sinks: Vec<ProxyAccessLogSink>,
        /// `Listener`, `Route` or `Upstream`; unset: of routes, and of listeners where no route is found.
        #[schemars(extend("enum" = ["Listener", "Route", "Upstream"]))]
        #[serde(rename = "type")]
        type_: Option<String>,
    }
    /// What an entry of a log looks like; command operators (`%RESPONSE_CODE%`) stand for what is known of a request.
    #[schemars(transform = Cel(&[(
        "has(self.type) ? has(self.text) == (self.type == 'Text') && has(self.json) == (self.type == 'JSON') : has(self.text) || has(self.json)",
        "text must be set with type Text alone, json with type JSON alone, and one of them without a type",
    )]))]
    ProxyAccessLogFormat {
        /// `Text` or `JSON`; unset: whichever is set, or fields beside a text.
        #[schemars(extend("enum" = ["Text", "JSON"]))]
        #[serde(rename = "type")]
        type_: Option<String>,
        /// Text of an entry, with its line break.
        text: Option<String>,
        /// Fields of an entry that is a JSON object.
        json: BTreeMap<String, String>,
    }
    /// Where the entries of a log go.
    #[schemars(transform = Cel(&[(
        "has(self.als) == (self.type == 'ALS')",
        "als must be set with type ALS alone",
    ), (
        "has(self.file) == (self.type == 'File')",
        "file must be set with type File alone",
    ), (
        "has(self.openTelemetry) == (self.type == 'OpenTelemetry')",
        "openTelemetry must be set with type OpenTelemetry alone",
    )]))]
    ProxyAccessLogSink {
        /// Which of the fields says it: `ALS`, `File` or `OpenTelemetry`.
        #[schemars(extend("enum" = ["ALS", "File", "OpenTelemetry"]))]
        #[serde(rename = "type")]
        type_: Option<String>,
        /// A service that speaks Envoy's access log service (gRPC).
        als: Option<AlsSink>,
        /// A file of the proxy's container, its standard output among them.
        file: Option<FileSink>,
        /// A collector of OpenTelemetry.
        #[schemars(transform = Without(&["reportCountersAsDeltas", "reportHistogramsAsDeltas"]))]
        open_telemetry: Option<OpenTelemetrySink>,
    }
    /// A service that speaks Envoy's access log service (gRPC).
    #[schemars(transform = Require(&["type"]), transform = Cel(&BACKENDS), transform = Cel(&[(
        "!has(self.http) || self.type == 'HTTP'",
        "http is for type HTTP",
    ), (
        "has(self.backendRefs) && self.backendRefs.size() > 0",
        "backendRefs must be set",
    )]))]
    AlsSink {
        /// The service.
        #[serde(flatten)]
        cluster: BackendCluster,
        /// Name of the log, by which the service tells it from others.
        #[schemars(length(min = 1))]
        log_name: Option<String>,
        /// What entries tell of: `HTTP` requests or `TCP` connections.
        #[schemars(extend("enum" = ["HTTP", "TCP"]))]
        #[serde(rename = "type")]
        type_: Option<String>,
        /// Further fields of HTTP logs.
        http: Option<AlsHttp>,
    }
    /// Further fields of HTTP logs.
    AlsHttp {
        /// Names of headers of requests that entries have.
        request_headers: Vec<String>,
        /// Names of headers of responses that entries have.
        response_headers: Vec<String>,
        /// Names of trailers of responses that entries have.
        response_trailers: Vec<String>,
    }
    /// A file.
    FileSink {
        /// Its path in the proxy's container: `/dev/stdout` for instance.
        #[schemars(length(min = 1))]
        path: String,
    }
    /// A collector of OpenTelemetry (OTLP over gRPC).
    #[schemars(transform = Given("port", 4317), transform = Cel(&BACKENDS), transform = Cel(&[HOST_OR_BACKENDS, (
        "!has(self.resources) || !has(self.resourceAttributes)",
        "only one of resources and resourceAttributes may be set",
    )]))]
    OpenTelemetrySink {
        /// The collector.
        #[serde(flatten)]
        cluster: BackendCluster,
        /// Its host, if there is no reference.
        host: Option<String>,
        /// Its port; 4317 if unset.
        #[schemars(with = "Option<i32>", range(min = 0))]
        port: Option<u16>,
        /// Attributes of the resource that entries come from; `resourceAttributes` is newer.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        resources: BTreeMap<String, String>,
        /// Attributes of the resource that entries or metrics come from.
        resource_attributes: BTreeMap<String, String>,
        /// Headers of calls to the collector.
        #[schemars(length(min = 1, max = 32))]
        headers: Vec<HTTPHeader>,
        /// Whether counters are told as what they rose by since the last time; false if absent.
        #[serde(skip_serializing_if = "Not::not")]
        report_counters_as_deltas: bool,
        /// Whether histograms are told as what was added since the last time; false if absent.
        #[serde(skip_serializing_if = "Not::not")]
        report_histograms_as_deltas: bool,
    }
    /// Traces.
    #[schemars(transform = Require(&["provider"]), transform = Cel(&[(
        "!has(self.samplingRate) || !has(self.samplingFraction)",
        "only one of samplingRate and samplingFraction may be set",
    )]))]
    ProxyTracing {
        /// What a route may say as well.
        #[serde(flatten)]
        tracing: Tracing,
        /// Percent of requests that are traced; 100 if neither this nor `samplingFraction` is set.
        #[schemars(range(max = 100))]
        sampling_rate: Option<u32>,
        /// The collector that spans are sent to.
        provider: TracingProvider,
    }
    /// Where spans go.
    #[schemars(transform = Given("type", "OpenTelemetry"), transform = Given("port", 4317))]
    #[schemars(transform = Require(&["type"]), transform = Cel(&BACKENDS), transform = Cel(&[HOST_OR_BACKENDS, (
        "!has(self.openTelemetry) || self.type == 'OpenTelemetry'",
        "openTelemetry is for type OpenTelemetry",
    )]))]
    TracingProvider {
        /// The collector.
        #[serde(flatten)]
        cluster: BackendCluster,
        /// What the collector speaks: `OpenTelemetry` (if unset), `Zipkin` or `Datadog`.
        #[schemars(extend("enum" = ["OpenTelemetry", "Zipkin", "Datadog"]))]
        #[serde(rename = "type")]
        type_: Option<String>,
        /// Its host, if there is no reference.
        host: Option<String>,
        /// Its port; 4317 if unset.
        #[schemars(with = "Option<i32>", range(min = 0))]
        port: Option<u16>,
        /// Name of the service that spans are of; the Gateway's if unset.
        #[schemars(length(min = 1))]
        service_name: Option<String>,
        /// Settings for type `OpenTelemetry`.
        open_telemetry: Option<OpenTelemetryTracing>,
        /// Settings for type `Zipkin`.
        zipkin: Option<ZipkinTracing>,
    }
    /// OpenTelemetry's settings.
    OpenTelemetryTracing {
        /// Headers of calls to the collector.
        #[schemars(length(min = 1, max = 32))]
        headers: Vec<HTTPHeader>,
        /// Attributes of the resource that spans come from.
        resource_attributes: BTreeMap<String, String>,
        /// Which spans are told.
        sampler: Option<OpenTelemetrySampler>,
    }
    /// Which spans are told.
    #[schemars(transform = Given("type", "AlwaysOn"), transform = Require(&["type"]), transform = Cel(&[(
        "!has(self.samplingPercentage) || self.type in ['TraceIdRatio', 'ParentBasedTraceIdRatio']",
        "samplingPercentage is for types TraceIdRatio and ParentBasedTraceIdRatio",
    )]))]
    OpenTelemetrySampler {
        /// `AlwaysOn` (if unset), `AlwaysOff`, `TraceIdRatio`, or one of these with `ParentBased` before it: then a
        /// parent's decision goes first.
        #[schemars(extend("enum" = SAMPLERS))]
        #[serde(rename = "type")]
        type_: Option<String>,
        /// Share of traces that is told, for the ratio.
        sampling_percentage: Option<Fraction>,
    }
    /// Zipkin's settings.
    ZipkinTracing {
        /// Whether new traces have identifiers of 128 bits rather than 64; false if absent.
        #[serde(rename = "enable128BitTraceId")]
        enable_128_bit_trace_id: bool,
        /// Whether client and server have a span each rather than one for both; false if absent.
        disable_shared_span_context: bool,
    }
    /// Metrics.
    ProxyMetrics {
        /// Metrics that Prometheus fetches; they are there if nothing is said.
        prometheus: Option<Prometheus>,
        /// Where metrics are sent.
        #[schemars(length(max = 16))]
        sinks: Vec<MetricSink>,
        /// Names of metrics that there are beside the usual ones.
        matches: Vec<StringMatch>,
        /// Whether there are those of Envoy's virtual hosts; false if absent.
        enable_virtual_host_stats: bool,
        /// Whether there are those of each endpoint; false if absent.
        enable_per_endpoint_stats: bool,
        /// Whether sizes of requests and responses are counted; false if absent.
        enable_request_response_sizes_stats: bool,
        /// Whether there are those of gRPC; false if absent.
        #[serde(rename = "enableGRPCStats")]
        enable_grpc_stats: bool,
        /// Name that backends have in metrics; operators such as `%ROUTE_NAME%` stand for what is known of them.
        cluster_stat_name: Option<String>,
    }
    /// Metrics that are fetched.
    Prometheus {
        /// True: there are none; false if absent.
        disable: bool,
        /// Set: they may be compressed.
        compression: Option<Compression>,
    }
    /// Metrics that are sent.
    #[schemars(transform = Given("type", "OpenTelemetry"), transform = Require(&["type"]), transform = Cel(&[(
        "has(self.openTelemetry) == (self.type == 'OpenTelemetry')",
        "openTelemetry must be set with type OpenTelemetry",
    )]))]
    MetricSink {
        /// `OpenTelemetry`, the only one.
        #[schemars(extend("enum" = ["OpenTelemetry"]))]
        #[serde(rename = "type")]
        type_: Option<String>,
        /// The collector of OpenTelemetry that metrics are sent to.
        #[schemars(transform = metrics_collector)]
        open_telemetry: Option<OpenTelemetrySink>,
    }
}
