//! The Service: where clients find a Gateway's proxies.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_crds::envoy::{IPFamily, KubernetesServiceSpec, ServiceExternalTrafficPolicy, ServiceType};

use super::{Child, ChildKind, Context, RenderError, finish, name};
use crate::engine::InfraPort;

/// `None` if there is no port to serve: a Service must have one.
pub(super) fn service(context: &Context<'_>) -> Result<Option<Child>, RenderError> {
    let infra = context.infra;
    if infra.ports.is_empty() {
        return Ok(None);
    }
    let asked = context
        .kubernetes()
        .and_then(|k| k.envoy_service.clone())
        .unwrap_or_default();
    let kind = match &asked.type_ {
        _ if infra.cluster_only => ServiceType::ClusterIp,
        None => ServiceType::LoadBalancer,
        Some(ServiceType::Other(other)) => {
            return Err(RenderError::new(
                "provider.kubernetes.envoyService.type",
                format!("Service type {other} is not supported"),
            ));
        }
        Some(kind) => kind.clone(),
    };
    let service = Service {
        metadata: context.metadata_with(
            name::service_name(&infra.gateway, &infra.class, &infra.proxy),
            &asked.labels,
            &asked.annotations,
        ),
        spec: Some(spec(context, &asked, &kind)),
        status: None,
    };
    finish(
        ChildKind::Service,
        &service,
        asked.patch.as_ref(),
        "provider.kubernetes.envoyService.patch",
    )
    .map(Some)
}

fn spec(context: &Context<'_>, asked: &KubernetesServiceSpec, kind: &ServiceType) -> ServiceSpec {
    let external = *kind != ServiceType::ClusterIp;
    let balanced = *kind == ServiceType::LoadBalancer;
    let addresses = &context.infra.addresses;
    let policy = asked
        .external_traffic_policy
        .clone()
        .unwrap_or(ServiceExternalTrafficPolicy::Local);
    let (families, family_policy) = families(context);
    ServiceSpec {
        type_: Some(kind.to_string()),
        selector: Some(context.selector()),
        ports: Some(context.infra.ports.iter().map(port).collect()),
        external_traffic_policy: external.then(|| policy.to_string()),
        // A load balancer gives one address for each family; one that is asked for must be given or the Gateway is not
        // programmed. Without a load balancer the nodes themselves take what is sent to the address.
        load_balancer_ip: asked
            .load_balancer_ip
            .clone()
            .or_else(|| addresses.first().cloned())
            .filter(|_| balanced),
        external_ips: (!balanced && !addresses.is_empty()).then(|| addresses.clone()),
        load_balancer_class: asked.load_balancer_class.clone().filter(|_| balanced),
        allocate_load_balancer_node_ports: asked.allocate_load_balancer_node_ports.filter(|_| balanced),
        load_balancer_source_ranges: (balanced && !asked.load_balancer_source_ranges.is_empty())
            .then(|| asked.load_balancer_source_ranges.clone()),
        ip_families: families,
        ip_family_policy: family_policy,
        ..Default::default()
    }
}

fn port(port: &InfraPort) -> ServicePort {
    ServicePort {
        name: Some(port_name(port)),
        port: port.port.into(),
        protocol: Some(protocol(port).to_owned()),
        target_port: Some(IntOrString::Int(port.bind_port.into())),
        ..Default::default()
    }
}

pub(super) fn port_name(port: &InfraPort) -> String {
    format!("{}-{}", if port.udp { "udp" } else { "tcp" }, port.port)
}

pub(super) fn protocol(port: &InfraPort) -> &'static str {
    if port.udp { "UDP" } else { "TCP" }
}

fn families(context: &Context<'_>) -> (Option<Vec<String>>, Option<String>) {
    match &context.infra.proxy.ip_family {
        Some(IPFamily::IPv4) => (Some(vec!["IPv4".to_owned()]), Some("SingleStack".to_owned())),
        Some(IPFamily::IPv6) => (Some(vec!["IPv6".to_owned()]), Some("SingleStack".to_owned())),
        Some(IPFamily::DualStack) => (None, Some("PreferDualStack".to_owned())),
        _ => (None, None),
    }
}
