//! EnvoyPatchPolicy: patches of Envoy's configuration.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::raw::Raw;
use crate::gateway::{LocalObjectReference, PolicyStatus};
use crate::open_enum::open_enum;

/// Patches of Envoy's own configuration. Refused: there is no Envoy here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "gateway.envoyproxy.io",
    version = "v1alpha1",
    kind = "EnvoyPatchPolicy",
    plural = "envoypatchpolicies",
    shortname = "epp",
    category = "envoy-gateway",
    namespaced,
    status = "PolicyStatus",
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.ancestors[0].conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Programmed","type":"string","jsonPath":".status.ancestors[0].conditions[?(@.type==\"Programmed\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    derive = "PartialEq",
    doc = "Patches of Envoy's own configuration. Refused: there is no Envoy here.",
    schema = "derived"
)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyPatchPolicySpec {
    /// How patches are written.
    #[serde(rename = "type")]
    pub type_: EnvoyPatchType,
    /// The patches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub json_patches: Vec<EnvoyJSONPatchConfig>,
    /// The Gateway or GatewayClass whose proxies are meant.
    pub target_ref: LocalObjectReference,
    /// Of several policies the lowest goes first; 0 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
}

open_enum! {
    /// How patches are written.
    EnvoyPatchType {
        /// RFC 6902.
        JSONPatch = "JSONPatch",
    }
}

/// A patch of one of Envoy's resources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyJSONPatchConfig {
    /// Which kind of resource it is, by its type URL.
    #[serde(rename = "type")]
    pub type_: EnvoyResourceType,
    /// Name of the resource.
    pub name: String,
    /// What is done to it.
    pub operation: JSONPatchOperation,
}

open_enum! {
    /// Kinds of Envoy's resources.
    EnvoyResourceType {
        /// Listener.
        Listener = "type.googleapis.com/envoy.config.listener.v3.Listener",
        /// Routes.
        RouteConfiguration = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        /// Cluster.
        Cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        /// Endpoints.
        ClusterLoadAssignment = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        /// Secret.
        Secret = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
    }
}

/// A change of a document (RFC 6902).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JSONPatchOperation {
    /// Which change it is.
    pub op: JSONPatchOperationType,
    /// Where: a JSON pointer (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where: a JSON path (RFC 9535) that leads to the places of `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json_path: Option<String>,
    /// From where: a JSON pointer, of `move` and `copy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The value, of `add`, `replace` and `test`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Raw<Value>>,
}

open_enum! {
    /// Changes of a document.
    JSONPatchOperationType {
        /// Adds a value.
        Add = "add",
        /// Removes a value.
        Remove = "remove",
        /// Replaces a value.
        Replace = "replace",
        /// Moves a value.
        Move = "move",
        /// Copies a value.
        Copy = "copy",
        /// Fails if the value is another.
        Test = "test",
    }
}
