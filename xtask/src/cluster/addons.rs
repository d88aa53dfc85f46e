//! What every cluster here runs from the start: the name server of the pods.

use super::settings::DNS;
use crate::build::images::COREDNS_IMAGE;

/// CoreDNS with the Service that the kubelet tells pods of. There is no way out, so it forwards nothing.
pub fn manifests() -> String {
    include_str!("coredns.yaml")
        .replace("{{IMAGE}}", COREDNS_IMAGE)
        .replace("{{DNS}}", DNS)
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_placeholder_is_left() {
        assert!(!super::manifests().contains("{{"));
    }
}
