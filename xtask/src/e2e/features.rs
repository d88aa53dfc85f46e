//! Features of Gateway API that the conformance suite has no test for, each checked on a real cluster. docs/features.md
//! says which check stands for which feature.
//!
//! All checks share a namespace with two Gateways, `main` with an address of the load balancer and `inside` without one.

mod addresses;
mod auth;
pub mod certificates;
mod retry;
mod session;
mod trust;
mod xbackend;

use std::ops::Deref;
use std::path::PathBuf;

use anyhow::Result;

use self::certificates::{BACKEND_HOST, Certificates, GATEWAY_HOST};
use super::install;
use super::site::{self, LIMIT, START, Site, Suite};
use crate::build::images;
use crate::checks;
use crate::cluster::Cluster;
use crate::paths;

const NAMESPACE: &str = "sluice-features";

type Check = checks::Check<World>;

/// What the checks share.
pub struct World {
    site: Site,
    certificates: Certificates,
}

impl Deref for World {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Suite for World {
    const NAMESPACE: &'static str = NAMESPACE;
    const VALUES: &'static [&'static str] = &["conformance"];
    const CHECKS: &'static [&'static [Check]] = &[
        &trust::CHECKS,
        &addresses::CHECKS,
        &auth::CHECKS,
        &session::CHECKS,
        &retry::CHECKS,
        &xbackend::CHECKS,
    ];

    fn images() -> Result<Vec<PathBuf>> {
        Ok(vec![images::AUTHORIZER.ensure()?])
    }

    fn prepare(cluster: &Cluster) -> Result<Self> {
        install::apply_file(cluster, "e2e/manifests/features/namespace.yaml")?;
        let servers = [("gateway-tls", GATEWAY_HOST), ("backend-tls", BACKEND_HOST)];
        let certificates = Certificates::make(&paths::state()?.join("features"), NAMESPACE, &servers)?;
        certificates.apply(cluster)?;
        for file in ["backends", "gateways", "routes", "xbackends"] {
            install::apply_file(cluster, &format!("e2e/manifests/features/{file}.yaml"))?;
        }
        let site = Site::ready(cluster, NAMESPACE)?;
        for deployment in ["echo", "tls-backend", "flaky", "authz", "labelled"] {
            install::wait_deployment(cluster, NAMESPACE, deployment)?;
        }
        Ok(Self { site, certificates })
    }

    fn remove(cluster: &Cluster) -> Result<()> {
        site::delete(cluster, "namespace", &[NAMESPACE])?;
        let bundles = "clustertrustbundles.certificates.k8s.io";
        site::delete(cluster, bundles, &certificates::BUNDLES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_named_in_the_documentation() {
        let text = std::fs::read_to_string(paths::root().join("docs/features.md")).unwrap();
        for check in World::checks() {
            assert!(text.contains(&format!("`{}`", check.name)), "{}", check.name);
        }
    }
}
