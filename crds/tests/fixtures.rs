//! Each kind is read from a manifest with every field set and written back: a misspelt or missing field shows up as a
//! difference.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sluice_crds::envoy::{EnvoyProxy, RoutingType, ServiceType};
use sluice_crds::gateway::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, HTTPRouteFilterType, ListenerSet,
    ProtocolType, ReferenceGrant, Route, TCPRoute, TLSRoute, UDPRoute, XBackend, XBackendTrafficPolicy,
};

fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
        .with_extension("yaml");
    serde_yaml_ng::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn round_trip<T: DeserializeOwned + Serialize>(name: &str) -> T {
    let value = fixture(name);
    let object: T = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(serde_json::to_value(&object).unwrap(), value);
    object
}

macro_rules! round_trips {
    ($($test:ident: $kind:ty,)*) => {
        $(#[test]
        fn $test() {
            round_trip::<$kind>(stringify!($test));
        })*
    };
}

round_trips! {
    gateway_class: GatewayClass,
    listener_set: ListenerSet,
    grpc_route: GRPCRoute,
    tcp_route: TCPRoute,
    udp_route: UDPRoute,
    reference_grant: ReferenceGrant,
    backend_tls_policy: BackendTLSPolicy,
    backend_traffic_policy: XBackendTrafficPolicy,
    backend: XBackend,
}

#[test]
fn an_unknown_protocol_does_not_make_a_gateway_unreadable() {
    let gateway: Gateway = round_trip("gateway");
    assert_eq!(gateway.spec.listeners[0].protocol, ProtocolType::Https);
    assert_eq!(
        gateway.spec.listeners[1].protocol,
        ProtocolType::Other("example.com/odd".to_owned())
    );
}

#[test]
fn an_unknown_filter_does_not_make_a_route_unreadable() {
    let route: HTTPRoute = round_trip("http_route");
    let last = route.spec.rules[0].filters.last().unwrap();
    assert_eq!(last.type_, HTTPRouteFilterType::Other("SomethingNew".to_owned()));
}

#[test]
fn a_route_lists_the_backends_of_rules_mirrors_and_authorization() {
    let route: HTTPRoute = round_trip("http_route");
    let names: Vec<_> = route
        .backends()
        .iter()
        .map(|backend| backend.name.as_str())
        .collect();
    assert_eq!(names, ["shop", "copy", "auth", "copy", "auth"]);
    assert_eq!(route.hostnames(), ["shop.example.org"]);
    assert_eq!(route.parent_refs()[0], route.route_status()[0].parent_ref);
    assert_eq!(
        (HTTPRoute::GROUP, HTTPRoute::KIND),
        ("gateway.networking.k8s.io", "HTTPRoute")
    );
}

#[test]
fn weight_zero_is_not_the_default_weight() {
    let route: TLSRoute = round_trip("tls_route");
    let mut backend = route.spec.rules[0].backend_refs[0].clone();
    assert_eq!(backend.weight(), 0);
    backend.weight = None;
    assert_eq!(backend.weight(), 1);
}

#[test]
fn absent_fields_take_the_apis_defaults() {
    let route: HTTPRoute = serde_json::from_value(serde_json::json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "bare" },
        "spec": { "parentRefs": [{ "name": "main" }], "rules": [{ "backendRefs": [{ "name": "shop" }] }] }
    }))
    .unwrap();
    let parent = &route.parent_refs()[0];
    assert_eq!(
        (parent.group(), parent.kind()),
        ("gateway.networking.k8s.io", "Gateway")
    );
    assert_eq!(parent.namespace("own"), "own");
    let backend = &route.spec.rules[0].backend_refs[0].object;
    assert_eq!((backend.group(), backend.kind()), ("", "Service"));
    assert!(route.route_status().is_empty());
}

#[test]
fn a_mistake_in_a_kubernetes_subtree_is_found_when_it_is_used_not_when_the_object_is_read() {
    let mut value = fixture("envoy_proxy");
    value["spec"]["provider"]["kubernetes"]["envoyDeployment"]["pod"]["tolerations"] = "oops".into();
    let proxy: EnvoyProxy = serde_json::from_value(value).unwrap();
    let deployment = proxy
        .spec
        .provider
        .unwrap()
        .kubernetes
        .unwrap()
        .envoy_deployment
        .unwrap();
    assert!(deployment.pod.unwrap().tolerations.unwrap().parse().is_err());
}

#[test]
fn envoy_proxy() {
    let proxy: EnvoyProxy = round_trip("envoy_proxy");
    assert_eq!(proxy.spec.routing_type, Some(RoutingType::Service));
    let kubernetes = proxy.spec.provider.unwrap().kubernetes.unwrap();
    let service = kubernetes.envoy_service.unwrap();
    assert_eq!(service.type_, Some(ServiceType::NodePort));
    assert_eq!(
        service.patch.unwrap().value.value["spec"]["ports"][0]["nodePort"],
        30080
    );

    let deployment = kubernetes.envoy_deployment.unwrap();
    let pod = deployment.pod.unwrap();
    assert_eq!(
        pod.tolerations.unwrap().parse().unwrap()[0].effect.as_deref(),
        Some("NoSchedule")
    );
    assert_eq!(pod.volumes.unwrap().parse().unwrap()[0].name, "tmp");
    let resources = deployment.container.unwrap().resources.unwrap().to_kubernetes();
    assert_eq!(resources.limits.unwrap()["cpu"].0, "1");
    assert_eq!(resources.requests.unwrap()["cpu"].0, "100m");
}
