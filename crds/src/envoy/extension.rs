//! EnvoyExtensionPolicy: processors that see requests, and code that extends Envoy.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::authentication::STATUS_ON_ERROR;
use super::policy::{BackendCluster, PolicyMergeType, PolicyTargetReferences};
use super::raw::Raw;
use super::rules::{BACKEND_GROUPS, BACKEND_KINDS, INLINE_OR_REF, NO_BACKEND_REF, NO_MERGE_BY_REPLACING};
use crate::cel::Cel;
use crate::duration::Duration;
use crate::gateway::{LocalObjectReference, PolicyStatus, SecretObjectReference};
use crate::open_enum::open_enum;

/// Processors that see requests and responses and may change them. Code for Envoy is refused: there is no Envoy here..
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "gateway.envoyproxy.io",
    version = "v1alpha1",
    kind = "EnvoyExtensionPolicy",
    plural = "envoyextensionpolicies",
    shortname = "eep",
    category = "envoy-gateway",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Processors that see requests and responses and may change them. Code for Envoy is refused: there is no Envoy here.",
    schema = "derived"
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("!has(self.targetRef) || self.targetRef.kind in ['Gateway', 'ListenerSet', 'HTTPRoute', 'GRPCRoute', 'UDPRoute', 'TCPRoute', 'TLSRoute']", "targetRef must be of kind Gateway, ListenerSet, HTTPRoute, GRPCRoute, UDPRoute, TCPRoute or TLSRoute"),
        ("!has(self.targetRefs) || self.targetRefs.all(ref, ref.kind in ['Gateway', 'ListenerSet', 'HTTPRoute', 'GRPCRoute', 'UDPRoute', 'TCPRoute', 'TLSRoute'])", "targetRefs must be of kind Gateway, ListenerSet, HTTPRoute, GRPCRoute, UDPRoute, TCPRoute or TLSRoute"),
    (
        "!has(self.mergeType) || ((!has(self.targetRef) || self.targetRef.kind in ['HTTPRoute', 'GRPCRoute', 'UDPRoute', 'TCPRoute', 'TLSRoute']) && (!has(self.targetRefs) || self.targetRefs.all(ref, ref.kind in ['HTTPRoute', 'GRPCRoute', 'UDPRoute', 'TCPRoute', 'TLSRoute'])) && (!has(self.targetSelectors) || self.targetSelectors.all(selector, selector.kind in ['HTTPRoute', 'GRPCRoute', 'UDPRoute', 'TCPRoute', 'TLSRoute'])))",
        "mergeType is for targets of kind HTTPRoute, GRPCRoute, UDPRoute, TCPRoute or TLSRoute",
    ),
    ]))]
pub struct EnvoyExtensionPolicySpec {
    /// Policy target references.
    #[serde(flatten)]
    pub targets: PolicyTargetReferences,
    /// How it is laid over the policy of the route's Gateway; absent: it takes that one's place.
    #[schemars(with = "Option<String>", transform = Cel(&[NO_MERGE_BY_REPLACING]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_type: Option<PolicyMergeType>,
    /// Wasm.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wasm: Vec<Wasm>,
    /// Ext proc.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ext_proc: Vec<ExtProc>,
    /// Lua.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lua: Vec<Lua>,
    /// Dynamic module.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dynamic_module: Vec<DynamicModule>,
}

/// Wasm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Wasm {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Root ID.
    #[serde(rename = "rootID", skip_serializing_if = "Option::is_none")]
    pub root_id: Option<String>,
    /// Code.
    pub code: WasmCodeSource,
    /// Config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Raw<Value>>,
    /// Whether requests pass if the service cannot be asked.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_open: Option<bool>,
    /// Env.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<WasmEnv>,
}

/// Wasm code source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.http) == (self.type == 'HTTP')", "http must be set with type HTTP alone"),
        ("has(self.image) == (self.type == 'Image')", "image must be set with type Image alone"),
    ]))]
pub struct WasmCodeSource {
    /// Which kind it is.
    #[serde(rename = "type")]
    pub type_: WasmCodeSourceType,
    /// HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HTTPWasmCodeSource>,
    /// Image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageWasmCodeSource>,
    /// Pull policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<ImagePullPolicy>,
}

open_enum! {
    /// Wasm code source type.
    WasmCodeSourceType {
        /// `HTTP`.
        Http = "HTTP",
        /// `Image`.
        Image = "Image",
    }
}

/// HTTP wasm code source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPWasmCodeSource {
    /// URL.
    pub url: String,
    /// Sha256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<WasmCodeSourceTLSConfig>,
}

/// Wasm code source TLS config.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WasmCodeSourceTLSConfig {
    /// CA certificate ref.
    pub ca_certificate_ref: SecretObjectReference,
}

/// Image wasm code source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageWasmCodeSource {
    /// URL.
    pub url: String,
    /// Sha256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Pull secret ref.
    #[schemars(transform = Cel(&[
        ("self.kind == 'Secret'", "pullSecretRef must be of kind Secret"),
    ]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_secret_ref: Option<SecretObjectReference>,
    /// TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<WasmCodeSourceTLSConfig>,
}

open_enum! {
    /// Image pull policy.
    ImagePullPolicy {
        /// `IfNotPresent`.
        IfNotPresent = "IfNotPresent",
        /// `Always`.
        Always = "Always",
    }
}

/// Wasm env.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WasmEnv {
    /// Host keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_keys: Vec<String>,
}

/// Ext proc.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        NO_BACKEND_REF,
        BACKEND_KINDS,
        BACKEND_GROUPS,
        ("!self.?failOpen.orValue(false) || [self.?processingMode.?request.?body, self.?processingMode.?response.?body].all(body, body.orValue('Streamed') != 'FullDuplexStreamed')", "failOpen cannot be true with a body processing mode FullDuplexStreamed"),
        ("!self.?shadowMode.orValue(false) || [self.?processingMode.?request.?body, self.?processingMode.?response.?body].all(body, body.orValue('Streamed') == 'Streamed')", "shadowMode needs body processing modes to be Streamed or absent"),
    ]))]
pub struct ExtProc {
    /// Backend cluster.
    #[serde(flatten)]
    pub cluster: BackendCluster,
    /// Message timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_timeout: Option<Duration>,
    /// Whether requests pass if the service cannot be asked.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_open: Option<bool>,
    /// Processing mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processing_mode: Option<ExtProcProcessingMode>,
    /// Whether it only watches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_mode: Option<bool>,
    /// Metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ExtProcMetadata>,
    /// Status of the answer if the service cannot be asked.
    #[schemars(extend("enum" = STATUS_ON_ERROR))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_on_error: Option<i64>,
}

/// Ext proc processing mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtProcProcessingMode {
    /// Request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<ProcessingModeOptions>,
    /// Response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<ProcessingModeOptions>,
    /// Allow mode override.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_mode_override: Option<bool>,
}

/// Processing mode options.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessingModeOptions {
    /// Body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<ExtProcBodyProcessingMode>,
    /// Attributes.
    #[schemars(inner(regex(
        pattern = r"^((connection|source|destination|request|response|upstream)\.|xds\.route_)[a-z_1-9]*$"
    )))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<String>,
}

open_enum! {
    /// Ext proc body processing mode.
    ExtProcBodyProcessingMode {
        /// `Streamed`.
        Streamed = "Streamed",
        /// `Buffered`.
        Buffered = "Buffered",
        /// `FullDuplexStreamed`.
        FullDuplexStreamed = "FullDuplexStreamed",
        /// `BufferedPartial`.
        BufferedPartial = "BufferedPartial",
    }
}

/// Ext proc metadata.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtProcMetadata {
    /// Accessible namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accessible_namespaces: Vec<String>,
    /// Writable namespaces.
    #[schemars(
        length(max = 8),
        transform = Cel(&[(
            "self.all(name, !name.startsWith('envoy.filters.http'))",
            "writableNamespaces cannot be those of Envoy's own filters",
        )])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writable_namespaces: Vec<String>,
}

/// Lua.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        INLINE_OR_REF,
    ]))]
pub struct Lua {
    /// Which kind it is.
    #[schemars(extend("default" = "Inline"))]
    #[serde(rename = "type")]
    pub type_: LuaValueType,
    /// The value itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline: Option<String>,
    /// Where the value is.
    #[schemars(transform = Cel(&[
        ("self.kind == 'ConfigMap' && self.group in ['', 'v1']", "valueRef must be a ConfigMap of the core group"),
    ]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_ref: Option<LocalObjectReference>,
    /// Filter context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_context: Option<Raw<Value>>,
}

open_enum! {
    /// Lua value type.
    LuaValueType {
        /// `Inline`.
        Inline = "Inline",
        /// `ValueRef`.
        ValueRef = "ValueRef",
    }
}

/// Dynamic module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DynamicModule {
    /// Name.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Filter name.
    #[schemars(length(max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_name: Option<String>,
    /// Config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Raw<Value>>,
    /// Terminal filter.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal_filter: Option<bool>,
}
