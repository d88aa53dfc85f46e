//! Notices when somebody changes or deletes what belongs to a Gateway's proxies. Watches metadata alone.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::apply::State;
use super::fleet::Fleet;
use super::render::{ChildKind, gateway_of, selector};

const PAUSE: Duration = Duration::from_secs(5);

/// Watches all kinds until `stop`.
pub(super) fn start(client: &Client, fleet: &Fleet, stop: &CancellationToken) {
    for kind in ChildKind::ALL {
        let (client, fleet, stop) = (client.clone(), fleet.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = watch(client, kind, fleet) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn watch(client: Client, kind: ChildKind, fleet: Fleet) {
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &kind.resource());
    let mut events = pin!(watcher(api, Config::default().labels(&selector(None))));
    let mut reported = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::InitDone | Event::Init) => {}
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                reported = false;
                notice(&fleet, kind, &object, Some(&State::of(&object)));
            }
            Ok(Event::Delete(object)) => notice(&fleet, kind, &object, None),
            Err(error) => {
                if !std::mem::replace(&mut reported, true) {
                    warn!(kind = kind.as_str(), %error, "watch of proxies' objects failed; it is tried again");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn notice(fleet: &Fleet, kind: ChildKind, object: &PartialObjectMeta<DynamicObject>, state: Option<&State>) {
    if let Some(gateway) = gateway_of(&object.metadata, fleet.controller_name()) {
        fleet.notice(&gateway, &(kind, object.name_any()), state);
    }
}
