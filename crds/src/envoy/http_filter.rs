//! HTTPRouteFilter: filters that rules of HTTPRoutes refer to.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::response::CustomResponse;
use crate::cel::Cel;
use crate::gateway::SecretObjectReference;
use crate::open_enum::open_enum;

/// A filter that rules of HTTPRoutes refer to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "gateway.envoyproxy.io",
    version = "v1alpha1",
    kind = "HTTPRouteFilter",
    plural = "httproutefilters",
    shortname = "hrf",
    category = "envoy-gateway",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    doc = "A filter that rules of HTTPRoutes refer to.",
    schema = "derived"
)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteFilterSpec {
    /// Changes of host and path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<URLRewriteFilter>,
    /// A response without asking a backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_response: Option<HTTPDirectResponseFilter>,
    /// A credential that is put into requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_injection: Option<HTTPCredentialInjectionFilter>,
    /// Requests that the rule is for, one of which must match besides the rule's own.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<HTTPRouteMatchFilter>,
}

/// Changes of host and path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct URLRewriteFilter {
    /// New host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HTTPHostnameModifier>,
    /// New path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRegexModifier>,
    /// Whether the old host is kept in X-Forwarded-Host; true if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub append_x_forwarded_host: Option<bool>,
}

/// A new host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.header) == (self.type == 'Header')",
        "header must be set with type Header, and with no other",
    ),
    (
        "has(self.pathRegex) == (self.type == 'PathRegex')",
        "pathRegex must be set with type PathRegex, and with no other",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct HTTPHostnameModifier {
    /// Where the host comes from; `Backend` is the endpoint's own.
    #[serde(rename = "type")]
    pub type_: HTTPHostnameModifierType,
    /// Name of the request's header that holds the host, with type `Header`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// How the host is made from the path, with type `PathRegex`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<HostnamePathRegexRewrite>,
}

open_enum! {
    /// HTTP hostname modifier type.
    HTTPHostnameModifierType {
        /// `Header`.
        Header = "Header",
        /// `Backend`.
        Backend = "Backend",
        /// `PathRegex`.
        PathRegex = "PathRegex",
    }
}

/// How a host is made from the path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostnamePathRegexRewrite {
    /// RE2 expression that the path is matched with.
    #[schemars(length(min = 1))]
    pub pattern: String,
    /// What takes its place; `\\1` stands for a group.
    #[schemars(length(min = 1), regex(pattern = r"^[^\r\n\x00]*$"))]
    pub substitution: String,
}

/// A new path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.replaceRegexMatch) == (self.type == 'ReplaceRegexMatch')",
        "replaceRegexMatch must be set with type ReplaceRegexMatch, and with no other",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct PathRegexModifier {
    /// How the path is changed.
    #[serde(rename = "type")]
    pub type_: PathRegexModifierType,
    /// What is replaced, and by what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace_regex_match: Option<ReplaceRegexMatch>,
}

open_enum! {
    /// Path regex modifier type.
    PathRegexModifierType {
        /// `ReplaceRegexMatch`.
        ReplaceRegexMatch = "ReplaceRegexMatch",
    }
}

/// A part of the path that is replaced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplaceRegexMatch {
    /// RE2 expression whose matches are replaced.
    #[schemars(length(min = 1))]
    pub pattern: String,
    /// What takes its place; `\\1` stands for a group.
    pub substitution: String,
}

/// HTTP direct response filter.
pub type HTTPDirectResponseFilter = CustomResponse;

/// A credential that is put into requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPCredentialInjectionFilter {
    /// Name of the header; Authorization if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Whether a header that is there is replaced; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overwrite: Option<bool>,
    /// The header's value.
    pub credential: InjectedCredential,
}

/// The value of the header that is put into requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InjectedCredential {
    /// Secret that holds the value under `credential`.
    pub value_ref: SecretObjectReference,
}

/// Requests that match; all that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteMatchFilter {
    /// Cookies that must match.
    #[schemars(length(min = 1, max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<HTTPCookieMatch>,
}

/// A cookie that must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPCookieMatch {
    /// Way of comparing; `Exact` if absent.
    #[schemars(extend("default" = "Exact"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<CookieMatchType>,
    /// Name of the cookie.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Value or RE2 expression.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
}

open_enum! {
    /// Cookie match type.
    CookieMatchType {
        /// `Exact`.
        Exact = "Exact",
        /// `RegularExpression`.
        RegularExpression = "RegularExpression",
    }
}
