//! The watched kinds, and what each points at.

use std::fmt;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::{Deserialize, Deserializer};
use sluice_crds::envoy::{
    Backend, BackendTrafficPolicy, ClientTrafficPolicy, EnvoyExtensionPolicy, EnvoyPatchPolicy, EnvoyProxy,
    HTTPRouteFilter, SecurityPolicy,
};
use sluice_crds::gateway::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant, TCPRoute,
    TLSRoute, UDPRoute, XBackend, XBackendTrafficPolicy,
};

use super::parse::admit;
use super::targets;
use super::{Object, ObjectRef};

/// A kind of object that the store holds.
pub trait Stored: kube::Resource<DynamicType = ()> + Send + Sync + 'static {
    /// Its kind.
    const KIND: Kind;

    /// The objects that this one attaches itself to, for [`super::Store::pointing_at`].
    fn targets(&self) -> Vec<ObjectRef> {
        Vec::new()
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident: $type:ty, $group:literal $(, $targets:expr)?;)*) => {
        /// What kind of object it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// Its name as manifests spell it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Its API group; empty for the core group.
            pub fn group(self) -> &'static str {
                match self { $(Self::$name => $group,)* }
            }

            /// The kind with this group and name, if it is one that is stored.
            pub fn parse(group: &str, kind: &str) -> Option<Self> {
                match (group, kind) { $(($group, stringify!($name)) => Some(Self::$name),)* _ => None }
            }

            /// Reads an object of this kind, as it is once an API server has taken it in.
            pub(super) fn deserialize<'de, D: Deserializer<'de>>(self, from: D) -> Result<Object, D::Error> {
                match self { $(Self::$name => <$type>::deserialize(from).map(admit),)* }
            }
        }

        $(impl Stored for $type {
            const KIND: Kind = Kind::$name;

            $(fn targets(&self) -> Vec<ObjectRef> {
                let targets: fn(&$type) -> Vec<ObjectRef> = $targets;
                targets(self)
            })?
        })*
    };
}

kinds! {
    /// GatewayClass.
    GatewayClass: GatewayClass, "gateway.networking.k8s.io";
    /// Gateway; points at its class.
    Gateway: Gateway, "gateway.networking.k8s.io",
        |gateway| vec![ObjectRef::new(Kind::GatewayClass, "", gateway.spec.gateway_class_name.as_str())];
    /// ListenerSet; points at its Gateway.
    ListenerSet: ListenerSet, "gateway.networking.k8s.io", listener_set_parent;
    /// HTTPRoute.
    HTTPRoute: HTTPRoute, "gateway.networking.k8s.io";
    /// GRPCRoute.
    GRPCRoute: GRPCRoute, "gateway.networking.k8s.io";
    /// TLSRoute.
    TLSRoute: TLSRoute, "gateway.networking.k8s.io";
    /// TCPRoute.
    TCPRoute: TCPRoute, "gateway.networking.k8s.io";
    /// UDPRoute.
    UDPRoute: UDPRoute, "gateway.networking.k8s.io";
    /// ReferenceGrant.
    ReferenceGrant: ReferenceGrant, "gateway.networking.k8s.io";
    /// BackendTLSPolicy; points at its targets.
    BackendTLSPolicy: BackendTLSPolicy, "gateway.networking.k8s.io", |policy| {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        policy.spec.target_refs.iter()
            .filter_map(|t| Some(ObjectRef::new(Kind::parse(&t.group, &t.kind)?, namespace, t.name.as_str())))
            .collect()
    };
    /// XBackend.
    XBackend: XBackend, "gateway.networking.x-k8s.io";
    /// XBackendTrafficPolicy; points at its targets.
    XBackendTrafficPolicy: XBackendTrafficPolicy, "gateway.networking.x-k8s.io", |policy| {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        policy.spec.target_refs.iter()
            .filter_map(|t| Some(ObjectRef::new(Kind::parse(&t.group, &t.kind)?, namespace, t.name.as_str())))
            .collect()
    };
    /// EnvoyProxy: parameters of a GatewayClass or Gateway.
    EnvoyProxy: EnvoyProxy, "gateway.envoyproxy.io";
    /// Backend of Envoy Gateway.
    Backend: Backend, "gateway.envoyproxy.io";
    /// SecurityPolicy; points at its targets.
    SecurityPolicy: SecurityPolicy, "gateway.envoyproxy.io",
        |policy| targets::of_policy(&policy.metadata, &policy.spec.targets);
    /// BackendTrafficPolicy of Envoy Gateway; points at its targets.
    BackendTrafficPolicy: BackendTrafficPolicy, "gateway.envoyproxy.io",
        |policy| targets::of_policy(&policy.metadata, &policy.spec.targets);
    /// ClientTrafficPolicy; points at its targets.
    ClientTrafficPolicy: ClientTrafficPolicy, "gateway.envoyproxy.io",
        |policy| targets::of_policy(&policy.metadata, &policy.spec.targets);
    /// EnvoyExtensionPolicy; points at its targets.
    EnvoyExtensionPolicy: EnvoyExtensionPolicy, "gateway.envoyproxy.io",
        |policy| targets::of_policy(&policy.metadata, &policy.spec.targets);
    /// EnvoyPatchPolicy.
    EnvoyPatchPolicy: EnvoyPatchPolicy, "gateway.envoyproxy.io";
    /// HTTPRouteFilter.
    HTTPRouteFilter: HTTPRouteFilter, "gateway.envoyproxy.io";
    /// Service; points at the XBackend that it was made for.
    Service: Service, "", |service| {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let owner = crate::infra::pods::owner(&service.metadata);
        owner.map(|owner| ObjectRef::new(Kind::XBackend, namespace, owner.name.as_str())).into_iter().collect()
    };
    /// EndpointSlice; points at its Service.
    EndpointSlice: EndpointSlice, "discovery.k8s.io", |slice| {
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
        service.map(|name| ObjectRef::new(Kind::Service, namespace, name.as_str())).into_iter().collect()
    };
    /// Secret.
    Secret: Secret, "";
    /// ConfigMap.
    ConfigMap: ConfigMap, "";
    /// Namespace.
    Namespace: Namespace, "";
    /// ClusterTrustBundle.
    ClusterTrustBundle: ClusterTrustBundle, "certificates.k8s.io";
    /// Deployment: those of proxies.
    Deployment: Deployment, "apps";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn listener_set_parent(set: &ListenerSet) -> Vec<ObjectRef> {
    let parent = &set.spec.parent_ref;
    let own = set.metadata.namespace.as_deref().unwrap_or_default();
    vec![ObjectRef::new(
        Kind::Gateway,
        parent.namespace.as_deref().unwrap_or(own),
        parent.name.as_str(),
    )]
}
