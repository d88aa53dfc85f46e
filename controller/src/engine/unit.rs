//! What is translated by itself, and what a translation can depend on.

use std::fmt;
use std::sync::Arc;

use crate::store::{Kind, ObjectRef};
use crate::translate::model::{BackendTls, LookUp, RoutingType};
use crate::translate::policy::envoy::destination::{Destination, Settings};

/// What the name of a fleet begins with that a class's Gateways share. No Gateway's name has an underscore.
const OF_CLASS: &str = "class_";

/// Names a Gateway, and by that the fleet of proxies that it has; or a fleet that all Gateways of a class share.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GatewayRef {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl GatewayRef {
    /// A reference from its parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The fleet that the Gateways of a class share. It runs in the controller's `namespace`.
    pub fn of_class(namespace: impl Into<Arc<str>>, class: &str) -> Self {
        Self::new(namespace, format!("{OF_CLASS}{class}"))
    }

    /// The class whose Gateways share the fleet; `None` if it is one Gateway's own.
    pub fn class(&self) -> Option<&str> {
        self.name.strip_prefix(OF_CLASS)
    }

    /// The Gateway as an object.
    pub fn object(&self) -> ObjectRef {
        ObjectRef::new(Kind::Gateway, Arc::clone(&self.namespace), Arc::clone(&self.name))
    }
}

impl fmt::Display for GatewayRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for GatewayRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The smallest thing that is translated by itself. The order is that of the data's path: a unit reads only what
/// comes before it, except for secrets and policies, which only read objects and usage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// A GatewayClass: its status; and if its Gateways share one fleet, what each has of it, and its infrastructure.
    Class(Arc<str>),
    /// A Gateway with its ListenerSets: listeners, infrastructure, statuses, and the model that routes read.
    Gateway(GatewayRef),
    /// A route of any kind.
    Route(ObjectRef),
    /// A destination.
    Backend(BackendId),
    /// The addresses of a destination.
    Endpoints(EndpointsId),
    /// Key material from a Secret, ConfigMap or ClusterTrustBundle.
    Secret(ObjectRef),
    /// All entries of a Secret or ConfigMap that a policy names.
    Data(ObjectRef),
    /// Where the rate limit service is.
    RateLimitService,
    /// Several backends that stand for one, or hosts of the Internet.
    Destination(Destination),
    /// A policy, or an XBackend as such: its status.
    Policy(ObjectRef),
}

impl Unit {
    /// The unit that an object is the root of, if its kind has one.
    pub fn root(object: &ObjectRef) -> Option<Self> {
        match object.kind {
            Kind::GatewayClass => Some(Self::Class(Arc::clone(&object.name))),
            Kind::Gateway => Some(Self::Gateway(GatewayRef::new(
                Arc::clone(&object.namespace),
                Arc::clone(&object.name),
            ))),
            Kind::HTTPRoute | Kind::GRPCRoute | Kind::TLSRoute | Kind::TCPRoute | Kind::UDPRoute => {
                Some(Self::Route(object.clone()))
            }
            Kind::BackendTLSPolicy
            | Kind::XBackendTrafficPolicy
            | Kind::XBackend
            | Kind::Backend
            | Kind::SecurityPolicy
            | Kind::BackendTrafficPolicy
            | Kind::ClientTrafficPolicy
            | Kind::EnvoyExtensionPolicy
            | Kind::EnvoyPatchPolicy => Some(Self::Policy(object.clone())),
            _ => None,
        }
    }

    /// The object that the unit is the root of; `None` if it exists because another unit needs it.
    pub fn object(&self) -> Option<ObjectRef> {
        match self {
            Self::Class(name) => Some(ObjectRef::new(Kind::GatewayClass, "", Arc::clone(name))),
            Self::Gateway(gateway) => Some(gateway.object()),
            Self::Route(object) | Self::Policy(object) => Some(object.clone()),
            Self::Backend(_)
            | Self::Endpoints(_)
            | Self::Secret(_)
            | Self::Data(_)
            | Self::RateLimitService
            | Self::Destination(_) => None,
        }
    }
}

/// Names a destination as a certain use sees it. Different uses of one Service port are different backends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId {
    /// The Service or XBackend.
    pub target: ObjectRef,
    /// Its port.
    pub port: u16,
    /// What is spoken to it unless the port's appProtocol says more.
    pub usage: BackendUsage,
    /// How a Service is reached.
    pub routing: RoutingType,
    /// What the Gateway says of TLS to it.
    pub tls: BackendTls,
    /// The BackendTrafficPolicies that say how it is used: the most specific first, then the one that it is laid over.
    pub traffic: Vec<ObjectRef>,
    /// What is asked of calls that proxies make for themselves.
    pub settings: Option<Settings>,
}

/// Which sort of route uses a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendUsage {
    /// HTTPRoute.
    Http,
    /// GRPCRoute.
    Grpc,
    /// TCPRoute, and TLSRoute on a terminating listener.
    Tcp,
    /// TLSRoute on a passthrough listener: bytes are handed on as they are, no BackendTLSPolicy applies.
    Passthrough,
    /// UDPRoute.
    Udp,
}

/// Names the addresses of a Service port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointsId {
    /// The Service (or XBackend).
    pub target: ObjectRef,
    /// Its port.
    pub port: u16,
    /// UDP instead of TCP: a Service may have both on one number.
    pub udp: bool,
    /// Endpoints, or the ClusterIP.
    pub routing: RoutingType,
    /// Set if they have names, and a policy says how these are looked up.
    pub look_up: Option<LookUp>,
}

/// Something that a translation has read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dep {
    /// An object, or that it is not there.
    Object(ObjectRef),
    /// All objects of a kind in a namespace.
    Namespace(Kind, Arc<str>),
    /// All objects of a kind.
    Kind(Kind),
    /// All objects of a kind that point at another.
    PointingAt(Kind, ObjectRef),
    /// The model of a Gateway.
    Model(GatewayRef),
    /// What a Gateway has of the fleet that it shares with the others of its class.
    Share(Arc<str>, GatewayRef),
    /// What is known of a fleet's proxies.
    Proxies(GatewayRef),
    /// Which Gateways use a Service.
    Usage(ObjectRef),
}
