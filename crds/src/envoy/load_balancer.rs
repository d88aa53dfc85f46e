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

/// Load balancer.
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
    /// Which kind it is.
    #[serde(rename = "type")]
    pub type_: LoadBalancerType,
    /// Consistent hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
    /// Backend utilization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_utilization: Option<BackendUtilization>,
    /// Dynamic module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_module: Option<DynamicModuleLBPolicy>,
    /// Endpoint override.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_override: Option<EndpointOverride>,
    /// Slow start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStart>,
    /// Zone aware.
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

/// Consistent hash.
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
    /// Which kind it is.
    #[serde(rename = "type")]
    pub type_: ConsistentHashType,
    /// Header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HashHeader>,
    /// Headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HashHeader>,
    /// Cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<HashCookie>,
    /// Query params.
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

/// Hash header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HashHeader {
    /// Name.
    pub name: String,
}

/// Hash cookie.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HashCookie {
    /// Name.
    pub name: String,
    /// TTL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// Attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// Hash query param.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HashQueryParam {
    /// Name.
    pub name: String,
}

/// Backend utilization.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendUtilization {
    /// Blackout period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blackout_period: Option<Duration>,
    /// Weight expiration period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_expiration_period: Option<Duration>,
    /// Weight update period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_update_period: Option<Duration>,
    /// Error utilization penalty percent.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_utilization_penalty_percent: Option<i64>,
    /// Metric names for computing utilization.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metric_names_for_computing_utilization: Vec<String>,
    /// Keep response headers.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_response_headers: Option<bool>,
    /// Out of band.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_of_band: Option<OutOfBandReporting>,
}

/// Out of band reporting.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutOfBandReporting {
    /// Reporting period.
    #[schemars(transform = Cel(&[("duration(self) > duration('0s')", "reportingPeriod must be more than 0s")]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reporting_period: Option<Duration>,
    /// Port.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// Authority.
    #[schemars(length(min = 1, max = 259), regex(pattern = r"^[^\x00\n\r]*$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

/// Dynamic module lb policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DynamicModuleLBPolicy {
    /// Name.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Lb policy name.
    #[schemars(length(min = 1, max = 253))]
    pub lb_policy_name: String,
    /// Config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Raw<Value>>,
}

/// Endpoint override.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointOverride {
    /// Where it is looked for.
    #[schemars(length(min = 1, max = 10))]
    pub extract_from: Vec<EndpointOverrideExtractFrom>,
}

/// Endpoint override extract from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointOverrideExtractFrom {
    /// Header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

/// Slow start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlowStart {
    /// How long a new endpoint takes to its full share.
    #[schemars(required)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
}

/// Zone aware.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ZoneAware {
    /// Prefer local.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefer_local: Option<PreferLocalZone>,
    /// Weighted zones.
    #[schemars(transform = MapBy("zone"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weighted_zones: Vec<WeightedZoneConfig>,
}

/// Prefer local zone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreferLocalZone {
    /// Force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<ForceLocalZone>,
    /// Min endpoints threshold.
    #[schemars(with = "Option<Long>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_endpoints_threshold: Option<i64>,
    /// Percentage enabled.
    #[schemars(range(min = 0, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage_enabled: Option<i64>,
}

/// Force local zone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForceLocalZone {
    /// Min endpoints in zone threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_endpoints_in_zone_threshold: Option<i64>,
}

/// Weighted zone config.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WeightedZoneConfig {
    /// Zone.
    pub zone: String,
    /// Weight.
    pub weight: i64,
}
