//! Backend: endpoints by address or name.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::BackendTLSConfig;
use crate::cel::Cel;
use crate::gateway::{LocalObjectReference, WellKnownCACertificatesType};
use crate::open_enum::open_enum;
use crate::{patterns, shape};

/// Endpoints outside of what Services describe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "gateway.envoyproxy.io",
    version = "v1alpha1",
    kind = "Backend",
    plural = "backends",
    shortname = "be",
    category = "envoy-gateway",
    namespaced,
    status = "BackendStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Endpoints outside of what Services describe.",
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    schema = "derived"
)]
#[schemars(transform = Cel(&[
    (
        "self.type != 'DynamicResolver' || !has(self.endpoints)",
        "endpoints cannot be set with type DynamicResolver",
    ),
    (
        "!has(self.tls) || !has(self.tls.autoSNIFromEndpointHostname) || !self.tls.autoSNIFromEndpointHostname || (has(self.endpoints) && self.endpoints.all(endpoint, has(endpoint.fqdn) || has(endpoint.hostname)))",
        "tls.autoSNIFromEndpointHostname needs endpoints that all have an fqdn or a hostname",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct BackendSpec {
    /// Where endpoints come from; `Endpoints`, the list below, if absent. `DynamicResolver` goes to the request's host.
    #[schemars(extend("default" = "Endpoints"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<BackendType>,
    /// Endpoints, all by name or none; not with type `DynamicResolver`.
    #[schemars(length(min = 1, max = 256), transform = Cel(&[(
            "self.all(endpoint, has(endpoint.fqdn)) || self.all(endpoint, !has(endpoint.fqdn))",
            "endpoints must all have an fqdn or none",
        )]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<BackendEndpoint>,
    /// Protocols of the endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub app_protocols: Vec<AppProtocolType>,
    /// Whether it is used only when the others are not healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<bool>,
    /// TLS to the endpoints; what a BackendTLSPolicy sets goes before it. None if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTLSSettings>,
}

open_enum! {
    /// Backend type.
    BackendType {
        /// `Endpoints`.
        Endpoints = "Endpoints",
        /// `DynamicResolver`.
        DynamicResolver = "DynamicResolver",
    }
}

/// One endpoint: exactly one of `fqdn`, `ip` and `unix`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "[has(self.fqdn), has(self.ip), has(self.unix)].exists_one(set, set)",
        "one of fqdn, ip and unix must be set",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct BackendEndpoint {
    /// Host that the endpoint is known by, for SNI and health checks.
    #[schemars(transform = shape::dns_name)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// An endpoint by its name in the DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fqdn: Option<FQDNEndpoint>,
    /// An endpoint by its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IPEndpoint>,
    /// An endpoint by the path of its socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unix: Option<UnixSocket>,
    /// Zone of the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// An endpoint by its name in the DNS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FQDNEndpoint {
    /// Name in the DNS.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\.?$")
    )]
    pub hostname: String,
    /// Port, 0 to 65535.
    #[schemars(range(min = 0, max = 65535))]
    pub port: i64,
}

/// An endpoint by its address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPEndpoint {
    /// Address of IPv4 or IPv6.
    #[schemars(length(min = 3, max = 45), regex(pattern = patterns::ADDRESS))]
    pub address: String,
    /// Port, 0 to 65535.
    #[schemars(range(min = 0, max = 65535))]
    pub port: i64,
}

/// An endpoint by the path of its socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnixSocket {
    /// Path of the socket, at most 108 characters.
    #[schemars(length(max = 108))]
    pub path: String,
}

open_enum! {
    /// App protocol type.
    AppProtocolType {
        /// `gateway.envoyproxy.io/h2c`.
        H2c = "gateway.envoyproxy.io/h2c",
        /// `gateway.envoyproxy.io/ws`.
        Ws = "gateway.envoyproxy.io/ws",
        /// `gateway.envoyproxy.io/wss`.
        Wss = "gateway.envoyproxy.io/wss",
    }
}

/// TLS to a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "!has(self.caCertificateRefs) || self.caCertificateRefs.size() == 0 || !has(self.wellKnownCACertificates)",
        "one of caCertificateRefs and wellKnownCACertificates may be set",
    ),
    (
        "!has(self.insecureSkipVerify) || !self.insecureSkipVerify || ((!has(self.caCertificateRefs) || self.caCertificateRefs.size() == 0) && !has(self.wellKnownCACertificates))",
        "caCertificateRefs and wellKnownCACertificates cannot be set with insecureSkipVerify",
    ),
    (
        "!has(self.sni) || !has(self.autoSNIFromEndpointHostname) || !self.autoSNIFromEndpointHostname",
        "one of sni and autoSNIFromEndpointHostname may be set",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct BackendTLSSettings {
    /// ConfigMaps and Secrets with certificates of authorities, under `ca.crt`.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ca_certificate_refs: Vec<LocalObjectReference>,
    /// Well-known authorities: `System` for those of the proxy's image.
    #[schemars(with = "Option<String>", transform = shape::well_known_ca)]
    #[serde(rename = "wellKnownCACertificates", skip_serializing_if = "Option::is_none")]
    pub well_known_ca_certificates: Option<WellKnownCACertificatesType>,
    /// Whether any certificate is believed; false if absent.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
    /// SNI, and the name that the certificate must hold; the request's host if absent.
    #[schemars(transform = shape::dns_name)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Whether the endpoint's hostname is the SNI; false if absent.
    #[serde(
        rename = "autoSNIFromEndpointHostname",
        skip_serializing_if = "Option::is_none"
    )]
    pub auto_sni_from_endpoint_hostname: Option<bool>,
    /// Certificate to show, and parameters.
    #[serde(flatten)]
    pub config: BackendTLSConfig,
}

/// Status of a Backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendStatus {
    /// What became of it: Accepted.
    #[schemars(transform = shape::conditions)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
