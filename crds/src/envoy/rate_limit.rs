//! Rate limits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::PathMatch;
use crate::cel::Cel;
use crate::open_enum::open_enum;
use crate::shape::Long;

/// Rate limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitSpec {
    /// Which kind it is.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<RateLimitType>,
    /// Global.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<GlobalRateLimit>,
    /// Local.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalRateLimit>,
}

open_enum! {
    /// Rate limit type.
    RateLimitType {
        /// `Global`.
        Global = "Global",
        /// `Local`.
        Local = "Local",
    }
}

/// Global rate limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GlobalRateLimit {
    /// Rules.
    #[schemars(length(max = 256))]
    pub rules: Vec<RateLimitRule>,
}

/// Rate limit rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitRule {
    /// Client selectors.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub client_selectors: Vec<RateLimitSelectCondition>,
    /// Limit.
    pub limit: RateLimitValue,
    /// Cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<RateLimitCost>,
    /// Whether all routes of the policy share the counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
    /// Whether it only watches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_mode: Option<bool>,
    /// X rate limit headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x_rate_limit_headers: Option<XRateLimitHeadersOption>,
}

/// Requests that a rule counts; all that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.headers) || has(self.methods) || has(self.path) || has(self.sourceCIDR) || has(self.queryParams)",
        "headers, methods, path, sourceCIDR or queryParams must be set",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct RateLimitSelectCondition {
    /// Headers.
    #[schemars(length(max = 128))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<RateLimitHeaderMatch>,
    /// Methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<MethodMatch>,
    /// Path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Source CIDR.
    #[serde(rename = "sourceCIDR", skip_serializing_if = "Option::is_none")]
    pub source_cidr: Option<SourceMatch>,
    /// Query params.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<QueryParamMatch>,
}

/// Rate limit header match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitHeaderMatch {
    /// Which kind it is.
    #[schemars(extend("default" = "Exact"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<RateLimitHeaderMatchType>,
    /// Name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Value.
    #[schemars(length(max = 1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Whether what does not match, matches.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invert: Option<bool>,
}

open_enum! {
    /// Rate limit header match type.
    RateLimitHeaderMatchType {
        /// `Exact`.
        Exact = "Exact",
        /// `RegularExpression`.
        RegularExpression = "RegularExpression",
        /// `Distinct`.
        Distinct = "Distinct",
    }
}

/// Method match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MethodMatch {
    /// Value.
    #[schemars(extend("enum" = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]))]
    pub value: String,
    /// Whether what does not match, matches.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invert: Option<bool>,
}

/// Source match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceMatch {
    /// Which kind it is.
    #[schemars(extend("default" = "Exact"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<SourceMatchType>,
    /// Value.
    #[schemars(length(min = 1, max = 256))]
    pub value: String,
    /// Whether what does not match, matches.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invert: Option<bool>,
}

open_enum! {
    /// Source match type.
    SourceMatchType {
        /// `Exact`.
        Exact = "Exact",
        /// `Distinct`.
        Distinct = "Distinct",
    }
}

/// Query param match.
pub type QueryParamMatch = RateLimitHeaderMatch;

/// Rate limit value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitValue {
    /// Requests a unit.
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub requests: i64,
    /// Span of time.
    pub unit: RateLimitUnit,
    /// From metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_metadata: Option<RateLimitValueMetadata>,
}

open_enum! {
    /// Rate limit unit.
    RateLimitUnit {
        /// `Second`.
        Second = "Second",
        /// `Minute`.
        Minute = "Minute",
        /// `Hour`.
        Hour = "Hour",
        /// `Day`.
        Day = "Day",
        /// `Week`.
        Week = "Week",
        /// `Month`.
        Month = "Month",
        /// `Year`.
        Year = "Year",
    }
}

/// Rate limit value metadata.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitValueMetadata {
    /// Namespace.
    #[schemars(length(min = 1))]
    pub namespace: String,
    /// Key.
    #[schemars(length(min = 1))]
    pub key: String,
}

/// Rate limit cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitCost {
    /// Request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RateLimitCostSpecifier>,
    /// Response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<RateLimitCostSpecifier>,
}

/// Rate limit costifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "!has(self.number) || !has(self.metadata)",
        "one of number and metadata may be set",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct RateLimitCostSpecifier {
    /// From.
    pub from: RateLimitCostFrom,
    /// Number.
    #[schemars(with = "Option<Long>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// Metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<RateLimitCostMetadata>,
}

open_enum! {
    /// Rate limit cost from.
    RateLimitCostFrom {
        /// `Number`.
        Number = "Number",
        /// `Metadata`.
        Metadata = "Metadata",
    }
}

/// Rate limit cost metadata.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitCostMetadata {
    /// Namespace.
    pub namespace: String,
    /// Key.
    pub key: String,
}

open_enum! {
    /// X rate limit headers option.
    XRateLimitHeadersOption {
        /// `Off`.
        Off = "Off",
        /// `DraftVersion03`.
        DraftVersion03 = "DraftVersion03",
    }
}

/// Local rate limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalRateLimit {
    /// Rules.
    #[schemars(
        length(max = 16),
        transform = Cel(&[
            ("self.all(rule, !has(rule.cost) || !has(rule.cost.response))", "cost.response is not supported by local limits"),
            ("self.all(rule, !has(rule.limit.fromMetadata))", "limit.fromMetadata is not supported by local limits"),
        ])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RateLimitRule>,
}
