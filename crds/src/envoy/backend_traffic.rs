//! BackendTrafficPolicy: how requests are sent to backends.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// How requests are sent to backends: load balancing, retries, timeouts, limits..
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
    /// Policy target references.
    #[serde(flatten)]
    pub targets: PolicyTargetReferences,
    /// Cluster settings.
    #[serde(flatten)]
    pub cluster: ClusterSettings,
    /// How it is laid over the policy of the route's Gateway; absent: it takes that one's place.
    #[schemars(with = "Option<String>", transform = Cel(&[NO_MERGE_BY_REPLACING]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_type: Option<PolicyMergeType>,
    /// Rate limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,
    /// Bandwidth limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth_limit: Option<BandwidthLimitSpec>,
    /// Fault injection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault_injection: Option<FaultInjection>,
    /// Admission control.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admission_control: Option<AdmissionControl>,
    /// Whether backends are spoken to as the client speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_client_protocol: Option<bool>,
    /// Compression.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compression: Vec<Compression>,
    /// Compressor.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compressor: Vec<Compression>,
    /// Response override.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response_override: Vec<ResponseOverride>,
    /// HTTP upgrade.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_upgrade: Vec<ProtocolUpgradeConfig>,
    /// Request buffer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_buffer: Option<RequestBuffer>,
    /// Telemetry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<BackendTelemetry>,
    /// Routing type.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing_type: Option<RoutingType>,
}

/// Bandwidth limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.request) || has(self.response)",
        "request, response or both must be set",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct BandwidthLimitSpec {
    /// Request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<BandwidthLimitRequestConfig>,
    /// Response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<BandwidthLimitResponseConfig>,
}

/// Bandwidth limit request config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BandwidthLimitRequestConfig {
    /// Limit.
    pub limit: BandwidthLimitValue,
}

/// Bandwidth limit value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BandwidthLimitValue {
    /// Value.
    #[schemars(extend("pattern" = patterns::SIZE))]
    pub value: IntOrString,
    /// Span of time.
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

/// Bandwidth limit response config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BandwidthLimitResponseConfig {
    /// Limit.
    pub limit: BandwidthLimitValue,
    /// Response trailers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_trailers: Option<BandwidthLimitResponseTrailers>,
}

/// Bandwidth limit response trailers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BandwidthLimitResponseTrailers {
    /// Prefix.
    #[schemars(regex(pattern = r"^[^\r\n\x00]*$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// Fault injection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.delay) || has(self.abort)",
        "delay, abort or both must be set",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct FaultInjection {
    /// Delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultInjectionDelay>,
    /// Abort.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultInjectionAbort>,
}

/// Fault injection delay.
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

/// Fault injection abort.
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

/// Admission control.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "!has(self.samplingWindow) || duration(self.samplingWindow) >= duration('1s')",
        "samplingWindow must be 1s or more",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct AdmissionControl {
    /// Sampling window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_window: Option<Duration>,
    /// Min success rate.
    #[schemars(range(min = 1, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_success_rate: Option<i64>,
    /// Rejection aggression.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejection_aggression: Option<i64>,
    /// Min request rate.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_request_rate: Option<i64>,
    /// Max rejection percent.
    #[schemars(range(min = 0, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rejection_percent: Option<i64>,
    /// Success criteria.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_criteria: Option<AdmissionControlSuccessCriteria>,
}

/// Admission control success criteria.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionControlSuccessCriteria {
    /// HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HTTPSuccessCriteria>,
    /// GRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GRPCSuccessCriteria>,
}

/// HTTP success criteria.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPSuccessCriteria {
    /// Status codes.
    #[schemars(inner(range(min = 100, max = 599)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status_codes: Vec<i64>,
}

/// GRPC success criteria.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GRPCSuccessCriteria {
    /// Status codes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status_codes: Vec<GRPCSuccessCode>,
}

open_enum! {
    /// GRPC success code.
    GRPCSuccessCode {
        /// `Ok`.
        Ok = "Ok",
        /// `Cancelled`.
        Cancelled = "Cancelled",
        /// `Unknown`.
        Unknown = "Unknown",
        /// `InvalidArgument`.
        InvalidArgument = "InvalidArgument",
        /// `DeadlineExceeded`.
        DeadlineExceeded = "DeadlineExceeded",
        /// `NotFound`.
        NotFound = "NotFound",
        /// `AlreadyExists`.
        AlreadyExists = "AlreadyExists",
        /// `PermissionDenied`.
        PermissionDenied = "PermissionDenied",
        /// `ResourceExhausted`.
        ResourceExhausted = "ResourceExhausted",
        /// `FailedPrecondition`.
        FailedPrecondition = "FailedPrecondition",
        /// `Aborted`.
        Aborted = "Aborted",
        /// `OutOfRange`.
        OutOfRange = "OutOfRange",
        /// `Unimplemented`.
        Unimplemented = "Unimplemented",
        /// `Internal`.
        Internal = "Internal",
        /// `Unavailable`.
        Unavailable = "Unavailable",
        /// `DataLoss`.
        DataLoss = "DataLoss",
        /// `Unauthenticated`.
        Unauthenticated = "Unauthenticated",
    }
}

/// Compression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compression {
    /// Which kind it is.
    #[serde(rename = "type")]
    pub type_: CompressorType,
    /// Brotli.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brotli: Option<BrotliCompressor>,
    /// Gzip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gzip: Option<GzipCompressor>,
    /// Zstd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zstd: Option<ZstdCompressor>,
    /// Min content length.
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

/// Brotli compressor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrotliCompressor {}

/// Gzip compressor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GzipCompressor {}

/// Zstd compressor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ZstdCompressor {}

/// Protocol upgrade config.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "!has(self.connect) || self.type == 'CONNECT'",
        "connect may be set with type CONNECT alone",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct ProtocolUpgradeConfig {
    /// Which kind it is.
    #[serde(rename = "type")]
    pub type_: String,
    /// Connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<ConnectConfig>,
}

/// Connect config.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectConfig {
    /// Terminate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminate: Option<bool>,
}

/// Request buffer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestBuffer {
    /// Limit.
    #[schemars(extend("pattern" = patterns::SIZE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<IntOrString>,
}
