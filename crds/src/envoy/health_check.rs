//! Health checks and outlier detection.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cel::Cel;
use crate::duration::Duration;
use crate::open_enum::open_enum;
use crate::shape;

/// Health check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// Active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<ActiveHealthCheck>,
    /// Passive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive: Option<PassiveHealthCheck>,
    /// Percent of healthy endpoints below which health is disregarded.
    #[schemars(range(min = 0, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic_threshold: Option<i64>,
}

/// Active health check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.http) == (self.type == 'HTTP')",
        "http must be set with type HTTP, and with no other",
    ),
    (
        "has(self.tcp) == (self.type == 'TCP')",
        "tcp must be set with type TCP, and with no other",
    ),
    (
        "!has(self.grpc) || self.type == 'GRPC'",
        "grpc may be set with type GRPC alone",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct ActiveHealthCheck {
    /// How long an answer may take; 1 s if absent.
    #[schemars(extend("default" = "1s"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Time between checks; 3 s if absent.
    #[schemars(extend("default" = "3s"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Initial jitter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_jitter: Option<Duration>,
    /// Failures that make an endpoint unhealthy; 3 if absent.
    #[schemars(range(min = 1), extend("default" = 3))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unhealthy_threshold: Option<i64>,
    /// Successes that make it healthy again; 1 if absent.
    #[schemars(range(min = 1), extend("default" = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy_threshold: Option<i64>,
    /// Which kind it is.
    #[serde(rename = "type")]
    pub type_: ActiveHealthCheckerType,
    /// HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HTTPActiveHealthChecker>,
    /// TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TCPActiveHealthChecker>,
    /// GRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GRPCActiveHealthChecker>,
    /// Overrides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overrides: Option<HealthCheckOverrides>,
    /// Health check log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check_log: Option<ProxyHealthCheckLog>,
}

open_enum! {
    /// Active health checker type.
    ActiveHealthCheckerType {
        /// `HTTP`.
        Http = "HTTP",
        /// `TCP`.
        Tcp = "TCP",
        /// `GRPC`.
        Grpc = "GRPC",
    }
}

/// HTTP active health checker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "!has(self.requestBody) || (has(self.method) && self.method.upperAscii() in ['POST', 'PUT'])",
        "requestBody needs method POST or PUT",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct HTTPActiveHealthChecker {
    /// Hostname.
    #[schemars(transform = shape::dns_name)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Path.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Method.
    #[schemars(length(max = 16))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Expected statuses.
    #[schemars(inner(range(min = 100, max = 599)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected_statuses: Vec<i64>,
    /// Retriable statuses.
    #[schemars(inner(range(min = 100, max = 599)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retriable_statuses: Vec<i64>,
    /// Expected response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_response: Option<ActiveHealthCheckPayload>,
    /// Request body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body: Option<ActiveHealthCheckPayload>,
}

/// Active health check payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.text) == (self.type == 'Text')",
        "text must be set with type Text, and with no other",
    ),
    (
        "has(self.binary) == (self.type == 'Binary')",
        "binary must be set with type Binary, and with no other",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct ActiveHealthCheckPayload {
    /// Which kind it is.
    #[serde(rename = "type")]
    pub type_: ActiveHealthCheckPayloadType,
    /// Plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Base64.
    #[schemars(extend("format" = "byte"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
}

open_enum! {
    /// Active health check payload type.
    ActiveHealthCheckPayloadType {
        /// `Text`.
        Text = "Text",
        /// `Binary`.
        Binary = "Binary",
    }
}

/// TCP active health checker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TCPActiveHealthChecker {
    /// Send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<ActiveHealthCheckPayload>,
    /// Receive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive: Option<ActiveHealthCheckPayload>,
}

/// GRPC active health checker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GRPCActiveHealthChecker {
    /// Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Health check overrides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheckOverrides {
    /// Port.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
}

/// Proxy health check log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyHealthCheckLog {
    /// Sinks.
    #[schemars(length(max = 1))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<ProxyHealthCheckLogSink>,
    /// Matches.
    #[schemars(length(max = 4), transform = shape::set, transform = Cel(&[(
        "self.exists(event, event in ['Failure', 'FailureSeriesStart']) == self.exists(event, event in ['Success', 'HealthyTransition'])",
        "matches must name events of failure and of success, or neither",
    )]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<ProxyHealthCheckLogEventType>,
}

/// Proxy health check log sink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.file) == (self.type == 'File')",
        "file must be set with type File, and with no other",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct ProxyHealthCheckLogSink {
    /// Which kind it is.
    #[serde(rename = "type")]
    pub type_: ProxyHealthCheckLogSinkType,
    /// File.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileEnvoyProxyHealthCheckLog>,
}

open_enum! {
    /// Proxy health check log sink type.
    ProxyHealthCheckLogSinkType {
        /// `File`.
        File = "File",
    }
}

/// File envoy proxy health check log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileEnvoyProxyHealthCheckLog {
    /// Path.
    #[schemars(length(min = 1))]
    pub path: String,
}

open_enum! {
    /// Proxy health check log event type.
    ProxyHealthCheckLogEventType {
        /// `Failure`.
        Failure = "Failure",
        /// `FailureSeriesStart`.
        FailureSeriesStart = "FailureSeriesStart",
        /// `Success`.
        Success = "Success",
        /// `HealthyTransition`.
        HealthyTransition = "HealthyTransition",
    }
}

/// Passive health check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PassiveHealthCheck {
    /// Whether failed connections are counted apart from responses.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_external_local_origin_errors: Option<bool>,
    /// Interval.
    #[schemars(extend("default" = "3s"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Failed connections in a row; 5 if absent.
    #[schemars(extend("default" = 5))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_local_origin_failures: Option<i64>,
    /// Consecutive gateway errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_gateway_errors: Option<i64>,
    /// Responses from 500 on in a row; 5 if absent.
    #[schemars(extend("default" = 5))]
    #[serde(rename = "consecutive5XxErrors", skip_serializing_if = "Option::is_none")]
    pub consecutive_5xx_errors: Option<i64>,
    /// How long an endpoint is taken out, times the number of times; 30 s if absent.
    #[schemars(extend("default" = "30s"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_ejection_time: Option<Duration>,
    /// Percent of endpoints that may be out at once; 10 if absent.
    #[schemars(range(min = 0, max = 100), extend("default" = 10))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ejection_percent: Option<i64>,
    /// Failure percentage threshold.
    #[schemars(range(min = 0, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_percentage_threshold: Option<i64>,
    /// Always eject one endpoint.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub always_eject_one_endpoint: Option<bool>,
}
