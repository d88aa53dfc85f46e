//! The headless Services that find the pods of XBackends of type EndpointSelector: the API server's own EndpointSlices of
//! such a Service are the backend's endpoints.
//!
//! Owns what such a Service looks like and its reconciliation. Its name is generated, so that nobody relies on it; it is
//! found again by its label and its owner. What the labels of Services alone say is never believed.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::{Map, Value, json};
use sluice_crds::gateway::XBackend;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::render::{CONTROLLER, MANAGED_BY, label_value};
use crate::engine::{PodService, WantedPodService};
use crate::leader::Leadership;
use crate::metrics::Metrics;
use crate::store::{Kind, ObjectRef};
use crate::work::Work;

/// Label with the name of the XBackend.
const BACKEND: &str = "sluice.dev/xbackend";
const GROUP: &str = "gateway.networking.x-k8s.io";
const API_VERSION: &str = "gateway.networking.x-k8s.io/v1alpha1";
/// XBackends that are worked on at the same time.
const WORKERS: usize = 4;
/// Transport protocols of the one port, with the names of the Service's ports.
const PROTOCOLS: [(&str, &str); 2] = [("tcp", "TCP"), ("udp", "UDP")];

/// The XBackend that controls an object, if one does.
pub fn owner(meta: &ObjectMeta) -> Option<&OwnerReference> {
    let mut owners = meta.owner_references.iter().flatten();
    owners.find(|owner| {
        owner.controller == Some(true)
            && owner.kind == Kind::XBackend.as_str()
            && owner
                .api_version
                .split_once('/')
                .is_some_and(|(group, _)| group == GROUP)
    })
}

/// Whether a Service was made by this controller for this very XBackend.
pub fn is_made_for(meta: &ObjectMeta, backend: &XBackend, controller_name: &str) -> bool {
    let name = backend.metadata.name.as_deref().unwrap_or_default();
    is_made_by(meta, name, controller_name)
        && owner(meta).is_some_and(|owner| Some(&owner.uid) == backend.metadata.uid.as_ref())
}

/// Whether a Service was made by this controller for an XBackend of this name.
fn is_made_by(meta: &ObjectMeta, name: &str, controller_name: &str) -> bool {
    let is = |map: &Option<BTreeMap<String, String>>, key: &str, value: &str| {
        map.as_ref()
            .and_then(|map| map.get(key))
            .is_some_and(|v| v == value)
    };
    is(&meta.labels, MANAGED_BY, "sluice")
        && is(&meta.labels, BACKEND, &label_value(name))
        && is(&meta.annotations, CONTROLLER, controller_name)
        && owner(meta).is_some_and(|owner| owner.name == name)
}

/// Orders the Services of one XBackend: the first is the one to use.
pub fn age(meta: &ObjectMeta) -> impl Ord + use<> {
    let created = meta.creation_timestamp.as_ref().map(|time| time.0);
    (created, meta.name.clone())
}

/// Whether a Service needs no repair.
pub fn is_as_wanted(service: &Service, wanted: &WantedPodService) -> bool {
    let Some(spec) = &service.spec else { return false };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let has = |(name, protocol): &(&str, &str)| {
        ports.iter().any(|port| {
            port.name.as_deref() == Some(name)
                && port.protocol.as_deref().unwrap_or("TCP") == *protocol
                && port.port == i32::from(wanted.port)
                && port.target_port == Some(IntOrString::Int(i32::from(wanted.port)))
        })
    };
    is_headless(service)
        && spec.selector.as_ref() == Some(&wanted.labels)
        && ports.len() == PROTOCOLS.len()
        && PROTOCOLS.iter().all(has)
        && !spec.publish_not_ready_addresses.unwrap_or_default()
}

/// What cannot be changed of a Service.
fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.cluster_ip.as_deref() == Some("None")
            && spec.type_.as_deref().is_none_or(|kind| kind == "ClusterIP")
    })
}

fn render(backend: &ObjectRef, wanted: &WantedPodService, controller_name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            // Not of the backend's name: a name that can be guessed gets relied upon.
            "generateName": "xbackend-",
            "namespace": &*backend.namespace,
            "labels": { MANAGED_BY: "sluice", BACKEND: label_value(&backend.name) },
            "annotations": { CONTROLLER: controller_name },
            "ownerReferences": [{
                "apiVersion": API_VERSION, "kind": Kind::XBackend.as_str(), "name": &*backend.name,
                "uid": wanted.uid, "controller": true,
            }],
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": "None", "selector": wanted.labels, "ports": ports(wanted.port),
        },
    })
}

fn ports(port: u16) -> Value {
    PROTOCOLS
        .iter()
        .map(|(name, protocol)| json!({ "name": name, "protocol": protocol, "port": port, "targetPort": port }))
        .collect()
}

/// What brings a Service to what is wanted; fails if somebody else writes at the same time.
fn repair(service: &Service, wanted: &WantedPodService) -> Value {
    let present = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    // A merge removes only what it names.
    let mut selector: Map<String, Value> = present
        .into_iter()
        .flat_map(BTreeMap::keys)
        .map(|key| (key.clone(), Value::Null))
        .collect();
    selector.extend(
        wanted
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().into())),
    );
    json!({
        "metadata": { "resourceVersion": service.metadata.resource_version },
        "spec": { "selector": selector, "ports": ports(wanted.port), "publishNotReadyAddresses": null },
    })
}

/// The Services of all XBackends, and who makes them. Cheap to clone.
#[derive(Clone)]
pub struct PodServices {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    controller_name: String,
    leadership: Leadership,
    metrics: Arc<Metrics>,
    work: Work<ObjectRef, PodService>,
}

impl PodServices {
    /// Starts the workers, until `stop`.
    pub fn start(
        client: &Client,
        controller_name: &str,
        leadership: &Leadership,
        metrics: &Arc<Metrics>,
        stop: &CancellationToken,
    ) -> Self {
        let inner = Inner {
            client: client.clone(),
            controller_name: controller_name.to_owned(),
            leadership: leadership.clone(),
            metrics: Arc::clone(metrics),
            work: Work::default(),
        };
        let services = Self {
            inner: Arc::new(inner),
        };
        for _ in 0..WORKERS {
            let (worker, stop) = (services.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = worker.work() => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        services
    }

    /// Takes in what is wanted and what there is, by XBackend.
    pub fn put(&self, changes: impl IntoIterator<Item = (ObjectRef, PodService)>) {
        for (backend, service) in changes {
            if !service.is_as_wanted() {
                self.inner.work.put(backend, service);
            }
        }
    }

    /// Does nothing of what still waits: this replica does not lead any more.
    pub fn clear(&self) {
        self.inner.work.clear();
    }

    async fn work(&self) {
        loop {
            let job = self.inner.work.next().await;
            match self.reconcile(&job.key, job.value.wanted.as_ref()).await {
                Ok(()) => self.inner.work.done(&job.key),
                Err(error) => {
                    self.inner.metrics.infra_errors.inc();
                    if job.is_first_try() {
                        warn!(backend = %job.key, %error, "Service of an XBackend not as it should be; it is tried again");
                    }
                    self.inner.work.failed(job);
                }
            }
        }
    }

    /// Leaves one Service that is as it should be, or none. Reads what there is: the watch may lag behind our own writes.
    async fn reconcile(
        &self,
        backend: &ObjectRef,
        wanted: Option<&WantedPodService>,
    ) -> Result<(), kube::Error> {
        if !self.inner.leadership.holds() {
            return Ok(());
        }
        let api = Api::<Service>::namespaced(self.inner.client.clone(), &backend.namespace);
        let label = format!("{MANAGED_BY}=sluice,{BACKEND}={}", label_value(&backend.name));
        let mut there = api.list(&ListParams::default().labels(&label)).await?.items;
        there.retain(|service| is_made_by(&service.metadata, &backend.name, &self.inner.controller_name));
        there.sort_by_key(|service| age(&service.metadata));
        let usable = |service: &Service| {
            wanted.is_some_and(|wanted| {
                is_headless(service) && owner(&service.metadata).is_some_and(|owner| owner.uid == wanted.uid)
            })
        };
        let kept = there.iter().position(usable).map(|at| there.remove(at));
        if let Some(wanted) = wanted {
            self.bring(&api, backend, wanted, kept).await?;
        }
        for service in there {
            remove(&api, &service).await?;
            debug!(%backend, name = service.name_any(), "Service removed");
        }
        Ok(())
    }

    async fn bring(
        &self,
        api: &Api<Service>,
        backend: &ObjectRef,
        wanted: &WantedPodService,
        kept: Option<Service>,
    ) -> Result<(), kube::Error> {
        match kept {
            Some(service) if is_as_wanted(&service, wanted) => return Ok(()),
            Some(service) => {
                let patch = Patch::Merge(repair(&service, wanted));
                api.patch(&service.name_any(), &PatchParams::default(), &patch)
                    .await?;
                debug!(%backend, name = service.name_any(), "Service repaired");
            }
            None => {
                let service = render(backend, wanted, &self.inner.controller_name);
                let service = serde_json::from_value(service).map_err(kube::Error::SerdeError)?;
                let made = api.create(&PostParams::default(), &service).await?;
                info!(%backend, name = made.name_any(), "Service created");
            }
        }
        let kind = [("kind", Kind::Service.as_str())];
        self.inner.metrics.infra_writes.get_or_create(&kind).inc();
        Ok(())
    }
}

async fn remove(api: &Api<Service>, service: &Service) -> Result<(), kube::Error> {
    let params = DeleteParams {
        // Not one of the same name that somebody has made since.
        preconditions: Some(Preconditions {
            uid: service.uid(),
            resource_version: None,
        }),
        ..Default::default()
    };
    match api.delete(&service.name_any(), &params).await {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}
