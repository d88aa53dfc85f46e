//! Gateway and what it shares with ListenerSet: listeners and their statuses.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use serde::{Deserialize, Serialize};

use super::common::{AllowedRoutes, FromNamespaces, GatewayDefaultScope, RouteGroupKind};
use super::http_filters::HTTPExternalAuthFilter;
use super::references::{
    LocalObjectReference, LocalParametersReference, ObjectReference, PortNumber, SecretObjectReference,
};
use crate::open_enum::open_enum;

/// Where traffic enters: listeners, addresses, and how the infrastructure behind them is made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "Gateway",
    plural = "gateways",
    namespaced,
    status = "GatewayStatus",
    derive = "PartialEq",
    derive = "Default",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// Name of the GatewayClass.
    pub gateway_class_name: String,
    /// Listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Listener>,
    /// Addresses that are asked for; any if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<GatewaySpecAddress>,
    /// Labels, annotations and parameters for what is created for this Gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infrastructure: Option<GatewayInfrastructure>,
    /// Which ListenerSets may add listeners; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_listeners: Option<AllowedListeners>,
    /// TLS settings for the whole Gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<GatewayTLSConfig>,
    /// Whether routes that ask for default Gateways attach here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_scope: Option<GatewayDefaultScope>,
}

/// Which ListenerSets may add listeners.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedListeners {
    /// Namespaces to take ListenerSets from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<ListenerNamespaces>,
}

/// Namespaces that ListenerSets may attach from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerNamespaces {
    /// Which; `None` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<FromNamespaces>,
    /// Labels, with `from: Selector`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// A port and protocol that accepts connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Name, unique in the Gateway or ListenerSet.
    pub name: String,
    /// Host to match, perhaps with a `*.` label in front; any if absent or empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Port.
    pub port: PortNumber,
    /// Protocol.
    pub protocol: ProtocolType,
    /// TLS, with protocol HTTPS or TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTLSConfig>,
    /// Which routes may attach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_routes: Option<AllowedRoutes>,
    /// Filters for all requests of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filters: Option<ListenerFilters>,
}

impl Listener {
    /// Hostname; an empty one counts as absent.
    pub fn hostname(&self) -> Option<&str> {
        self.hostname.as_deref().filter(|hostname| !hostname.is_empty())
    }
}

/// Filters for all requests of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerFilters {
    /// Applied to requests, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<ListenerFilter>,
}

/// One filter of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerFilter {
    /// Which of the fields below is set.
    #[serde(rename = "type")]
    pub type_: ListenerFilterType,
    /// With type `ExternalAuth`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_auth: Option<HTTPExternalAuthFilter>,
    /// With type `ExtensionRef`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension_ref: Option<LocalObjectReference>,
}

open_enum! {
    /// Type of a listener's filter.
    ListenerFilterType {
        /// Ask another service whether the request may pass.
        ExternalAuth = "ExternalAuth",
        /// A filter that the implementation defines.
        ExtensionRef = "ExtensionRef",
    }
}

open_enum! {
    /// Protocol of a listener.
    ProtocolType {
        /// Cleartext HTTP/1 and HTTP/2.
        Http = "HTTP",
        /// HTTP over TLS.
        Https = "HTTPS",
        /// TLS, passed through or terminated.
        Tls = "TLS",
        /// TCP.
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
    }
}

/// TLS of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTLSConfig {
    /// Who ends TLS; `Terminate` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<TLSModeType>,
    /// Certificates, with mode `Terminate`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificate_refs: Vec<SecretObjectReference>,
    /// Options that the implementation defines.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

open_enum! {
    /// Who ends TLS.
    TLSModeType {
        /// The listener.
        Terminate = "Terminate",
        /// The backend.
        Passthrough = "Passthrough",
    }
}

/// TLS settings for a whole Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayTLSConfig {
    /// Towards backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<GatewayBackendTLS>,
    /// Towards clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frontend: Option<FrontendTLSConfig>,
}

/// TLS towards backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayBackendTLS {
    /// Certificate to show to backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<SecretObjectReference>,
}

/// TLS towards clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendTLSConfig {
    /// For ports that `per_port` does not name.
    #[serde(default)]
    pub default: TLSConfig,
    /// For single ports; replaces the default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_port: Vec<TLSPortConfig>,
}

/// TLS towards the clients of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TLSPortConfig {
    /// Port.
    pub port: PortNumber,
    /// Settings.
    pub tls: TLSConfig,
}

/// How clients are verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TLSConfig {
    /// Client certificates; not asked for if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<FrontendTLSValidation>,
}

/// Verification of client certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendTLSValidation {
    /// Where the trusted CA certificates are.
    #[serde(rename = "caCertificateRefs", default, skip_serializing_if = "Vec::is_empty")]
    pub ca_certificate_refs: Vec<ObjectReference>,
    /// What becomes of clients without a valid certificate; `AllowValidOnly` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<FrontendValidationModeType>,
}

open_enum! {
    /// What becomes of clients without a valid certificate.
    FrontendValidationModeType {
        /// They are refused.
        AllowValidOnly = "AllowValidOnly",
        /// They are let through.
        AllowInsecureFallback = "AllowInsecureFallback",
    }
}

/// An address that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpecAddress {
    /// Type; `IPAddress` if absent.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<AddressType>,
    /// The address; any of the type if empty or absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// From where it must be reachable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routability: Option<GatewayAddressRoutability>,
}

/// An address that the Gateway has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatusAddress {
    /// Type; `IPAddress` if absent.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<AddressType>,
    /// The address.
    pub value: String,
    /// From where it is reachable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routability: Option<GatewayAddressRoutability>,
}

open_enum! {
    /// Type of an address.
    AddressType {
        /// IPv4 or IPv6.
        IpAddress = "IPAddress",
        /// A name in the DNS.
        Hostname = "Hostname",
        /// A name that the implementation defines.
        NamedAddress = "NamedAddress",
    }
}

open_enum! {
    /// From where an address is reachable.
    GatewayAddressRoutability {
        /// Wherever the implementation's addresses are by default.
        Default = "",
        /// Only from within the cluster.
        Cluster = "Cluster",
    }
}

/// Labels, annotations and parameters for what is created for a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayInfrastructure {
    /// Labels of everything that is created.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of everything that is created.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Parameters; they take precedence over the class's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters_ref: Option<LocalParametersReference>,
}

/// Status of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Addresses that the Gateway has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<GatewayStatusAddress>,
    /// Accepted, Programmed, ResolvedRefs, InsecureFrontendValidationMode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// One entry a listener of the Gateway itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerStatus>,
    /// How many ListenerSets are attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached_listener_sets: Option<i32>,
}

/// Status of a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Name of the listener.
    pub name: String,
    /// Route kinds that it takes; written even when empty, which means that none of the listed kinds is supported.
    #[serde(default)]
    pub supported_kinds: Vec<RouteGroupKind>,
    /// How many routes are attached.
    pub attached_routes: i32,
    /// Accepted, Conflicted, ResolvedRefs, Programmed, OverlappingTLSConfig.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
