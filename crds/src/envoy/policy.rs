//! What several kinds of policies share: targets, references to backends, TLS and connection settings.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cluster::ClusterSettings;
use crate::cel::Cel;
use crate::gateway::{
    BackendObjectReference, HTTPHeader, LocalObjectReference, LocalPolicyTargetReferenceWithSectionName,
    PathMatchType, SecretObjectReference,
};
use crate::open_enum::open_enum;
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
    /// The one target; an older way to write `targetRefs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<LocalPolicyTargetReferenceWithSectionName>,
    /// Targets by name, in the policy's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<LocalPolicyTargetReferenceWithSectionName>,
    /// Targets by their labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_selectors: Vec<TargetSelector>,
}

/// Targets of one kind whose labels match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[(
    "!has(self.group) || self.group == 'gateway.networking.k8s.io'",
    "group must be gateway.networking.k8s.io",
)]))]
#[serde(rename_all = "camelCase")]
pub struct TargetSelector {
    /// API group of the targets; Gateway API's if absent.
    #[schemars(extend("default" = "gateway.networking.k8s.io"), transform = shape::group)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind of the targets.
    #[schemars(transform = shape::kind)]
    pub kind: String,
    /// Namespaces to look in; the policy's own if absent. Targets elsewhere need a ReferenceGrant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<TargetSelectorNamespaces>,
    /// Labels that targets must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements on the targets' labels; all must be met.
    #[schemars(transform = shape::label_requirements)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// Namespaces in which targets are looked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[(
    "self.from != 'Selector' || has(self.selector)",
    "selector is required with from Selector",
)]))]
#[serde(rename_all = "camelCase")]
pub struct TargetSelectorNamespaces {
    /// Which namespaces; `Same`, the policy's own, if absent.
    #[schemars(extend("default" = "Same"))]
    pub from: TargetNamespaceFrom,
    /// Labels of the namespaces, with `from: Selector`.
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

/// How a text is compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StringMatch {
    /// Way of comparing; `Exact` if absent.
    #[schemars(extend("default" = "Exact"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<StringMatchType>,
    /// Text or RE2 expression to compare with.
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

/// How a request's path is compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathMatch {
    /// Way of comparing; `PathPrefix` if absent.
    #[schemars(extend("default" = "PathPrefix"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<PathMatchType>,
    /// Path, prefix or RE2 expression; `/` if absent.
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
    /// The one backend; not supported wherever `backendRefs` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<BackendObjectReference>,
    /// Backends, at most 16; requests are spread by weight.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
    /// How connections to the backends are made and used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_settings: Option<ClusterSettings>,
}

/// A backend and its share of the requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    /// The Service, `ServiceImport` or Backend.
    #[serde(flatten)]
    pub object: BackendObjectReference,
    /// Share of the requests, relative to the other backends; 1 if absent, 0 for none.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Whether it is used only when the others are not healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<bool>,
}

/// Parameters of TLS.
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
    /// Lowest version; 1.2 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TLSVersion>,
    /// Highest version; 1.3 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_version: Option<TLSVersion>,
    /// Cipher suites up to TLS 1.2, by their OpenSSL names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ciphers: Vec<String>,
    /// Groups for the key exchange, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ecdh_curves: Vec<String>,
    /// Signature schemes that are taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signature_algorithms: Vec<String>,
    /// Protocols that are offered, best first; those that can be spoken if absent.
    #[schemars(with = "Vec<String>")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alpn_protocols: Vec<ALPNProtocol>,
    /// Fingerprints of the client's first message to compute; none if absent.
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

/// Body of a response.
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
    /// Where the body comes from; `Inline` if absent.
    #[schemars(extend("default" = "Inline"), required)]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ResponseValueType>,
    /// The body itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline: Option<String>,
    /// A ConfigMap that holds the body under `response.body`, or else as its first value.
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

/// Changes of headers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderFilter {
    /// Headers to overwrite.
    #[schemars(length(min = 1, max = 64), transform = MapBy("name"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<HTTPHeader>,
    /// Headers to append, besides those of the same name.
    #[schemars(length(min = 1, max = 64), transform = MapBy("name"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<HTTPHeader>,
    /// Headers to add where there is none of that name.
    #[schemars(length(min = 1, max = 64), transform = MapBy("name"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_if_absent: Vec<HTTPHeader>,
    /// Names of headers to take away.
    #[schemars(length(min = 1, max = 64), transform = shape::set)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Headers to take away by what their names match.
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_on_match: Vec<StringMatch>,
}

/// TLS to backends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendTLSConfig {
    /// Secret with the certificate that the proxy shows to backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<SecretObjectReference>,
    /// Parameters of TLS.
    #[serde(flatten)]
    pub settings: TLSSettings,
}

/// One entry of an object in the referrer's namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalObjectKeyReference {
    /// The object.
    #[serde(flatten)]
    pub object: LocalObjectReference,
    /// Key of the entry.
    pub key: String,
}
