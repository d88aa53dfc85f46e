//! What several kinds of policies share: targets, references to backends, TLS and connection settings.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cluster::ClusterSettings;
use crate::cel::Cel;
use crate::duration::Duration;
use crate::gateway::{
    BackendObjectReference, HTTPHeader, LocalObjectReference, LocalPolicyTargetReferenceWithSectionName,
    PathMatchType, SecretObjectReference,
};
use crate::int_or_string::IntOrString;
use crate::open_enum::open_enum;
use crate::patterns;
use crate::shape::{self, MapBy};

/// What a policy applies to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[(
    "has(self.targetRef) != has(self.targetRefs) || (has(self.targetSelectors) && self.targetSelectors.size() > 0)",
    "one of targetRef and targetRefs must be set, or targetSelectors",
), (
    "!has(self.targetRef) || self.targetRef.group == 'gateway.networking.k8s.io'",
    "targetRef must be of group gateway.networking.k8s.io",
), (
    "!has(self.targetRefs) || self.targetRefs.all(ref, ref.group == 'gateway.networking.k8s.io')",
    "targetRefs must be of group gateway.networking.k8s.io",
)]))]
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
#[schemars(transform = Cel(&[(
    "!has(self.group) || self.group == 'gateway.networking.k8s.io'",
    "group must be gateway.networking.k8s.io",
)]))]
#[serde(rename_all = "camelCase")]
pub struct TargetSelector {
    /// Group.
    #[schemars(extend("default" = "gateway.networking.k8s.io"), transform = shape::group)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind.
    #[schemars(transform = shape::kind)]
    pub kind: String,
    /// Namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<TargetSelectorNamespaces>,
    /// Match labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Match expressions.
    #[schemars(transform = shape::label_requirements)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// Target selector namespaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[(
    "self.from != 'Selector' || has(self.selector)",
    "selector is required with from Selector",
)]))]
#[serde(rename_all = "camelCase")]
pub struct TargetSelectorNamespaces {
    /// From.
    #[schemars(extend("default" = "Same"))]
    pub from: TargetNamespaceFrom,
    /// Selector.
    #[schemars(transform = shape::label_selector)]
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
#[schemars(transform = Cel(&[(
    "!has(self.minVersion) || self.minVersion != '1.3' || !has(self.ciphers)",
    "ciphers have no effect with minVersion 1.3",
), (
    "!has(self.maxVersion) || self.maxVersion == 'Auto' || (has(self.minVersion) ? self.minVersion == 'Auto' || self.minVersion <= self.maxVersion : self.maxVersion >= '1.2')",
    "minVersion, 1.2 by default, must not be above maxVersion",
)]))]
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
    #[schemars(with = "Vec<String>")]
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
#[schemars(transform = Cel(&[(
    "self.type != 'Inline' || has(self.inline)",
    "inline is required with type Inline",
), (
    "self.type != 'ValueRef' || has(self.valueRef)",
    "valueRef is required with type ValueRef",
), (
    "!has(self.valueRef) || self.valueRef.kind == 'ConfigMap'",
    "valueRef must be of kind ConfigMap",
)]))]
#[serde(rename_all = "camelCase")]
pub struct CustomResponseBody {
    /// Which kind it is.
    #[schemars(extend("default" = "Inline"), required)]
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
    #[schemars(length(min = 1, max = 64), transform = MapBy("name"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<HTTPHeader>,
    /// Add.
    #[schemars(length(min = 1, max = 64), transform = MapBy("name"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<HTTPHeader>,
    /// Add if absent.
    #[schemars(length(min = 1, max = 64), transform = MapBy("name"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_if_absent: Vec<HTTPHeader>,
    /// Remove.
    #[schemars(length(min = 1, max = 64), transform = shape::set)]
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
    #[schemars(extend("pattern" = patterns::SIZE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_stream_window_size: Option<IntOrString>,
    /// Initial connection window size.
    #[schemars(extend("pattern" = patterns::SIZE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_connection_window_size: Option<IntOrString>,
    /// Max concurrent streams.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_streams: Option<i64>,
    /// On invalid message.
    #[schemars(with = "Option<String>")]
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
#[schemars(transform = Cel(&[(
    "!has(self.timeout) || !has(self.interval) || duration(self.timeout) < duration(self.interval)",
    "timeout must be less than interval",
)]))]
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
