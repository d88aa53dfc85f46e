//! The objects of a Gateway's proxies, spelt out. Pure.

mod child;
mod container;
mod extras;
mod pod;
mod service;
mod workload;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;
use serde_json::Value;
use sluice_crds::envoy::{
    EnvoyProxyKubernetesProvider, EnvoyProxySpec, KubernetesPatchSpec, MergeType, ProviderType, Raw,
};

pub use child::{Child, ChildKind};

use super::name::{self, kubernetes};
use super::strategic;
use crate::engine::{GatewayRef, Infra, InfraPort};

/// Annotation that says which controller an object belongs to: clusters can have several.
pub(super) const CONTROLLER: &str = "sluice.dev/controller-name";
const GATEWAY: &str = "gateway.networking.k8s.io/gateway-name";
const CLASS: &str = "gateway.networking.k8s.io/gateway-class-name";
const APP: &str = "app.kubernetes.io/name";
pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// What is the same for all proxies.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of this controller, as GatewayClasses have it.
    pub controller_name: String,
    /// Image of the proxy.
    pub image: String,
    /// When it is pulled.
    pub image_pull_policy: Option<String>,
    /// URL at which proxies reach the controller.
    pub controller_url: String,
    /// PEM bundle by which they know it.
    pub ca_bundle: String,
}

/// A field of an EnvoyProxy that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct RenderError {
    /// Path of the field below `spec`.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl RenderError {
    fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self {
            field,
            reason: reason.into(),
        }
    }
}

/// The objects of a Gateway's proxies, in the order in which they are to be applied.
///
/// # Errors
/// If its EnvoyProxy has a field that cannot be used.
pub fn render(infra: &Infra, settings: &Settings) -> Result<Vec<Child>, RenderError> {
    let context = Context::new(infra, settings);
    if infra
        .proxy
        .provider
        .as_ref()
        .and_then(|p| p.type_.as_ref())
        .is_some_and(|t| *t != ProviderType::Kubernetes)
    {
        return Err(RenderError::new("provider.type", "only Kubernetes is supported"));
    }
    let mut children = vec![extras::service_account(&context)?, extras::config_map(&context)?];
    children.extend(service::service(&context)?);
    children.push(workload::workload(&context)?);
    children.extend(extras::autoscaler(&context)?);
    children.extend(extras::disruption_budget(&context)?);
    Ok(children)
}

/// Whether an EnvoyProxy can be used at all.
///
/// # Errors
/// Names the field that cannot.
pub fn check(proxy: &EnvoyProxySpec) -> Result<(), RenderError> {
    let infra = Infra {
        gateway: GatewayRef::new("namespace", "gateway"),
        uid: String::new(),
        class: "class".into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        ports: vec![InfraPort {
            port: 80,
            bind_port: 10080,
            udp: false,
        }],
        addresses: Vec::new(),
        cluster_only: false,
        proxy: std::sync::Arc::new(proxy.clone()),
    };
    let settings = Settings {
        controller_name: String::new(),
        image: String::new(),
        image_pull_policy: None,
        controller_url: String::new(),
        ca_bundle: String::new(),
    };
    render(&infra, &settings).map(drop)
}

/// Name of the service account that a Gateway's proxies run as.
pub fn account_name(infra: &Infra) -> String {
    Context::provider(infra)
        .and_then(|k| k.envoy_service_account.as_ref()?.name.clone())
        .unwrap_or_else(|| name::name(&infra.gateway, &infra.class))
}

/// What all objects of one Gateway have in common.
struct Context<'a> {
    infra: &'a Infra,
    settings: &'a Settings,
    /// Default name of every object.
    name: String,
}

impl<'a> Context<'a> {
    fn new(infra: &'a Infra, settings: &'a Settings) -> Self {
        Self {
            infra,
            settings,
            name: name::name(&infra.gateway, &infra.class),
        }
    }

    fn provider(infra: &Infra) -> Option<&EnvoyProxyKubernetesProvider> {
        kubernetes(&infra.proxy)
    }

    fn kubernetes(&self) -> Option<&'a EnvoyProxyKubernetesProvider> {
        Self::provider(self.infra)
    }

    /// Labels by which pods are selected. A Deployment's selector can never change, so neither can these.
    fn selector(&self) -> BTreeMap<String, String> {
        [
            (GATEWAY, label_value(&self.infra.gateway.name)),
            (CLASS, label_value(&self.infra.class)),
            (APP, "sluice-proxy".to_owned()),
            (MANAGED_BY, "sluice".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// The Gateway's labels, then `more`; never over those of the selector.
    fn labels(&self, more: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut labels = self.infra.labels.clone();
        labels.extend(more.clone());
        labels.extend(self.selector());
        labels
    }

    fn annotations(&self, more: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut annotations = self.infra.annotations.clone();
        annotations.extend(more.clone());
        annotations
    }

    fn metadata(&self, name: String) -> ObjectMeta {
        self.metadata_with(name, &BTreeMap::new(), &BTreeMap::new())
    }

    fn metadata_with(
        &self,
        name: String,
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
    ) -> ObjectMeta {
        let mut annotations = self.annotations(annotations);
        annotations.insert(CONTROLLER.to_owned(), self.settings.controller_name.clone());
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.infra.gateway.namespace.to_string()),
            labels: Some(self.labels(labels)),
            annotations: Some(annotations),
            owner_references: Some(vec![self.owner()]),
            ..Default::default()
        }
    }

    /// The Gateway; or the class whose Gateways share the fleet.
    fn owner(&self) -> OwnerReference {
        let gateway = &self.infra.gateway;
        let (kind, name) = match gateway.class() {
            Some(class) => ("GatewayClass", class),
            None => ("Gateway", &*gateway.name),
        };
        OwnerReference {
            api_version: "gateway.networking.k8s.io/v1".to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            uid: self.infra.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        }
    }
}

/// A label's value for any name: at most 63 characters.
pub(super) fn label_value(name: &str) -> String {
    if name.len() <= 63 {
        name.to_owned()
    } else {
        name::name(&GatewayRef::new("", name), "gw")
    }
}

/// Whether labels and annotations are those of an object that this controller made for this fleet.
pub fn is_ours(meta: &ObjectMeta, gateway: &GatewayRef, controller_name: &str) -> bool {
    gateway_of(meta, controller_name).is_some_and(|owner| {
        owner.namespace == gateway.namespace && *owner.name == label_value(&gateway.name)
    })
}

/// The Gateway that an object of this controller was made for; a long name is as the label has it.
pub(super) fn gateway_of(meta: &ObjectMeta, controller_name: &str) -> Option<GatewayRef> {
    let label = |key| meta.labels.as_ref().and_then(|labels| labels.get(key));
    let ours = label(MANAGED_BY).is_some_and(|by| by == "sluice")
        && meta
            .annotations
            .as_ref()
            .and_then(|a| a.get(CONTROLLER))
            .is_some_and(|name| name == controller_name);
    ours.then(|| {
        Some(GatewayRef::new(
            meta.namespace.as_deref()?,
            label(GATEWAY)?.as_str(),
        ))
    })
    .flatten()
}

/// Selects the objects of one Gateway, or of all.
pub(super) fn selector(gateway: Option<&GatewayRef>) -> String {
    match gateway {
        Some(gateway) => format!("{MANAGED_BY}=sluice,{GATEWAY}={}", label_value(&gateway.name)),
        None => format!("{MANAGED_BY}=sluice,{GATEWAY}"),
    }
}

/// Reads a part of an EnvoyProxy that the CRD does not describe.
fn parse<T: serde::de::DeserializeOwned>(
    raw: Option<&Raw<T>>,
    field: &'static str,
) -> Result<Option<T>, RenderError> {
    raw.map(Raw::parse)
        .transpose()
        .map_err(|error| RenderError::new(field, error.to_string()))
}

/// The finished object: its patch applied, its name and namespace as they must be.
fn finish(
    kind: ChildKind,
    object: &impl Serialize,
    patch: Option<&KubernetesPatchSpec>,
    field: &'static str,
) -> Result<Child, RenderError> {
    let mut object =
        serde_json::to_value(object).map_err(|error| RenderError::new(field, error.to_string()))?;
    let identity = (
        object["metadata"]["name"].clone(),
        object["metadata"]["namespace"].clone(),
    );
    match patch {
        None => {}
        Some(patch) if !patch.value.value.is_object() => {
            return Err(RenderError::new(field, "patch.value must be an object"));
        }
        Some(KubernetesPatchSpec {
            type_: Some(MergeType::JsonMerge),
            value,
        }) => {
            json_patch::merge(&mut object, &value.value);
        }
        Some(KubernetesPatchSpec {
            type_: Some(MergeType::Other(other)),
            ..
        }) => {
            return Err(RenderError::new(
                field,
                format!("patch.type {other} is not known"),
            ));
        }
        Some(patch) => strategic::merge(&mut object, &patch.value.value),
    }
    let resource = kind.resource();
    object["apiVersion"] = resource.api_version.into();
    object["kind"] = resource.kind.into();
    (object["metadata"]["name"], object["metadata"]["namespace"]) = identity;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    remove_nulls(&mut object);
    Ok(Child { kind, name, object })
}

/// What a patch set to null is not sent at all.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}
