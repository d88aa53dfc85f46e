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

use anyhow::Result;

use self::certificates::Certificates;
use super::install;
use super::site::{self, LIMIT, START, Site};
use crate::build::images;
use crate::cluster::{self, Cluster};
use crate::cmd::Run;
use crate::paths;
use crate::progress::long;

const NAMESPACE: &str = "sluice-features";

/// One check. It may wait for what it expects, and leaves behind what the others count on.
struct Check {
    name: &'static str,
    run: fn(&World<'_>) -> Result<()>,
}

const CHECKS: [&[Check]; 6] = [
    &trust::CHECKS,
    &addresses::CHECKS,
    &auth::CHECKS,
    &session::CHECKS,
    &retry::CHECKS,
    &xbackend::CHECKS,
];

/// What the checks share.
struct World<'a> {
    site: Site<'a>,
    certificates: Certificates,
}

impl<'a> Deref for World<'a> {
    type Target = Site<'a>;

    fn deref(&self) -> &Site<'a> {
        &self.site
    }
}

/// Runs every check; those that fail are told together at the end.
pub fn run(cluster: &Cluster) -> Result<()> {
    install::crds(cluster)?;
    install::chart(cluster, "conformance")?;
    cluster::load_images(cluster, &[images::authorizer()?])?;
    remove(cluster)?;
    let result = long("preparing the Gateways", || prepare(cluster)).and_then(|world| {
        let checks = CHECKS.into_iter().flatten();
        site::check_all(checks.map(|check| (check.name, (check.run)(&world))))
    });
    if result.is_err() {
        site::logs(cluster, NAMESPACE);
    }
    result.and(remove(cluster))
}

fn prepare(cluster: &Cluster) -> Result<World<'_>> {
    install::apply_file(cluster, "e2e/manifests/features/namespace.yaml")?;
    let certificates = Certificates::make(&paths::state()?.join("features"), NAMESPACE)?;
    certificates.apply(cluster)?;
    for file in ["backends", "gateways", "routes", "xbackends"] {
        install::apply_file(cluster, &format!("e2e/manifests/features/{file}.yaml"))?;
    }
    let site = Site::ready(cluster, NAMESPACE)?;
    for deployment in ["echo", "tls-backend", "flaky", "authz", "labelled"] {
        install::wait_deployment(cluster, NAMESPACE, deployment)?;
    }
    Ok(World { site, certificates })
}

/// Deletes what a run leaves, or an earlier one has left.
fn remove(cluster: &Cluster) -> Result<()> {
    long("removing the features' objects", || {
        let delete = ["delete", "--ignore-not-found", "--timeout=120s"];
        cluster.kubectl(delete).args(["namespace", NAMESPACE]).text()?;
        cluster
            .kubectl(delete)
            .arg("clustertrustbundles.certificates.k8s.io")
            .args(certificates::BUNDLES)
            .text()
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_named_in_the_documentation() {
        let text = std::fs::read_to_string(paths::root().join("docs/features.md")).unwrap();
        for check in CHECKS.into_iter().flatten() {
            assert!(text.contains(&format!("`{}`", check.name)), "{}", check.name);
        }
    }
}
