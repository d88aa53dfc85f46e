//! EnvoyPatchPolicy: patches of Envoy's configuration.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::raw::Raw;
use crate::gateway::{LocalObjectReference, PolicyStatus};
use crate::open_enum::open_enum;

/// Patches of Envoy's own configuration. Refused: there is no Envoy here..
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
    /// Which kind it is.
    #[serde(rename = "type")]
    pub type_: EnvoyPatchType,
    /// Json patches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub json_patches: Vec<EnvoyJSONPatchConfig>,
    /// The one target.
    pub target_ref: LocalObjectReference,
    /// Priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
}

open_enum! {
    /// Envoy patch type.
    EnvoyPatchType {
        /// `JSONPatch`.
        JSONPatch = "JSONPatch",
    }
}

/// A patch of one of Envoy's resources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyJSONPatchConfig {
    /// Which kind it is.
    #[serde(rename = "type")]
    pub type_: EnvoyResourceType,
    /// Name.
    pub name: String,
    /// Operation.
    pub operation: JSONPatchOperation,
}

open_enum! {
    /// Envoy resource type.
    EnvoyResourceType {
        /// `type.googleapis.com/envoy.config.listener.v3.Listener`.
        Listener = "type.googleapis.com/envoy.config.listener.v3.Listener",
        /// `type.googleapis.com/envoy.config.route.v3.RouteConfiguration`.
        RouteConfiguration = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        /// `type.googleapis.com/envoy.config.cluster.v3.Cluster`.
        Cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        /// `type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment`.
        ClusterLoadAssignment = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        /// `type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret`.
        Secret = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
    }
}

/// Json patch operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JSONPatchOperation {
    /// Op.
    pub op: JSONPatchOperationType,
    /// Path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Json path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json_path: Option<String>,
    /// From.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Raw<Value>>,
}

open_enum! {
    /// Json patch operation type.
    JSONPatchOperationType {
        /// `add`.
        Add = "add",
        /// `remove`.
        Remove = "remove",
        /// `replace`.
        Replace = "replace",
        /// `move`.
        Move = "move",
        /// `copy`.
        Copy = "copy",
        /// `test`.
        Test = "test",
    }
}
