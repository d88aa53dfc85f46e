//! Responses that take the place of others.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::{CustomResponseBody, StringMatch};
use crate::cel::Cel;
use crate::gateway::{HTTPHeaderFilter, HTTPPathModifier};
use crate::open_enum::open_enum;
use crate::shape::{self, Long};

/// Response override.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.response) != has(self.redirect)",
        "one of response and redirect must be set",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct ResponseOverride {
    /// Match.
    #[serde(rename = "match")]
    pub match_: CustomResponseMatch,
    /// Response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<CustomResponse>,
    /// Redirect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<CustomRedirect>,
    /// Source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<ResponseOverrideSource>,
}

/// Custom response match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.statusCodes) || has(self.responseHeaders)",
        "statusCodes, responseHeaders or both must be set",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct CustomResponseMatch {
    /// Status codes.
    #[schemars(length(min = 1, max = 50))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status_codes: Vec<StatusCodeMatch>,
    /// Response headers.
    #[schemars(length(min = 1, max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<ResponseOverrideHeaderMatch>,
}

/// Status code match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "self.type != 'Value' || has(self.value)",
        "value is required with type Value",
    ),
    (
        "self.type != 'Range' || has(self.range)",
        "range is required with type Range",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct StatusCodeMatch {
    /// Which kind it is.
    #[schemars(extend("default" = "Value"), required)]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<StatusCodeValueType>,
    /// Value.
    #[schemars(with = "Option<Long>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
    /// Range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<StatusCodeRange>,
}

open_enum! {
    /// Status code value type.
    StatusCodeValueType {
        /// `Value`.
        Value = "Value",
        /// `Range`.
        Range = "Range",
    }
}

/// Status code range.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "self.end > self.start",
        "end must be greater than start",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct StatusCodeRange {
    /// Start.
    #[schemars(with = "Long")]
    pub start: i64,
    /// End.
    #[schemars(with = "Long")]
    pub end: i64,
}

/// Response override header match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResponseOverrideHeaderMatch {
    /// Name.
    #[schemars(transform = shape::header_name)]
    pub name: String,
    /// Value.
    pub value: StringMatch,
}

/// Custom response.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomResponse {
    /// Content type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<CustomResponseBody>,
    /// Status code.
    #[schemars(with = "Option<Long>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<i64>,
    /// Header.
    #[schemars(transform = Cel(&[(
        "!has(self.remove) || self.remove.size() == 0",
        "remove is not supported here; the response has no headers of a backend",
    )]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HTTPHeaderFilter>,
}

/// Custom redirect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomRedirect {
    /// Scheme.
    #[schemars(extend("enum" = ["http", "https"]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Hostname.
    #[schemars(transform = shape::dns_name)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Path.
    #[schemars(transform = Cel(&[("self.type == 'ReplaceFullPath'", "type must be ReplaceFullPath here")]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<HTTPPathModifier>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// Status code.
    #[schemars(extend("default" = 302), with = "Option<Long>", extend("enum" = [301, 302]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<i64>,
}

open_enum! {
    /// Response override source.
    ResponseOverrideSource {
        /// `All`.
        All = "All",
        /// `Local`.
        Local = "Local",
        /// `Backend`.
        Backend = "Backend",
    }
}
