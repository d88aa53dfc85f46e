//! Traces and metrics of a route.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gateway::Fraction;
use crate::open_enum::open_enum;

/// Traces and metrics of the routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendTelemetry {
    /// How requests are traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// How requests are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<BackendMetrics>,
}

/// How requests are traced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tracing {
    /// Share of requests that are traced where nobody has decided yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_fraction: Option<Fraction>,
    /// Share of the requests whose clients ask for a trace that get one; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_sampling_fraction: Option<Fraction>,
    /// Share of the traces chosen otherwise that are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overall_sampling_fraction: Option<Fraction>,
    /// Tags of spans; an older way to write `tags`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// Tags of spans, by name; Envoy's command operators are replaced in the values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Names of spans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_name: Option<TracingSpanName>,
}

/// A tag of spans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomTag {
    /// Where the value comes from.
    #[schemars(extend("default" = "Literal"))]
    #[serde(rename = "type")]
    pub type_: CustomTagType,
    /// The value, with type `Literal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub literal: Option<LiteralCustomTag>,
    /// A variable of the proxy's environment, with type `Environment`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentCustomTag>,
    /// A header of the request, with type `RequestHeader`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_header: Option<RequestHeaderCustomTag>,
}

open_enum! {
    /// Custom tag type.
    CustomTagType {
        /// `Literal`.
        Literal = "Literal",
        /// `Environment`.
        Environment = "Environment",
        /// `RequestHeader`.
        RequestHeader = "RequestHeader",
    }
}

/// A value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiteralCustomTag {
    /// The value itself.
    pub value: String,
}

/// A variable of the proxy's environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentCustomTag {
    /// Name of the variable.
    pub name: String,
    /// Value where there is no such variable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_value: Option<String>,
}

/// A header of the request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestHeaderCustomTag {
    /// Name of the header.
    pub name: String,
    /// Value where there is no such header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_value: Option<String>,
}

/// Names of spans; Envoy's command operators are replaced in them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TracingSpanName {
    /// Name of the span of the client's request.
    pub client: String,
    /// Name of the span of the backend's.
    pub server: String,
}

/// How requests are counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendMetrics {
    /// Name of the routes in metrics, in which operators such as `%ROUTE_NAME%` are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_stat_name: Option<String>,
}
