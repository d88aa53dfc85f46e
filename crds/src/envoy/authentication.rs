//! Who a client is: keys, passwords, tokens, an external service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::{BackendCluster, LocalObjectKeyReference};
use super::rules::{
    BACKEND_GROUPS, BACKEND_KINDS, INLINE_OR_REF, NO_BACKEND_REF, NO_RETRY_STATUS, NO_RETRY_TIMEOUT,
};
use crate::cel::{Cel, Rule};
use crate::duration::Duration;
use crate::gateway::{LocalObjectReference, SecretObjectReference};
use crate::open_enum::open_enum;

/// Statuses that may answer in place of a service that cannot be asked.
pub(super) const STATUS_ON_ERROR: &[i32] = &[
    400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423,
    424, 426, 428, 429, 431, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];

/// Where a service of external authorization is.
const ASKED_BACKENDS: Rule = (
    "has(self.backendRef) || (has(self.backendRefs) && self.backendRefs.size() > 0)",
    "backendRef or backendRefs must be set",
);

/// API key auth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct APIKeyAuth {
    /// Secrets whose keys are clients' names and whose values are their keys.
    pub credential_refs: Vec<SecretObjectReference>,
    /// Where it is looked for.
    #[schemars(length(min = 1))]
    pub extract_from: Vec<ExtractFrom>,
    /// Header that tells the backend the client's name.
    #[serde(rename = "forwardClientIDHeader", skip_serializing_if = "Option::is_none")]
    pub forward_client_id_header: Option<String>,
    /// Whether the key is removed from the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sanitize: Option<bool>,
}

/// Extract from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.headers) ? !has(self.params) && !has(self.cookies) : has(self.params) != has(self.cookies)", "exactly one of headers, params and cookies must be set"),
    ]))]
pub struct ExtractFrom {
    /// Headers.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Params.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<String>,
    /// Cookies.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<String>,
}

/// Basic auth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// Secret with an htpasswd file in its key `.htpasswd`.
    pub users: SecretObjectReference,
    /// Header that tells the backend the user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_username_header: Option<String>,
}

/// JSON Web Tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("!has(self.optional) || !has(self.failOpen)", "at most one of optional and failOpen may be set; failOpen admits requests without a token too"),
    ]))]
pub struct JWT {
    /// Whether it may be missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
    /// Whether requests without a token, or with one that is not valid, pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_open: Option<bool>,
    /// Issuers whose tokens are accepted.
    #[schemars(length(min = 1, max = 16))]
    pub providers: Vec<JWTProvider>,
}

/// JWT provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("!has(self.recomputeRoute) || !self.recomputeRoute || (has(self.claimToHeaders) && self.claimToHeaders.size() > 0)", "recomputeRoute needs claimToHeaders"),
        ("has(self.remoteJWKS) != has(self.localJWKS)", "exactly one of remoteJWKS and localJWKS must be set"),
    ]))]
pub struct JWTProvider {
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Issuer.
    #[schemars(length(max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Audiences.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// Keys that are fetched.
    #[serde(rename = "remoteJWKS", skip_serializing_if = "Option::is_none")]
    pub remote_jwks: Option<RemoteJWKS>,
    /// Keys from the cluster.
    #[serde(rename = "localJWKS", skip_serializing_if = "Option::is_none")]
    pub local_jwks: Option<LocalJWKS>,
    /// Claims that backends are told in headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claim_to_headers: Vec<ClaimToHeader>,
    /// Whether the route is chosen anew afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recompute_route: Option<bool>,
    /// Where it is looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extract_from: Option<JWTExtractor>,
}

/// Remote JWKS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        NO_BACKEND_REF,
        NO_RETRY_TIMEOUT,
        NO_RETRY_STATUS,
    ]))]
pub struct RemoteJWKS {
    /// Backend cluster.
    #[serde(flatten)]
    pub cluster: BackendCluster,
    /// Where the keys are.
    #[schemars(length(min = 1, max = 253))]
    pub uri: String,
    /// How long fetched keys are used; 5 min if absent.
    #[schemars(extend("default" = "300s"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_duration: Option<Duration>,
    /// Failed refetch duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_refetch_duration: Option<Duration>,
}

/// Local JWKS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        INLINE_OR_REF,
    ]))]
pub struct LocalJWKS {
    /// Which kind it is.
    #[schemars(required, extend("default" = "Inline"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<LocalJWKSType>,
    /// The value itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline: Option<String>,
    /// Where the value is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_ref: Option<LocalObjectReference>,
}

open_enum! {
    /// Local JWKS type.
    LocalJWKSType {
        /// `Inline`.
        Inline = "Inline",
        /// `ValueRef`.
        ValueRef = "ValueRef",
    }
}

/// Claim to header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimToHeader {
    /// Header.
    pub header: String,
    /// Claim.
    pub claim: String,
}

/// JWT extractor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JWTExtractor {
    /// Headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<JWTHeaderExtractor>,
    /// Cookies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<String>,
    /// Params.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<String>,
}

/// JWT header extractor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JWTHeaderExtractor {
    /// Name.
    pub name: String,
    /// Value prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_prefix: Option<String>,
}

/// Ext auth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.grpc) != has(self.http)", "exactly one of grpc and http must be set"),
    ]))]
pub struct ExtAuth {
    /// GRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GRPCExtAuthService>,
    /// HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HTTPExtAuthService>,
    /// Request headers that the service is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers_to_ext_auth: Vec<String>,
    /// How much of the body the service is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_to_ext_auth: Option<BodyToExtAuth>,
    /// Timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Whether requests pass if the service cannot be asked.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_open: Option<bool>,
    /// Whether the route is chosen anew afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recompute_route: Option<bool>,
    /// Include route metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_route_metadata: Option<bool>,
    /// Context extensions.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context_extensions: Vec<ContextExtension>,
    /// Status of the answer if the service cannot be asked.
    #[schemars(extend("enum" = STATUS_ON_ERROR))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_on_error: Option<i64>,
}

/// GRPC ext auth service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ASKED_BACKENDS,
        BACKEND_KINDS,
        BACKEND_GROUPS,
    ]))]
pub struct GRPCExtAuthService {
    /// Backend cluster.
    #[serde(flatten)]
    pub cluster: BackendCluster,
}

/// HTTP ext auth service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ASKED_BACKENDS,
        BACKEND_KINDS,
        BACKEND_GROUPS,
        ("!has(self.path) || !has(self.pathOverride)", "at most one of path and pathOverride may be set"),
    ]))]
pub struct HTTPExtAuthService {
    /// Backend cluster.
    #[serde(flatten)]
    pub cluster: BackendCluster,
    /// Path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Path override.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_override: Option<String>,
    /// Headers of the service's answer that the backend is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers_to_backend: Vec<String>,
}

/// Body to ext auth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BodyToExtAuth {
    /// Max request bytes.
    #[schemars(range(min = 1))]
    pub max_request_bytes: i64,
}

/// Context extension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.value) == (self.type == 'Value') && has(self.valueRef) == (self.type == 'ValueRef')", "value must be set with type Value alone, valueRef with type ValueRef alone"),
    ]))]
pub struct ContextExtension {
    /// Name.
    pub name: String,
    /// Which kind it is.
    #[schemars(extend("default" = "Value"))]
    #[serde(rename = "type")]
    pub type_: ContextExtensionValueType,
    /// Value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where the value is.
    #[schemars(transform = Cel(&[
        ("self.kind in ['ConfigMap', 'Secret'] && self.group in ['', 'v1']", "valueRef must be a ConfigMap or Secret of the core group"),
    ]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_ref: Option<LocalObjectKeyReference>,
}

open_enum! {
    /// Context extension value type.
    ContextExtensionValueType {
        /// `Value`.
        Value = "Value",
        /// `ValueRef`.
        ValueRef = "ValueRef",
    }
}
