//! What the objects of a fleet of proxies are called. Pure: translation uses it to find them again.

use std::fmt::Write;

use sha2::{Digest, Sha256};
use sluice_crds::envoy::{EnvoyProxyKubernetesProvider, EnvoyProxySpec};

use crate::engine::GatewayRef;

/// Longest name that a Service, and a label value, can have.
const LONGEST: usize = 63;
/// Characters of the digest that tells apart names that had to be changed.
const DIGEST: usize = 8;

/// Name of a Gateway's Deployment, Service, ServiceAccount and ConfigMap: `<gateway>-<class>` (GEP-1762). If that is no
/// name for a Service (RFC 1035 label: at most 63 characters, no dot, a letter first), it is made one, with a digest of
/// the original at its end. Those of a fleet that the Gateways of a class share are called `class-<class>-<digest>`.
pub fn name(gateway: &GatewayRef, class: &str) -> String {
    let plain = match gateway.class() {
        Some(_) => gateway.name.to_string(),
        None => format!("{}-{class}", gateway.name),
    };
    if is_label(&plain) {
        return plain;
    }
    let mut label = plain.replace(['.', '_'], "-");
    if !label.starts_with(|c: char| c.is_ascii_lowercase()) {
        label.insert_str(0, "gw-");
    }
    label.truncate(LONGEST - DIGEST - 1);
    let digest = Sha256::digest(plain.as_bytes());
    let mut name = format!("{}-", label.trim_end_matches('-'));
    for byte in digest.iter().take(DIGEST / 2) {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// Name of a Gateway's Service, which EnvoyProxy parameters can set.
pub fn service_name(gateway: &GatewayRef, class: &str, proxy: &EnvoyProxySpec) -> String {
    let set = kubernetes(proxy).and_then(|k| k.envoy_service.as_ref()?.name.clone());
    set.unwrap_or_else(|| name(gateway, class))
}

/// Name of a Gateway's Deployment, which EnvoyProxy parameters can set.
pub fn deployment_name(gateway: &GatewayRef, class: &str, proxy: &EnvoyProxySpec) -> String {
    let set = kubernetes(proxy).and_then(|k| k.envoy_deployment.as_ref()?.name.clone());
    set.unwrap_or_else(|| name(gateway, class))
}

/// Whether the proxies run as a DaemonSet instead of a Deployment.
pub fn is_daemon_set(proxy: &EnvoyProxySpec) -> bool {
    kubernetes(proxy).is_some_and(|k| k.envoy_daemon_set.is_some() && k.envoy_deployment.is_none())
}

pub(super) fn kubernetes(proxy: &EnvoyProxySpec) -> Option<&EnvoyProxyKubernetesProvider> {
    proxy.provider.as_ref()?.kubernetes.as_ref()
}

fn is_label(name: &str) -> bool {
    name.len() <= LONGEST
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(gateway: &str) -> String {
        name(&GatewayRef::new("ns", gateway), "sluice")
    }

    #[test]
    fn follows_gep_1762() {
        assert_eq!(named("edge"), "edge-sluice");
    }

    #[test]
    fn a_fleet_of_a_class_has_a_name_that_no_gateways_has() {
        let shared = name(&GatewayRef::of_class("ns", "sluice"), "sluice");
        assert!(
            is_label(&shared) && shared.starts_with("class-sluice-"),
            "{shared}"
        );
        assert_ne!(shared, name(&GatewayRef::of_class("ns", "slu.ice"), "slu.ice"));
        assert_ne!(shared, named("class"));
    }

    #[test]
    fn makes_labels_of_other_names() {
        let long = "a".repeat(120);
        for gateway in ["edge.v1", "0edge", &long] {
            assert!(is_label(&named(gateway)), "{}", named(gateway));
        }
        assert!(named("edge.v1").starts_with("edge-v1-sluice-"));
        assert_ne!(named("edge.v1"), named("edge-v1"));
        assert_ne!(named(&long), named(&"a".repeat(121)));
    }
}
