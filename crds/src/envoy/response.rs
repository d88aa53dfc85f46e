//! Responses that take the place of others.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::{CustomResponseBody, StringMatch};
use crate::cel::Cel;
use crate::gateway::{HTTPHeaderFilter, HTTPPathModifier};
use crate::open_enum::open_enum;
use crate::shape::{self, Long};

/// A response that takes the place of others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.response) != has(self.redirect)",
        "one of response and redirect must be set",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct ResponseOverride {
    /// Responses that are replaced.
    #[serde(rename = "match")]
    pub match_: CustomResponseMatch,
    /// The response in their place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<CustomResponse>,
    /// A redirect in their place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<CustomRedirect>,
    /// Whose responses: the proxy's own, those of backends, or all, which is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<ResponseOverrideSource>,
}

/// Responses by status and headers; all that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.statusCodes) || has(self.responseHeaders)",
        "statusCodes, responseHeaders or both must be set",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct CustomResponseMatch {
    /// Statuses, one of which must be the response's.
    #[schemars(length(min = 1, max = 50))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status_codes: Vec<StatusCodeMatch>,
    /// Headers that must match.
    #[schemars(length(min = 1, max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<ResponseOverrideHeaderMatch>,
}

/// One status, or a range.
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
    /// Whether it is one or a range; `Value` if absent.
    #[schemars(extend("default" = "Value"), required)]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<StatusCodeValueType>,
    /// The status, with type `Value`.
    #[schemars(with = "Option<Long>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
    /// The range, with type `Range`.
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

/// Statuses from one to another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "self.end > self.start",
        "end must be greater than start",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct StatusCodeRange {
    /// The first that is meant.
    #[schemars(with = "Long")]
    pub start: i64,
    /// The last that is meant.
    #[schemars(with = "Long")]
    pub end: i64,
}

/// A header of a response that must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResponseOverrideHeaderMatch {
    /// Name of the header.
    #[schemars(transform = shape::header_name)]
    pub name: String,
    /// How its value is compared.
    pub value: StringMatch,
}

/// A response of the proxy's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomResponse {
    /// Value of the header Content-Type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Body, in which Envoy's command operators are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<CustomResponseBody>,
    /// Status; that of the replaced response, or 200, if absent.
    #[schemars(with = "Option<Long>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<i64>,
    /// Headers to set and to add.
    #[schemars(transform = Cel(&[(
        "!has(self.remove) || self.remove.size() == 0",
        "remove is not supported here; the response has no headers of a backend",
    )]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HTTPHeaderFilter>,
}

/// A redirect; what is absent is as in the request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomRedirect {
    /// Scheme of the new location.
    #[schemars(extend("enum" = ["http", "https"]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Host of the new location.
    #[schemars(transform = shape::dns_name)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Path of the new location; of type `ReplaceFullPath` alone.
    #[schemars(transform = Cel(&[("self.type == 'ReplaceFullPath'", "type must be ReplaceFullPath here")]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<HTTPPathModifier>,
    /// Port of the new location; that of its scheme, or of the listener, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// Status, 301 or 302; 302 if absent.
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
