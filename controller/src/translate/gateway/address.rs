//! Addresses of a Gateway: what its spec asks for, and what its Service has.
//!
//! Nodes are not watched: a Service of type NodePort is known by its external or cluster addresses.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use sluice_crds::gateway::{
    AddressType, GatewayAddressRoutability, GatewaySpecAddress, GatewayStatusAddress as Address,
};

use crate::translate::fault::Fault;

/// One address that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    type_: AddressType,
    /// Empty: any.
    value: String,
    cluster: bool,
}

/// What `spec.addresses` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requested(Vec<Wanted>);

impl Requested {
    /// Reads `spec.addresses`; fails for a type or routability that is not supported.
    pub fn read(addresses: &[GatewaySpecAddress]) -> Result<Self, Fault> {
        let unsupported = |index: usize, what: &str| {
            Fault::new(
                "UnsupportedAddress",
                format!("spec.addresses[{index}]: {what} is not supported"),
            )
        };
        let mut wanted = Vec::with_capacity(addresses.len());
        for (index, address) in addresses.iter().enumerate() {
            let type_ = address.type_.clone().unwrap_or(AddressType::IpAddress);
            if !matches!(type_, AddressType::IpAddress | AddressType::Hostname) {
                return Err(unsupported(index, &format!("type {type_}")));
            }
            let cluster = match address
                .routability
                .as_ref()
                .unwrap_or(&GatewayAddressRoutability::Default)
            {
                GatewayAddressRoutability::Default => false,
                GatewayAddressRoutability::Cluster if type_ == AddressType::Hostname => {
                    return Err(unsupported(index, "routability Cluster of a Hostname"));
                }
                GatewayAddressRoutability::Cluster => true,
                other @ GatewayAddressRoutability::Other(_) => {
                    return Err(unsupported(index, &format!("routability {other}")));
                }
            };
            wanted.push(Wanted {
                type_,
                value: address.value.clone().unwrap_or_default(),
                cluster,
            });
        }
        Ok(Self(wanted))
    }

    /// Nothing is asked for that is reachable from outside the cluster.
    pub fn cluster_only(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|wanted| wanted.cluster)
    }

    /// The IP addresses that the Service can be asked to have.
    pub fn ips(&self) -> Vec<String> {
        let ips = self
            .0
            .iter()
            .filter(|wanted| wanted.type_ == AddressType::IpAddress);
        ips.filter(|wanted| is_usable(&wanted.value))
            .map(|wanted| wanted.value.clone())
            .collect()
    }

    /// Why an address that is asked for can never be had.
    pub fn unusable(&self) -> Option<Fault> {
        let mut ips = self
            .0
            .iter()
            .filter(|wanted| wanted.type_ == AddressType::IpAddress && !wanted.value.is_empty());
        let bad = ips.find(|wanted| !is_usable(&wanted.value))?;
        let message = format!(
            "spec.addresses: {} is no address that a Service can have",
            bad.value
        );
        Some(Fault::new("AddressNotUsable", message))
    }

    /// The addresses that the Gateway has, given its Service; and why they are not what is asked for.
    pub fn assigned(&self, service: &Service) -> (Vec<Address>, Option<Fault>) {
        let outside = outside(service);
        let inside: Vec<_> = cluster_ips(service.spec.as_ref())
            .into_iter()
            .map(|ip| Address {
                routability: Some(GatewayAddressRoutability::Cluster),
                ..ip
            })
            .collect();
        if self.0.is_empty() {
            let fault = outside
                .is_empty()
                .then(|| not_assigned("the Service has no address yet"));
            return (outside, fault);
        }
        let (mut addresses, mut fault) = (Vec::new(), self.unusable());
        for wanted in &self.0 {
            let available = if wanted.cluster { &inside } else { &outside };
            let fits = |address: &&Address| {
                address.type_.as_ref() == Some(&wanted.type_)
                    && (wanted.value.is_empty() || is_same(&address.value, &wanted.value))
            };
            let found: Vec<_> = available.iter().filter(fits).cloned().collect();
            if found.is_empty() {
                fault = fault.or_else(|| Some(missing(wanted, available.is_empty())));
            }
            for address in found {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        (addresses, fault)
    }
}

fn not_assigned(message: impl Into<String>) -> Fault {
    Fault::new("AddressNotAssigned", message)
}

fn missing(wanted: &Wanted, none_at_all: bool) -> Fault {
    if wanted.value.is_empty() {
        not_assigned(format!(
            "spec.addresses: the Service has no address of type {}",
            wanted.type_
        ))
    } else if none_at_all {
        not_assigned(format!(
            "spec.addresses: {} is not assigned to the Service yet",
            wanted.value
        ))
    } else {
        let message = format!(
            "spec.addresses: {} is not among the Service's addresses",
            wanted.value
        );
        Fault::new("AddressNotUsable", message)
    }
}

fn is_same(one: &str, other: &str) -> bool {
    match (one.parse::<IpAddr>(), other.parse::<IpAddr>()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one.eq_ignore_ascii_case(other),
    }
}

/// Whether it is an address that a Service can have: the API server takes no special ones, and no packet ever reaches
/// those that are reserved for documentation (RFC 5737, RFC 3849).
fn is_usable(value: &str) -> bool {
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.is_documentation())
        }
        Ok(IpAddr::V6(ip)) => {
            let documentation = ip.segments()[..2] == [0x2001, 0xdb8];
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                || documentation)
        }
        Err(_) => false,
    }
}

/// Addresses by which a Service is reached from outside, as far as it has such ones.
fn outside(service: &Service) -> Vec<Address> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let mut addresses = Vec::new();
    if spec.type_.as_deref() == Some("LoadBalancer") {
        let balancer = service
            .status
            .as_ref()
            .and_then(|status| status.load_balancer.as_ref());
        for ingress in balancer
            .and_then(|balancer| balancer.ingress.as_ref())
            .into_iter()
            .flatten()
        {
            addresses.extend(
                ingress
                    .ip
                    .as_ref()
                    .or(ingress.hostname.as_ref())
                    .map(|address| of(address)),
            );
        }
    }
    for ip in spec.external_ips.iter().flatten() {
        let address = of(ip);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() && spec.type_.as_deref() != Some("LoadBalancer") {
        addresses = cluster_ips(Some(spec));
    }
    addresses
}

fn cluster_ips(spec: Option<&ServiceSpec>) -> Vec<Address> {
    let Some(spec) = spec else { return Vec::new() };
    let all = spec.cluster_ips.iter().flatten();
    let first = spec.cluster_ip.iter().filter(|_| spec.cluster_ips.is_none());
    let is_address = |ip: &&String| !ip.is_empty() && *ip != "None";
    all.chain(first).filter(is_address).map(|ip| of(ip)).collect()
}

/// An address as the status has it.
pub fn of(address: &str) -> Address {
    let is_ip = address.parse::<IpAddr>().is_ok();
    let type_ = if is_ip {
        AddressType::IpAddress
    } else {
        AddressType::Hostname
    };
    Address {
        type_: Some(type_),
        value: address.to_owned(),
        routability: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(yaml: &str) -> Service {
        serde_yaml_ng::from_str(yaml).unwrap()
    }

    fn requested(yaml: &str) -> Requested {
        let addresses: Vec<GatewaySpecAddress> = serde_yaml_ng::from_str(yaml).unwrap();
        Requested::read(&addresses).unwrap()
    }

    fn outcome(requested: &Requested, service: &Service) -> (Vec<String>, Option<&'static str>) {
        let (addresses, fault) = requested.assigned(service);
        (
            addresses.into_iter().map(|address| address.value).collect(),
            fault.map(|fault| fault.reason),
        )
    }

    const BALANCED: &str = "{spec: {type: LoadBalancer, clusterIPs: [10.0.0.1]}, \
                            status: {loadBalancer: {ingress: [{ip: 8.8.4.4}, {hostname: lb.example}]}}}";

    #[test]
    fn a_load_balancers_addresses() {
        let (any, service) = (Requested::default(), service(BALANCED));
        assert_eq!(
            outcome(&any, &service),
            (vec!["8.8.4.4".into(), "lb.example".into()], None)
        );
        assert_eq!(
            outcome(&requested("[{type: IPAddress}]"), &service),
            (vec!["8.8.4.4".into()], None)
        );
        assert_eq!(
            outcome(&requested("[{type: Hostname, value: LB.example}]"), &service),
            (vec!["lb.example".into()], None)
        );
        let cluster = requested("[{routability: Cluster}]");
        assert_eq!(outcome(&cluster, &service), (vec!["10.0.0.1".into()], None));
        assert!(cluster.cluster_only());
    }

    #[test]
    fn without_a_load_balancer() {
        let node_port = service("{spec: {type: NodePort, clusterIPs: [10.0.0.1], externalIPs: [8.8.8.8]}}");
        assert_eq!(
            outcome(&Requested::default(), &node_port),
            (vec!["8.8.8.8".into()], None)
        );
        let cluster_ip = service("{spec: {type: ClusterIP, clusterIP: 10.0.0.1}}");
        assert_eq!(
            outcome(&Requested::default(), &cluster_ip),
            (vec!["10.0.0.1".into()], None)
        );
        let waiting = service("{spec: {type: LoadBalancer, clusterIPs: [10.0.0.1]}}");
        assert_eq!(
            outcome(&Requested::default(), &waiting),
            (vec![], Some("AddressNotAssigned"))
        );
    }

    #[test]
    fn addresses_that_cannot_be_had() {
        let service = service(BALANCED);
        assert_eq!(
            outcome(&requested("[{value: 192.0.2.1}]"), &service),
            (vec![], Some("AddressNotUsable"))
        );
        assert_eq!(
            outcome(&requested("[{value: 9.9.9.9}]"), &service),
            (vec![], Some("AddressNotUsable"))
        );
        assert_eq!(
            requested("[{value: 192.0.2.1}, {value: 9.9.9.9}]").ips(),
            ["9.9.9.9"]
        );
        let named: Vec<GatewaySpecAddress> =
            serde_yaml_ng::from_str("[{type: NamedAddress, value: x}]").unwrap();
        assert_eq!(Requested::read(&named).unwrap_err().reason, "UnsupportedAddress");
    }
}
