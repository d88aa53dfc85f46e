//! Settings of connections to backends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connection::{HTTP2Settings, TCPKeepalive};
use super::health_check::HealthCheck;
use super::load_balancer::LoadBalancer;
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

/// How connections to backends are made and used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[PREDICTIVE_PRECONNECT]))]
#[serde(rename_all = "camelCase")]
pub struct ClusterSettings {
    /// How an endpoint is chosen; the least loaded of two if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Requests that are tried again; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// A PROXY header with the client's address at the start of connections; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Probes of TCP connections; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_keepalive: Option<TCPKeepalive>,
    /// Which endpoints are taken out for their health; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Bounds on connections and requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How long connections and requests may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Timeout>,
    /// Buffers of connections, and connections made ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<BackendConnection>,
    /// How names of endpoints are resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<DNS>,
    /// Settings of HTTP/2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2: Option<HTTP2Settings>,
}

/// Requests that are tried again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Retries after the first try; 2 if absent.
    #[schemars(range(min = 0), extend("default" = 2))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_retries: Option<i64>,
    /// Tries among endpoints of one priority before the next one's turn; any number if absent or 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_attempts_per_priority: Option<i64>,
    /// What is tried again; failed connections, refused streams, `unavailable`, `cancelled` and status 503 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_on: Option<RetryOn>,
    /// Bounds of each try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_retry: Option<PerRetryPolicy>,
}

/// Failures after which a request is tried again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryOn {
    /// Kinds of failures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<TriggerEnum>,
    /// Statuses that the trigger `retriable-status-codes` means.
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

/// Bounds of each try.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PerRetryPolicy {
    /// How long one try may take; as long as the request if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Pauses between tries: random, with a bound that doubles each time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_off: Option<BackOffPolicy>,
}

/// Pauses between tries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackOffPolicy {
    /// Bound of the first pause; 25 ms if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_interval: Option<Duration>,
    /// Bound of all pauses; ten times `baseInterval` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_interval: Option<Duration>,
}

/// A PROXY header at the start of connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyProtocol {
    /// Version of the header.
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

/// Bounds on connections and requests at once; what is beyond is refused.
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
    /// Bounds for each endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_endpoint: Option<PerEndpointCircuitBreakers>,
    /// Bound on retries as a share of the requests; it goes before `maxParallelRetries`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
}

/// Bounds for each endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PerEndpointCircuitBreakers {
    /// Connections at once; 1024 if absent.
    #[schemars(range(min = 0, max = 4_294_967_295_i64), extend("default" = 1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i64>,
}

/// Bound on retries as a share of the requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudget {
    /// Share of the requests at work and waiting.
    pub percent: Fraction,
    /// Retries at once that are always allowed; 3 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_retry_concurrency: Option<i64>,
}

/// How long connections and requests may take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeout {
    /// Bounds of connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TCPTimeout>,
    /// Bounds of requests, and of connections that carry them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HTTPTimeout>,
}

/// Bounds of connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TCPTimeout {
    /// How long a connection may take to be established; 10 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Duration>,
}

/// Bounds of requests, and of connections that carry them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPTimeout {
    /// How long a connection may be unused; 1 h if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_idle_timeout: Option<Duration>,
    /// How long a connection may live; any time if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connection_duration: Option<Duration>,
    /// From the request to the whole response; `0s` for any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Duration>,
    /// How long a stream may take as a whole; `0s` for any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_stream_duration: Option<Duration>,
    /// How long nothing may happen on a stream; as the listener has it if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_idle_timeout: Option<Duration>,
}

/// Buffers of connections, and connections made ahead.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendConnection {
    /// Bytes that wait in a connection at most, such as `32Ki`.
    #[schemars(extend("pattern" = patterns::SIZE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer_limit: Option<IntOrString>,
    /// Bytes of the kernel's buffers of a socket; the system's own choice if absent.
    #[schemars(extend("pattern" = patterns::SIZE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_buffer_limit: Option<IntOrString>,
    /// Connections made before a request needs them; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preconnect: Option<PreconnectPolicy>,
}

/// Connections made before a request needs them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreconnectPolicy {
    /// Connections of an endpoint as percent of those that its streams need, 100 to 300; 100 makes none ahead.
    #[schemars(range(min = 100, max = 300))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_endpoint_percent: Option<i64>,
    /// Connections to the endpoints chosen next as percent of those needed, from 100; needs `Random` or `RoundRobin`.
    #[schemars(range(min = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predictive_percent: Option<i64>,
}

/// How names of endpoints are resolved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DNS {
    /// Time between look-ups; 30 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_refresh_rate: Option<Duration>,
    /// Whether records are kept as long as they say; true if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respect_dns_ttl: Option<bool>,
    /// Addresses that are asked for.
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
