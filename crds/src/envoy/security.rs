//! SecurityPolicy: who may use a Gateway or a route.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::authentication::{APIKeyAuth, BasicAuth, ExtAuth, JWT};
use super::authorization::Authorization;
use super::oidc::OIDC;
use super::policy::{PolicyMergeType, PolicyTargetReferences};
use super::rules::NO_MERGE_BY_REPLACING;
use crate::cel::Cel;
use crate::duration::Duration;
use crate::gateway::{Fraction, PolicyStatus};
use crate::patterns;

/// Who may use a Gateway or a route, and what browsers may do..
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "gateway.envoyproxy.io",
    version = "v1alpha1",
    kind = "SecurityPolicy",
    plural = "securitypolicies",
    shortname = "sp",
    category = "envoy-gateway",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Who may use a Gateway or a route, and what browsers may do.",
    schema = "derived"
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("!has(self.targetRef) || self.targetRef.kind in ['Gateway', 'ListenerSet', 'HTTPRoute', 'GRPCRoute', 'TCPRoute']", "targetRef must be of kind Gateway, ListenerSet, HTTPRoute, GRPCRoute or TCPRoute"),
        ("!has(self.targetRefs) || self.targetRefs.all(ref, ref.kind in ['Gateway', 'ListenerSet', 'HTTPRoute', 'GRPCRoute', 'TCPRoute'])", "targetRefs must be of kind Gateway, ListenerSet, HTTPRoute, GRPCRoute or TCPRoute"),
        ("!has(self.mergeType) || ((!has(self.targetRef) || self.targetRef.kind in ['HTTPRoute', 'GRPCRoute', 'TCPRoute']) && (!has(self.targetRefs) || self.targetRefs.all(ref, ref.kind in ['HTTPRoute', 'GRPCRoute', 'TCPRoute'])) && (!has(self.targetSelectors) || self.targetSelectors.all(selector, selector.kind in ['HTTPRoute', 'GRPCRoute', 'TCPRoute'])))", "mergeType is for targets of kind HTTPRoute, GRPCRoute or TCPRoute"),
        ("has(self.jwt) || !has(self.authorization) || !has(self.authorization.rules) || !self.authorization.rules.exists(rule, has(rule.principal) && has(rule.principal.jwt))", "authorization.rules.principal.jwt needs jwt"),
    ]))]
pub struct SecurityPolicySpec {
    /// Policy target references.
    #[serde(flatten)]
    pub targets: PolicyTargetReferences,
    /// How it is laid over the policy of the route's Gateway; absent: it takes that one's place.
    #[schemars(with = "Option<String>", transform = Cel(&[NO_MERGE_BY_REPLACING]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_type: Option<PolicyMergeType>,
    /// API key auth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_auth: Option<APIKeyAuth>,
    /// CORS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<CORS>,
    /// CSRF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csrf: Option<CSRF>,
    /// Basic auth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// JWT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JWT>,
    /// OIDC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OIDC>,
    /// Ext auth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ext_auth: Option<ExtAuth>,
    /// Authorization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
}

/// CORS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CORS {
    /// Allow origins.
    #[schemars(inner(length(min = 1, max = 253), regex(pattern = patterns::ORIGIN)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_origins: Vec<String>,
    /// Allow methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_methods: Vec<String>,
    /// Allow headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_headers: Vec<String>,
    /// Expose headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<String>,
    /// Max age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// Allow credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
}

/// CSRF.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CSRF {
    /// Shadow fraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_fraction: Option<Fraction>,
    /// Additional origins.
    #[schemars(length(max = 16), inner(length(min = 1, max = 253), regex(pattern = patterns::ORIGIN)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_origins: Vec<String>,
}
