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

/// Processors that see requests and responses and may change them. Code for Envoy is refused: there is no Envoy here.
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
    /// WebAssembly for Envoy.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wasm: Vec<Wasm>,
    /// Processors, in this order.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ext_proc: Vec<ExtProc>,
    /// Lua for Envoy.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lua: Vec<Lua>,
    /// Shared libraries for Envoy.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dynamic_module: Vec<DynamicModule>,
}

/// WebAssembly for Envoy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Wasm {
    /// Name in logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Those of one root ID share a context.
    #[serde(rename = "rootID", skip_serializing_if = "Option::is_none")]
    pub root_id: Option<String>,
    /// Where the code is.
    pub code: WasmCodeSource,
    /// Passed to the code, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Raw<Value>>,
    /// Whether requests pass if the code cannot be run.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_open: Option<bool>,
    /// Variables of its environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<WasmEnv>,
}

/// Where code is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.http) == (self.type == 'HTTP')", "http must be set with type HTTP alone"),
        ("has(self.image) == (self.type == 'Image')", "image must be set with type Image alone"),
    ]))]
pub struct WasmCodeSource {
    /// From where the code is fetched.
    #[serde(rename = "type")]
    pub type_: WasmCodeSourceType,
    /// From a web server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HTTPWasmCodeSource>,
    /// From a registry of images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageWasmCodeSource>,
    /// When it is fetched anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<ImagePullPolicy>,
}

open_enum! {
    /// From where code is fetched.
    WasmCodeSourceType {
        /// From a web server.
        Http = "HTTP",
        /// From a registry of images.
        Image = "Image",
    }
}

/// Code on a web server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPWasmCodeSource {
    /// Where the code is.
    pub url: String,
    /// What its SHA-256 must be, in hex; anything if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// How the server is verified; as the system does if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<WasmCodeSourceTLSConfig>,
}

/// How a server is verified.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WasmCodeSourceTLSConfig {
    /// ConfigMap or Secret with the CA certificates.
    pub ca_certificate_ref: SecretObjectReference,
}

/// Code in an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageWasmCodeSource {
    /// Name of the image.
    pub url: String,
    /// What its digest must be, in hex; anything if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Secret with the credentials for the registry.
    #[schemars(transform = Cel(&[
        ("self.kind == 'Secret'", "pullSecretRef must be of kind Secret"),
    ]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_secret_ref: Option<SecretObjectReference>,
    /// How the registry is verified; as the system does if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<WasmCodeSourceTLSConfig>,
}

open_enum! {
    /// When code is fetched anew.
    ImagePullPolicy {
        /// When there is none.
        IfNotPresent = "IfNotPresent",
        /// When the policy changes.
        Always = "Always",
    }
}

/// Variables of an environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WasmEnv {
    /// Names of the proxy's variables that the code sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_keys: Vec<String>,
}

/// A processor that sees requests and responses and may change them.
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
    /// How long it may take for each answer; 200 ms if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_timeout: Option<Duration>,
    /// Whether requests pass if the processor cannot be asked.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_open: Option<bool>,
    /// What it is sent; nothing if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processing_mode: Option<ExtProcProcessingMode>,
    /// Whether it only watches; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_mode: Option<bool>,
    /// Metadata that it is shown and may write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ExtProcMetadata>,
    /// Status of the answer if the processor cannot be asked; 500 if absent.
    #[schemars(extend("enum" = STATUS_ON_ERROR))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_on_error: Option<i64>,
}

/// What a processor is sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtProcProcessingMode {
    /// Requests: their headers, and what is said here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<ProcessingModeOptions>,
    /// Responses: their headers, and what is said here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<ProcessingModeOptions>,
    /// Whether its answers may change this; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_mode_override: Option<bool>,
}

/// What a processor is sent beside headers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessingModeOptions {
    /// How it is sent the body; it is not if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<ExtProcBodyProcessingMode>,
    /// Envoy's attributes that it is told, as `request.path`.
    #[schemars(inner(regex(
        pattern = r"^((connection|source|destination|request|response|upstream)\.|xds\.route_)[a-z_1-9]*$"
    )))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<String>,
}

open_enum! {
    /// How a processor is sent a body.
    ExtProcBodyProcessingMode {
        /// Piece by piece, each of which it answers.
        Streamed = "Streamed",
        /// As a whole.
        Buffered = "Buffered",
        /// Piece by piece; it answers when it likes.
        FullDuplexStreamed = "FullDuplexStreamed",
        /// As a whole, or what of it can be held.
        BufferedPartial = "BufferedPartial",
    }
}

/// Metadata that a processor is shown and may write.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtProcMetadata {
    /// Namespaces that it is shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accessible_namespaces: Vec<String>,
    /// Namespaces that it may write.
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

/// Lua for Envoy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        INLINE_OR_REF,
    ]))]
pub struct Lua {
    /// Where the code is.
    #[schemars(extend("default" = "Inline"))]
    #[serde(rename = "type")]
    pub type_: LuaValueType,
    /// The code itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline: Option<String>,
    /// ConfigMap with the code.
    #[schemars(transform = Cel(&[
        ("self.kind == 'ConfigMap' && self.group in ['', 'v1']", "valueRef must be a ConfigMap of the core group"),
    ]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_ref: Option<LocalObjectReference>,
    /// Passed to the code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_context: Option<Raw<Value>>,
}

open_enum! {
    /// Where code is.
    LuaValueType {
        /// In the policy.
        Inline = "Inline",
        /// In a ConfigMap.
        ValueRef = "ValueRef",
    }
}

/// A shared library for Envoy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DynamicModule {
    /// Name under which the EnvoyProxy lists it.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Which of its filters.
    #[schemars(length(max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_name: Option<String>,
    /// Passed to the filter, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Raw<Value>>,
    /// Whether the filter answers in place of a backend.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal_filter: Option<bool>,
}
