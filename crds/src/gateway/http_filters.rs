//! Filters of HTTP and gRPC routes and of listeners.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Fraction, HTTPHeader};
use super::references::{BackendObjectReference, LocalObjectReference, PortNumber};
use crate::cel::Cel;
use crate::open_enum::open_enum;
use crate::shape::{self, MapBy};

/// One filter of an HTTPRoute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteFilter {
    /// Which of the fields below is set.
    #[serde(rename = "type")]
    pub type_: HTTPRouteFilterType,
    /// With type `RequestHeaderModifier`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HTTPHeaderFilter>,
    /// With type `ResponseHeaderModifier`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HTTPHeaderFilter>,
    /// With type `RequestMirror`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_mirror: Option<HTTPRequestMirrorFilter>,
    /// With type `RequestRedirect`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<HTTPRequestRedirectFilter>,
    /// With type `URLRewrite`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<HTTPURLRewriteFilter>,
    /// With type `CORS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<HTTPCORSFilter>,
    /// With type `ExternalAuth`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_auth: Option<HTTPExternalAuthFilter>,
    /// With type `ExtensionRef`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension_ref: Option<LocalObjectReference>,
}

open_enum! {
    /// Type of an HTTPRoute's filter.
    HTTPRouteFilterType {
        /// Change request headers.
        RequestHeaderModifier = "RequestHeaderModifier",
        /// Change response headers.
        ResponseHeaderModifier = "ResponseHeaderModifier",
        /// Send a copy of the request elsewhere.
        RequestMirror = "RequestMirror",
        /// Answer with a redirect.
        RequestRedirect = "RequestRedirect",
        /// Change host and path.
        UrlRewrite = "URLRewrite",
        /// Cross-origin resource sharing.
        Cors = "CORS",
        /// Ask another service whether the request may pass.
        ExternalAuth = "ExternalAuth",
        /// A filter that the implementation defines.
        ExtensionRef = "ExtensionRef",
    }
}

/// Changes of headers: `set` first, then `add`, then `remove`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPHeaderFilter {
    /// Headers to overwrite.
    #[schemars(length(max = 16), transform = MapBy("name"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<HTTPHeader>,
    /// Headers to append.
    #[schemars(length(max = 16), transform = MapBy("name"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<HTTPHeader>,
    /// Names of headers to take away.
    #[schemars(length(max = 16), transform = shape::set)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// A new path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "has(self.replaceFullPath) == (self.type == 'ReplaceFullPath')",
        "replaceFullPath must be set with type ReplaceFullPath, and with no other",
    ),
    (
        "has(self.replacePrefixMatch) == (self.type == 'ReplacePrefixMatch')",
        "replacePrefixMatch must be set with type ReplacePrefixMatch, and with no other",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct HTTPPathModifier {
    /// Which of the fields below is set.
    #[serde(rename = "type")]
    pub type_: HTTPPathModifierType,
    /// Replaces the whole path.
    #[schemars(length(max = 1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace_full_path: Option<String>,
    /// Replaces the prefix that matched.
    #[schemars(length(max = 1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace_prefix_match: Option<String>,
}

open_enum! {
    /// What of a path is replaced.
    HTTPPathModifierType {
        /// All of it.
        ReplaceFullPath = "ReplaceFullPath",
        /// The prefix that matched.
        ReplacePrefixMatch = "ReplacePrefixMatch",
    }
}

/// A redirect; what is absent stays as in the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRequestRedirectFilter {
    /// `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<HTTPPathModifier>,
    /// Port; if absent, that of the scheme or of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortNumber>,
    /// Status; 302 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
}

/// A rewrite; what is absent stays as in the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPURLRewriteFilter {
    /// Host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<HTTPPathModifier>,
}

/// Copies of requests to another backend, whose answers are dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRequestMirrorFilter {
    /// The backend.
    pub backend_ref: BackendObjectReference,
    /// Share of requests, 0 to 100; all if neither this nor `fraction` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// Share of requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<Fraction>,
}

/// Cross-origin resource sharing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPCORSFilter {
    /// Origins, perhaps with a wildcard, or `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_origins: Vec<String>,
    /// Whether credentials may be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// Methods, or `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_methods: Vec<String>,
    /// Request headers, or `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read, or `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<String>,
    /// Seconds that a preflight's answer may be kept; 5 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<i32>,
}

/// A service that decides whether a request may pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPExternalAuthFilter {
    /// Protocol to ask it with.
    pub protocol: HTTPRouteExternalAuthProtocol,
    /// The service.
    pub backend_ref: BackendObjectReference,
    /// With protocol `GRPC`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GRPCAuthConfig>,
    /// With protocol `HTTP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HTTPAuthConfig>,
    /// Whether the request's body is sent along; it is not if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_body: Option<ForwardBodyConfig>,
}

open_enum! {
    /// How an authorization service is asked.
    HTTPRouteExternalAuthProtocol {
        /// Envoy's ext_authz gRPC protocol.
        Grpc = "GRPC",
        /// A plain HTTP request.
        Http = "HTTP",
    }
}

/// Asking by gRPC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GRPCAuthConfig {
    /// Request headers to send along; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_headers: Vec<String>,
}

/// Asking by HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPAuthConfig {
    /// Put before the request's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Request headers to send along, besides those always sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_headers: Vec<String>,
    /// Headers of the answer to copy into the request when it passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_response_headers: Vec<String>,
}

/// Sending the request's body along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForwardBodyConfig {
    /// Bytes at most; 0 or absent sends none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<i32>,
}
