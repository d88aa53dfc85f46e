//! What a Gateway is to its routes and backends: the part of its translation that others read.
//!
//! Changes of a Gateway that leave its model equal touch no route.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use sluice_config::v1;
use sluice_config::v1::dns::Family;

pub use super::gateway::ports::Port;
use crate::engine::GatewayRef;
use crate::store::{Kind, ObjectRef};
use crate::translate::fault::Fault;
use crate::translate::policy::envoy::Policies;

/// A Gateway with all its listeners, its ListenerSets' among them.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayModel {
    /// Which Gateway.
    pub gateway: GatewayRef,
    /// Whose proxies serve it: its own, or those that the Gateways of its class share.
    pub fleet: GatewayRef,
    /// Every listener that routes can name, valid or not, in order of precedence.
    pub listeners: Vec<ListenerModel>,
    /// How backends that are Services are reached unless the route says otherwise.
    pub routing: RoutingType,
    /// Whether HTTPRoutes keep the order of their rules instead of Gateway API's precedence.
    pub keeps_route_order: bool,
    /// The steps of rules (`v1::FilterStep`) in their order; empty: the usual one.
    pub filter_order: Vec<i32>,
    /// Pattern of the name by which metrics know requests to a rule's backends; `None`: each backend's.
    pub backend_stat_name: Option<String>,
    /// What is said of TLS to backends.
    pub backend_tls: BackendTls,
    /// Where its proxies look clients up.
    pub geo: Geo,
    /// The policies for the Gateway as a whole.
    pub policies: Policies,
}

/// Which databases of places there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are named after what is looked up")]
pub struct Geo {
    pub city: bool,
    pub country: bool,
    pub asn: bool,
    pub isp: bool,
    pub anonymous: bool,
}

/// What a Gateway says of TLS to its backends; used only where TLS is spoken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendTls {
    /// The certificate that is shown, a Secret.
    pub certificate: Option<ObjectRef>,
    /// The EnvoyProxy that has versions, ciphers and so on.
    pub parameters: Option<ObjectRef>,
}

/// What Gateways that share a fleet come to beside each other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FleetModel {
    /// What each of them has of it.
    pub shares: BTreeMap<GatewayRef, Arc<Share>>,
}

/// What a Gateway has of a fleet that it shares with others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Share {
    /// Listeners that cannot be told apart from others, by the keys of their resources.
    pub conflicts: BTreeMap<Arc<str>, Fault>,
    /// How the ports of the other listeners are bound.
    pub bound: BTreeMap<Port, u16>,
    /// The ClientTrafficPolicy, if any, that holds on each of its ports where it shares connections with other Gateways.
    pub clients: BTreeMap<u16, Option<ObjectRef>>,
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

/// How the names of endpoints are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LookUp {
    /// In which families.
    pub family: Family,
    /// Milliseconds between look-ups where TTLs have no say, and between those that fail at most; 0: the proxy's
    /// default.
    pub refresh_ms: u64,
    /// TTLs have no say.
    pub ignore_ttl: bool,
}

impl From<LookUp> for v1::Dns {
    fn from(look_up: LookUp) -> Self {
        Self {
            family: look_up.family.into(),
            refresh_ms: look_up.refresh_ms,
            ignore_ttl: look_up.ignore_ttl,
        }
    }
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
    /// Whether HTTP/3 is served.
    pub http3: bool,
    /// The ClientTrafficPolicy for it.
    pub client_policy: Option<ObjectRef>,
    /// Whether another listener's settings hold for its connections, in spite of that policy.
    pub overruled: bool,
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
