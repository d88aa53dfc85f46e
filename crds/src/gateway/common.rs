//! What several kinds share besides references: statuses, namespaces that may attach, session persistence.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::references::ParentReference;
use crate::cel::Cel;
use crate::duration::Duration;
use crate::open_enum::open_enum;
use crate::shape::{self, Require};

/// Which default Gateways of the cluster are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GatewayDefaultScope {
    /// All of them.
    All,
    /// None.
    None,
}

/// Namespaces that objects may attach from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromNamespaces {
    /// Every namespace.
    All,
    /// Those whose labels match the selector.
    Selector,
    /// The parent's own.
    Same,
    /// No namespace.
    None,
}

/// Which routes a listener takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedRoutes {
    /// Namespaces to take routes from; the parent's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<RouteNamespaces>,
    /// Route kinds; those that fit the listener's protocol if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<RouteGroupKind>,
}

/// Namespaces that routes may attach from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteNamespaces {
    /// Which; `Same` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<FromNamespaces>,
    /// Labels, with `from: Selector`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// A route kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteGroupKind {
    /// API group; Gateway API's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind.
    pub kind: String,
}

impl RouteGroupKind {
    /// API group, defaulted.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(super::GROUP)
    }
}

/// Status of a route of any kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// One entry a parent and controller. Never left out: the CRD requires it.
    #[serde(default)]
    pub parents: Vec<RouteParentStatus>,
}

/// What one controller says of a route at one parent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteParentStatus {
    /// The parent, as the route names it.
    pub parent_ref: ParentReference,
    /// The controller that wrote the entry.
    pub controller_name: String,
    /// Accepted, ResolvedRefs, PartiallyInvalid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Status of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Require(&["ancestors"]))]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// One entry an ancestor and controller. Never left out: the CRD requires it.
    #[schemars(length(max = 16), transform = shape::no_default, transform = shape::atomic)]
    #[serde(default)]
    pub ancestors: Vec<PolicyAncestorStatus>,
}

/// What one controller says of a policy (or an XBackend) at one ancestor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Require(&["conditions"]))]
#[serde(rename_all = "camelCase")]
pub struct PolicyAncestorStatus {
    /// The ancestor: the Gateway whose traffic is affected, as a rule.
    pub ancestor_ref: ParentReference,
    /// The controller that wrote the entry.
    #[schemars(transform = shape::controller)]
    pub controller_name: String,
    /// What became of the policy there: Accepted, ResolvedRefs and others.
    #[schemars(length(min = 1), transform = shape::no_default, transform = shape::conditions)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A share of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[(
    "self.numerator <= (has(self.denominator) ? self.denominator : 100)",
    "numerator must not be more than denominator",
)]))]
#[serde(rename_all = "camelCase")]
pub struct Fraction {
    /// Requests that are meant...
    pub numerator: u32,
    /// ... out of this many; 100 if absent.
    #[schemars(range(min = 1), extend("default" = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denominator: Option<u32>,
}

impl Fraction {
    /// Denominator, defaulted.
    pub fn denominator(&self) -> u32 {
        self.denominator.unwrap_or(100)
    }
}

/// How requests of one client are kept on one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionPersistence {
    /// Life of a session at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absolute_timeout: Option<Duration>,
    /// What carries the session; a cookie if absent.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<SessionPersistenceType>,
    /// The cookie, with type `Cookie`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<CookieConfig>,
    /// The header, with type `Header`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderConfig>,
}

open_enum! {
    /// What carries a session.
    SessionPersistenceType {
        /// A cookie.
        Cookie = "Cookie",
        /// A header.
        Header = "Header",
    }
}

/// The cookie of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CookieConfig {
    /// Name; chosen by the implementation if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Path; the route's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How long the client keeps it; `Session` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_type: Option<CookieLifetimeType>,
}

open_enum! {
    /// How long a client keeps a session cookie.
    CookieLifetimeType {
        /// Until it ends its own session.
        Session = "Session",
        /// For the session's absolute timeout.
        Permanent = "Permanent",
    }
}

/// The header of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderConfig {
    /// Name.
    pub name: String,
}

/// A header and its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPHeader {
    /// Name; case does not matter.
    #[schemars(transform = shape::header_name)]
    pub name: String,
    /// Value, 1 to 4096 characters.
    #[schemars(transform = shape::header_value)]
    pub value: String,
}

open_enum! {
    /// How a header, query parameter or gRPC method is compared.
    HeaderMatchType {
        /// Equal.
        Exact = "Exact",
        /// By a regular expression.
        RegularExpression = "RegularExpression",
    }
}

/// A header (HTTP or gRPC metadata) or query parameter that must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// How the value is compared; `Exact` if absent.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<HeaderMatchType>,
    /// Name.
    pub name: String,
    /// Value or pattern.
    pub value: String,
}
