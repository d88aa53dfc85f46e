//! Health checks and outlier detection.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cel::Cel;
use crate::duration::Duration;
use crate::open_enum::open_enum;
use crate::shape;

/// Which endpoints are taken out for their health.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// Endpoints are asked for their health; they are not if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<ActiveHealthCheck>,
    /// Health is read from answers to requests; it is not if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive: Option<PassiveHealthCheck>,
    /// Percent of healthy endpoints below which health is disregarded.
    #[schemars(range(min = 0, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic_threshold: Option<i64>,
}

/// Endpoints are asked for their health.
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
    /// How long the first check may be put off, at random; not at all if absent.
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
    /// How endpoints are asked.
    #[serde(rename = "type")]
    pub type_: ActiveHealthCheckerType,
    /// The request, with type `HTTP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HTTPActiveHealthChecker>,
    /// What is sent and expected, with type `TCP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TCPActiveHealthChecker>,
    /// The service asked for, with type `GRPC`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GRPCActiveHealthChecker>,
    /// Where endpoints are asked, if not where requests go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overrides: Option<HealthCheckOverrides>,
    /// Log of the checks; it goes before the EnvoyProxy's.
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

/// A check by a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "!has(self.requestBody) || (has(self.method) && self.method.upperAscii() in ['POST', 'PUT'])",
        "requestBody needs method POST or PUT",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct HTTPActiveHealthChecker {
    /// Host to ask for; the endpoint's or the route's if absent.
    #[schemars(transform = shape::dns_name)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Path to ask for.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Method of the request; GET if absent.
    #[schemars(length(max = 16))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Statuses of healthy endpoints; 200 if absent.
    #[schemars(inner(range(min = 100, max = 599)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected_statuses: Vec<i64>,
    /// Statuses that count towards `unhealthyThreshold`; others of unhealthy endpoints have effect at once.
    #[schemars(inner(range(min = 100, max = 599)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retriable_statuses: Vec<i64>,
    /// What the answer must hold; anything if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_response: Option<ActiveHealthCheckPayload>,
    /// Body of the request, with method POST or PUT; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body: Option<ActiveHealthCheckPayload>,
}

/// Bytes that are sent or expected.
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
    /// How they are written.
    #[serde(rename = "type")]
    pub type_: ActiveHealthCheckPayloadType,
    /// Text, with type `Text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Base64, with type `Binary`.
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

/// A check by a connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TCPActiveHealthChecker {
    /// What is sent; nothing if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<ActiveHealthCheckPayload>,
    /// What must be received; nothing if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive: Option<ActiveHealthCheckPayload>,
}

/// A check by the gRPC health protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GRPCActiveHealthChecker {
    /// Service to ask for; the server as a whole if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Where endpoints are asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheckOverrides {
    /// Port to ask; the endpoint's own if absent.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
}

/// Log of health checks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyHealthCheckLog {
    /// Where it is written; standard output if absent.
    #[schemars(length(max = 1))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<ProxyHealthCheckLogSink>,
    /// Outcomes that are logged, of failures and successes both; all if absent.
    #[schemars(length(max = 4), transform = shape::set, transform = Cel(&[(
        "self.exists(event, event in ['Failure', 'FailureSeriesStart']) == self.exists(event, event in ['Success', 'HealthyTransition'])",
        "matches must name events of failure and of success, or neither",
    )]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<ProxyHealthCheckLogEventType>,
}

/// A place for the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.file) == (self.type == 'File')",
        "file must be set with type File, and with no other",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct ProxyHealthCheckLogSink {
    /// Type of place.
    #[serde(rename = "type")]
    pub type_: ProxyHealthCheckLogSinkType,
    /// The file, with type `File`.
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

/// A file for the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileEnvoyProxyHealthCheckLog {
    /// Path of the file; `/dev/stdout` for standard output.
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

/// Health is read from answers to requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PassiveHealthCheck {
    /// Whether failed connections are counted apart from responses.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_external_local_origin_errors: Option<bool>,
    /// Time between the rounds in which endpoints come back; 3 s if absent.
    #[schemars(extend("default" = "3s"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Failed connections in a row; 5 if absent.
    #[schemars(extend("default" = 5))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_local_origin_failures: Option<i64>,
    /// Statuses 502, 503 and 504 in a row; any number if absent or 0.
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
    /// Percent of failed requests from which an endpoint is taken out; any if absent.
    #[schemars(range(min = 0, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_percentage_threshold: Option<i64>,
    /// Whether one endpoint may be out whatever `maxEjectionPercent` says; false if absent.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub always_eject_one_endpoint: Option<bool>,
}
