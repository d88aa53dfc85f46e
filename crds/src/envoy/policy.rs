//! What several kinds of policies share: targets, references to backends, TLS and connection settings.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cluster::ClusterSettings;
use crate::duration::Duration;
use crate::gateway::{
    BackendObjectReference, HTTPHeader, LocalObjectReference, LocalPolicyTargetReferenceWithSectionName,
    PathMatchType, SecretObjectReference,
};
use crate::open_enum::open_enum;

/// What a policy applies to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTargetReferences {
    /// The one target; `targetRefs` is newer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<LocalPolicyTargetReferenceWithSectionName>,
    /// Targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<LocalPolicyTargetReferenceWithSectionName>,
    /// Targets by their labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_selectors: Vec<TargetSelector>,
}

/// Targets by their labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetSelector {
    /// Group.
    #[schemars(extend("default" = "gateway.networking.k8s.io"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind.
    pub kind: String,
    /// Namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<TargetSelectorNamespaces>,
    /// Match labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Match expressions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// Target selector namespaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetSelectorNamespaces {
    /// From.
    #[schemars(extend("default" = "Same"))]
    pub from: TargetNamespaceFrom,
    /// Selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

open_enum! {
    /// Namespaces in which targets are looked for.
    TargetNamespaceFrom {
        /// `Same`.
        Same = "Same",
        /// `All`.
        All = "All",
        /// `Selector`.
        Selector = "Selector",
    }
}

open_enum! {
    /// How a policy is laid over that of the route's parent.
    PolicyMergeType {
        /// `StrategicMerge`.
        StrategicMerge = "StrategicMerge",
        /// `JSONMerge`.
        JSONMerge = "JSONMerge",
        /// `Replace`.
        Replace = "Replace",
    }
}

/// String match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StringMatch {
    /// Which kind it is.
    #[schemars(extend("default" = "Exact"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<StringMatchType>,
    /// Value.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

open_enum! {
    /// String match type.
    StringMatchType {
        /// `Exact`.
        Exact = "Exact",
        /// `Prefix`.
        Prefix = "Prefix",
        /// `Suffix`.
        Suffix = "Suffix",
        /// `RegularExpression`.
        RegularExpression = "RegularExpression",
    }
}

/// Path match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathMatch {
    /// Which kind it is.
    #[schemars(extend("default" = "PathPrefix"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<PathMatchType>,
    /// Value.
    #[schemars(length(max = 1024), extend("default" = "/"))]
    pub value: String,
    /// Whether what does not match, matches.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invert: Option<bool>,
}

/// Backends of a service that the proxy itself uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendCluster {
    /// Backend ref.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<BackendObjectReference>,
    /// Backend refs.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
    /// Backend settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_settings: Option<ClusterSettings>,
}

/// Backend ref.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    /// Backend object reference.
    #[serde(flatten)]
    pub object: BackendObjectReference,
    /// Weight.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Whether it is used only when the others are not healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<bool>,
}

/// TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TLSSettings {
    /// Min version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TLSVersion>,
    /// Max version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_version: Option<TLSVersion>,
    /// Ciphers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ciphers: Vec<String>,
    /// ECDH curves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ecdh_curves: Vec<String>,
    /// Signature algorithms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signature_algorithms: Vec<String>,
    /// ALPN protocols.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alpn_protocols: Vec<ALPNProtocol>,
    /// Fingerprints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fingerprints: Vec<TLSFingerprintType>,
}

open_enum! {
    /// TLS version.
    TLSVersion {
        /// `Auto`.
        Auto = "Auto",
        /// `1.0`.
        V10 = "1.0",
        /// `1.1`.
        V11 = "1.1",
        /// `1.2`.
        V12 = "1.2",
        /// `1.3`.
        V13 = "1.3",
    }
}

open_enum! {
    /// ALPN protocol.
    ALPNProtocol {
        /// `http/1.0`.
        Http10 = "http/1.0",
        /// `http/1.1`.
        Http11 = "http/1.1",
        /// `h2`.
        H2 = "h2",
    }
}

open_enum! {
    /// TLS fingerprint type.
    TLSFingerprintType {
        /// `JA3`.
        JA3 = "JA3",
        /// `JA4`.
        JA4 = "JA4",
    }
}

/// Custom response body.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomResponseBody {
    /// Which kind it is.
    #[schemars(extend("default" = "Inline"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ResponseValueType>,
    /// The value itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline: Option<String>,
    /// Where the value is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_ref: Option<LocalObjectReference>,
}

open_enum! {
    /// Response value type.
    ResponseValueType {
        /// `Inline`.
        Inline = "Inline",
        /// `ValueRef`.
        ValueRef = "ValueRef",
    }
}

/// Header filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderFilter {
    /// Set.
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<HTTPHeader>,
    /// Add.
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<HTTPHeader>,
    /// Add if absent.
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_if_absent: Vec<HTTPHeader>,
    /// Remove.
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Remove on match.
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_on_match: Vec<StringMatch>,
}

/// TCP keepalive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TCPKeepalive {
    /// Probes.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<i64>,
    /// Idle time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_time: Option<Duration>,
    /// Interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
}

/// HTTP/2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTP2Settings {
    /// Initial stream window size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_stream_window_size: Option<IntOrString>,
    /// Initial connection window size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_connection_window_size: Option<IntOrString>,
    /// Max concurrent streams.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_streams: Option<i64>,
    /// On invalid message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_invalid_message: Option<InvalidMessageAction>,
    /// Connection keepalive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_keepalive: Option<HTTP2KeepaliveSettings>,
}

open_enum! {
    /// Invalid message action.
    InvalidMessageAction {
        /// `TerminateConnection`.
        TerminateConnection = "TerminateConnection",
        /// `TerminateStream`.
        TerminateStream = "TerminateStream",
    }
}

/// HTTP/2 keepalive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTP2KeepaliveSettings {
    /// Interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Interval jitter.
    #[schemars(range(min = 0, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_jitter: Option<i64>,
    /// Idle interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_interval: Option<Duration>,
}

/// Backend TLS config.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendTLSConfig {
    /// Client certificate ref.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<SecretObjectReference>,
    /// TLS settings.
    #[serde(flatten)]
    pub settings: TLSSettings,
}

/// Local object key reference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalObjectKeyReference {
    /// Local object reference.
    #[serde(flatten)]
    pub object: LocalObjectReference,
    /// Key.
    pub key: String,
}
