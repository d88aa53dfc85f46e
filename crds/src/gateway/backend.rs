//! XBackend.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};

use super::backend_tls_policy::BackendTLSPolicyValidation;
use super::common::{PolicyAncestorStatus, SessionPersistence};
use super::references::{PortNumber, SecretObjectReference};
use crate::open_enum::open_enum;

/// A backend with its own TLS and protocol settings: a host outside the cluster, or pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "gateway.networking.x-k8s.io",
    version = "v1alpha1",
    kind = "XBackend",
    plural = "xbackends",
    namespaced,
    status = "BackendStatus",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct BackendSpec {
    /// Which of the fields below is set.
    #[serde(rename = "type")]
    pub type_: BackendType,
    /// Port.
    pub port: BackendPort,
    /// With type `ExternalHostname`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_hostname: Option<ExternalHostnameBackend>,
    /// With type `EndpointSelector`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_selector: Option<EndpointSelectorBackend>,
    /// Session persistence, with type `EndpointSelector`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
    /// Protocol; if absent, whatever the route implies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<BackendProtocol>,
    /// TLS; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTLS>,
}

open_enum! {
    /// Where the endpoints of a backend come from.
    BackendType {
        /// The DNS.
        ExternalHostname = "ExternalHostname",
        /// Pods with certain labels.
        EndpointSelector = "EndpointSelector",
    }
}

/// Port of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendPort {
    /// Number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<PortNumber>,
}

/// A host outside the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalHostnameBackend {
    /// Name in the DNS; neither an address nor a name of the cluster.
    pub hostname: String,
}

/// Pods of the backend's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSelectorBackend {
    /// Labels that they must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

open_enum! {
    /// Protocol that a backend speaks.
    BackendProtocol {
        /// TCP.
        Tcp = "TCP",
        /// Any HTTP version.
        Http = "HTTP",
        /// HTTP/2 over TLS.
        Http2 = "HTTP2",
        /// HTTP/1.1.
        Http11 = "HTTP11",
        /// HTTP/2 in cleartext.
        H2c = "H2C",
        /// Model Context Protocol.
        Mcp = "MCP",
        /// gRPC.
        Grpc = "GRPC",
        /// WebSocket over TLS.
        Wss = "WSS",
    }
}

/// TLS towards a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTLS {
    /// Who shows a certificate.
    pub mode: BackendTLSMode,
    /// Certificate to show to the backend, with mode `ClientAndServer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<SecretObjectReference>,
    /// How the backend is verified, with any mode but `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<BackendTLSPolicyValidation>,
}

open_enum! {
    /// Who shows a certificate.
    BackendTLSMode {
        /// No TLS.
        None = "None",
        /// The backend.
        ServerOnly = "ServerOnly",
        /// Backend and proxy.
        ClientAndServer = "ClientAndServer",
    }
}

/// Status of an XBackend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendStatus {
    /// One entry an ancestor and controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<BackendAncestorStatus>,
}

/// What one controller says of an XBackend at one ancestor.
pub type BackendAncestorStatus = PolicyAncestorStatus;
