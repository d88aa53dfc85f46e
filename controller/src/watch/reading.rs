//! What translation reads of each kind: its digest tells whether a change matters, the rest is not kept in memory.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Serialize;
use sluice_crds::ClusterTrustBundle;
use sluice_crds::envoy::{
    Backend, BackendTrafficPolicy, ClientTrafficPolicy, EnvoyExtensionPolicy, EnvoyPatchPolicy, EnvoyProxy,
    HTTPRouteFilter, SecurityPolicy,
};
use sluice_crds::gateway::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, PolicyStatus, ReferenceGrant,
    RouteStatus, TCPRoute, TLSRoute, UDPRoute, XBackend, XBackendTrafficPolicy,
};

use crate::infra::pods;
use crate::store::Stored;

/// A stored kind, as far as watching it goes.
pub(crate) trait Read: Stored {
    /// Drops what nobody reads. Of statuses with entries by controller ours stay, empty: they tell what there is to
    /// withdraw.
    fn trim(&mut self, controller_name: &str);

    /// What a change must touch to matter, besides uid and labels.
    fn reads(&self) -> impl Serialize + '_;
}

/// Keyed at random, so that no one can craft a change that is overlooked.
static DIGESTS: LazyLock<ahash::RandomState> = LazyLock::new(ahash::RandomState::new);

/// A digest of all that matters of an object.
pub(crate) fn digest<T: Read>(object: &T) -> u64 {
    let meta = object.meta();
    // Owner references (but a Service's) and finalizers are nobody's concern here; a deletion shows when it is done.
    let read = (&meta.uid, &meta.labels, object.reads());
    DIGESTS.hash_one(serde_json::to_vec(&read).unwrap_or_default())
}

/// Drops metadata that nobody reads.
pub(crate) fn trim_metadata<T: Stored>(object: &mut T) {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    meta.owner_references = pods::owner(meta).cloned().map(|owner| vec![owner]);
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        annotations.remove("endpoints.kubernetes.io/last-change-trigger-time");
    }
}

/// Annotations and generation: the generation of these kinds counts changes of their spec.
macro_rules! by_generation {
    ($($kind:ty $(, $status:ident)?;)*) => {$(
        impl Read for $kind {
            fn trim(&mut self, controller_name: &str) {
                let _ = controller_name;
                $(self.status = self.status.take().and_then(|status| $status(status, controller_name));)?
            }

            fn reads(&self) -> impl Serialize + '_ {
                (self.metadata.generation, &self.metadata.annotations)
            }
        }
    )*};
}

by_generation! {
    GatewayClass, nothing;
    Gateway, nothing;
    ListenerSet, nothing;
    HTTPRoute, own_parents;
    GRPCRoute, own_parents;
    TLSRoute, own_parents;
    TCPRoute, own_parents;
    UDPRoute, own_parents;
    BackendTLSPolicy, own_ancestors;
    XBackendTrafficPolicy, own_ancestors;
    XBackend, nothing;
    ReferenceGrant;
    EnvoyProxy;
    Backend, nothing;
    SecurityPolicy, own_ancestors;
    BackendTrafficPolicy, own_ancestors;
    ClientTrafficPolicy, own_ancestors;
    EnvoyExtensionPolicy, own_ancestors;
    EnvoyPatchPolicy, own_ancestors;
    HTTPRouteFilter;
}

fn nothing<S>(_: S, _: &str) -> Option<S> {
    None
}

fn own_parents(mut status: RouteStatus, controller_name: &str) -> Option<RouteStatus> {
    status
        .parents
        .retain(|parent| parent.controller_name == controller_name);
    for parent in &mut status.parents {
        parent.conditions = Vec::new();
    }
    (!status.parents.is_empty()).then_some(status)
}

fn own_ancestors(mut status: PolicyStatus, controller_name: &str) -> Option<PolicyStatus> {
    status
        .ancestors
        .retain(|ancestor| ancestor.controller_name == controller_name);
    for ancestor in &mut status.ancestors {
        ancestor.conditions = Vec::new();
    }
    (!status.ancestors.is_empty()).then_some(status)
}

macro_rules! by_content {
    ($($kind:ty, |$object:ident| $reads:expr;)*) => {$(
        impl Read for $kind {
            fn trim(&mut self, _: &str) {}

            fn reads(&self) -> impl Serialize + '_ {
                let $object = self;
                $reads
            }
        }
    )*};
}

by_content! {
    Service, |service| (pods::owner(&service.metadata), &service.spec, service.status.as_ref().map(|s| &s.load_balancer), &service.metadata.annotations);
    EndpointSlice, |slice| (&slice.address_type, &slice.endpoints, &slice.ports);
    Secret, |secret| (&secret.type_, &secret.data);
    ConfigMap, |map| (&map.data, &map.binary_data);
    // Labels are always read.
    Namespace, |_namespace| None::<BTreeMap<String, String>>;
    ClusterTrustBundle, |bundle| &bundle.spec;
    Deployment, |deployment| (deployment.metadata.generation, deployment.status.as_ref().map(|status| {
        (status.observed_generation, status.replicas, status.available_replicas, status.updated_replicas)
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(yaml: &str) -> T {
        serde_yaml_ng::from_str(yaml).unwrap()
    }

    fn route(generation: u32, parents: &str) -> HTTPRoute {
        read(&format!(
            "{{metadata: {{name: r, namespace: n, generation: {generation}}}, spec: {{}}, status: {{parents: [{parents}]}}}}"
        ))
    }

    #[test]
    fn statuses_of_gateway_api_kinds_do_not_matter_but_specs_do() {
        let plain = route(1, "");
        let stated = route(1, "{parentRef: {name: g}, controllerName: a/b}");
        assert_eq!(digest(&plain), digest(&stated));
        assert_ne!(digest(&plain), digest(&route(2, "")));
    }

    #[test]
    fn our_entries_survive_trimming_without_their_conditions() {
        let mut route = route(
            1,
            "{parentRef: {name: g}, controllerName: foreign/c}, {parentRef: {name: h}, controllerName: ours/c}",
        );
        route.trim("ours/c");
        let parents = route.status.unwrap().parents;
        assert_eq!(parents.len(), 1);
        assert_eq!(parents[0].parent_ref.name, "h");
    }

    #[test]
    fn addresses_of_services_and_availability_of_deployments_matter() {
        let service = |status: &str| -> Service {
            read(&format!(
                "{{metadata: {{name: s}}, spec: {{clusterIP: 10.0.0.1}}, status: {status}}}"
            ))
        };
        assert_ne!(
            digest(&service("{}")),
            digest(&service("{loadBalancer: {ingress: [{ip: 192.0.2.1}]}}"))
        );
        let deployment = |available: u32, version: &str| -> Deployment {
            read(&format!(
                "{{metadata: {{name: d, resourceVersion: '{version}'}}, status: {{availableReplicas: {available}}}}}"
            ))
        };
        assert_ne!(digest(&deployment(0, "1")), digest(&deployment(1, "1")));
        assert_eq!(digest(&deployment(1, "1")), digest(&deployment(1, "2")));
    }

    #[test]
    fn labels_of_namespaces_matter_and_annotations_do_not() {
        let plain: Namespace = read("{metadata: {name: n}}");
        let labelled: Namespace = read("{metadata: {name: n, labels: {a: b}}}");
        let annotated: Namespace = read("{metadata: {name: n, annotations: {a: b}}}");
        assert_ne!(digest(&plain), digest(&labelled));
        assert_eq!(digest(&plain), digest(&annotated));
    }
}
