//! HTTPRouteFilter: filters that rules of HTTPRoutes refer to.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::response::CustomResponse;
use crate::cel::Cel;
use crate::gateway::SecretObjectReference;
use crate::open_enum::open_enum;

/// A filter that rules of HTTPRoutes refer to..
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
    /// URL rewrite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<URLRewriteFilter>,
    /// Direct response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_response: Option<HTTPDirectResponseFilter>,
    /// Credential injection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_injection: Option<HTTPCredentialInjectionFilter>,
    /// Matches.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<HTTPRouteMatchFilter>,
}

/// URL rewrite filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct URLRewriteFilter {
    /// Hostname.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HTTPHostnameModifier>,
    /// Path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRegexModifier>,
    /// Append x forwarded host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub append_x_forwarded_host: Option<bool>,
}

/// HTTP hostname modifier.
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
    /// Which kind it is.
    #[serde(rename = "type")]
    pub type_: HTTPHostnameModifierType,
    /// Header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Path regex.
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

/// Hostname path regex rewrite.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostnamePathRegexRewrite {
    /// Regular expression (RE2).
    #[schemars(length(min = 1))]
    pub pattern: String,
    /// What takes its place; `\\1` stands for a group.
    #[schemars(length(min = 1), regex(pattern = r"^[^\r\n\x00]*$"))]
    pub substitution: String,
}

/// Path regex modifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.replaceRegexMatch) == (self.type == 'ReplaceRegexMatch')",
        "replaceRegexMatch must be set with type ReplaceRegexMatch, and with no other",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct PathRegexModifier {
    /// Which kind it is.
    #[serde(rename = "type")]
    pub type_: PathRegexModifierType,
    /// Replace regex match.
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

/// Replace regex match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplaceRegexMatch {
    /// Regular expression (RE2).
    #[schemars(length(min = 1))]
    pub pattern: String,
    /// What takes its place; `\\1` stands for a group.
    pub substitution: String,
}

/// HTTP direct response filter.
pub type HTTPDirectResponseFilter = CustomResponse;

/// HTTP credential injection filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPCredentialInjectionFilter {
    /// Header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Whether a header that is there is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overwrite: Option<bool>,
    /// Credential.
    pub credential: InjectedCredential,
}

/// Injected credential.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InjectedCredential {
    /// Where the value is.
    pub value_ref: SecretObjectReference,
}

/// HTTP route match filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteMatchFilter {
    /// Cookies.
    #[schemars(length(min = 1, max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<HTTPCookieMatch>,
}

/// HTTP cookie match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPCookieMatch {
    /// Which kind it is.
    #[schemars(extend("default" = "Exact"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<CookieMatchType>,
    /// Name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Value.
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
