//! The addresses of a Service's port: its endpoints, or its ClusterIP; and those of an XBackend.
//!
//! Reads these and EndpointSlices and nothing else: when pods come and go, this is all that is done anew.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_config::{key, v1};
use sluice_crds::envoy::Backend;
use sluice_crds::gateway::XBackend;

use super::{envoy, service, x_backend};
use crate::engine::{EndpointsId, Output, View};
use crate::store::{Kind, ObjectRef};
use crate::translate::model::RoutingType;

/// Endpoints by address and port.
type Found = BTreeMap<(IpAddr, u16), v1::Endpoint>;

/// Key of the resource.
pub fn resource_key(id: &EndpointsId) -> String {
    let key = key::endpoints(
        id.target.kind.as_str(),
        &id.target.namespace,
        &id.target.name,
        id.port,
    );
    let udp = if id.udp { "/udp" } else { "" };
    let routing = match id.routing {
        RoutingType::Endpoint => "",
        RoutingType::Service => "/service",
    };
    let look_up = id.look_up.map(|how| {
        let ttl = if how.ignore_ttl { "fixed" } else { "ttl" };
        format!("/dns/{}/{}/{ttl}", how.family.as_str_name(), how.refresh_ms)
    });
    format!("{key}{udp}{routing}{}", look_up.unwrap_or_default())
}

/// Whether any of them is given by name.
pub fn are_named(target: &ObjectRef, view: &View<'_>) -> bool {
    match target.kind {
        Kind::XBackend => view
            .get::<XBackend>(&target.namespace, &target.name)
            .is_some_and(|object| x_backend::hostname(&object).is_some()),
        Kind::Backend => view
            .get::<Backend>(&target.namespace, &target.name)
            .is_some_and(|object| {
                object
                    .spec
                    .endpoints
                    .iter()
                    .any(|endpoint| endpoint.fqdn.is_some())
            }),
        _ => false,
    }
}

/// Translates the addresses of one port.
pub fn translate(id: &EndpointsId, view: &View<'_>) -> Output {
    let mut endpoints = match id.target.kind {
        Kind::Service => of_service(id, view).unwrap_or_default(),
        Kind::XBackend => of_x_backend(id, view).unwrap_or_default(),
        Kind::Backend => view
            .get::<Backend>(&id.target.namespace, &id.target.name)
            .map(|object| envoy::endpoints(view, &object))
            .unwrap_or_default(),
        _ => Vec::new(),
    };
    for endpoint in endpoints.iter_mut().filter(|e| !e.hostname.is_empty()) {
        endpoint.dns = id.look_up.map(Into::into);
    }
    let mut output = Output::default();
    output.shared.add(
        resource_key(id),
        v1::resource::Body::Endpoints(v1::Endpoints { endpoints }),
    );
    output
}

fn of_service(id: &EndpointsId, view: &View<'_>) -> Option<Vec<v1::Endpoint>> {
    let object = view.get::<Service>(&id.target.namespace, &id.target.name)?;
    let port = service::port(&object, id.port, id.udp)?;
    if id.routing == RoutingType::Service
        && let Some(address) = service::cluster_ip(&object)
    {
        return Some(vec![v1::Endpoint {
            address: address.to_string(),
            port: u32::from(id.port),
            ..Default::default()
        }]);
    }
    // A headless Service has no address of its own.
    Some(behind(&object, port, id.udp, view))
}

/// A name, or the pods behind the Service that was made for them.
fn of_x_backend(id: &EndpointsId, view: &View<'_>) -> Option<Vec<v1::Endpoint>> {
    let object = view.get::<XBackend>(&id.target.namespace, &id.target.name)?;
    if let Some(hostname) = x_backend::hostname(&object) {
        return Some(vec![v1::Endpoint {
            hostname: hostname.to_owned(),
            port: u32::from(id.port),
            allow_local: view.environment().allows_local_endpoints(),
            ..Default::default()
        }]);
    }
    let services = x_backend::services(&object, view);
    let service = services.first()?;
    let port = service::port(service, id.port, id.udp)?;
    Some(behind(service, port, id.udp, view))
}

/// The endpoints of a Service's port.
fn behind(object: &Service, port: &ServicePort, udp: bool, view: &View<'_>) -> Vec<v1::Endpoint> {
    let slices = view.pointing_at::<EndpointSlice>(&ObjectRef::of(object));
    // Pods of a dual-stack Service are in slices of both families: one of them will do.
    let of_family = service::families(object).into_iter().find_map(|family| {
        let mut found = Found::new();
        for slice in slices.iter().filter(|slice| slice.address_type == family) {
            add_slice(slice, port, udp, &mut found);
        }
        (!found.is_empty()).then(|| found.into_values().collect())
    });
    of_family.unwrap_or_default()
}

fn add_slice(slice: &EndpointSlice, port: &ServicePort, udp: bool, found: &mut Found) {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let ports = slice.ports.iter().flatten();
    let ports = ports.filter(|candidate| {
        name(&candidate.name) == name(&port.name)
            && candidate.protocol.as_deref().unwrap_or("TCP") == service::protocol(udp)
    });
    // Named target ports may come to another number in each slice. No number: any, so the Service's own.
    let numbers: Vec<_> = ports
        .filter_map(|candidate| u16::try_from(candidate.port.unwrap_or_else(|| target_port(port))).ok())
        .collect();
    for endpoint in slice.endpoints.iter().flatten() {
        let Some(draining) = draining(endpoint) else {
            continue;
        };
        // All addresses of an endpoint are of one pod; the API says to use the first.
        let Some(Ok(address)) = endpoint.addresses.first().map(|a| a.parse::<IpAddr>()) else {
            continue;
        };
        for &port in &numbers {
            let zone = endpoint.zone.clone().unwrap_or_default();
            let new = v1::Endpoint {
                address: address.to_string(),
                port: u32::from(port),
                draining,
                zone,
                ..Default::default()
            };
            // While a pod moves between slices it may be in both.
            let held = found.entry((address, port)).or_insert_with(|| new.clone());
            if held.draining && !draining {
                *held = new;
            }
        }
    }
}

fn target_port(port: &ServicePort) -> i32 {
    match &port.target_port {
        Some(IntOrString::Int(number)) => *number,
        _ => port.port,
    }
}

/// `None`: it serves nothing. True: it is about to end and still serves.
fn draining(endpoint: &Endpoint) -> Option<bool> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    // The API has an absent `ready` count as true.
    if conditions.ready.unwrap_or(true) {
        return Some(false);
    }
    let serving = conditions.serving.unwrap_or(false) && conditions.terminating.unwrap_or(false);
    serving.then_some(true)
}
