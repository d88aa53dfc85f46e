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

/// Clients are known by keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct APIKeyAuth {
    /// Secrets whose keys are clients' names and whose values are their keys.
    pub credential_refs: Vec<SecretObjectReference>,
    /// Where a key is looked for, in this order.
    #[schemars(length(min = 1))]
    pub extract_from: Vec<ExtractFrom>,
    /// Header that tells the backend the client's name.
    #[serde(rename = "forwardClientIDHeader", skip_serializing_if = "Option::is_none")]
    pub forward_client_id_header: Option<String>,
    /// Whether the key is removed from the request before a backend sees it; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sanitize: Option<bool>,
}

/// Where a key is looked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.headers) ? !has(self.params) && !has(self.cookies) : has(self.params) != has(self.cookies)", "exactly one of headers, params and cookies must be set"),
    ]))]
pub struct ExtractFrom {
    /// Names of headers, the first that is there.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Names of query parameters, the first that is there.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<String>,
    /// Names of cookies, the first that is there.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<String>,
}

/// Clients are known by names and passwords.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// Secret with an htpasswd file in its key `.htpasswd`.
    pub users: SecretObjectReference,
    /// Header that tells the backend the user's name; it is not told if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_username_header: Option<String>,
}

/// Clients are known by JSON Web Tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("!has(self.optional) || !has(self.failOpen)", "at most one of optional and failOpen may be set; failOpen admits requests without a token too"),
    ]))]
pub struct JWT {
    /// Whether requests without a token pass; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
    /// Whether requests without a token, or with one that is not valid, pass; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_open: Option<bool>,
    /// Issuers whose tokens are accepted.
    #[schemars(length(min = 1, max = 16))]
    pub providers: Vec<JWTProvider>,
}

/// An issuer of tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("!has(self.recomputeRoute) || !self.recomputeRoute || (has(self.claimToHeaders) && self.claimToHeaders.size() > 0)", "recomputeRoute needs claimToHeaders"),
        ("has(self.remoteJWKS) != has(self.localJWKS)", "exactly one of remoteJWKS and localJWKS must be set"),
    ]))]
pub struct JWTProvider {
    /// Name by which rules of authorization refer to it.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The token's `iss`; any if absent.
    #[schemars(length(max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Of which the token's `aud` must hold one; any if absent.
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
    /// Whether the route is chosen anew by the headers that claims have become; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recompute_route: Option<bool>,
    /// Where a token is looked for; Authorization with Bearer, or the parameter `access_token`, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extract_from: Option<JWTExtractor>,
}

/// Keys that are fetched.
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
    /// How long after a failure they are fetched anew; 1 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_refetch_duration: Option<Duration>,
}

/// Keys from the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        INLINE_OR_REF,
    ]))]
pub struct LocalJWKS {
    /// Where the keys are.
    #[schemars(required, extend("default" = "Inline"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<LocalJWKSType>,
    /// The keys themselves, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline: Option<String>,
    /// ConfigMap or Secret with the keys, in the key `jwks` or the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_ref: Option<LocalObjectReference>,
}

open_enum! {
    /// Where the keys are.
    LocalJWKSType {
        /// In the policy.
        Inline = "Inline",
        /// In a ConfigMap or Secret.
        ValueRef = "ValueRef",
    }
}

/// A claim that backends are told in a header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimToHeader {
    /// Name of the header.
    pub header: String,
    /// Name of the claim; dots lead into objects.
    pub claim: String,
}

/// Where a token is looked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JWTExtractor {
    /// Headers with a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<JWTHeaderExtractor>,
    /// Names of cookies with a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<String>,
    /// Names of query parameters with a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<String>,
}

/// A header with a token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JWTHeaderExtractor {
    /// Name of the header.
    pub name: String,
    /// What stands before the token, as `Bearer ` does; nothing if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_prefix: Option<String>,
}

/// A service is asked whether a request may pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.grpc) != has(self.http)", "exactly one of grpc and http must be set"),
    ]))]
pub struct ExtAuth {
    /// A service that speaks Envoy's `envoy.service.auth.v3.Authorization`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GRPCExtAuthService>,
    /// A service that is sent the head of the request, and answers with 200 if it may pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HTTPExtAuthService>,
    /// Request headers that the service is told beside the usual ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers_to_ext_auth: Vec<String>,
    /// How much of the body the service is sent; nothing if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_to_ext_auth: Option<BodyToExtAuth>,
    /// How long the service may take; 10 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Whether requests pass if the service cannot be asked.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_open: Option<bool>,
    /// Whether the route is chosen anew by what the service has changed; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recompute_route: Option<bool>,
    /// Whether the service is told of the route in the metadata; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_route_metadata: Option<bool>,
    /// Texts that the service is told, and backends are not.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context_extensions: Vec<ContextExtension>,
    /// Status of the answer if the service cannot be asked; 403 if absent.
    #[schemars(extend("enum" = STATUS_ON_ERROR))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_on_error: Option<i64>,
}

/// A service that is asked over gRPC.
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

/// A service that is asked over HTTP.
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
    /// What stands before the request's path in that of the question; nothing if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The path of the question, in place of the request's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_override: Option<String>,
    /// Headers of the service's answer that the backend is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers_to_backend: Vec<String>,
}

/// How much of the body the service is sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BodyToExtAuth {
    /// Bytes; a longer body is answered with 413.
    #[schemars(range(min = 1))]
    pub max_request_bytes: i64,
}

/// A text that the service is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.value) == (self.type == 'Value') && has(self.valueRef) == (self.type == 'ValueRef')", "value must be set with type Value alone, valueRef with type ValueRef alone"),
    ]))]
pub struct ContextExtension {
    /// Name of the text.
    pub name: String,
    /// Where the text is.
    #[schemars(extend("default" = "Value"))]
    #[serde(rename = "type")]
    pub type_: ContextExtensionValueType,
    /// The text itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The ConfigMap or Secret and its key that has the text.
    #[schemars(transform = Cel(&[
        ("self.kind in ['ConfigMap', 'Secret'] && self.group in ['', 'v1']", "valueRef must be a ConfigMap or Secret of the core group"),
    ]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_ref: Option<LocalObjectKeyReference>,
}

open_enum! {
    /// Where the text is.
    ContextExtensionValueType {
        /// In the policy.
        Value = "Value",
        /// In a ConfigMap or Secret.
        ValueRef = "ValueRef",
    }
}
