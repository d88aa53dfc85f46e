//! Watching a cluster: everything is listed first, kinds that are not installed do not hold that up.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sluice_controller::engine::Event;
use sluice_controller::metrics::Metrics;
use sluice_controller::watch::Watches;
use support::Api;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const CLASS: &str = "/apis/gateway.networking.k8s.io/v1/gatewayclasses/sluice";
const LONG: Duration = Duration::from_secs(20);

fn class(generation_of: &str) -> serde_json::Value {
    json!({
        "metadata": { "name": "sluice" },
        "spec": { "controllerName": "sluice.dev/gateway-controller", "description": generation_of },
    })
}

fn start(api: &Api) -> (Watches, CancellationToken) {
    let stop = CancellationToken::new();
    let metrics = Arc::new(Metrics::default());
    (
        Watches::start(&api.client(), "sluice.dev/gateway-controller", &metrics, &stop),
        stop,
    )
}

fn text(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| format!("{event:?}")).collect()
}

#[tokio::test]
async fn what_is_there_comes_first_then_what_happens() {
    let api = Api::new();
    api.set_missing(&["clustertrustbundles", "xbackends"]);
    api.put(CLASS, class("one"));
    api.put(
        "/api/v1/namespaces/shop/configmaps/m",
        json!({ "metadata": { "name": "m" }, "data": { "a": "b" } }),
    );
    let (mut watches, _stop) = start(&api);
    let mut events = Vec::new();
    assert!(timeout(LONG, watches.initial(&mut events)).await.unwrap());
    let mut events = text(&events);
    events.sort();
    assert_eq!(
        events,
        ["Upsert(ConfigMap shop/m)", "Upsert(GatewayClass sluice)"]
    );

    api.edit(CLASS, &json!({ "status": { "conditions": [] } }));
    api.edit(CLASS, &json!({ "spec": { "description": "two" } }));
    let next = timeout(LONG, watches.next()).await.unwrap().unwrap();
    assert_eq!(text(&next), ["Upsert(GatewayClass sluice)"]);
    api.delete(CLASS);
    let next = timeout(LONG, watches.next()).await.unwrap().unwrap();
    assert_eq!(text(&next), ["Delete(GatewayClass sluice)"]);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_installed_later_is_found() {
    let api = Api::new();
    api.set_missing(&["xbackends"]);
    let (mut watches, _stop) = start(&api);
    assert!(watches.initial(&mut Vec::new()).await);
    let path = "/apis/gateway.networking.x-k8s.io/v1alpha1/namespaces/shop/xbackends/b";
    let spec = json!({ "type": "ExternalHostname", "port": { "number": 443 }, "externalHostname": { "hostname": "example.org" } });
    api.put(path, json!({ "metadata": { "name": "b" }, "spec": spec }));
    api.set_missing(&[]);
    let next = timeout(Duration::from_mins(5), watches.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(text(&next), ["Upsert(XBackend shop/b)"]);
}
