//! Envoy Gateway on the cluster, installed as its guide says: from its own chart, which is in its Go module.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::REMOVAL;
use crate::build::{images, programs};
use crate::cluster::Cluster;
use crate::cmd::{Run, tail};
use crate::e2e::{install, site};
use crate::progress::{long, say, wait_for};

/// Where it is installed.
const NAMESPACE: &str = "envoy-gateway-system";
/// Groups of the CRDs that either installation brings.
const GROUPS: [&str; 3] = [
    ".gateway.networking.k8s.io",
    ".gateway.networking.x-k8s.io",
    ".gateway.envoyproxy.io",
];

/// What helm leaves behind, because it belongs to hooks.
const HOOKS: [(&str, &str); 2] = [
    (
        "mutatingwebhookconfiguration",
        "envoy-gateway-topology-injector.envoy-gateway-system",
    ),
    (
        "clusterrole,clusterrolebinding",
        "eg-gateway-helm-certgen:envoy-gateway-system",
    ),
];

/// Installs it, with its CRDs and those of Gateway API that it comes with.
pub fn install(cluster: &Cluster, scratch: &Path) -> Result<()> {
    let chart = scratch.join("gateway-helm");
    if !chart.exists() {
        copy(&programs::envoy_gateway_chart()?, &chart)?;
        // The chart's values are a template for its release.
        let template = chart.join("values.tmpl.yaml");
        let values = fs::read_to_string(&template)
            .with_context(|| format!("cannot read {}", template.display()))?
            .replace("${GatewayImage}", images::ENVOY_GATEWAY_IMAGE)
            .replace("${GatewayImagePullPolicy}", "IfNotPresent");
        fs::write(chart.join("values.yaml"), values)?;
    }
    let values = json!({
        "config": {"envoyGateway": {
            "provider": {"kubernetes": {"shutdownManager": {"image": images::ENVOY_GATEWAY_IMAGE}}},
            "extensionApis": {"enableBackend": true},
        }},
    });
    let file = scratch.join("envoy-gateway.json");
    fs::write(&file, values.to_string())?;
    long("helm install eg", || {
        cluster
            .helm(&["install", "eg", "--namespace", NAMESPACE, "--create-namespace"])?
            .args(["--wait", "--timeout", "180s", "--values"])
            .arg(&file)
            .arg(&chart)
            .text()
    })
    .map(drop)
}

/// Removes both installations, and all objects of their kinds.
pub fn remove(cluster: &Cluster) -> Result<()> {
    // The proxies' objects have the Gateways as owners; a controller that is still there would make them anew.
    for (release, namespace) in [("sluice", install::NAMESPACE), ("eg", NAMESPACE)] {
        cluster
            .helm(&[
                "uninstall",
                release,
                "--namespace",
                namespace,
                "--ignore-not-found",
                "--wait",
            ])?
            .text()?;
    }
    // There may be no such kind.
    cluster.command("sh").args(["-c", UNHOLD]).succeeds();
    // Its proxies would take six minutes to end, and their namespace waits for that.
    cluster
        .kubectl([
            "delete",
            "deployments,replicasets,pods",
            "--all",
            "--force",
            "--grace-period=0",
            "--ignore-not-found",
        ])
        .args(["--namespace", NAMESPACE])
        .text()?;
    for (kind, name) in HOOKS {
        site::delete(cluster, kind, &[name])?;
    }
    let all = cluster.kubectl(["get", "crds", "--output=name"]).text()?;
    let names: Vec<&str> = all
        .lines()
        .filter_map(|line| line.split_once('/').map(|(_, name)| name))
        .filter(|name| GROUPS.iter().any(|group| name.ends_with(group)))
        .collect();
    if !names.is_empty() {
        site::delete(cluster, "crd", &names)?;
    }
    site::delete(
        cluster,
        "deployment,service,secret,serviceaccount",
        &["backend", "basic-auth", "www-example-com"],
    )?;
    site::delete(cluster, "namespace", &[NAMESPACE, install::NAMESPACE])?;
    wait_for("the CRDs are gone", REMOVAL, || {
        let left = cluster.kubectl(["get", "crds", "--output=name"]).text()?;
        Ok((!GROUPS.iter().any(|group| left.contains(group))).then_some(()))
    })
}

/// Takes the finalizers of a controller that is gone from classes.
const UNHOLD: &str = "for class in $(kubectl get gatewayclasses --output=name); do \
    kubectl patch $class --type=merge --patch '{\"metadata\": {\"finalizers\": null}}'; done";

/// Prints its last words.
pub fn logs(cluster: &Cluster) {
    let all = [
        "get",
        "pods,services,gateways",
        "--all-namespaces",
        "--output=wide",
    ];
    let controller = [
        "logs",
        "deployment/envoy-gateway",
        "--namespace",
        NAMESPACE,
        "--tail=40",
    ];
    for query in [&all[..], &controller] {
        match cluster.kubectl(query).text() {
            Ok(text) => eprintln!("{}", tail(&text, 12_000)),
            Err(error) => say(format!("{error:#}")),
        }
    }
}

/// Copies a folder, and makes the copy writable: Go's modules are not.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            // Not `fs::copy`, which would keep the permissions.
            fs::write(&target, fs::read(entry.path())?)
                .with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    Ok(())
}
