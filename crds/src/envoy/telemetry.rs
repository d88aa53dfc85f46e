//! Traces and metrics of a route.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gateway::Fraction;
use crate::open_enum::open_enum;

/// Backend telemetry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendTelemetry {
    /// Tracing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// Metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<BackendMetrics>,
}

/// Tracing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tracing {
    /// Sampling fraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_fraction: Option<Fraction>,
    /// Client sampling fraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_sampling_fraction: Option<Fraction>,
    /// Overall sampling fraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overall_sampling_fraction: Option<Fraction>,
    /// Custom tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// Tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Span name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_name: Option<TracingSpanName>,
}

/// Custom tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomTag {
    /// Which kind it is.
    #[schemars(extend("default" = "Literal"))]
    #[serde(rename = "type")]
    pub type_: CustomTagType,
    /// Literal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub literal: Option<LiteralCustomTag>,
    /// Environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentCustomTag>,
    /// Request header.
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

/// Literal custom tag.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiteralCustomTag {
    /// Value.
    pub value: String,
}

/// Environment custom tag.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentCustomTag {
    /// Name.
    pub name: String,
    /// Default value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_value: Option<String>,
}

/// Request header custom tag.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestHeaderCustomTag {
    /// Name.
    pub name: String,
    /// Default value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_value: Option<String>,
}

/// Tracing span name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TracingSpanName {
    /// Client.
    pub client: String,
    /// Server.
    pub server: String,
}

/// Backend metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendMetrics {
    /// Route stat name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_stat_name: Option<String>,
}
