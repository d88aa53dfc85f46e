//! Puts Sluice on a cluster: the Gateway API's CRDs, the image, the chart.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::build::programs;
use crate::cluster::{Cluster, load_sluice};
use crate::cmd::{Run, tail};
use crate::paths;
use crate::progress::{long, say, wait_for};

/// The release, and the namespace of the controller.
pub const NAMESPACE: &str = "sluice-system";
const RELEASE: &str = "sluice";
/// The chart's GatewayClass.
pub const CLASS: &str = "sluice";

const LIMIT: Duration = Duration::from_mins(2);

/// Which image of Sluice is tested.
#[derive(Clone, Debug, Args)]
pub struct ImageOptions {
    /// Cargo profile of the image; `dev` compiles fastest
    #[arg(long, default_value = "release", value_name = "PROFILE")]
    pub cargo_profile: String,
    /// Load this archive instead of building
    #[arg(long, value_name = "PATH")]
    pub archive: Option<PathBuf>,
    /// Use the image that the cluster has already
    #[arg(long, conflicts_with = "archive")]
    pub no_image: bool,
}

/// Loads Sluice's image.
pub fn image(cluster: &Cluster, options: &ImageOptions) -> Result<()> {
    if options.no_image {
        return Ok(());
    }
    load_sluice(cluster, &options.cargo_profile, options.archive.clone())
}

/// Installs the Gateway API's CRDs and the chart's own, or brings them up to date.
pub fn crds(cluster: &Cluster) -> Result<()> {
    let crds = programs::gateway_api_crds()?;
    let crds = crds.to_string_lossy();
    // helm installs a chart's CRDs once and never again; a reused cluster needs today's.
    let own = paths::root().join("charts/sluice/crds");
    let own = own.to_string_lossy();
    long("installing the CRDs", || {
        let apply = ["apply", "--server-side", "--force-conflicts"];
        cluster.kubectl(apply).args(["--kustomize", &*crds]).text()?;
        cluster.kubectl(apply).args(["--filename", &*own]).text()?;
        cluster
            .kubectl([
                "wait",
                "--for=condition=Established",
                "crd",
                "--all",
                "--timeout=60s",
            ])
            .text()
    })?;
    Ok(())
}

/// Installs the chart with the values of files e2e/values/NAME.yaml, or changes to them; a later file goes before an
/// earlier one.
pub fn chart(cluster: &Cluster, values: &[&str]) -> Result<()> {
    let root = paths::root();
    let mut files = Vec::new();
    for name in values {
        let path = root.join("e2e/values").join(format!("{name}.yaml"));
        files.extend(["--values".to_owned(), path.to_string_lossy().into_owned()]);
    }
    let shown = values.join(", ");
    long(
        &format!("helm upgrade --install {RELEASE} with the values of {shown}"),
        || {
            cluster
                .helm(&[
                    "upgrade",
                    "--install",
                    RELEASE,
                    "--namespace",
                    NAMESPACE,
                    "--create-namespace",
                ])?
                .args(["--wait", "--timeout", "120s"])
                .args(&files)
                .arg(root.join("charts/sluice"))
                .text()
        },
    )?;
    wait_for(&format!("GatewayClass {CLASS} Accepted"), LIMIT, || {
        let class = cluster.get(&["gatewayclass", CLASS])?;
        Ok(condition(&class["status"]["conditions"], "Accepted")
            .is_some_and(|(status, _)| status)
            .then_some(()))
    })
}

/// Status and reason of a condition in a list.
pub fn condition<'a>(conditions: &'a serde_json::Value, kind: &str) -> Option<(bool, &'a str)> {
    let condition = conditions
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)?;
    Some((
        condition["status"] == "True",
        condition["reason"].as_str().unwrap_or_default(),
    ))
}

/// Applies a file of the repository.
pub fn apply_file(cluster: &Cluster, path: &str) -> Result<()> {
    let full = paths::root().join(path);
    let text = std::fs::read_to_string(&full).with_context(|| format!("cannot read {path}"))?;
    say(format!("kubectl apply -f {path}"));
    cluster.apply(&text)
}

/// Waits for a Deployment, with its replicas available in their newest form.
pub fn wait_deployment(cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
    wait_for(&format!("Deployment {namespace}/{name}"), LIMIT, || {
        let deployment = cluster.get(&["deployment", name, "--namespace", namespace])?;
        let status = &deployment["status"];
        let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
        let count = |field: &str| status[field].as_u64().unwrap_or(0);
        let current = status["observedGeneration"] == deployment["metadata"]["generation"];
        let settled = count("updatedReplicas") == wanted && count("replicas") == wanted;
        Ok((current && settled && count("availableReplicas") == wanted).then_some(()))
    })
}

/// Prints what helps to find out why a test has failed.
pub fn diagnose(cluster: &Cluster) {
    let queries: [&[&str]; 5] = [
        &[
            "get",
            "pods,services,deployments",
            "--all-namespaces",
            "--output=wide",
        ],
        &[
            "get",
            "gatewayclasses,gateways,httproutes",
            "--all-namespaces",
            "--output=yaml",
        ],
        &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"],
        &[
            "logs",
            "--namespace",
            NAMESPACE,
            "--selector=app.kubernetes.io/instance=sluice",
            "--tail=100",
            "--prefix",
        ],
        &[
            "logs",
            "--selector=app.kubernetes.io/name=sluice-proxy",
            "--tail=50",
            "--prefix",
        ],
    ];
    for query in queries {
        say(format!("--- kubectl {}", query.join(" ")));
        match cluster.kubectl(query).text() {
            Ok(text) => eprintln!("{}", tail(&text, 12_000)),
            Err(error) => say(format!("{error:#}")),
        }
    }
}
