//! References from one object to another.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GROUP;
use crate::cel::Cel;
use crate::shape;

/// Port number; the CRD keeps it between 1 and 65535.
pub type PortNumber = u16;

/// The parent that a route or policy status speaks of: a Gateway, a ListenerSet or (in a mesh) a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentReference {
    /// API group; see [`Self::group`] for the default.
    #[schemars(extend("default" = GROUP), transform = shape::group)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind; see [`Self::kind`] for the default.
    #[schemars(extend("default" = "Gateway"), transform = shape::kind)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Namespace; the referrer's own if absent.
    #[schemars(transform = shape::namespace)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the Gateway, ListenerSet or Service.
    #[schemars(transform = shape::name)]
    pub name: String,
    /// Name of one listener of the parent.
    #[schemars(transform = shape::dns_name)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// Port of the parent's listeners.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortNumber>,
}

impl ParentReference {
    /// API group, defaulted.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(GROUP)
    }

    /// Kind, defaulted.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Gateway")
    }

    /// Namespace, given that of the referrer.
    pub fn namespace<'a>(&'a self, own: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(own)
    }
}

/// The Gateway that a ListenerSet extends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentGatewayReference {
    /// API group; Gateway API's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind; Gateway if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name.
    pub name: String,
    /// Namespace; the ListenerSet's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl ParentGatewayReference {
    /// API group, defaulted.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(GROUP)
    }

    /// Kind, defaulted.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Gateway")
    }

    /// Namespace, given that of the referrer.
    pub fn namespace<'a>(&'a self, own: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(own)
    }
}

/// An object that traffic can go to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[(
    "has(self.port) || (has(self.group) && self.group != '') || (has(self.kind) && self.kind != 'Service')",
    "port is required where the backend is a Service",
)]))]
#[serde(rename_all = "camelCase")]
pub struct BackendObjectReference {
    /// API group; the core group if absent.
    #[schemars(extend("default" = ""), transform = shape::group)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind; Service if absent.
    #[schemars(extend("default" = "Service"), transform = shape::kind)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name of the object.
    #[schemars(transform = shape::name)]
    pub name: String,
    /// Namespace; the referrer's own if absent.
    #[schemars(transform = shape::namespace)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Port; required where the object is a Service.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortNumber>,
}

impl BackendObjectReference {
    /// API group, defaulted; empty for the core group.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or_default()
    }

    /// Kind, defaulted.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Service")
    }

    /// Namespace, given that of the referrer.
    pub fn namespace<'a>(&'a self, own: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(own)
    }
}

/// Filter type of backend references that take none (TCP, TLS and UDP routes). It has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoFilter {}

/// A weighted backend of a route rule, with filters that apply to it alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "F: Deserialize<'de>"))]
pub struct BackendRef<F = NoFilter> {
    /// The object.
    #[serde(flatten)]
    pub object: BackendObjectReference,
    /// Share of the traffic; see [`Self::weight`] for the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Filters for requests that go to this backend.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<F>,
}

impl<F> BackendRef<F> {
    /// Share of the traffic, defaulted; 0 sends nothing.
    pub fn weight(&self) -> u32 {
        self.weight.unwrap_or(1)
    }
}

/// A Secret (or another kind that holds a certificate), perhaps in another namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretObjectReference {
    /// API group; the core group if absent.
    #[schemars(extend("default" = ""), transform = shape::group)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind; Secret if absent.
    #[schemars(extend("default" = "Secret"), transform = shape::kind)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name of the object.
    #[schemars(transform = shape::name)]
    pub name: String,
    /// Namespace; the referrer's own if absent.
    #[schemars(transform = shape::namespace)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl SecretObjectReference {
    /// API group, defaulted; empty for the core group.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or_default()
    }

    /// Kind, defaulted.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Secret")
    }

    /// Namespace, given that of the referrer.
    pub fn namespace<'a>(&'a self, own: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(own)
    }
}

/// An object of any kind, perhaps in another namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; the referrer's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl ObjectReference {
    /// Namespace, given that of the referrer.
    pub fn namespace<'a>(&'a self, own: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(own)
    }
}

/// An object of any kind in the referrer's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalObjectReference {
    /// API group; empty for the core group.
    #[schemars(transform = shape::group)]
    pub group: String,
    /// Kind of the object.
    #[schemars(transform = shape::kind)]
    pub kind: String,
    /// Name of the object.
    #[schemars(transform = shape::name)]
    pub name: String,
}

/// What a policy applies to, in the policy's namespace.
pub type LocalPolicyTargetReference = LocalObjectReference;

/// What a policy applies to, or one section of it: a listener, a route rule, a Service's port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalPolicyTargetReferenceWithSectionName {
    /// API group; empty for the core group.
    #[schemars(transform = shape::group)]
    pub group: String,
    /// Kind of the target.
    #[schemars(transform = shape::kind)]
    pub kind: String,
    /// Name of the target.
    #[schemars(transform = shape::name)]
    pub name: String,
    /// One section of the target: a listener, a route rule, a Service's port; all of the target if absent.
    #[schemars(transform = shape::dns_name)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// Parameters of a GatewayClass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParametersReference {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; absent for kinds without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Parameters of a Gateway, in its namespace.
pub type LocalParametersReference = LocalObjectReference;
