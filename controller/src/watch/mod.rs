//! Watches the API server and turns what happens into events for the engine.
//!
//! Every kind of [`crate::store`] is watched by one generic function. No object is kept here: for each only a digest of
//! what translation reads, so that changes of anything else (statuses, our own writes) end here. A kind whose CRD is not
//! installed counts as empty and is tried again from time to time.

mod reading;
mod stream;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::runtime::watcher::Config;
use sluice_crds::ClusterTrustBundle;
use sluice_crds::envoy::{
    Backend, BackendTrafficPolicy, ClientTrafficPolicy, EnvoyExtensionPolicy, EnvoyPatchPolicy, EnvoyProxy,
    HTTPRouteFilter, SecurityPolicy,
};
use sluice_crds::gateway::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant, TCPRoute,
    TLSRoute, UDPRoute, XBackend, XBackendTrafficPolicy,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::Event;
use crate::metrics::Metrics;
use crate::store::Kind;
use stream::Watch;

/// Batches that may wait for the engine; more make the watches wait.
const QUEUE: usize = 1024;
/// Events that are handed over at once at most.
const BATCH: usize = 16 * 1024;
/// Types of Secrets that no Gateway can refer to; clusters have many, and big ones.
const SECRETS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,\
                       type!=kubernetes.io/dockerconfigjson,type!=bootstrap.kubernetes.io/token";
/// Label of what the controller creates.
const OURS: &str = "app.kubernetes.io/managed-by=sluice";

/// What a watch has to say.
pub(crate) enum Message {
    /// Something happened.
    Events(Vec<Event>),
    /// All objects of a kind have been told, or the kind is not there.
    Listed(Kind, Vec<Event>),
}

/// Everything that happens in the cluster.
pub struct Watches {
    messages: mpsc::Receiver<Message>,
    unlisted: BTreeSet<Kind>,
}

impl Watches {
    /// Starts watching every kind, until `stop`.
    pub fn start(
        client: &Client,
        controller_name: &str,
        metrics: &Arc<Metrics>,
        stop: &CancellationToken,
    ) -> Self {
        let (sender, messages) = mpsc::channel(QUEUE);
        let watch = Watch {
            client: client.clone(),
            controller_name: controller_name.into(),
            metrics: Arc::clone(metrics),
            sender,
            stop: stop.clone(),
        };
        let all = || Config::default().any_semantic();
        watch.start::<GatewayClass>(all());
        watch.start::<Gateway>(all());
        watch.start::<ListenerSet>(all());
        watch.start::<HTTPRoute>(all());
        watch.start::<GRPCRoute>(all());
        watch.start::<TLSRoute>(all());
        watch.start::<TCPRoute>(all());
        watch.start::<UDPRoute>(all());
        watch.start::<ReferenceGrant>(all());
        watch.start::<BackendTLSPolicy>(all());
        watch.start::<XBackend>(all());
        watch.start::<XBackendTrafficPolicy>(all());
        watch.start::<EnvoyProxy>(all());
        watch.start::<Backend>(all());
        watch.start::<SecurityPolicy>(all());
        watch.start::<BackendTrafficPolicy>(all());
        watch.start::<ClientTrafficPolicy>(all());
        watch.start::<EnvoyExtensionPolicy>(all());
        watch.start::<EnvoyPatchPolicy>(all());
        watch.start::<HTTPRouteFilter>(all());
        watch.start::<Service>(all());
        watch.start::<EndpointSlice>(all());
        watch.start::<Secret>(all().fields(SECRETS));
        watch.start::<ConfigMap>(all());
        watch.start::<Namespace>(all());
        watch.start::<ClusterTrustBundle>(all());
        watch.start::<Deployment>(all().labels(OURS));
        Self {
            messages,
            unlisted: Kind::ALL.iter().copied().collect(),
        }
    }

    /// Adds everything there is to `events`, and returns once all kinds have been listed: so that nothing is concluded
    /// from half the cluster. False if the watches have ended. May be cancelled and called again.
    pub async fn initial(&mut self, events: &mut Vec<Event>) -> bool {
        while !self.unlisted.is_empty() {
            let Some(message) = self.messages.recv().await else {
                return false;
            };
            self.take(message, events);
        }
        true
    }

    /// What has happened since the last call: waits for the first event, then takes what is there and no longer.
    /// `None` if the watches have ended.
    pub async fn next(&mut self) -> Option<Vec<Event>> {
        let mut events = Vec::new();
        while events.is_empty() {
            let message = self.messages.recv().await?;
            self.take(message, &mut events);
            while events.len() < BATCH
                && let Ok(message) = self.messages.try_recv()
            {
                self.take(message, &mut events);
            }
        }
        Some(events)
    }

    /// Kinds that have not been listed yet.
    pub fn unlisted(&self) -> &BTreeSet<Kind> {
        &self.unlisted
    }

    fn take(&mut self, message: Message, events: &mut Vec<Event>) {
        match message {
            Message::Events(more) => events.extend(more),
            Message::Listed(kind, more) => {
                self.unlisted.remove(&kind);
                events.extend(more);
            }
        }
    }
}
