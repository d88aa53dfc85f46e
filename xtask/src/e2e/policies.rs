//! Envoy Gateway's kinds on a real cluster, with the fields that the guides of Envoy Gateway use; names and bounds are our
//! own. docs/migrate-from-envoy-gateway.md counts on what is checked here.
//!
//! All checks share a namespace with one Gateway `main`. A policy is for the route of its name, which leads from the path
//! of that name to the echo backend.

mod client;
mod migration;
mod routing;
mod security;
mod traffic;

use std::ops::Deref;

use anyhow::{Result, ensure};
use serde_json::json;

use super::features::certificates::Certificates;
use super::install;
use super::site::{self, Site};
use crate::build::images;
use crate::cluster::{self, Cluster};
use crate::cmd::Run;
use crate::paths;
use crate::progress::long;

const NAMESPACE: &str = "sluice-policies";

/// One check: it may wait for what it expects.
struct Check {
    name: &'static str,
    run: fn(&World<'_>) -> Result<()>,
}

const CHECKS: [&[Check]; 5] = [
    &security::CHECKS,
    &traffic::CHECKS,
    &client::CHECKS,
    &routing::CHECKS,
    &migration::CHECKS,
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

/// Runs every check.
pub fn run(cluster: &Cluster) -> Result<()> {
    install::crds(cluster)?;
    install::chart(cluster, "conformance")?;
    cluster::load_images(cluster, &[images::authorizer()?])?;
    remove(cluster)?;
    let result = long("preparing the Gateway", || prepare(cluster)).and_then(|world| {
        let checks = CHECKS.into_iter().flatten();
        site::check_all(checks.map(|check| (check.name, (check.run)(&world))))
    });
    if result.is_err() {
        site::logs(cluster, NAMESPACE);
    }
    result.and(remove(cluster))
}

fn prepare(cluster: &Cluster) -> Result<World<'_>> {
    install::apply_file(cluster, "e2e/manifests/policies/namespace.yaml")?;
    let certificates = Certificates::make(&paths::state()?.join("policies"), NAMESPACE)?;
    certificates.apply_secrets(cluster)?;
    let clients = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "example-ca-cert", "namespace": NAMESPACE},
        "data": {"ca.crt": certificates.good},
    });
    cluster.apply(&clients.to_string())?;
    for file in [
        "backends",
        "gateway",
        "security",
        "traffic",
        "client",
        "routing",
        "extension",
    ] {
        install::apply_file(cluster, &format!("e2e/manifests/policies/{file}.yaml"))?;
    }
    let site = Site::ready(cluster, NAMESPACE)?;
    for deployment in ["echo", "authz"] {
        install::wait_deployment(cluster, NAMESPACE, deployment)?;
    }
    Ok(World { site, certificates })
}

fn remove(cluster: &Cluster) -> Result<()> {
    long("removing the policies' objects", || {
        let delete = ["delete", "--ignore-not-found", "--timeout=120s"];
        cluster.kubectl(delete).args(["namespace", NAMESPACE]).text()
    })
    .map(drop)
}

impl World<'_> {
    /// Each policy is accepted, and what it has no effect for is nothing.
    fn accepted(&self, kind: &str, names: &[&str]) -> Result<()> {
        for name in names {
            let reason = self.wait_condition(kind, name, "Accepted", true)?;
            ensure!(reason == "Accepted", "{kind} {name}: reason {reason}");
            let policy = self.object(kind, name)?;
            let conditions = &policy["status"]["ancestors"][0]["conditions"];
            ensure!(
                install::condition(conditions, "Warning").is_none(),
                "{kind} {name}: {conditions}"
            );
        }
        Ok(())
    }

    /// The policy is refused for this reason, and its route answers 500 while others go on.
    fn refused(&self, kind: &str, name: &str, reason: &str) -> Result<()> {
        let found = self.wait_condition(kind, name, "Accepted", false)?;
        ensure!(
            found == reason,
            "{kind} {name}: reason {found} instead of {reason}"
        );
        self.wait_status(&format!("/{name}"), &[], 500)?;
        self.wait_status("/plain", &[], 200).map(drop)
    }
}
