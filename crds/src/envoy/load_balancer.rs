//! Load balancing.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::raw::Raw;
use crate::cel::Cel;
use crate::duration::Duration;
use crate::open_enum::open_enum;
use crate::shape::{Long, MapBy};

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.consistentHash) == (self.type == 'ConsistentHash')",
        "consistentHash must be set with type ConsistentHash, and with no other",
    ),
    (
        "has(self.backendUtilization) == (self.type == 'BackendUtilization')",
        "backendUtilization must be set with type BackendUtilization, and with no other",
    ),
    (
        "has(self.dynamicModule) == (self.type == 'DynamicModule')",
        "dynamicModule must be set with type DynamicModule, and with no other",
    ),
    (
        "!has(self.slowStart) || !(self.type in ['Random', 'ConsistentHash', 'DynamicModule'])",
        "slowStart needs type RoundRobin, LeastRequest or BackendUtilization",
    ),
    (
        "!has(self.zoneAware) || self.type != 'DynamicModule'",
        "zoneAware is not supported with type DynamicModule",
    ),
    (
        "!has(self.zoneAware) || !has(self.zoneAware.preferLocal) || !(self.type in ['ConsistentHash', 'BackendUtilization'])",
        "zoneAware.preferLocal is not supported with types ConsistentHash and BackendUtilization; weightedZones is",
    ),
    (
        "!has(self.zoneAware) || !has(self.zoneAware.preferLocal) || !has(self.zoneAware.weightedZones)",
        "zoneAware may have one of preferLocal and weightedZones",
    ),
    (
        "!has(self.endpointOverride) || self.type != 'DynamicModule'",
        "endpointOverride is not supported with type DynamicModule",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// Way of choosing.
    #[serde(rename = "type")]
    pub type_: LoadBalancerType,
    /// What requests are told apart by, with type `ConsistentHash`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
    /// Loads that endpoints report, with type `BackendUtilization`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_utilization: Option<BackendUtilization>,
    /// A loaded module's policy, with type `DynamicModule`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_module: Option<DynamicModuleLBPolicy>,
    /// Requests that name their endpoint themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_override: Option<EndpointOverride>,
    /// New endpoints get their share bit by bit; at once if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStart>,
    /// Preference of endpoints by their zones; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_aware: Option<ZoneAware>,
}

open_enum! {
    /// Load balancer type.
    LoadBalancerType {
        /// `ConsistentHash`.
        ConsistentHash = "ConsistentHash",
        /// `LeastRequest`.
        LeastRequest = "LeastRequest",
        /// `Random`.
        Random = "Random",
        /// `RoundRobin`.
        RoundRobin = "RoundRobin",
        /// `BackendUtilization`.
        BackendUtilization = "BackendUtilization",
        /// `DynamicModule`.
        DynamicModule = "DynamicModule",
    }
}

/// What requests are told apart by; equal ones go to the same endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.header) == (self.type == 'Header')",
        "header must be set with type Header, and with no other",
    ),
    (
        "has(self.headers) == (self.type == 'Headers')",
        "headers must be set with type Headers, and with no other",
    ),
    (
        "has(self.cookie) == (self.type == 'Cookie')",
        "cookie must be set with type Cookie, and with no other",
    ),
    (
        "has(self.queryParams) == (self.type == 'QueryParams')",
        "queryParams must be set with type QueryParams, and with no other",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct ConsistentHash {
    /// Which part of a request counts.
    #[serde(rename = "type")]
    pub type_: ConsistentHashType,
    /// The header, with type `Header`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HashHeader>,
    /// The headers, with type `Headers`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HashHeader>,
    /// The cookie, with type `Cookie`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<HashCookie>,
    /// The query parameters, with type `QueryParams`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<HashQueryParam>,
    /// Slots of the table, a prime; 65537 if absent.
    #[schemars(range(min = 2, max = 5_000_011), extend("default" = 65_537))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_size: Option<i64>,
}

open_enum! {
    /// Consistent hash type.
    ConsistentHashType {
        /// `SourceIP`.
        SourceIP = "SourceIP",
        /// `Header`.
        Header = "Header",
        /// `Headers`.
        Headers = "Headers",
        /// `Cookie`.
        Cookie = "Cookie",
        /// `QueryParams`.
        QueryParams = "QueryParams",
    }
}

/// A header whose value counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HashHeader {
    /// Name of the header.
    pub name: String,
}

/// A cookie whose value counts; it is set where it is missing and has a `ttl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HashCookie {
    /// Name of the cookie.
    pub name: String,
    /// How long a client keeps a cookie that was set; `0s` for its session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// More attributes of a cookie that is set, such as `SameSite`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// A query parameter whose value counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HashQueryParam {
    /// Name of the parameter.
    pub name: String,
}

/// Shares by the loads that endpoints report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendUtilization {
    /// How long an endpoint must have reported before its load counts; 10 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blackout_period: Option<Duration>,
    /// Age from which a report counts no more; 3 min if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_expiration_period: Option<Duration>,
    /// Time between new shares; 1 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_update_period: Option<Duration>,
    /// How much an endpoint's errors count against it, in percent; not at all if absent.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_utilization_penalty_percent: Option<i64>,
    /// Reported metrics that are the load where none is reported as such.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metric_names_for_computing_utilization: Vec<String>,
    /// Whether reports in responses' headers are left for clients to see; false if absent.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_response_headers: Option<bool>,
    /// Reports asked for apart from requests; those in responses are used if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_of_band: Option<OutOfBandReporting>,
}

/// Reports asked for apart from requests, by gRPC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutOfBandReporting {
    /// Time between reports; 10 s if absent.
    #[schemars(transform = Cel(&[("duration(self) > duration('0s')", "reportingPeriod must be more than 0s")]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reporting_period: Option<Duration>,
    /// Port to ask; the endpoint's own if absent.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// Host to ask for.
    #[schemars(length(min = 1, max = 259), regex(pattern = r"^[^\x00\n\r]*$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

/// A policy of a loaded module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DynamicModuleLBPolicy {
    /// Name of the module, as the EnvoyProxy registers it.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Name of the policy in the module.
    #[schemars(length(min = 1, max = 253))]
    pub lb_policy_name: String,
    /// Configuration that the policy is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Raw<Value>>,
}

/// Requests that name their endpoint themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointOverride {
    /// Where the name is looked for, in this order.
    #[schemars(length(min = 1, max = 10))]
    pub extract_from: Vec<EndpointOverrideExtractFrom>,
}

/// A place where an endpoint is named.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointOverrideExtractFrom {
    /// Header that holds address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

/// New endpoints get their share bit by bit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlowStart {
    /// How long a new endpoint takes to its full share.
    #[schemars(required)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
}

/// Preference of endpoints by their zones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ZoneAware {
    /// The proxy's own zone is preferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefer_local: Option<PreferLocalZone>,
    /// Shares of zones.
    #[schemars(transform = MapBy("zone"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weighted_zones: Vec<WeightedZoneConfig>,
}

/// The proxy's own zone is preferred.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreferLocalZone {
    /// All requests stay in the zone while it has enough endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<ForceLocalZone>,
    /// Endpoints of all zones from which zones count; any number if absent.
    #[schemars(with = "Option<Long>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_endpoints_threshold: Option<i64>,
    /// Percent of requests for which zones count; 100 if absent.
    #[schemars(range(min = 0, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage_enabled: Option<i64>,
}

/// All requests stay in the zone while it has enough endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForceLocalZone {
    /// Endpoints of the zone from which it is enough; 1 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_endpoints_in_zone_threshold: Option<i64>,
}

/// The share of one zone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WeightedZoneConfig {
    /// Name of the zone.
    pub zone: String,
    /// Share of the requests, relative to the other zones; 1 for zones that are not named.
    pub weight: i64,
}
