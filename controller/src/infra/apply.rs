//! The calls to the API server for the objects of one Gateway's proxies.

use std::collections::BTreeSet;

use kube::api::{
    DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy,
};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use tracing::{debug, info};

use super::render::{Child, ChildKind, is_ours, selector};
use crate::engine::GatewayRef;

/// Field manager of what we apply.
const MANAGER: &str = "sluice";

/// Why an object is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error("{kind} {name}: {source}")]
    Api {
        kind: &'static str,
        name: String,
        source: kube::Error,
    },
    #[error("{kind} {name} exists and does not belong to this Gateway")]
    Foreign { kind: &'static str, name: String },
    #[error(transparent)]
    Render(#[from] super::RenderError),
}

/// Applies objects.
pub(super) struct Applier {
    pub client: Client,
    pub controller_name: String,
}

/// What the API server has made of an object.
pub(super) enum Applied {
    /// It is there in this state; `created`: it was not before.
    Done { state: State, created: bool },
    /// It is somebody else's and good enough as it is.
    LeftAlone,
}

/// By what a later change of anything but the status is noticed: the generation of kinds that have one, else who manages
/// which fields since when; and the labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    version: String,
    labels: Vec<(String, String)>,
}

impl State {
    pub fn of(object: &impl ResourceExt) -> Self {
        let meta = object.meta();
        let labels = object
            .labels()
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if let Some(generation) = meta.generation.filter(|generation| *generation > 0) {
            return Self {
                version: generation.to_string(),
                labels,
            };
        }
        let fields = meta
            .managed_fields
            .iter()
            .flatten()
            .filter(|entry| entry.subresource.is_none());
        let fields: Vec<_> = fields.collect();
        let version = match serde_json::to_string(&fields) {
            Ok(managed) if !fields.is_empty() => managed,
            _ => meta.resource_version.clone().unwrap_or_default(),
        };
        Self { version, labels }
    }
}

impl Applier {
    /// Applies one object. `known`: it was ours when we last looked.
    pub async fn apply(
        &self,
        gateway: &GatewayRef,
        child: &Child,
        known: bool,
    ) -> Result<Applied, ApplyError> {
        let api = self.api(gateway, child.kind);
        let failed = |source| ApplyError::Api {
            kind: child.kind.as_str(),
            name: child.name.clone(),
            source,
        };
        let there = if known {
            None
        } else {
            api.get_metadata_opt(&child.name).await.map_err(failed)?
        };
        if let Some(there) = &there
            && !is_ours(&there.metadata, gateway, &self.controller_name)
        {
            // An EnvoyProxy may name a service account that exists for its own reasons.
            return match child.kind {
                ChildKind::ServiceAccount => Ok(Applied::LeftAlone),
                kind => Err(ApplyError::Foreign {
                    kind: kind.as_str(),
                    name: child.name.clone(),
                }),
            };
        }
        let params = PatchParams::apply(MANAGER).force();
        match api
            .patch(&child.name, &params, &Patch::Apply(&child.object))
            .await
        {
            Ok(object) => Ok(Applied::Done {
                state: State::of(&object),
                created: !known && there.is_none(),
            }),
            Err(error) => {
                if is_immutable(&error) {
                    // The next try makes it anew.
                    info!(%gateway, kind = child.kind.as_str(), name = child.name, %error, "object is replaced");
                    let deleted = api.delete(&child.name, &DeleteParams::background()).await;
                    deleted.map_err(failed)?;
                }
                Err(failed(error))
            }
        }
    }

    /// Removes what was made for the Gateway and is not wanted any more.
    pub async fn prune(
        &self,
        gateway: &GatewayRef,
        wanted: &BTreeSet<(ChildKind, String)>,
    ) -> Result<(), ApplyError> {
        for kind in ChildKind::ALL {
            let api = self.api(gateway, kind);
            let failed = |source| ApplyError::Api {
                kind: kind.as_str(),
                name: String::new(),
                source,
            };
            let there = api
                .list_metadata(&ListParams::default().labels(&selector(Some(gateway))))
                .await;
            for object in there.map_err(failed)? {
                let name = object.name_any();
                let unwanted = !wanted.contains(&(kind, name.clone()));
                if unwanted && is_ours(&object.metadata, gateway, &self.controller_name) {
                    delete(&api, &object).await.map_err(failed)?;
                    debug!(%gateway, kind = kind.as_str(), name, "object removed");
                }
            }
        }
        Ok(())
    }

    fn api(&self, gateway: &GatewayRef, kind: ChildKind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &gateway.namespace, &kind.resource())
    }
}

async fn delete(
    api: &Api<DynamicObject>,
    object: &PartialObjectMeta<DynamicObject>,
) -> Result<(), kube::Error> {
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Background),
        // Not one of the same name that somebody has made since.
        preconditions: Some(Preconditions {
            uid: object.uid(),
            resource_version: None,
        }),
        ..Default::default()
    };
    match api.delete(&object.name_any(), &params).await {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

fn is_immutable(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 422 && status.message.contains("immutable"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;

    fn state(managed: &str, version: &str) -> State {
        let service: Service = serde_yaml_ng::from_str(&format!(
            "{{metadata: {{name: s, resourceVersion: '{version}', managedFields: [{managed}]}}}}"
        ))
        .unwrap();
        State::of(&service)
    }

    #[test]
    fn a_status_of_a_service_is_no_drift_but_an_edit_is() {
        let ours = "{manager: sluice, operation: Apply}";
        let status = format!("{ours}, {{manager: lb, operation: Update, subresource: status}}");
        let edit = format!("{ours}, {{manager: kubectl-edit, operation: Update}}");
        assert_eq!(state(ours, "1"), state(&status, "2"));
        assert_ne!(state(ours, "1"), state(&edit, "2"));
        assert_ne!(state("", "1"), state("", "2"));
    }
}
