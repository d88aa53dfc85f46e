//! Features of Gateway API that the conformance suite has no test for, each checked on a real cluster. docs/features.md
//! says which check stands for which feature.
//!
//! All checks share a namespace with two Gateways, `main` with an address of the load balancer and `inside` without one.

mod addresses;
mod auth;
mod certificates;
mod retry;
mod session;
mod trust;
mod xbackend;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::certificates::Certificates;
use super::install;
use crate::build::images;
use crate::cluster::{self, Cluster};
use crate::cmd::{Run, tail};
use crate::curl::{self, Answer};
use crate::netns::Netns;
use crate::paths;
use crate::progress::{long, say, wait_for};

const NAMESPACE: &str = "sluice-features";
const LIMIT: Duration = Duration::from_mins(1);
/// Images come from the node's own store, but a small machine starts the pods one after another.
const START: Duration = Duration::from_mins(3);

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
    cluster: &'a Cluster,
    /// The address of the Gateway `main`.
    gateway: String,
    certificates: Certificates,
}

/// Runs every check; those that fail are told together at the end.
pub fn run(cluster: &Cluster) -> Result<()> {
    install::crds(cluster)?;
    install::chart(cluster, "conformance")?;
    cluster::load_images(cluster, &[images::authorizer()?])?;
    remove(cluster)?;
    let result = long("preparing the Gateways", || prepare(cluster)).and_then(|world| check_all(&world));
    if result.is_err() {
        logs(cluster);
    }
    result.and(remove(cluster))
}

fn prepare(cluster: &Cluster) -> Result<World<'_>> {
    install::apply_file(cluster, "e2e/manifests/features/namespace.yaml")?;
    let certificates = Certificates::make(&paths::state()?.join("features"))?;
    certificates.apply(cluster)?;
    for file in ["backends", "gateways", "routes", "xbackends"] {
        install::apply_file(cluster, &format!("e2e/manifests/features/{file}.yaml"))?;
    }
    let gateway = wait_for("Gateway main Programmed, with an address", START, || {
        let gateway = cluster.get(&["gateway", "main", "--namespace", NAMESPACE])?;
        let programmed = install::condition(&gateway["status"]["conditions"], "Programmed");
        ensure!(
            programmed.is_some_and(|(status, _)| status),
            "it is {programmed:?}"
        );
        Ok(gateway["status"]["addresses"][0]["value"]
            .as_str()
            .map(str::to_owned))
    })?;
    for deployment in ["echo", "tls-backend", "flaky", "authz", "labelled"] {
        install::wait_deployment(cluster, NAMESPACE, deployment)?;
    }
    Ok(World {
        cluster,
        gateway,
        certificates,
    })
}

fn check_all(world: &World<'_>) -> Result<()> {
    let mut failed = Vec::new();
    for check in CHECKS.into_iter().flatten() {
        match (check.run)(world) {
            Ok(()) => println!("ok      {}", check.name),
            Err(error) => {
                println!("FAILED  {}: {error:#}", check.name);
                failed.push(check.name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
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

/// Prints the proxies' last words before they are deleted.
fn logs(cluster: &Cluster) {
    let queries: [&[&str]; 2] = [
        &["get", "pods,services,gateways", "--output=wide"],
        &[
            "logs",
            "--selector=app.kubernetes.io/name=sluice-proxy",
            "--tail=40",
        ],
    ];
    for query in queries {
        match cluster.kubectl(query).args(["--namespace", NAMESPACE]).text() {
            Ok(text) => eprintln!("{}", tail(&text, 12_000)),
            Err(error) => say(format!("{error:#}")),
        }
    }
}

impl World<'_> {
    /// A request from the client's namespace to the Gateway `main`, with further arguments for curl.
    fn get(&self, path: &str, arguments: &[&str]) -> Result<Answer> {
        let url = format!("http://{}{path}", self.gateway);
        curl::send(self.cluster, Netns::Client, &url, arguments)
    }

    /// Sends until the answer has this status.
    fn wait_status(&self, path: &str, arguments: &[&str], status: u16) -> Result<Answer> {
        wait_for(&format!("status {status} from {path}"), LIMIT, || {
            let answer = self.get(path, arguments)?;
            ensure!(
                answer.status == status,
                "it answers {}: {}",
                answer.status,
                answer.body
            );
            Ok(Some(answer))
        })
    }

    /// An object of the checks' namespace.
    fn object(&self, kind: &str, name: &str) -> Result<Value> {
        self.cluster.get(&[kind, name, "--namespace", NAMESPACE])
    }

    /// Waits until a policy's status says of the Gateway `main` that these conditions are true.
    fn wait_policy(&self, kind: &str, name: &str, conditions: &[&str]) -> Result<()> {
        wait_for(
            &format!("{kind} {name}: {conditions:?} for Gateway main"),
            LIMIT,
            || {
                let policy = self.object(kind, name)?;
                let ancestors = policy["status"]["ancestors"].as_array();
                let entry = ancestors
                    .into_iter()
                    .flatten()
                    .find(|entry| {
                        entry["ancestorRef"]["name"] == "main" && entry["ancestorRef"]["kind"] == "Gateway"
                    })
                    .context("Gateway main is no ancestor")?;
                for condition in conditions {
                    let found = install::condition(&entry["conditions"], condition);
                    ensure!(
                        found.is_some_and(|(status, _)| status),
                        "{condition} is {found:?}"
                    );
                }
                Ok(Some(()))
            },
        )
    }
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
