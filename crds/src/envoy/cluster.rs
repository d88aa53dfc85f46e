//! Settings of connections to backends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::health_check::HealthCheck;
use super::load_balancer::LoadBalancer;
use super::policy::{HTTP2Settings, TCPKeepalive};
use crate::cel::{Cel, Rule};
use crate::duration::Duration;
use crate::gateway::Fraction;
use crate::int_or_string::IntOrString;
use crate::open_enum::open_enum;
use crate::patterns;

/// Connections made ahead of the endpoint's choice.
pub(super) const PREDICTIVE_PRECONNECT: Rule = (
    "!has(self.connection) || !has(self.connection.preconnect) || !has(self.connection.preconnect.predictivePercent) || (has(self.loadBalancer) && self.loadBalancer.type in ['Random', 'RoundRobin'])",
    "connection.preconnect.predictivePercent needs a loadBalancer of type Random or RoundRobin",
);

/// Settings of connections to backends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[PREDICTIVE_PRECONNECT]))]
#[serde(rename_all = "camelCase")]
pub struct ClusterSettings {
    /// Load balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Proxy protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// TCP keepalive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_keepalive: Option<TCPKeepalive>,
    /// Health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Circuit breaker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Timeout>,
    /// Connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<BackendConnection>,
    /// DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<DNS>,
    /// HTTP/2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2: Option<HTTP2Settings>,
}

/// Retry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Retries after the first try; 2 if absent.
    #[schemars(range(min = 0), extend("default" = 2))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_retries: Option<i64>,
    /// Num attempts per priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_attempts_per_priority: Option<i64>,
    /// What is retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_on: Option<RetryOn>,
    /// Bounds of each try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_retry: Option<PerRetryPolicy>,
}

/// Retry on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryOn {
    /// Triggers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<TriggerEnum>,
    /// HTTP status codes.
    #[schemars(inner(range(min = 100, max = 599)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_status_codes: Vec<i64>,
}

open_enum! {
    /// Trigger enum.
    TriggerEnum {
        /// `5xx`.
        ServerError = "5xx",
        /// `gateway-error`.
        GatewayError = "gateway-error",
        /// `reset`.
        Reset = "reset",
        /// `reset-before-request`.
        ResetBeforeRequest = "reset-before-request",
        /// `connect-failure`.
        ConnectFailure = "connect-failure",
        /// `retriable-4xx`.
        Retriable4xx = "retriable-4xx",
        /// `refused-stream`.
        RefusedStream = "refused-stream",
        /// `retriable-status-codes`.
        RetriableStatusCodes = "retriable-status-codes",
        /// `cancelled`.
        Cancelled = "cancelled",
        /// `deadline-exceeded`.
        DeadlineExceeded = "deadline-exceeded",
        /// `internal`.
        Internal = "internal",
        /// `resource-exhausted`.
        ResourceExhausted = "resource-exhausted",
        /// `unavailable`.
        Unavailable = "unavailable",
    }
}

/// Per retry policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PerRetryPolicy {
    /// Timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Pauses between tries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_off: Option<BackOffPolicy>,
}

/// Back off policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackOffPolicy {
    /// Base interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_interval: Option<Duration>,
    /// Max interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_interval: Option<Duration>,
}

/// Proxy protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyProtocol {
    /// Version.
    pub version: ProxyProtocolVersion,
}

open_enum! {
    /// Proxy protocol version.
    ProxyProtocolVersion {
        /// `V1`.
        V1 = "V1",
        /// `V2`.
        V2 = "V2",
    }
}

/// Circuit breaker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Connections at once; 1024 if absent.
    #[schemars(range(min = 0, max = 4_294_967_295_i64), extend("default" = 1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i64>,
    /// Requests that wait for a connection; 1024 if absent.
    #[schemars(range(min = 0, max = 4_294_967_295_i64), extend("default" = 1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pending_requests: Option<i64>,
    /// Requests at once; 1024 if absent.
    #[schemars(range(min = 0, max = 4_294_967_295_i64), extend("default" = 1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel_requests: Option<i64>,
    /// Retries at once; 1024 if absent.
    #[schemars(range(min = 0, max = 4_294_967_295_i64), extend("default" = 1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel_retries: Option<i64>,
    /// Requests on one connection; any number if absent.
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests_per_connection: Option<i64>,
    /// Per endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_endpoint: Option<PerEndpointCircuitBreakers>,
    /// Retry budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
}

/// Per endpoint circuit breakers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PerEndpointCircuitBreakers {
    /// Connections at once; 1024 if absent.
    #[schemars(range(min = 0, max = 4_294_967_295_i64), extend("default" = 1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i64>,
}

/// Retry budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudget {
    /// Percent.
    pub percent: Fraction,
    /// Min retry concurrency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_retry_concurrency: Option<i64>,
}

/// Timeout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeout {
    /// TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TCPTimeout>,
    /// HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HTTPTimeout>,
}

/// TCP timeout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TCPTimeout {
    /// How long a connection may take to be established; 10 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Duration>,
}

/// HTTP timeout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPTimeout {
    /// How long a connection may be unused; 1 h if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_idle_timeout: Option<Duration>,
    /// How long a connection may live; any time if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connection_duration: Option<Duration>,
    /// From the request to the whole response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Duration>,
    /// Max stream duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_stream_duration: Option<Duration>,
    /// Stream idle timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_idle_timeout: Option<Duration>,
}

/// Backend connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendConnection {
    /// Bytes that wait in a connection at most.
    #[schemars(extend("pattern" = patterns::SIZE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer_limit: Option<IntOrString>,
    /// Socket buffer limit.
    #[schemars(extend("pattern" = patterns::SIZE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_buffer_limit: Option<IntOrString>,
    /// Preconnect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preconnect: Option<PreconnectPolicy>,
}

/// Preconnect policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreconnectPolicy {
    /// Per endpoint percent.
    #[schemars(range(min = 100, max = 300))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_endpoint_percent: Option<i64>,
    /// Predictive percent.
    #[schemars(range(min = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predictive_percent: Option<i64>,
}

/// DNS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DNS {
    /// DNS refresh rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_refresh_rate: Option<Duration>,
    /// Respect DNS TTL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respect_dns_ttl: Option<bool>,
    /// Lookup family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lookup_family: Option<DNSLookupFamily>,
}

open_enum! {
    /// DNS lookup family.
    DNSLookupFamily {
        /// `IPv4`.
        IPv4 = "IPv4",
        /// `IPv6`.
        IPv6 = "IPv6",
        /// `IPv4Preferred`.
        IPv4Preferred = "IPv4Preferred",
        /// `IPv6Preferred`.
        IPv6Preferred = "IPv6Preferred",
        /// `IPv4AndIPv6`.
        IPv4AndIPv6 = "IPv4AndIPv6",
    }
}
