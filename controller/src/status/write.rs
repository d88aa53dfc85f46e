//! The calls to the API server for one status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use sluice_crds::envoy::{
    Backend, BackendTrafficPolicy, ClientTrafficPolicy, EnvoyExtensionPolicy, EnvoyPatchPolicy,
    SecurityPolicy,
};
use sluice_crds::gateway::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, Route, TCPRoute, TLSRoute,
    UDPRoute, XBackend, XBackendTrafficPolicy,
};

use super::merge::{self, Entries, OF_BACKENDS, OF_POLICIES, OF_ROUTES};
use crate::engine::Status;
use crate::leader::Leadership;
use crate::store::{Kind, Object, ObjectRef};

/// Field manager of what we apply.
const MANAGER: &str = "sluice";
/// Tries when somebody else writes at the same time, before the queue's pause.
const TRIES: usize = 3;

/// Writes statuses.
pub(super) struct Writer {
    client: Client,
    controller_name: String,
    leadership: Leadership,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All was as it should be, or there was nothing to write it to.
    Kept,
    Written,
    /// Written into a list that holds entries of others, who may not keep ours.
    Shared,
}

/// How a kind's status is written.
enum Way {
    /// The whole status is ours.
    Apply,
    /// Some entries of a list are ours.
    Entries(Entries),
}

impl Writer {
    pub fn new(client: Client, controller_name: &str, leadership: Leadership) -> Self {
        Self {
            client,
            controller_name: controller_name.to_owned(),
            leadership,
        }
    }

    /// Brings an object's status to `status`, or withdraws ours. An object that is gone, or lost leadership, takes no write.
    pub async fn write(&self, object: &ObjectRef, status: Option<&Status>) -> Result<Outcome, kube::Error> {
        let Some((resource, way)) = way(object.kind) else {
            return Ok(Outcome::Kept);
        };
        let api: Api<DynamicObject> = match &*object.namespace {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        };
        for last in (0..TRIES).map(|i| i + 1 == TRIES) {
            let Some(live) = api.get_opt(&object.name).await? else {
                return Ok(Outcome::Kept);
            };
            let Some(patch) = self.patch(object, &resource, &way, &live, status) else {
                return Ok(Outcome::Kept);
            };
            if !self.leadership.holds() {
                return Ok(Outcome::Kept);
            }
            let written = match way {
                Way::Apply => {
                    let params = PatchParams::apply(MANAGER).force();
                    api.patch_status(&object.name, &params, &Patch::Apply(&patch))
                        .await
                }
                Way::Entries(_) => {
                    let params = PatchParams {
                        field_manager: Some(MANAGER.to_owned()),
                        ..Default::default()
                    };
                    api.patch_status(&object.name, &params, &Patch::Merge(&patch))
                        .await
                }
            };
            match written {
                Ok(_) => return Ok(self.outcome(&way, &patch)),
                Err(error) if is_conflict(&error) && !last => {}
                // Deleted in the meantime.
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Outcome::Kept),
                Err(error) => return Err(error),
            }
        }
        Ok(Outcome::Kept)
    }

    fn outcome(&self, way: &Way, written: &Value) -> Outcome {
        let Way::Entries(entries) = way else {
            return Outcome::Written;
        };
        let list = written["status"][entries.list].as_array();
        let foreign = |entry: &Value| entry["controllerName"] != self.controller_name.as_str();
        if list.is_some_and(|list| list.iter().any(foreign)) {
            Outcome::Shared
        } else {
            Outcome::Written
        }
    }

    /// What to send; `None` if all is as it should be.
    fn patch(
        &self,
        object: &ObjectRef,
        resource: &ApiResource,
        way: &Way,
        live: &DynamicObject,
        status: Option<&Status>,
    ) -> Option<Value> {
        let present = live.data.get("status").unwrap_or(&Value::Null);
        let now = Time(Timestamp::now());
        match way {
            Way::Apply => {
                let wanted = status.map_or_else(|| json!({}), |status| merge::whole(status, present, &now));
                if merge::is_same(present, &wanted) || (status.is_none() && present.is_null()) {
                    return None;
                }
                let mut metadata = json!({ "name": &*object.name });
                if !object.namespace.is_empty() {
                    metadata["namespace"] = (*object.namespace).into();
                }
                Some(json!({
                    "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "status": wanted,
                }))
            }
            Way::Entries(entries) => {
                let present = present[entries.list]
                    .as_array()
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                let wanted = self.entries(*entries, present, status, &now);
                // The version makes the write fail if somebody else has written since.
                let metadata = json!({ "resourceVersion": live.metadata.resource_version });
                (wanted != present)
                    .then(|| json!({ "metadata": metadata, "status": { entries.list: wanted } }))
            }
        }
    }

    fn entries(&self, entries: Entries, live: &[Value], status: Option<&Status>, now: &Time) -> Vec<Value> {
        let name = &self.controller_name;
        match status {
            Some(Status::Route { generation, parents }) => {
                let ours = parents.iter().map(|p| (&p.parent_ref, p.conditions.as_slice()));
                entries.merge(live, name, *generation, ours, now)
            }
            Some(Status::Policy {
                generation,
                ancestors,
            }) => {
                let ours = ancestors
                    .iter()
                    .map(|a| (&a.ancestor_ref, a.conditions.as_slice()));
                entries.merge(live, name, *generation, ours, now)
            }
            _ => entries.merge(live, name, 0, std::iter::empty(), now),
        }
    }
}

/// Whether somebody else wrote at the same time.
pub(super) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn way(kind: Kind) -> Option<(ApiResource, Way)> {
    Some(match kind {
        Kind::GatewayClass => (ApiResource::erase::<GatewayClass>(&()), Way::Apply),
        Kind::Gateway => (ApiResource::erase::<Gateway>(&()), Way::Apply),
        Kind::ListenerSet => (ApiResource::erase::<ListenerSet>(&()), Way::Apply),
        Kind::HTTPRoute => (ApiResource::erase::<HTTPRoute>(&()), Way::Entries(OF_ROUTES)),
        Kind::GRPCRoute => (ApiResource::erase::<GRPCRoute>(&()), Way::Entries(OF_ROUTES)),
        Kind::TLSRoute => (ApiResource::erase::<TLSRoute>(&()), Way::Entries(OF_ROUTES)),
        Kind::TCPRoute => (ApiResource::erase::<TCPRoute>(&()), Way::Entries(OF_ROUTES)),
        Kind::UDPRoute => (ApiResource::erase::<UDPRoute>(&()), Way::Entries(OF_ROUTES)),
        Kind::BackendTLSPolicy => (
            ApiResource::erase::<BackendTLSPolicy>(&()),
            Way::Entries(OF_POLICIES),
        ),
        Kind::XBackend => (ApiResource::erase::<XBackend>(&()), Way::Entries(OF_BACKENDS)),
        Kind::XBackendTrafficPolicy => (
            ApiResource::erase::<XBackendTrafficPolicy>(&()),
            Way::Entries(OF_POLICIES),
        ),
        Kind::Backend => (ApiResource::erase::<Backend>(&()), Way::Apply),
        Kind::SecurityPolicy => of_policies::<SecurityPolicy>(),
        Kind::BackendTrafficPolicy => of_policies::<BackendTrafficPolicy>(),
        Kind::ClientTrafficPolicy => of_policies::<ClientTrafficPolicy>(),
        Kind::EnvoyExtensionPolicy => of_policies::<EnvoyExtensionPolicy>(),
        Kind::EnvoyPatchPolicy => of_policies::<EnvoyPatchPolicy>(),
        _ => return None,
    })
}

fn of_policies<T: kube::Resource<DynamicType = ()>>() -> (ApiResource, Way) {
    (ApiResource::erase::<T>(&()), Way::Entries(OF_POLICIES))
}

/// Whether the object, as the store has it, carries entries of ours.
pub(super) fn has_entries(object: &Object) -> bool {
    fn route<T: Route + crate::store::Stored>(object: &Object) -> bool {
        object
            .downcast::<T>()
            .is_some_and(|route| !route.route_status().is_empty())
    }
    macro_rules! policy {
        ($kind:ty) => {
            object
                .downcast::<$kind>()
                .is_some_and(|policy| policy.status.is_some())
        };
    }
    match object.reference().kind {
        Kind::SecurityPolicy => policy!(SecurityPolicy),
        Kind::BackendTrafficPolicy => policy!(BackendTrafficPolicy),
        Kind::ClientTrafficPolicy => policy!(ClientTrafficPolicy),
        Kind::EnvoyExtensionPolicy => policy!(EnvoyExtensionPolicy),
        Kind::EnvoyPatchPolicy => policy!(EnvoyPatchPolicy),
        Kind::HTTPRoute => route::<HTTPRoute>(object),
        Kind::GRPCRoute => route::<GRPCRoute>(object),
        Kind::TLSRoute => route::<TLSRoute>(object),
        Kind::TCPRoute => route::<TCPRoute>(object),
        Kind::UDPRoute => route::<UDPRoute>(object),
        Kind::BackendTLSPolicy => object
            .downcast::<BackendTLSPolicy>()
            .is_some_and(|policy| policy.status.is_some()),
        Kind::XBackendTrafficPolicy => object
            .downcast::<XBackendTrafficPolicy>()
            .is_some_and(|policy| policy.status.is_some()),
        _ => false,
    }
}
