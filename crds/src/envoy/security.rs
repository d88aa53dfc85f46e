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

/// Who may use a Gateway or a route, and what browsers may do.
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
    /// Clients are known by keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_auth: Option<APIKeyAuth>,
    /// What scripts of other sites may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<CORS>,
    /// Requests that another site makes a browser send are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csrf: Option<CSRF>,
    /// Clients are known by names and passwords.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// Clients are known by JSON Web Tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JWT>,
    /// Clients log in by OpenID Connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OIDC>,
    /// A service is asked whether a request may pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ext_auth: Option<ExtAuth>,
    /// Who may do what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
}

/// What scripts of other sites may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CORS {
    /// Sites, as `https://*.example.com`; `*` is any.
    #[schemars(inner(length(min = 1, max = 253), regex(pattern = patterns::ORIGIN)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_origins: Vec<String>,
    /// Methods that they may use; `*` is any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_methods: Vec<String>,
    /// Headers that they may send; `*` is any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_headers: Vec<String>,
    /// Headers of answers that they may see; `*` is any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<String>,
    /// How long browsers may remember this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// Whether browsers send cookies and passwords; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
}

/// Requests that another site makes a browser send are refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CSRF {
    /// Share of requests that are only counted; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_fraction: Option<Fraction>,
    /// Sites whose requests pass, beside the one that is asked.
    #[schemars(length(max = 16), inner(length(min = 1, max = 253), regex(pattern = patterns::ORIGIN)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_origins: Vec<String>,
}
