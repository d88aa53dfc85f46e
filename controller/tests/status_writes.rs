//! What becomes of statuses at the API server, and who may write them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_controller::engine::{ParentStatus, Status};
use sluice_controller::leader::{Elector, Leadership};
use sluice_controller::metrics::Metrics;
use sluice_controller::status::Statuses;
use sluice_controller::store::{Kind, ObjectRef};
use sluice_controller::translate::condition::Condition;
use sluice_crds::gateway::{GatewayStatusAddress, ParentReference};
use support::{Api, eventually};
use tokio_util::sync::CancellationToken;

const NAME: &str = "sluice.dev/gateway-controller";
const ROUTE: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/cart";
const GATEWAY: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/edge";

fn statuses(api: &Api, leadership: &Leadership) -> Statuses {
    let metrics = Arc::new(Metrics::default());
    Statuses::start(
        &api.client(),
        NAME,
        leadership,
        &metrics,
        &CancellationToken::new(),
    )
}

fn cart() -> ObjectRef {
    ObjectRef::new(Kind::HTTPRoute, "shop", "cart")
}

fn accepted(parent: &str) -> Status {
    let parent_ref = ParentReference {
        name: parent.to_owned(),
        ..Default::default()
    };
    let conditions = vec![Condition::holds("Accepted", "Accepted")];
    Status::Route {
        generation: 1,
        parents: vec![ParentStatus {
            parent_ref,
            conditions,
        }],
    }
}

fn foreign() -> Value {
    json!({ "parentRef": { "name": "mesh" }, "controllerName": "foreign/c", "conditions": [], "future": true })
}

fn parents(api: &Api) -> Vec<Value> {
    api.get(ROUTE).unwrap()["status"]["parents"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

fn route(api: &Api) {
    api.put(
        ROUTE,
        json!({ "metadata": { "name": "cart" }, "spec": {}, "status": { "parents": [foreign()] } }),
    );
}

#[tokio::test]
async fn our_entries_are_written_beside_those_of_others_and_withdrawn() {
    let api = Api::new();
    route(&api);
    let statuses = statuses(&api, &Leadership::always());
    api.conflict(2);
    statuses.put([(cart(), Some(accepted("edge")))]);
    eventually("our entry, in spite of conflicts", || parents(&api).len() == 2).await;
    assert_eq!(parents(&api)[0], foreign());
    assert_eq!(parents(&api)[1]["controllerName"], NAME);
    statuses.put([(cart(), None)]);
    eventually("our entry is withdrawn", || parents(&api) == [foreign()]).await;
}

#[tokio::test]
async fn what_is_there_already_is_not_written_again() {
    let api = Api::new();
    api.put(GATEWAY, json!({ "metadata": { "name": "edge" }, "spec": {} }));
    let statuses = statuses(&api, &Leadership::always());
    let edge = || ObjectRef::new(Kind::Gateway, "shop", "edge");
    let status = |address: &str| Status::Gateway {
        generation: 1,
        conditions: vec![Condition::holds("Accepted", "Accepted")],
        addresses: vec![GatewayStatusAddress {
            value: address.to_owned(),
            ..Default::default()
        }],
        listeners: Vec::new(),
        attached_listener_sets: 0,
    };
    statuses.put([(edge(), Some(status("192.0.2.1")))]);
    let address = || api.get(GATEWAY).unwrap()["status"]["addresses"][0]["value"].clone();
    eventually("an address", || address() == "192.0.2.1").await;
    statuses.put([(edge(), Some(status("192.0.2.1")))]);
    route(&api);
    statuses.put([(cart(), Some(accepted("edge")))]);
    eventually("the route's status", || parents(&api).len() == 2).await;
    statuses.put([(edge(), Some(status("192.0.2.2")))]);
    eventually("another address", || address() == "192.0.2.2").await;
    let writes = api
        .writes()
        .iter()
        .filter(|write| write.contains("gateways"))
        .count();
    assert_eq!(writes, 2, "{:?}", api.writes());
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_the_other_follows_when_it_stops() {
    let api = Api::new();
    let (one, mut first) = Elector::new(api.client(), "system", "lease", "one");
    let (two, mut second) = Elector::new(api.client(), "system", "lease", "two");
    let (stop_one, stop_two) = (CancellationToken::new(), CancellationToken::new());
    let one = tokio::spawn(one.run(stop_one.clone()));
    assert!(first.changed().await);
    tokio::spawn(two.run(stop_two));
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert!(first.holds() && !second.holds());
    stop_one.cancel();
    one.await.unwrap();
    assert!(!first.holds());
    let before = tokio::time::Instant::now();
    assert!(second.changed().await);
    assert!(
        before.elapsed() < Duration::from_secs(10),
        "the lease was given back"
    );
    assert!(second.holds());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_another_takes_over() {
    let api = Api::new();
    let (one, mut first) = Elector::new(api.client(), "system", "lease", "one");
    let one = tokio::spawn(one.run(CancellationToken::new()));
    assert!(first.changed().await);
    // It hangs: neither renews nor gives back.
    one.abort();
    let (two, mut second) = Elector::new(api.client(), "system", "lease", "two");
    tokio::spawn(two.run(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(!first.holds() && !second.holds());
    assert!(second.changed().await);
}

#[tokio::test]
async fn who_does_not_lead_writes_nothing() {
    let api = Api::new();
    route(&api);
    let (_elector, follower) = Elector::new(api.client(), "system", "lease", "one");
    let statuses = statuses(&api, &follower);
    statuses.put([(cart(), Some(accepted("edge")))]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(api.writes().is_empty());
}
