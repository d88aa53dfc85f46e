//! Gateways of one class that share their proxies (`mergeGateways`): the cost of a change, and the way from one mode to
//! the other.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

use std::collections::BTreeSet;

use sluice_config::v1::resource::Body;
use sluice_controller::engine::{
    Changes, Engine, Environment, Event, GatewayRef, Infrastructure, Mode, Status, Unit,
};
use sluice_controller::store::{self, Kind, ObjectRef};

const GATEWAYS: usize = 50;

const CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: merged}
spec:
  controllerName: sluice.dev/gateway-controller
  parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: shared, namespace: system}
";
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: app, namespace: apps}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
";

fn parameters(merge: bool) -> String {
    format!(
        "
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {{name: shared, namespace: system}}
spec: {{mergeGateways: {merge}}}
"
    )
}

fn gateway(i: usize, hostname: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: g{i}, namespace: apps, creationTimestamp: '2026-01-01T00:00:{i:02}Z'}}
spec:
  gatewayClassName: merged
  listeners: [{{name: http, port: 80, protocol: HTTP, hostname: {hostname}}}]
"
    )
}

fn own(i: usize) -> String {
    gateway(i, &format!("h{i}.example"))
}

fn route(i: usize) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r{i}, namespace: apps}}
spec:
  parentRefs: [{{name: g{i}}}]
  rules: [{{backendRefs: [{{name: app, port: 80}}]}}]
"
    )
}

fn upserts(texts: &[String]) -> Vec<Event> {
    let (documents, problems) = store::parse(&texts.join("---"));
    assert!(problems.is_empty(), "{problems:?}");
    documents
        .into_iter()
        .map(|document| Event::Upsert(document.object))
        .collect()
}

fn engine(gateways: usize, merge: bool) -> Engine {
    let mut engine = Engine::new(Environment {
        controller_name: "sluice.dev/gateway-controller".to_owned(),
        namespace: "system".to_owned(),
        mode: Mode::Cluster,
        xff_trusted_hops: 0,
        allow_local_backends: false,
        login_key: None,
        rate_limit: None,
    });
    let mut texts = vec![CLASS.to_owned(), parameters(merge), SERVICE.to_owned()];
    texts.extend((0..gateways).flat_map(|i| [own(i), route(i)]));
    engine.apply(upserts(&texts));
    engine
}

fn fleet() -> GatewayRef {
    GatewayRef::of_class("system", "merged")
}

fn of(i: usize) -> GatewayRef {
    GatewayRef::new("apps", format!("g{i}"))
}

fn keys(engine: &Engine, fleet: &GatewayRef) -> BTreeSet<String> {
    engine.config(fleet).into_keys().map(str::to_owned).collect()
}

/// Keys under which something changed at the shared fleet; nothing else changed.
fn published(changes: &Changes) -> BTreeSet<&str> {
    assert!(changes.config.keys().all(|at| *at == fleet()), "{changes:?}");
    let all = changes.config.values();
    all.flat_map(|c| c.upserts.keys().chain(&c.removes))
        .map(String::as_str)
        .collect()
}

fn conflicted(engine: &Engine, i: usize) -> bool {
    let object = of(i).object();
    let mut statuses = engine.statuses();
    let Some((_, Status::Gateway { listeners, .. })) = statuses.find(|(of, _)| **of == object) else {
        panic!("no status of {object}")
    };
    let mut conditions = listeners[0].conditions.iter();
    conditions.any(|condition| condition.kind == "Conflicted" && condition.status)
}

#[test]
fn a_gateway_touches_itself_and_its_routes_alone() {
    let mut engine = engine(GATEWAYS, true);
    let changes = engine.apply(upserts(&[gateway(7, "new.example")]));
    let expected = [
        Unit::Class("merged".into()),
        Unit::Gateway(of(7)),
        Unit::Route(ObjectRef::new(Kind::HTTPRoute, "apps", "r7")),
    ];
    assert_eq!(changes.translated, expected);
    assert_eq!(published(&changes), ["listener/Gateway/apps/g7/http"].into());
    assert_eq!(changes.infra.len(), 0);
}

#[test]
fn a_listener_that_goes_makes_room_for_those_who_waited() {
    let mut engine = engine(3, true);
    engine.apply(upserts(&[gateway(2, "h0.example")]));
    assert!(conflicted(&engine, 2) && !conflicted(&engine, 0));
    let route = "route/HTTPRoute/apps/r2/of/apps/g2";
    assert!(!keys(&engine, &fleet()).contains(route));
    let changes = engine.apply([Event::Delete(of(0).object())]);
    assert!(!conflicted(&engine, 2));
    assert!(keys(&engine, &fleet()).contains(route));
    // The third has to do with neither.
    assert!(
        !changes.translated.contains(&Unit::Gateway(of(1))),
        "{:?}",
        changes.translated
    );
}

#[test]
fn what_gateways_have_in_common_goes_with_the_last_of_them() {
    let mut engine = engine(2, true);
    let common = [
        "settings",
        "backend/Service/apps/app/80",
        "endpoints/Service/apps/app/80",
    ];
    let all = |engine: &Engine| common.iter().all(|key| keys(engine, &fleet()).contains(*key));
    assert!(all(&engine));
    let changes = engine.apply([Event::Delete(of(0).object())]);
    assert!(all(&engine));
    let expected = [
        "listener/Gateway/apps/g0/http",
        "route/HTTPRoute/apps/r0/of/apps/g0",
    ];
    assert_eq!(published(&changes), expected.into());
    let changes = engine.apply([Event::Delete(of(1).object())]);
    assert!(common.iter().all(|key| published(&changes).contains(key)));
    assert_eq!(engine.fleets().count(), 0);
    assert_eq!(changes.infra[&fleet()], Infrastructure::None);
}

#[test]
fn gateways_move_to_the_shared_fleet_and_back() {
    let mut engine = engine(2, false);
    let apart = [keys(&engine, &of(0)), keys(&engine, &of(1))];
    assert!(keys(&engine, &fleet()).is_empty());

    let changes = engine.apply(upserts(&[parameters(true)]));
    assert_eq!(changes.infra[&of(0)], Infrastructure::None);
    assert_eq!(changes.infra[&of(1)], Infrastructure::None);
    let shared = changes.infra[&fleet()].wanted().unwrap();
    assert_eq!(shared.ports.len(), 1);
    assert_eq!(changes.config[&of(0)].removes, apart[0]);
    assert_eq!(engine.fleets().collect::<Vec<_>>(), [&fleet()]);
    assert_eq!(engine.infra().count(), 1);
    let together = keys(&engine, &fleet());
    assert!(
        together.contains("route/HTTPRoute/apps/r1/of/apps/g1"),
        "{together:?}"
    );

    let changes = engine.apply(upserts(&[parameters(false)]));
    assert_eq!(changes.infra[&fleet()], Infrastructure::None);
    assert!(changes.infra[&of(0)].wanted().is_some() && changes.infra[&of(1)].wanted().is_some());
    assert_eq!(changes.config[&fleet()].removes, together);
    assert_eq!([keys(&engine, &of(0)), keys(&engine, &of(1))], apart);
    assert_eq!(engine.fleets().count(), 2);
}

#[test]
fn a_gateway_that_changes_its_class_moves_alone() {
    let mut engine = engine(2, true);
    let plain = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: plain}
spec: {controllerName: sluice.dev/gateway-controller}
";
    engine.apply(upserts(&[plain.to_owned()]));
    let other = own(1).replace("gatewayClassName: merged", "gatewayClassName: plain");
    let changes = engine.apply(upserts(&[other]));
    assert!(changes.infra[&of(1)].wanted().is_some());
    assert_eq!(engine.fleets().collect::<Vec<_>>().len(), 2);
    let left = keys(&engine, &fleet());
    assert!(
        left.contains("listener/Gateway/apps/g0/http") && !left.contains("listener/Gateway/apps/g1/http")
    );
    engine.apply(upserts(&[own(1)]));
    assert!(keys(&engine, &fleet()).contains("listener/Gateway/apps/g1/http"));
    assert!(keys(&engine, &of(1)).is_empty());
}

#[test]
fn parameters_that_are_gone_leave_the_shared_fleet_as_it_is() {
    let mut engine = engine(2, true);
    let service = "
apiVersion: v1
kind: Service
metadata:
  name: whatever
  namespace: system
  labels: {app.kubernetes.io/managed-by: sluice, gateway.networking.k8s.io/gateway-name: class_merged}
  annotations: {sluice.dev/controller-name: sluice.dev/gateway-controller}
spec: {type: ClusterIP, clusterIP: 10.96.0.9, ports: [{port: 80, targetPort: 10080}]}
";
    engine.apply(upserts(&[service.to_owned()]));
    let before = keys(&engine, &fleet());
    let parameters_gone = ObjectRef::new(Kind::EnvoyProxy, "system", "shared");
    let changes = engine.apply([Event::Delete(parameters_gone)]);
    assert!(
        matches!(changes.infra[&fleet()], Infrastructure::Keep(_)),
        "{changes:?}"
    );
    assert_eq!(keys(&engine, &fleet()), before);
    let changes = engine.apply(upserts(&[parameters(true)]));
    assert!(changes.infra[&fleet()].wanted().is_some());
    assert_eq!(keys(&engine, &fleet()), before);
}

/// The seconds after which idle clients are let go, by a policy for one of the Gateways.
fn policy(i: usize, seconds: u32) -> String {
    format!(
        "
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {{name: p{i}, namespace: apps}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: g{i}}}]
  timeout: {{http: {{idleTimeout: {seconds}s}}}}
"
    )
}

/// What that comes to, at each of three Gateways, in milliseconds.
fn idle(engine: &Engine) -> [u64; 3] {
    let config = engine.config(&fleet());
    [0, 1, 2].map(|i| {
        let key = format!("listener/Gateway/apps/g{i}/http");
        let Some(Body::Listener(listener)) = config.get(&*key).and_then(|resource| resource.body.as_ref())
        else {
            panic!("{key} is not there")
        };
        let timeouts = listener
            .client
            .as_ref()
            .and_then(|client| client.timeouts.as_ref());
        timeouts
            .and_then(|timeouts| timeouts.http_idle_ms)
            .unwrap_or_default()
    })
}

/// Conditions of the policy for a Gateway that are true, and the reason why it is not accepted.
fn told(engine: &Engine, i: usize) -> Vec<String> {
    let object = ObjectRef::new(Kind::ClientTrafficPolicy, "apps", format!("p{i}"));
    let mut statuses = engine.statuses();
    let Some((_, Status::Policy { ancestors, .. })) = statuses.find(|(of, _)| **of == object) else {
        panic!("no status of {object}")
    };
    let conditions = ancestors.iter().flat_map(|ancestor| &ancestor.conditions);
    let told = conditions.filter(|condition| condition.status || condition.kind == "Accepted");
    told.map(|condition| format!("{}/{}", condition.kind, condition.reason))
        .collect()
}

#[test]
fn gateways_that_share_connections_treat_clients_alike() {
    let mut engine = engine(3, true);
    // The oldest Gateway's policy holds.
    engine.apply(upserts(&[policy(0, 10), policy(1, 20), policy(2, 10)]));
    assert_eq!(idle(&engine), [10_000; 3]);
    assert_eq!(told(&engine, 0), ["Accepted/Accepted"]);
    assert_eq!(told(&engine, 1), ["Accepted/Conflicted"]);
    assert_eq!(told(&engine, 2), ["Accepted/Accepted"], "it asks for the same");
    // A change of it reaches the others.
    engine.apply(upserts(&[policy(0, 20)]));
    assert_eq!(idle(&engine), [20_000; 3]);
    assert_eq!(
        (told(&engine, 1), told(&engine, 2)),
        (
            vec!["Accepted/Accepted".to_owned()],
            vec!["Accepted/Conflicted".to_owned()],
        )
    );
    // A listener for all hosts goes first, be it younger.
    let any = gateway(1, "x").replace(", hostname: x", "");
    engine.apply(upserts(&[any, policy(1, 30)]));
    assert_eq!(idle(&engine), [30_000; 3]);
    assert_eq!(told(&engine, 0), ["Accepted/Conflicted"]);
    assert_eq!(told(&engine, 1), ["Accepted/Accepted"]);
    // On a port of its own a Gateway has its own way.
    engine.apply(upserts(&[own(1).replace("port: 80", "port: 81")]));
    assert_eq!(idle(&engine), [20_000, 30_000, 20_000]);
    assert_eq!(told(&engine, 1), ["Accepted/Accepted"]);
    // Without a policy the oldest has the defaults, and so have the others.
    engine.apply([Event::Delete(ObjectRef::new(
        Kind::ClientTrafficPolicy,
        "apps",
        "p0",
    ))]);
    assert_eq!(idle(&engine), [0, 30_000, 0]);
    assert_eq!(told(&engine, 2), ["Accepted/Conflicted"]);
}

#[test]
fn gateways_apart_treat_clients_each_as_it_says() {
    let mut engine = engine(2, false);
    engine.apply(upserts(&[policy(0, 10), policy(1, 20)]));
    assert_eq!(told(&engine, 0), ["Accepted/Accepted"]);
    assert_eq!(told(&engine, 1), ["Accepted/Accepted"]);
}
