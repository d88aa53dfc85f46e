//! BackendTrafficPolicy: how requests are sent to backends.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::admission_control::AdmissionControl;
use super::cluster::{ClusterSettings, PREDICTIVE_PRECONNECT};
use super::envoy_proxy::RoutingType;
use super::policy::{PolicyMergeType, PolicyTargetReferences};
use super::rate_limit::RateLimitSpec;
use super::response::ResponseOverride;
use super::rules::NO_MERGE_BY_REPLACING;
use super::telemetry::BackendTelemetry;
use crate::cel::Cel;
use crate::duration::Duration;
use crate::gateway::PolicyStatus;
use crate::int_or_string::IntOrString;
use crate::open_enum::open_enum;
use crate::patterns;

/// How requests are sent to backends: load balancing, retries, timeouts, limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "gateway.envoyproxy.io",
    version = "v1alpha1",
    kind = "BackendTrafficPolicy",
    plural = "backendtrafficpolicies",
    shortname = "btp",
    category = "envoy-gateway",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "How requests are sent to backends: load balancing, retries, timeouts, limits.",
    schema = "derived"
)]
#[schemars(transform = Cel(&[
    (
        "(!has(self.targetRef) || self.targetRef.kind in ['Gateway', 'ListenerSet', 'HTTPRoute', 'GRPCRoute', 'TCPRoute', 'TLSRoute', 'UDPRoute']) && (!has(self.targetRefs) || self.targetRefs.all(ref, ref.kind in ['Gateway', 'ListenerSet', 'HTTPRoute', 'GRPCRoute', 'TCPRoute', 'TLSRoute', 'UDPRoute']))",
        "targetRef and targetRefs must be of kind Gateway, ListenerSet, HTTPRoute, GRPCRoute, TCPRoute, TLSRoute or UDPRoute",
    ),
    (
        "!has(self.mergeType) || ((!has(self.targetRef) || self.targetRef.kind in ['HTTPRoute', 'GRPCRoute', 'TCPRoute', 'TLSRoute', 'UDPRoute']) && (!has(self.targetRefs) || self.targetRefs.all(ref, ref.kind in ['HTTPRoute', 'GRPCRoute', 'TCPRoute', 'TLSRoute', 'UDPRoute'])) && (!has(self.targetSelectors) || self.targetSelectors.all(selector, selector.kind in ['HTTPRoute', 'GRPCRoute', 'TCPRoute', 'TLSRoute', 'UDPRoute'])))",
        "mergeType needs routes as targets: HTTPRoute, GRPCRoute, TCPRoute, TLSRoute or UDPRoute",
    ),
    (
        "!has(self.compression) || !has(self.compressor)",
        "one of compression and compressor may be set",
    ),
    (
        "!has(self.requestBuffer) || !has(self.httpUpgrade) || self.httpUpgrade.size() == 0",
        "one of requestBuffer and httpUpgrade may be set",
    ),
    (
        "!has(self.admissionControl) || ((!has(self.targetRef) || self.targetRef.kind in ['Gateway', 'ListenerSet', 'HTTPRoute', 'GRPCRoute']) && (!has(self.targetRefs) || self.targetRefs.all(ref, ref.kind in ['Gateway', 'ListenerSet', 'HTTPRoute', 'GRPCRoute'])) && (!has(self.targetSelectors) || self.targetSelectors.all(selector, selector.kind in ['Gateway', 'ListenerSet', 'HTTPRoute', 'GRPCRoute'])))",
        "admissionControl needs targets of kind Gateway, ListenerSet, HTTPRoute or GRPCRoute",
    ),
    PREDICTIVE_PRECONNECT,
]))]
#[serde(rename_all = "camelCase")]
pub struct BackendTrafficPolicySpec {
    /// What it applies to.
    #[serde(flatten)]
    pub targets: PolicyTargetReferences,
    /// How connections to backends are made and used.
    #[serde(flatten)]
    pub cluster: ClusterSettings,
    /// How it is laid over the policy of the route's Gateway; absent: it takes that one's place.
    #[schemars(with = "Option<String>", transform = Cel(&[NO_MERGE_BY_REPLACING]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_type: Option<PolicyMergeType>,
    /// Bounds on requests in a span of time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,
    /// Bounds on bytes in a span of time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth_limit: Option<BandwidthLimitSpec>,
    /// Delays and errors on purpose, for tests of clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault_injection: Option<FaultInjection>,
    /// Requests are refused while too many of them fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admission_control: Option<AdmissionControl>,
    /// Whether backends are spoken to as the client speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_client_protocol: Option<bool>,
    /// Compression of responses; an older way to write `compressor`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compression: Vec<Compression>,
    /// Compression of responses, best first; none if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compressor: Vec<Compression>,
    /// Responses that take the place of others; the first that matches counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response_override: Vec<ResponseOverride>,
    /// Protocols that connections may be upgraded to; WebSocket if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_upgrade: Vec<ProtocolUpgradeConfig>,
    /// Requests are sent on when they are there as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_buffer: Option<RequestBuffer>,
    /// Traces and metrics of the routes; what is set goes before the EnvoyProxy's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<BackendTelemetry>,
    /// Whether requests go to endpoints or to the Service's address; as the EnvoyProxy has it if absent.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing_type: Option<RoutingType>,
}

/// Bounds on bytes in a span of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.request) || has(self.response)",
        "request, response or both must be set",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct BandwidthLimitSpec {
    /// Bound of requests' bodies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<BandwidthLimitRequestConfig>,
    /// Bound of responses' bodies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<BandwidthLimitResponseConfig>,
}

/// Bound of requests' bodies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BandwidthLimitRequestConfig {
    /// Bytes in a span of time.
    pub limit: BandwidthLimitValue,
}

/// Bytes in a span of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BandwidthLimitValue {
    /// Bytes, such as `10Mi`.
    #[schemars(extend("pattern" = patterns::SIZE))]
    pub value: IntOrString,
    /// Span of time that the bytes are for.
    pub unit: BandwidthLimitUnit,
}

open_enum! {
    /// Bandwidth limit unit.
    BandwidthLimitUnit {
        /// `Second`.
        Second = "Second",
        /// `Minute`.
        Minute = "Minute",
        /// `Hour`.
        Hour = "Hour",
    }
}

/// Bound of responses' bodies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BandwidthLimitResponseConfig {
    /// Bytes in a span of time.
    pub limit: BandwidthLimitValue,
    /// Trailers that tell the delays; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_trailers: Option<BandwidthLimitResponseTrailers>,
}

/// Trailers that tell the delays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BandwidthLimitResponseTrailers {
    /// What their names begin with; nothing if absent.
    #[schemars(regex(pattern = r"^[^\r\n\x00]*$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// Delays and errors on purpose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.delay) || has(self.abort)",
        "delay, abort or both must be set",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct FaultInjection {
    /// Requests that are held back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultInjectionDelay>,
    /// Requests that are answered with an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultInjectionAbort>,
}

/// Requests that are held back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultInjectionDelay {
    /// How long a request is held back.
    #[schemars(required)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_delay: Option<Duration>,
    /// Percent of requests; 100 if absent.
    #[schemars(extend("default" = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage: Option<f64>,
}

/// Requests that are answered with an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.httpStatus) != has(self.grpcStatus)",
        "one of httpStatus and grpcStatus must be set",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct FaultInjectionAbort {
    /// HTTP status of the answer.
    #[schemars(range(min = 200, max = 600))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<i64>,
    /// gRPC status of the answer.
    #[schemars(range(min = 0, max = 16))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<i64>,
    /// Percent of requests; 100 if absent.
    #[schemars(extend("default" = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage: Option<f64>,
}

/// One way of compressing responses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compression {
    /// Algorithm.
    #[serde(rename = "type")]
    pub type_: CompressorType,
    /// Settings of Brotli, of which there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brotli: Option<BrotliCompressor>,
    /// Settings of gzip, of which there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gzip: Option<GzipCompressor>,
    /// Settings of Zstandard, of which there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zstd: Option<ZstdCompressor>,
    /// Bytes from which a response is compressed, such as `1Ki`; 30 if absent.
    #[schemars(extend("pattern" = patterns::SIZE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_content_length: Option<IntOrString>,
}

open_enum! {
    /// Compressor type.
    CompressorType {
        /// `Gzip`.
        Gzip = "Gzip",
        /// `Brotli`.
        Brotli = "Brotli",
        /// `Zstd`.
        Zstd = "Zstd",
    }
}

/// Settings of Brotli, of which there are none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrotliCompressor {}

/// Settings of gzip, of which there are none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GzipCompressor {}

/// Settings of Zstandard, of which there are none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ZstdCompressor {}

/// A protocol that connections may be upgraded to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "!has(self.connect) || self.type == 'CONNECT'",
        "connect may be set with type CONNECT alone",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct ProtocolUpgradeConfig {
    /// Name of the protocol, such as `websocket` or `CONNECT`; case does not matter.
    #[serde(rename = "type")]
    pub type_: String,
    /// What becomes of CONNECT, with type `CONNECT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<ConnectConfig>,
}

/// What becomes of CONNECT.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectConfig {
    /// Whether the proxy itself makes the connection; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminate: Option<bool>,
}

/// Requests are sent on when they are there as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestBuffer {
    /// Bytes of a request's body at most, such as `1Mi`; a larger one is answered with 413.
    #[schemars(extend("pattern" = patterns::SIZE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<IntOrString>,
}
