//! The cost of a change: which units are translated anew, among a thousand routes.

#![allow(clippy::unwrap_used)]

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sluice_controller::engine::{Changes, Engine, Environment, Event, Mode, Unit};
use sluice_controller::store::{Kind, Object, ObjectRef, Stored};

const ROUTES: usize = 1000;

fn upsert<T: Stored + DeserializeOwned>(object: Value) -> Event {
    Event::Upsert(Object::new(serde_json::from_value::<T>(object).unwrap()))
}

fn route(i: usize, path: &str) -> Event {
    upsert::<sluice_crds::gateway::HTTPRoute>(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": format!("route-{i}"), "namespace": "apps", "generation": 1 },
        "spec": {
            "parentRefs": [{ "name": "public" }],
            "hostnames": [format!("h{i}.example.com")],
            "rules": [{
                "matches": [{ "path": { "value": path } }],
                "backendRefs": [{ "name": format!("app-{i}"), "port": 80 }],
            }],
        },
    }))
}

fn service(i: usize) -> Event {
    upsert::<k8s_openapi::api::core::v1::Service>(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": format!("app-{i}"), "namespace": "apps" },
        "spec": { "clusterIP": "10.96.0.1", "ports": [{ "name": "http", "port": 80 }] },
    }))
}

fn slice(i: usize, address: &str) -> Event {
    upsert::<k8s_openapi::api::discovery::v1::EndpointSlice>(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("app-{i}-x"), "namespace": "apps",
            "labels": { "kubernetes.io/service-name": format!("app-{i}") },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080 }],
        "endpoints": [{ "addresses": [address] }],
    }))
}

fn engine() -> Engine {
    let mut engine = Engine::new(Environment {
        controller_name: "sluice.dev/gateway-controller".to_owned(),
        namespace: "sluice-system".to_owned(),
        mode: Mode::Standalone("127.0.0.1".to_owned()),
        xff_trusted_hops: 0,
        allow_local_backends: false,
        login_key: None,
        rate_limit: None,
    });
    let class = upsert::<sluice_crds::gateway::GatewayClass>(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": { "name": "sluice" },
        "spec": { "controllerName": "sluice.dev/gateway-controller" },
    }));
    let gateway = upsert::<sluice_crds::gateway::Gateway>(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": { "name": "public", "namespace": "apps", "generation": 1 },
        "spec": {
            "gatewayClassName": "sluice",
            "listeners": [{ "name": "http", "protocol": "HTTP", "port": 80 }],
        },
    }));
    let apps = (0..ROUTES).flat_map(|i| [service(i), slice(i, "10.0.0.1"), route(i, "/")]);
    let changes = engine.apply([class, gateway].into_iter().chain(apps));
    let resources = changes.config.values().map(|c| c.upserts.len()).sum::<usize>();
    // Settings, a listener; route, backend and endpoints of each app.
    assert_eq!(resources, 2 + 3 * ROUTES);
    engine
}

fn published(changes: &Changes) -> Vec<&str> {
    changes
        .config
        .values()
        .flat_map(|c| c.upserts.keys().chain(&c.removes))
        .map(String::as_str)
        .collect()
}

#[test]
fn an_endpoint_slice_touches_its_endpoints_alone() {
    let mut engine = engine();
    let changes = engine.apply([slice(7, "10.0.0.2")]);
    assert!(
        matches!(changes.translated[..], [Unit::Endpoints(_)]),
        "{:?}",
        changes.translated
    );
    assert_eq!(published(&changes), ["endpoints/Service/apps/app-7/80"]);
    assert!(changes.statuses.is_empty());

    let same = engine.apply([slice(7, "10.0.0.2")]);
    assert_eq!(same.translated.len(), 1);
    assert!(published(&same).is_empty());
}

#[test]
fn a_route_touches_itself_alone() {
    let mut engine = engine();
    let changes = engine.apply([route(7, "/new")]);
    let own = Unit::Route(ObjectRef::new(Kind::HTTPRoute, "apps", "route-7"));
    assert_eq!(changes.translated, [own]);
    assert_eq!(published(&changes), ["route/HTTPRoute/apps/route-7"]);
    assert!(changes.statuses.is_empty());
}

#[test]
fn a_service_touches_what_names_it() {
    let mut engine = engine();
    let changes = engine.apply([Event::Delete(ObjectRef::new(Kind::Service, "apps", "app-7"))]);
    let kinds: Vec<_> = changes
        .translated
        .iter()
        .map(|unit| matches!(unit, Unit::Route(_)))
        .collect();
    assert_eq!(
        kinds.iter().filter(|&&is_route| is_route).count(),
        1,
        "{:?}",
        changes.translated
    );
    assert!(changes.translated.len() <= 3, "{:?}", changes.translated);
    assert_eq!(
        published(&changes),
        [
            "route/HTTPRoute/apps/route-7",
            "backend/Service/apps/app-7/80",
            "endpoints/Service/apps/app-7/80"
        ]
    );
    assert_eq!(changes.statuses.len(), 1);
}

#[test]
fn another_service_touches_nothing() {
    let mut engine = engine();
    let changes = engine.apply([service(ROUTES), slice(ROUTES, "10.0.0.3")]);
    assert_eq!(changes.translated, []);
    assert!(published(&changes).is_empty());
}

fn security_policy(target: &str, cidr: &str) -> Event {
    upsert::<sluice_crds::envoy::SecurityPolicy>(json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "SecurityPolicy",
        "metadata": { "name": "policy", "namespace": "apps", "generation": 1 },
        "spec": {
            "targetRefs": [{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": target }],
            "authorization": { "rules": [{ "action": "Allow", "principal": { "clientCIDRs": [cidr] } }] },
        },
    }))
}

fn traffic_policy(target: &str, timeout: &str) -> Event {
    upsert::<sluice_crds::envoy::BackendTrafficPolicy>(json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "BackendTrafficPolicy",
        "metadata": { "name": "policy", "namespace": "apps", "generation": 1 },
        "spec": {
            "targetRefs": [{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": target }],
            "timeout": { "tcp": { "connectTimeout": timeout } },
        },
    }))
}

#[test]
fn a_policy_that_is_attached_nowhere_touches_itself_alone() {
    let mut engine = engine();
    for cidr in ["10.0.0.0/8", "10.0.0.0/9"] {
        let changes = engine.apply([security_policy("no-such-route", cidr)]);
        let policy = ObjectRef::new(Kind::SecurityPolicy, "apps", "policy");
        assert_eq!(changes.translated, [Unit::Policy(policy)]);
        assert!(changes.config.is_empty());
    }
}

#[test]
fn a_policy_touches_its_route_alone() {
    let mut engine = engine();
    engine.apply([security_policy("route-7", "10.0.0.0/8")]);
    let changes = engine.apply([security_policy("route-7", "10.0.0.0/9")]);
    let route = ObjectRef::new(Kind::HTTPRoute, "apps", "route-7");
    let policy = ObjectRef::new(Kind::SecurityPolicy, "apps", "policy");
    assert_eq!(changes.translated, [Unit::Route(route), Unit::Policy(policy)]);
    assert_eq!(published(&changes), ["route/HTTPRoute/apps/route-7"]);
}

#[test]
fn a_policy_on_connections_publishes_the_backends_of_its_route_alone() {
    let mut engine = engine();
    engine.apply([traffic_policy("route-7", "1s")]);
    let changes = engine.apply([traffic_policy("route-7", "2s")]);
    assert_eq!(
        published(&changes),
        ["backend/Service/apps/app-7/80/by/apps/policy"]
    );
}
