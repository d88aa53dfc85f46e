//! A mistake takes down nothing that serves: what becomes of a Gateway that is not accepted any more.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

use sluice_controller::engine::{
    Changes, Engine, Environment, Event, GatewayRef, Infrastructure, Mode, Status,
};
use sluice_controller::store::{self, Kind, ObjectRef};

const CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: sluice}
spec: {controllerName: sluice.dev/gateway-controller}
";
const PARAMETERS: &str = "
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: own, namespace: infra}
spec: {provider: {kubernetes: {useListenerPortAsContainerPort: true}}}
";
const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: infra}
spec:
  gatewayClassName: sluice
  infrastructure: {parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: own}}
  listeners: [{name: http, port: 80, protocol: HTTP}]
";
const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all, namespace: infra}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: app, port: 80}]}]
";
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: edge-sluice, namespace: infra}
spec: {type: ClusterIP, clusterIP: 10.96.0.1, ports: [{port: 80, targetPort: 80}]}
";

fn upserts(texts: &[&str]) -> Vec<Event> {
    let (documents, problems) = store::parse(&texts.join("---"));
    assert!(problems.is_empty(), "{problems:?}");
    documents
        .into_iter()
        .map(|document| Event::Upsert(document.object))
        .collect()
}

fn engine(texts: &[&str]) -> Engine {
    let mut engine = Engine::new(Environment {
        controller_name: "sluice.dev/gateway-controller".to_owned(),
        namespace: "sluice-system".to_owned(),
        mode: Mode::Cluster,
        xff_trusted_hops: 0,
        allow_local_backends: false,
        login_key: None,
        rate_limit: None,
    });
    engine.apply(upserts(texts));
    engine
}

fn edge() -> GatewayRef {
    GatewayRef::new("infra", "edge")
}

fn config(engine: &Engine) -> Vec<(String, String)> {
    let resources = engine.config(&edge()).into_iter();
    resources
        .map(|(key, resource)| (key.to_owned(), resource.version.clone()))
        .collect()
}

fn accepted(changes: &Changes) -> (bool, usize) {
    let status = changes.statuses[&ObjectRef::new(Kind::Gateway, "infra", "edge")].as_ref();
    let Some(Status::Gateway {
        conditions,
        addresses,
        ..
    }) = status
    else {
        panic!("{status:?}")
    };
    (conditions[0].status, addresses.len())
}

#[test]
fn broken_parameters_leave_proxies_and_what_they_serve_as_they_are() {
    let mut engine = engine(&[CLASS, PARAMETERS, GATEWAY, ROUTE, SERVICE]);
    let before = config(&engine);
    assert!(
        before.iter().any(|(key, _)| key.starts_with("route/")),
        "{before:?}"
    );
    for broken in [
        Event::Delete(ObjectRef::new(Kind::EnvoyProxy, "infra", "own")),
        upserts(&[&PARAMETERS.replace("{provider", "{mergeGateways: true, provider")]).remove(0),
        upserts(&[&GATEWAY.replace(
            "listeners:",
            "addresses: [{type: Carrier, value: pigeon}]\n  listeners:",
        )])
        .remove(0),
    ] {
        let told = format!("{broken:?}");
        let changes = engine.apply([broken]);
        assert!(
            matches!(changes.infra[&edge()], Infrastructure::Keep(_)),
            "{told}: {changes:?}"
        );
        assert!(changes.config.is_empty(), "{told}: {changes:?}");
        assert_eq!(config(&engine), before, "{told}");
        assert_eq!(accepted(&changes), (false, 1), "{told}");
        assert!(matches!(
            engine.infra().next(),
            Some((_, Infrastructure::Keep(_)))
        ));
        let repaired = engine.apply(upserts(&[PARAMETERS, GATEWAY]));
        assert!(repaired.infra[&edge()].wanted().is_some(), "{told}");
        assert!(accepted(&repaired).0, "{told}");
    }
    let gone = engine.apply([Event::Delete(edge().object())]);
    assert_eq!(gone.infra[&edge()], Infrastructure::None);
    assert!(engine.infra().next().is_none());
}

#[test]
fn a_gateway_that_was_never_good_gets_no_proxies() {
    let engine = engine(&[CLASS, GATEWAY]);
    let all: Vec<_> = engine.infra().collect();
    assert!(matches!(all[..], [(_, Infrastructure::Keep(_))]), "{all:?}");
}

#[test]
fn proxies_stay_when_all_listeners_become_invalid() {
    let mut engine = engine(&[CLASS, PARAMETERS, GATEWAY, SERVICE]);
    let changes = engine.apply(upserts(&[&GATEWAY.replace("protocol: HTTP", "protocol: Smoke")]));
    assert!(
        matches!(changes.infra[&edge()], Infrastructure::Keep(_)),
        "{changes:?}"
    );
    assert_eq!(config(&engine).len(), 1, "what is invalid is not served");
    assert_eq!(accepted(&changes), (false, 1));
}
