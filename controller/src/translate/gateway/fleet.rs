//! The fleet that all Gateways of a class share if its parameters say `mergeGateways`: who shares it, what each may listen
//! on beside the others, and what has to run.
//!
//! Looks at what listeners ask for and at nothing that they name: what a listener serves is a matter of its Gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use sluice_crds::envoy::EnvoyProxySpec;
use sluice_crds::gateway::{Gateway, GatewayClass};

use super::address::Requested;
use super::listener::Draft;
use super::parameters::Reading;
use super::ports::Port;
use super::{binding, clients, conflict, sets};
use crate::engine::{GatewayRef, Infra, InfraPort, Infrastructure, Mode, View};
use crate::infra;
use crate::store::ObjectRef;
use crate::translate::model::{FleetModel, Protocol, Share};
use crate::translate::policy::envoy::client;
use crate::translate::precedence::Precedence;

/// The fleet that the Gateways of a class share; `None` if each has its own. Parameters that cannot be read say neither:
/// what runs goes on.
pub fn of_class(view: &View<'_>, class: &GatewayClass, reading: &Reading) -> Option<GatewayRef> {
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let fleet = GatewayRef::of_class(view.environment().namespace.as_str(), name);
    let asked = reading.parameters.proxy.merge_gateways;
    let shared = asked.unwrap_or_else(|| reading.unreadable && runs(view, &fleet));
    shared.then_some(fleet)
}

fn runs(view: &View<'_>, fleet: &GatewayRef) -> bool {
    let environment = view.environment();
    environment.mode == Mode::Cluster
        && view
            .list_in::<Service>(&fleet.namespace)
            .iter()
            .any(|service| infra::is_ours(&service.metadata, fleet, &environment.controller_name))
}

/// What the Gateways of a class have of the fleet that they share, and the fleet itself.
pub fn translate(
    view: &View<'_>,
    class: &GatewayClass,
    reading: &Reading,
    fleet: &GatewayRef,
) -> (FleetModel, Infrastructure) {
    let mut gateways = view.pointing_at::<Gateway>(&ObjectRef::of(class));
    gateways.sort_by_cached_key(|gateway| Precedence::of(&gateway.metadata));
    let mut drafts = Vec::new();
    // To whom each of the drafts belongs.
    let mut owners = Vec::new();
    for gateway in &gateways {
        let reference = ObjectRef::of(gateway.as_ref());
        let sets = sets::of(view, &reference, gateway);
        let mut own = sets::drafts(&reference, gateway, &sets, Draft::claim);
        clients::policies(view, &reference, gateway, &sets, &mut own, |draft, policy| {
            draft.http3 = draft.protocol == Some(Protocol::Https) && client::asks_for_http3(&policy.spec);
            draft.client_policy = Some(ObjectRef::of(policy.as_ref()));
        });
        drafts.append(&mut own);
        owners.resize(drafts.len(), GatewayRef::new(reference.namespace, reference.name));
    }
    conflict::settle(&mut drafts);
    clients::settle_http3(&mut drafts);
    let common = clients::in_common(&drafts, &owners);
    let ports: BTreeSet<_> = drafts.iter().flat_map(Draft::ports).collect();
    let proxy = &reading.parameters.proxy;
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let bound = binding::bind(view, fleet, name, proxy, reading.fault.is_some(), &ports);
    let mut shares: BTreeMap<GatewayRef, Share> = gateways
        .iter()
        .map(|gateway| (reference(gateway), Share::default()))
        .collect();
    for (draft, owner) in drafts.into_iter().zip(&owners) {
        if let Some(share) = shares.get_mut(owner) {
            share.add(draft, &bound, &common);
        }
    }
    let shares = shares
        .into_iter()
        .map(|(gateway, share)| (gateway, Arc::new(share)));
    let model = FleetModel {
        shares: shares.collect(),
    };
    let infra = infrastructure(view, class, reading, fleet, &gateways, &bound);
    (model, infra)
}

fn reference(gateway: &Gateway) -> GatewayRef {
    let ObjectRef { namespace, name, .. } = ObjectRef::of(gateway);
    GatewayRef::new(namespace, name)
}

impl Share {
    fn add(&mut self, draft: Draft, bound: &BTreeMap<Port, u16>, common: &BTreeMap<u16, Option<ObjectRef>>) {
        let held = draft.ports();
        self.bound
            .extend(held.filter_map(|port| Some((port, *bound.get(&port)?))));
        if let Some(policy) = common.get(&draft.port) {
            self.clients.insert(draft.port, policy.clone());
        }
        if let Some(conflict) = draft.conflict {
            self.conflicts.insert(draft.key, conflict);
        }
    }
}

/// One Deployment and one Service for all. Where the Gateways' own wishes for their objects contend, the oldest has its way.
fn infrastructure(
    view: &View<'_>,
    class: &GatewayClass,
    reading: &Reading,
    fleet: &GatewayRef,
    gateways: &[Arc<Gateway>],
    bound: &BTreeMap<Port, u16>,
) -> Infrastructure {
    if view.environment().mode != Mode::Cluster || gateways.is_empty() {
        return Infrastructure::None;
    }
    let mut infra = Infra {
        gateway: fleet.clone(),
        uid: class.metadata.uid.clone().unwrap_or_default(),
        class: class.metadata.name.as_deref().unwrap_or_default().into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        ports: InfraPort::all(bound),
        addresses: Vec::new(),
        cluster_only: true,
        proxy: Arc::<EnvoyProxySpec>::clone(&reading.parameters.proxy),
    };
    for gateway in gateways {
        let requested = Requested::read(&gateway.spec.addresses).unwrap_or_default();
        infra.cluster_only &= requested.cluster_only();
        for address in requested.ips() {
            if !infra.addresses.contains(&address) {
                infra.addresses.push(address);
            }
        }
        let wishes = gateway.spec.infrastructure.clone().unwrap_or_default();
        for (key, value) in wishes.labels {
            infra.labels.entry(key).or_insert(value);
        }
        for (key, value) in wishes.annotations {
            infra.annotations.entry(key).or_insert(value);
        }
    }
    if reading.fault.is_some() || infra.ports.is_empty() {
        Infrastructure::Keep(infra)
    } else {
        Infrastructure::Wanted(infra)
    }
}
