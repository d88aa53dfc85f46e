//! What becomes of the Services that find the pods of XBackends: made once, repaired, removed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use sluice_controller::engine::{PodService, WantedPodService};
use sluice_controller::infra::PodServices;
use sluice_controller::leader::Leadership;
use sluice_controller::metrics::Metrics;
use sluice_controller::store::{Kind, ObjectRef};
use support::{Api, eventually};
use tokio_util::sync::CancellationToken;

const CONTROLLER: &str = "sluice.dev/gateway-controller";
const SERVICES: &str = "/api/v1/namespaces/shop/services";

fn start(api: &Api) -> PodServices {
    let (leads, metrics) = (Leadership::always(), Arc::new(Metrics::default()));
    PodServices::start(
        &api.client(),
        CONTROLLER,
        &leads,
        &metrics,
        &CancellationToken::new(),
    )
}

fn wanted(labels: &[(&str, &str)], port: u16) -> PodService {
    let labels: BTreeMap<_, _> = labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    PodService {
        wanted: Some(WantedPodService {
            uid: "uid-of-pods".to_owned(),
            labels,
            port,
        }),
        found: Vec::new(),
    }
}

fn put(services: &PodServices, what: PodService) {
    services.put([(ObjectRef::new(Kind::XBackend, "shop", "pods"), what)]);
}

fn services(api: &Api) -> Vec<Value> {
    let paths = api.paths().into_iter().filter(|path| path.starts_with(SERVICES));
    paths.filter_map(|path| api.get(&path)).collect()
}

fn selects(api: &Api, selector: &Value, port: u16) -> bool {
    matches!(services(api).as_slice(), [one] if one["spec"]["selector"] == *selector && one["spec"]["ports"][0]["port"] == port)
}

#[tokio::test]
async fn one_service_is_made_and_brought_along() {
    let api = Api::new();
    let pods = start(&api);
    put(&pods, wanted(&[("app", "web")], 8080));
    eventually("a Service", || services(&api).len() == 1).await;
    let made = services(&api).remove(0);
    assert_eq!(made["spec"]["clusterIP"], "None");
    assert_eq!(made["spec"]["selector"], json!({ "app": "web" }));
    assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], "uid-of-pods");
    assert_eq!(made["metadata"]["ownerReferences"][0]["kind"], "XBackend");
    assert!(
        made["metadata"]["name"]
            .as_str()
            .unwrap()
            .starts_with("xbackend-")
    );

    // The watch has not told of it yet: the same is wanted again, and then something else.
    put(&pods, wanted(&[("app", "web")], 8080));
    put(&pods, wanted(&[("tier", "front")], 9090));
    eventually("the Service follows", || {
        selects(&api, &json!({ "tier": "front" }), 9090)
    })
    .await;
    assert_eq!(services(&api)[0]["metadata"]["name"], made["metadata"]["name"]);
}

#[tokio::test]
async fn drift_is_repaired_and_extras_go() {
    let api = Api::new();
    let pods = start(&api);
    put(&pods, wanted(&[("app", "web")], 8080));
    eventually("a Service", || services(&api).len() == 1).await;
    let made = services(&api).remove(0);
    let path = format!("{SERVICES}/{}", made["metadata"]["name"].as_str().unwrap());

    let mut extra = made.clone();
    extra["metadata"]["name"] = "xbackend-zzzzz".into();
    extra["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    api.put(&format!("{SERVICES}/xbackend-zzzzz"), extra);
    let mut foreign = made.clone();
    foreign["metadata"]["name"] = "foreign".into();
    foreign["metadata"]["ownerReferences"] = json!([]);
    api.put(&format!("{SERVICES}/foreign"), foreign.clone());
    api.edit(
        &path,
        &json!({ "spec": { "selector": { "app": "web", "more": "x" }, "publishNotReadyAddresses": true } }),
    );

    put(&pods, wanted(&[("app", "web")], 8080));
    eventually("the extra Service is gone", || {
        api.get(&format!("{SERVICES}/xbackend-zzzzz")).is_none()
    })
    .await;
    let repaired = api.get(&path).unwrap();
    assert_eq!(repaired["spec"]["selector"], json!({ "app": "web" }));
    assert!(repaired["spec"]["publishNotReadyAddresses"].is_null());
    assert!(
        api.get(&format!("{SERVICES}/foreign")).is_some(),
        "somebody else's"
    );
}

#[tokio::test]
async fn what_cannot_be_changed_is_made_anew() {
    let api = Api::new();
    let pods = start(&api);
    put(&pods, wanted(&[("app", "web")], 8080));
    eventually("a Service", || services(&api).len() == 1).await;
    let name = services(&api)[0]["metadata"]["name"].clone();
    let path = format!("{SERVICES}/{}", name.as_str().unwrap());
    api.edit(&path, &json!({ "spec": { "clusterIP": "10.96.0.9" } }));
    put(&pods, wanted(&[("app", "web")], 8080));
    eventually("another Service", || {
        matches!(services(&api).as_slice(), [one] if one["metadata"]["name"] != name && one["spec"]["clusterIP"] == "None")
    })
    .await;
}

#[tokio::test]
async fn what_is_not_wanted_any_more_goes() {
    let api = Api::new();
    let pods = start(&api);
    put(&pods, wanted(&[("app", "web")], 8080));
    eventually("a Service", || services(&api).len() == 1).await;
    let found = vec![(
        services(&api)[0]["metadata"]["name"].as_str().unwrap().to_owned(),
        false,
    )];
    put(&pods, PodService { wanted: None, found });
    eventually("no Service", || services(&api).is_empty()).await;
}
