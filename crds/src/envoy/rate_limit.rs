//! Rate limits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::PathMatch;
use crate::cel::Cel;
use crate::open_enum::open_enum;
use crate::shape::Long;

/// Bounds on requests in a span of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitSpec {
    /// Whether proxies count together or each for itself; not needed, `global` and `local` may both be set.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<RateLimitType>,
    /// Bounds that all proxies count together, through the rate limit service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<GlobalRateLimit>,
    /// Bounds that each proxy counts for itself.
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

/// Bounds that all proxies count together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GlobalRateLimit {
    /// Rules; a request counts for each that it matches.
    #[schemars(length(max = 256))]
    pub rules: Vec<RateLimitRule>,
}

/// A bound, and the requests that it counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitRule {
    /// Requests that are counted: those that one of these selects; all if absent.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub client_selectors: Vec<RateLimitSelectCondition>,
    /// Requests in a span of time.
    pub limit: RateLimitValue,
    /// What a request counts; 1 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<RateLimitCost>,
    /// Whether all routes of the policy share the counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
    /// Whether it only watches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_mode: Option<bool>,
    /// Whether responses tell what is left; as the listener has it if absent.
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
    /// Headers that must match.
    #[schemars(length(max = 128))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<RateLimitHeaderMatch>,
    /// Methods, one of which must be the request's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<MethodMatch>,
    /// Path that must match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Addresses, among which the client's must be.
    #[serde(rename = "sourceCIDR", skip_serializing_if = "Option::is_none")]
    pub source_cidr: Option<SourceMatch>,
    /// Query parameters that must match.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<QueryParamMatch>,
}

/// A header or query parameter that must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitHeaderMatch {
    /// Way of comparing; `Exact` if absent. `Distinct` counts each value for itself.
    #[schemars(extend("default" = "Exact"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<RateLimitHeaderMatchType>,
    /// Name, 1 to 256 characters.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Value or RE2 expression; none with type `Distinct`.
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

/// A method that must be the request's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MethodMatch {
    /// Name of the method.
    #[schemars(extend("enum" = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]))]
    pub value: String,
    /// Whether what does not match, matches.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invert: Option<bool>,
}

/// Addresses of clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceMatch {
    /// Way of counting; `Exact` if absent. `Distinct` counts each address for itself.
    #[schemars(extend("default" = "Exact"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<SourceMatchType>,
    /// Network of the addresses, such as `10.0.0.0/8`.
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

/// Requests in a span of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitValue {
    /// Requests, or cost, that one unit allows.
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub requests: i64,
    /// Span of time that they are for.
    pub unit: RateLimitUnit,
    /// Metadata that may set another bound for a request.
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

/// Metadata that may set another bound.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitValueMetadata {
    /// Namespace of the metadata.
    #[schemars(length(min = 1))]
    pub namespace: String,
    /// Key of the metadata.
    #[schemars(length(min = 1))]
    pub key: String,
}

/// What a request counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitCost {
    /// What is counted before the request is sent on; 1 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RateLimitCostSpecifier>,
    /// What is counted when the response is done; nothing if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<RateLimitCostSpecifier>,
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "!has(self.number) || !has(self.metadata)",
        "one of number and metadata may be set",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct RateLimitCostSpecifier {
    /// Where the number comes from.
    pub from: RateLimitCostFrom,
    /// The number, with `from: Number`; 0 only looks whether the bound is reached.
    #[schemars(with = "Option<Long>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// The metadata that holds the number, with `from: Metadata`.
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

/// Metadata that holds a number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitCostMetadata {
    /// Namespace of the metadata.
    pub namespace: String,
    /// Key of the metadata.
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

/// Bounds that each proxy counts for itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalRateLimit {
    /// Rules; the one without selectors is for requests that no other counts.
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
