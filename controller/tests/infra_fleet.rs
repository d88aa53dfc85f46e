//! What becomes of a Gateway's objects in a cluster: applied, repaired, removed, and never taken from others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use sluice_controller::engine::{GatewayRef, Infra, InfraPort, Infrastructure};
use sluice_controller::infra::{Fleet, Settings, name};
use sluice_controller::leader::Leadership;
use sluice_controller::metrics::Metrics;
use support::{Api, eventually};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const SERVICE: &str = "/api/v1/namespaces/shop/services/edge-sluice";
const CONFIG_MAP: &str = "/api/v1/namespaces/shop/configmaps/edge-sluice";
const ACCOUNT: &str = "/api/v1/namespaces/shop/serviceaccounts/edge-sluice";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/edge-sluice";
const BUDGET: &str = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/edge-sluice";

fn infra(envoy_proxy: serde_json::Value) -> Infra {
    Infra {
        gateway: GatewayRef::new("shop", "edge"),
        uid: "uid".to_owned(),
        class: "sluice".into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        ports: vec![InfraPort {
            port: 80,
            bind_port: 10080,
            udp: false,
        }],
        addresses: Vec::new(),
        cluster_only: false,
        proxy: Arc::new(serde_json::from_value(envoy_proxy).unwrap()),
    }
}

fn fleet(api: &Api) -> (Fleet, watch::Sender<String>) {
    let (bundle, receiver) = watch::channel("CA 1".to_owned());
    let settings = Settings {
        controller_name: "sluice.dev/gateway-controller".to_owned(),
        image: "sluice:1".to_owned(),
        image_pull_policy: None,
        controller_url: "https://controller:18000".to_owned(),
        ca_bundle: String::new(),
    };
    let (leads, metrics) = (Leadership::always(), Arc::new(Metrics::default()));
    let stop = CancellationToken::new();
    (
        Fleet::start(&api.client(), settings, receiver, &leads, &metrics, &stop),
        bundle,
    )
}

fn edge(infra: Infrastructure) -> [(GatewayRef, Infrastructure); 1] {
    [(GatewayRef::new("shop", "edge"), infra)]
}

fn wanted(envoy_proxy: serde_json::Value) -> [(GatewayRef, Infrastructure); 1] {
    edge(Infrastructure::Wanted(infra(envoy_proxy)))
}

fn kept() -> [(GatewayRef, Infrastructure); 1] {
    edge(Infrastructure::Keep(infra(json!({}))))
}

#[tokio::test]
async fn objects_are_applied_repaired_and_removed() {
    let api = Api::new();
    let (fleet, bundle) = fleet(&api);
    fleet.lead([]);
    fleet.put(wanted(json!({})));
    for path in [SERVICE, CONFIG_MAP, ACCOUNT, DEPLOYMENT] {
        eventually(path, || api.get(path).is_some()).await;
    }
    api.delete(SERVICE);
    eventually("a deleted Service is there again", || api.get(SERVICE).is_some()).await;
    api.edit(
        DEPLOYMENT,
        &json!({ "spec": { "template": { "spec": { "serviceAccountName": "root" } } } }),
    );
    eventually("an edited Deployment is repaired", || {
        api.get(DEPLOYMENT)
            .is_some_and(|d| d["spec"]["template"]["spec"]["serviceAccountName"] == "edge-sluice")
    })
    .await;
    bundle.send_replace("CA 2".to_owned());
    eventually("a new CA is published", || {
        api.get(CONFIG_MAP).is_some_and(|m| m["data"]["ca.crt"] == "CA 2")
    })
    .await;
    fleet.put(edge(Infrastructure::None));
    eventually("all is removed", || api.paths().is_empty()).await;
}

#[tokio::test]
async fn what_is_not_wanted_any_more_is_removed() {
    let api = Api::new();
    let (fleet, _bundle) = fleet(&api);
    fleet.lead(wanted(
        json!({ "provider": { "kubernetes": { "envoyPDB": { "minAvailable": 1 } } } }),
    ));
    eventually("a disruption budget", || api.get(BUDGET).is_some()).await;
    fleet.put(wanted(json!({})));
    eventually("no disruption budget", || api.get(BUDGET).is_none()).await;
    assert!(api.get(DEPLOYMENT).is_some());
}

#[tokio::test]
async fn a_new_leader_removes_what_was_left_over_and_writes_nothing_twice() {
    let api = Api::new();
    let (fleet, _bundle) = fleet(&api);
    fleet.lead(wanted(json!({})));
    eventually("a Deployment", || api.get(DEPLOYMENT).is_some()).await;
    fleet.clear();
    fleet.put(wanted(json!({})));
    fleet.lead([]);
    eventually("left-over objects are removed", || api.paths().is_empty()).await;
}

#[tokio::test]
async fn what_runs_stays_while_it_is_not_known_what_is_wanted() {
    let api = Api::new();
    let (fleet, _bundle) = fleet(&api);
    fleet.lead(kept());
    fleet.put(wanted(json!({})));
    eventually("a Deployment", || api.get(DEPLOYMENT).is_some()).await;
    fleet.put(kept());
    api.delete(SERVICE);
    eventually("a deleted Service is there again", || api.get(SERVICE).is_some()).await;
    fleet.clear();
    let before = api.writes().len();
    fleet.lead(kept());
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    for path in [SERVICE, CONFIG_MAP, ACCOUNT, DEPLOYMENT] {
        assert!(api.get(path).is_some(), "{path}");
    }
    assert_eq!(api.writes()[before..], [] as [&str; 0]);
    fleet.put(edge(Infrastructure::None));
    eventually("all is removed", || api.paths().is_empty()).await;
}

#[tokio::test]
async fn objects_of_others_stay_as_they_are() {
    let api = Api::new();
    let theirs = json!({ "metadata": { "name": "edge-sluice" }, "spec": { "clusterIP": "10.0.0.1" } });
    api.put(SERVICE, theirs);
    let other =
        json!({ "app.kubernetes.io/managed-by": "sluice", "gateway.networking.k8s.io/gateway-name": "gone" });
    let elsewhere = "/api/v1/namespaces/shop/services/gone-sluice";
    let annotations = json!({ "sluice.dev/controller-name": "another.example/controller" });
    api.put(
        elsewhere,
        json!({ "metadata": { "name": "gone-sluice", "labels": other, "annotations": annotations } }),
    );
    let (fleet, _bundle) = fleet(&api);
    fleet.lead(wanted(json!({})));
    eventually("a ConfigMap", || api.get(CONFIG_MAP).is_some()).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(
        api.get(SERVICE).unwrap()["spec"],
        json!({ "clusterIP": "10.0.0.1" })
    );
    assert!(api.get(elsewhere).is_some());
    assert!(
        !api.writes().iter().any(|write| write.contains("/services/")),
        "{:?}",
        api.writes()
    );
}

#[tokio::test]
async fn what_gateways_share_is_repaired_and_removed_as_one_gateways_own_is() {
    let api = Api::new();
    let (fleet, _bundle) = fleet(&api);
    fleet.lead([]);
    let shared = GatewayRef::of_class("system", "sluice");
    let wanted = Infra {
        gateway: shared.clone(),
        ..infra(json!({}))
    };
    fleet.put([(shared.clone(), Infrastructure::Wanted(wanted))]);
    let name = name(&shared, "sluice");
    let deployment = format!("/apis/apps/v1/namespaces/system/deployments/{name}");
    eventually("a Deployment of the class", || api.get(&deployment).is_some()).await;
    let owner = &api.get(&deployment).unwrap()["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["name"]),
        (&json!("GatewayClass"), &json!("sluice"))
    );
    api.delete(&deployment);
    eventually("it is there again", || api.get(&deployment).is_some()).await;
    // Gateways that have their own beside it are none of its concern.
    fleet.put(edge(Infrastructure::Wanted(infra(json!({})))));
    eventually("a Deployment of a Gateway", || api.get(DEPLOYMENT).is_some()).await;
    fleet.put([(shared, Infrastructure::None)]);
    eventually("what was shared is removed", || {
        !api.paths().iter().any(|path| path.contains("/system/"))
    })
    .await;
    assert!(api.get(DEPLOYMENT).is_some());
}
