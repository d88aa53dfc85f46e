//! Which ports of the pods the ports of a fleet are bound as, given its parameters and what runs.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_crds::envoy::EnvoyProxySpec;

use super::ports::{self, Port};
use crate::engine::{GatewayRef, Mode, View};
use crate::infra;

/// How each of these ports is bound; what finds no place is missing. `refused`: what runs stays as it is.
pub fn bind(
    view: &View<'_>,
    fleet: &GatewayRef,
    class: &str,
    proxy: &EnvoyProxySpec,
    refused: bool,
    ports: &BTreeSet<Port>,
) -> BTreeMap<Port, u16> {
    let kubernetes = proxy.provider.as_ref().and_then(|p| p.kubernetes.as_ref());
    let as_is = matches!(view.environment().mode, Mode::Standalone(_))
        || kubernetes.is_some_and(|k| k.use_listener_port_as_container_port == Some(true));
    if as_is {
        return ports.iter().map(|port| (*port, port.number)).collect();
    }
    let mut bound = ports::bind(ports);
    if refused {
        bound.extend(served(view, fleet, class, proxy, ports));
    }
    bound
}

/// How the Service that is there says that these ports are bound.
fn served(
    view: &View<'_>,
    fleet: &GatewayRef,
    class: &str,
    proxy: &EnvoyProxySpec,
    ports: &BTreeSet<Port>,
) -> BTreeMap<Port, u16> {
    let name = infra::service_name(fleet, class, proxy);
    let service = view.get::<Service>(&fleet.namespace, &name);
    let theirs = service
        .as_ref()
        .and_then(|service| service.spec.as_ref()?.ports.as_ref());
    let bound = |port: &ServicePort| {
        let Some(IntOrString::Int(target)) = port.target_port else {
            return None;
        };
        let of = Port {
            number: u16::try_from(port.port).ok()?,
            udp: port.protocol.as_deref() == Some("UDP"),
        };
        Some((of, u16::try_from(target).ok()?)).filter(|(of, _)| ports.contains(of))
    };
    theirs.into_iter().flatten().filter_map(bound).collect()
}
