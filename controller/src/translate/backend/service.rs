//! Reading Services: their ports and addresses.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// Address families by the names that Services and EndpointSlices use.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// Whether it is a name for something outside the cluster.
pub fn is_external_name(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName")
}

/// The port with this number.
pub fn port(service: &Service, number: u16, udp: bool) -> Option<&ServicePort> {
    let protocol = protocol(udp);
    let ports = service.spec.as_ref()?.ports.as_deref()?;
    ports
        .iter()
        .find(|port| port.port == i32::from(number) && port.protocol.as_deref().unwrap_or("TCP") == protocol)
}

/// A transport protocol as Services and EndpointSlices spell it.
pub fn protocol(udp: bool) -> &'static str {
    if udp { "UDP" } else { "TCP" }
}

/// Its own address; `None` if it is headless.
pub fn cluster_ip(service: &Service) -> Option<IpAddr> {
    service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok()
}

/// Address families of its endpoints, the preferred one first.
pub fn families(service: &Service) -> Vec<&str> {
    let given = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.as_deref())
        .unwrap_or_default();
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    let others = FAMILIES.into_iter().filter(|family| !given.contains(family));
    given.iter().copied().chain(others).collect()
}
