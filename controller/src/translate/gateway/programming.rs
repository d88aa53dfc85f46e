//! Whether the proxies that serve a Gateway are there, at which addresses, and what they refused.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use sluice_config::key;
use sluice_crds::envoy::EnvoyProxySpec;
use sluice_crds::gateway::GatewayStatusAddress;

use super::address::{self, Requested};
use super::listener::Draft;
use crate::engine::{GatewayRef, Mode, View};
use crate::infra;
use crate::translate::fault::Fault;

/// How far a Gateway's configuration has come.
#[derive(Debug, Default)]
pub struct Programming {
    /// Why the Gateway is not programmed.
    pub fault: Option<Fault>,
    /// Addresses that it has.
    pub addresses: Vec<GatewayStatusAddress>,
    /// Resources that a proxy refused, by key, with its reason.
    rejected: BTreeMap<String, String>,
}

impl Programming {
    /// That of a Gateway, which this fleet serves, as it would be if it is accepted.
    pub fn of(
        view: &View<'_>,
        fleet: &GatewayRef,
        class: &str,
        proxy: &EnvoyProxySpec,
        requested: &Requested,
    ) -> Self {
        let rejected = view.proxies(fleet).rejected;
        let settings = rejected
            .get(key::SETTINGS)
            .map(|why| Fault::new("Invalid", format!("a proxy refused its settings: {why}")));
        if let Mode::Standalone(address) = &view.environment().mode {
            return Self {
                fault: settings,
                addresses: vec![address::of(address)],
                rejected,
            };
        }
        let service_name = infra::service_name(fleet, class, proxy);
        let (addresses, fault) = match view.get::<Service>(&fleet.namespace, &service_name) {
            Some(service) => requested.assigned(&service),
            None => (
                Vec::new(),
                requested
                    .unusable()
                    .or_else(|| Some(pending("its Service is not there yet"))),
            ),
        };
        let absent = || absent(view, fleet, class, proxy);
        let fault = match fault {
            Some(fault) if fault.reason == "AddressNotUsable" => Some(fault),
            fault => absent().or(fault),
        };
        Self {
            fault: fault.or(settings),
            addresses,
            rejected,
        }
    }

    /// Says that the Gateway is not accepted. It keeps what addresses it has, for its proxies stay.
    pub fn refuse(&mut self, fault: &Fault) {
        let message = format!("not accepted: {}", fault.message);
        self.fault = Some(Fault::new("Invalid", message));
    }

    /// Why a listener that can serve does not.
    pub fn listener_fault(&self, draft: &Draft) -> Option<Fault> {
        let refused = draft
            .resource_keys()
            .into_iter()
            .find_map(|key| Some((key, self.rejected.get(key)?)));
        match (refused, &self.fault) {
            (Some((key, why)), _) => Some(Fault::new("Invalid", format!("a proxy refused {key}: {why}"))),
            (None, Some(fault)) => Some(pending(fault.message.clone())),
            (None, None) => None,
        }
    }
}

fn pending(message: impl Into<String>) -> Fault {
    Fault::new("Pending", message)
}

/// Why there is no proxy. DaemonSets are not watched: theirs count as there.
fn absent(view: &View<'_>, fleet: &GatewayRef, class: &str, proxy: &EnvoyProxySpec) -> Option<Fault> {
    if infra::is_daemon_set(proxy) {
        return None;
    }
    let name = infra::deployment_name(fleet, class, proxy);
    let deployment = view.get::<Deployment>(&fleet.namespace, &name);
    let available = deployment
        .and_then(|deployment| deployment.status.as_ref()?.available_replicas)
        .is_some_and(|replicas| replicas > 0);
    (!available).then(|| pending(format!("no proxy of Deployment {name} is available yet")))
}
