//! Bad input and restarts on a real cluster. A healthy route is under a bounded load meanwhile and never fails, except
//! while the only proxy's own process is down.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::load::Load;
use super::{client, install};
use crate::cluster::Cluster;
use crate::cmd::Run;
use crate::netns::Netns;
use crate::paths;
use crate::progress::{long, say, wait_for};

const GATEWAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 168, 88, 243)), 30080);
const CONTROLLER: &str = "app.kubernetes.io/name=sluice-controller";
const PROXY: &str = "gateway.networking.k8s.io/gateway-name=web";
const LIMIT: Duration = Duration::from_mins(2);

/// A condition that a listener of the Gateway `bad-listeners` must get.
const LISTENERS: [(&str, &str, bool, &str); 5] = [
    ("missing-secret", "ResolvedRefs", false, "InvalidCertificateRef"),
    ("conflict-http", "Conflicted", true, "ProtocolConflict"),
    ("conflict-https", "Conflicted", true, "ProtocolConflict"),
    ("unknown-kind", "ResolvedRefs", false, "InvalidRouteKinds"),
    ("unknown-protocol", "Accepted", false, "UnsupportedProtocol"),
];

/// A condition that an HTTPRoute must get, and the status that requests to `/NAME` are answered with.
const ROUTES: [(&str, &str, &str, u16); 4] = [
    ("missing-service", "ResolvedRefs", "BackendNotFound", 500),
    ("unknown-backend", "ResolvedRefs", "InvalidKind", 500),
    ("not-permitted", "ResolvedRefs", "RefNotPermitted", 500),
    // Not attached, so the healthy route answers.
    ("missing-section", "Accepted", "NoMatchingParent", 200),
];

/// Runs all parts, one after another.
pub fn run(cluster: &Cluster) -> Result<()> {
    install::crds(cluster)?;
    install::chart(cluster, &["walk"])?;
    for file in ["echo", "gateway", "route"] {
        install::apply_file(cluster, &format!("examples/kubernetes/{file}.yaml"))?;
    }
    install::wait_deployment(cluster, "default", "echo")?;
    wait_status("/", 200)?;
    long("bad input", || bad_input(cluster))?;
    long("the controller is killed", || controller_killed(cluster))?;
    long("the proxy is replaced", || proxy_replaced(cluster))?;
    long("the proxy restarts without a controller", || proxy_alone(cluster))
}

fn bad_input(cluster: &Cluster) -> Result<()> {
    let load = Load::start(GATEWAY, "/");
    install::apply_file(cluster, "e2e/manifests/bad-input.yaml")?;
    for (listener, kind, status, reason) in LISTENERS {
        expect(
            &format!("listener bad-listeners/{listener}"),
            kind,
            status,
            reason,
            || {
                let gateway = cluster.get(&["gateway", "bad-listeners", "--namespace=default"])?;
                let listeners = gateway["status"]["listeners"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let entry = listeners.into_iter().find(|entry| entry["name"] == listener);
                Ok(entry.map(|entry| entry["conditions"].clone()).unwrap_or_default())
            },
        )?;
    }
    for (route, kind, reason, status) in ROUTES {
        expect(&format!("HTTPRoute {route}"), kind, false, reason, || {
            let route = cluster.get(&["httproute", route, "--namespace=default"])?;
            Ok(route["status"]["parents"][0]["conditions"].clone())
        })?;
        wait_status(&format!("/{route}"), status)?;
    }
    load.finish("the healthy route beside bad input")?;
    let file = paths::root().join("e2e/manifests/bad-input.yaml");
    cluster
        .kubectl(["delete", "--wait=false", "--filename", &file.to_string_lossy()])
        .text()
        .map(drop)
}

/// Waits until a condition has this status and reason.
fn expect(
    object: &str,
    kind: &str,
    status: bool,
    reason: &str,
    conditions: impl Fn() -> Result<Value>,
) -> Result<()> {
    let what = format!("{object}: {kind}={status}, reason {reason}");
    wait_for(&what, LIMIT, || {
        let conditions = conditions()?;
        let found = install::condition(&conditions, kind);
        ensure!(found == Some((status, reason)), "it is {found:?}");
        Ok(Some(()))
    })?;
    say(what);
    Ok(())
}

fn controller_killed(cluster: &Cluster) -> Result<()> {
    let load = Load::start(GATEWAY, "/");
    kill_container(cluster, install::NAMESPACE, CONTROLLER)?;
    late_route(cluster, "/late-after-controller")?;
    load.finish("the healthy route while the controller restarts")
}

fn proxy_replaced(cluster: &Cluster) -> Result<()> {
    let load = Load::start(GATEWAY, "/");
    cluster
        .kubectl([
            "rollout",
            "restart",
            "deployment/web-sluice",
            "--namespace=default",
        ])
        .text()?;
    cluster
        .kubectl([
            "rollout",
            "status",
            "deployment/web-sluice",
            "--namespace=default",
            "--timeout=180s",
        ])
        .text()?;
    // The old pod still drains; its end is part of the test.
    wait_for("one proxy pod", LIMIT, || {
        Ok((pods(cluster, "default", PROXY)?.len() == 1).then_some(()))
    })?;
    load.finish("the healthy route while the proxy's pod is replaced")
}

/// The container's process dies, its pod and so its cache stay.
fn proxy_alone(cluster: &Cluster) -> Result<()> {
    scale_controller(cluster, 0)?;
    wait_for("no controller", LIMIT, || {
        Ok(pods(cluster, install::NAMESPACE, CONTROLLER)?
            .is_empty()
            .then_some(()))
    })?;
    kill_container(cluster, "default", PROXY)?;
    wait_status("/", 200)?;
    let load = Load::start(GATEWAY, "/");
    std::thread::sleep(Duration::from_secs(3));
    load.finish("the restarted proxy without a controller")?;
    scale_controller(cluster, 1)?;
    late_route(cluster, "/late-after-proxy")
}

fn scale_controller(cluster: &Cluster, replicas: u8) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    cluster
        .kubectl([
            "scale",
            "deployment",
            "--namespace",
            install::NAMESPACE,
            "--selector",
            CONTROLLER,
            &replicas,
        ])
        .text()
        .map(drop)
}

/// A change made now must reach the proxy.
fn late_route(cluster: &Cluster, path: &str) -> Result<()> {
    let file = paths::root().join("e2e/manifests/late-route.yaml");
    let manifest =
        std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    cluster.apply(&manifest.replace("{{PATH}}", path))?;
    wait_status(path, 302)
}

fn wait_status(path: &str, status: u16) -> Result<()> {
    wait_for(&format!("status {status} from {path}"), LIMIT, || {
        let response = Netns::Client.run(|| client::get(GATEWAY, &GATEWAY.to_string(), path))?;
        ensure!(response.status == status, "it answers {}", response.status);
        Ok(Some(()))
    })
}

fn pods(cluster: &Cluster, namespace: &str, label: &str) -> Result<Vec<Value>> {
    let pods = cluster.get(&["pods", "--namespace", namespace, "--selector", label])?;
    Ok(pods["items"].as_array().cloned().unwrap_or_default())
}

/// Kills the process of the one pod with this label, as a crash would, and waits until the kubelet has restarted it.
/// There is no shell in the image to do it from within.
fn kill_container(cluster: &Cluster, namespace: &str, label: &str) -> Result<()> {
    let pod = pods(cluster, namespace, label)?
        .into_iter()
        .next()
        .with_context(|| format!("no pod with {label}"))?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let state = &pod["status"]["containerStatuses"][0];
    let id = state["containerID"]
        .as_str()
        .and_then(|id| id.strip_prefix("containerd://"));
    let before = state["restartCount"].as_u64().unwrap_or(0);
    let id = id.with_context(|| format!("pod {namespace}/{name} has no container"))?;
    cluster
        .command("ctr")
        .args(["tasks", "kill", "--signal", "SIGKILL", id])
        .text()?;
    say(format!("killed the process of pod {namespace}/{name}"));
    wait_for(&format!("the restart of pod {namespace}/{name}"), LIMIT, || {
        let pod = cluster.get(&["pod", name, "--namespace", namespace])?;
        let state = &pod["status"]["containerStatuses"][0];
        Ok((state["restartCount"].as_u64() > Some(before) && state["ready"] == true).then_some(()))
    })
}
