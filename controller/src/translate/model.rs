//! What a Gateway is to its routes and backends: the part of its translation that others read.
//!
//! Changes of a Gateway that leave its model equal touch no route.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::engine::GatewayRef;
use crate::store::{Kind, ObjectRef};
use crate::translate::policy::envoy::Policies;

/// A Gateway with all its listeners, its ListenerSets' among them.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayModel {
    /// Which Gateway.
    pub gateway: GatewayRef,
    /// Every listener that routes can name, valid or not, in order of precedence.
    pub listeners: Vec<ListenerModel>,
    /// How backends that are Services are reached unless the route says otherwise.
    pub routing: RoutingType,
    /// Certificate that is shown to backends (`spec.tls.backend.clientCertificateRef`), a Secret.
    pub backend_client_certificate: Option<ObjectRef>,
    /// The policies for the Gateway as a whole.
    pub policies: Policies,
}

/// How a Service is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum RoutingType {
    /// By the endpoints of its EndpointSlices.
    #[default]
    Endpoint,
    /// By its ClusterIP.
    Service,
}

/// A listener as routes see it.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerModel {
    /// Key of its configuration resource; unique in the Gateway.
    pub key: Arc<str>,
    /// The Gateway or ListenerSet that declares it.
    pub parent: ObjectRef,
    /// Its name there.
    pub name: Arc<str>,
    /// Port as manifests know it.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Lower case; `None`: any.
    pub hostname: Option<Arc<str>>,
    /// Route kinds that may attach.
    pub kinds: Vec<Kind>,
    /// Namespaces from which routes may attach.
    pub namespaces: AllowedNamespaces,
    /// False if the listener serves nothing (invalid, conflicted, not accepted): routes are told, none is configured.
    pub serving: bool,
    /// The policies for what reaches it, unless routes have their own.
    pub policies: Policies,
}

/// Listener protocol; TLS carries its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP.
    Http,
    /// HTTPS.
    Https,
    /// TLS, passed through.
    TlsPassthrough,
    /// TLS, terminated.
    TlsTerminate,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Namespaces from which a listener takes routes.
#[derive(Debug, Clone, PartialEq)]
pub enum AllowedNamespaces {
    /// All.
    All,
    /// The listener's parent's own.
    Same,
    /// Those whose labels match.
    Selector(LabelSelector),
    /// None at all.
    None,
}
