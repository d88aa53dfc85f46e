//! Starts a cluster: what is missing is built first, then everything starts in the order of its dependencies.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::access::Cluster;
use super::process::Table;
use super::settings::{self, FEATURE_GATES, NODE, PODS, SERVICES, containerd_socket};
use super::{addons, down, pki};
use crate::build::go::Program;
use crate::build::{images, programs};
use crate::cmd::Run;
use crate::netns::{self, NODE_IP, Netns};
use crate::progress::{long, say, wait_for};
use crate::{host, paths};

/// A slow machine that also compiles may need this long for a step that takes a second or two.
const LIMIT: Duration = Duration::from_mins(3);

/// Brings the cluster up, or finds it up.
pub fn up() -> Result<Cluster> {
    host::need_root()?;
    host::ensure_packages()?;
    for program in programs::CLUSTER {
        program.ensure()?;
    }
    let archives = images::ensure()?;
    let cluster = Cluster::own()?;
    let _lock = lock()?;
    let state = paths::state()?;
    if Table::load(&state)?.all_alive() {
        say("the cluster already runs");
        wait_ready(&cluster)?;
        return Ok(cluster);
    }
    if state.exists() {
        long("removing what an earlier cluster has left", || down::down(&state))?;
    }
    let start = Instant::now();
    long("starting the cluster", || start_all(&cluster, &state, &archives))?;
    say(format!(
        "node {NODE} Ready {:.1} s after the start",
        start.elapsed().as_secs_f64()
    ));
    Ok(cluster)
}

/// Taken by `up` and `down`, so that two of them never mix.
pub fn lock() -> Result<File> {
    let path = paths::cache()?.join("cluster.lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

fn start_all(cluster: &Cluster, state: &Path, archives: &[PathBuf]) -> Result<()> {
    let logs = state.join("logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
    netns::create()?;
    settings::write(state)?;
    pki::write(&state.join("pki"), state)?;
    let mut table = Table::load(state)?;
    let containerd = in_node(
        Path::new("/usr/bin/containerd"),
        &[&format!("--config={}/containerd.toml", state.display())],
    );
    table.start("containerd", &containerd)?;
    start_etcd(&mut table, state)?;
    start_apiserver(&mut table, state)?;
    load_images(cluster, archives)?;
    wait_for("the API server", LIMIT, || {
        // A process that has died ends the wait at once.
        let dead = table.check().err();
        let ready = || cluster.kubectl(["get", "--raw", "/readyz"]).succeeds();
        Ok(dead.map(Err).or_else(|| ready().then_some(Ok(()))))
    })??;
    start_clients(&mut table, state)?;
    cluster.apply(&addons::manifests())?;
    wait_ready(cluster)?;
    table.check()
}

/// The program in the node's namespace with its arguments.
fn in_node(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Netns::Node.command(program);
    command.args(arguments);
    command
}

fn start(table: &mut Table, program: &Program, arguments: &[String]) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    table.start(program.name, &in_node(&program.ensure()?, &arguments))
}

fn start_etcd(table: &mut Table, state: &Path) -> Result<()> {
    let arguments = [
        format!("--data-dir={}/etcd", state.display()),
        // Nothing outlives this cluster, so nothing needs to reach the disk.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    start(table, &programs::ETCD, &arguments)
}

fn start_apiserver(table: &mut Table, state: &Path) -> Result<()> {
    let pki = state.join("pki").display().to_string();
    let arguments = [
        format!("--advertise-address={NODE_IP}"),
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--tls-cert-file={pki}/apiserver.crt"),
        format!("--tls-private-key-file={pki}/apiserver.key"),
        format!("--cert-dir={pki}/generated"),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-signing-key-file={pki}/sa.key"),
        format!("--service-account-key-file={pki}/sa.pub"),
        format!("--token-auth-file={pki}/tokens.csv"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--feature-gates={FEATURE_GATES}"),
        "--runtime-config=certificates.k8s.io/v1beta1=true".to_owned(),
    ];
    start(table, &programs::APISERVER, &arguments)
}

/// Everything that needs the API server.
fn start_clients(table: &mut Table, state: &Path) -> Result<()> {
    let directory = state.display().to_string();
    let pki = format!("{directory}/pki");
    let kubelet = [
        format!("--config={directory}/kubelet.yaml"),
        format!("--kubeconfig={directory}/kubelet.kubeconfig"),
        format!("--root-dir={directory}/kubelet"),
        format!("--cert-dir={directory}/kubelet-pki"),
        format!("--hostname-override={NODE}"),
        format!("--node-ip={NODE_IP}"),
    ];
    start(table, &programs::KUBELET, &kubelet)?;
    let manager = [
        format!("--kubeconfig={directory}/controller-manager.kubeconfig"),
        format!("--service-account-private-key-file={pki}/sa.key"),
        format!("--root-ca-file={pki}/ca.crt"),
        format!("--cluster-cidr={PODS}"),
        "--allocate-node-cidrs=true".to_owned(),
        "--node-cidr-mask-size=24".to_owned(),
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--feature-gates={FEATURE_GATES}"),
    ];
    start(table, &programs::CONTROLLER_MANAGER, &manager)?;
    let scheduler = [
        format!("--kubeconfig={directory}/scheduler.kubeconfig"),
        "--leader-elect=false".to_owned(),
    ];
    start(table, &programs::SCHEDULER, &scheduler)?;
    start(
        table,
        &programs::KUBE_PROXY,
        &[format!("--config={directory}/kube-proxy.yaml")],
    )?;
    let own = std::env::current_exe().context("cannot tell xtask's own path")?;
    table.start("load-balancer", &{
        let mut command = Command::new(own);
        command.args(["cluster", "load-balancer"]);
        command
    })
}

/// Imports image archives into the node's containerd.
pub fn load_images(cluster: &Cluster, archives: &[PathBuf]) -> Result<()> {
    let socket = containerd_socket();
    wait_for("containerd", LIMIT, || {
        Ok((Path::new(&socket).exists() && cluster.command("ctr").arg("version").succeeds()).then_some(()))
    })?;
    for archive in archives {
        cluster
            .command("ctr")
            .args(["images", "import"])
            .arg(archive)
            .text()?;
    }
    Ok(())
}

fn wait_ready(cluster: &Cluster) -> Result<()> {
    wait_for(&format!("node {NODE} Ready"), LIMIT, || {
        let node = cluster.get(&["node", NODE])?;
        let conditions = node["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ready = conditions
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        Ok(ready.then_some(()))
    })?;
    wait_for("the name server", LIMIT, || {
        let dns = cluster.get(&["deployment", "coredns", "--namespace=kube-system"])?;
        Ok((dns["status"]["readyReplicas"] == 1).then_some(()))
    })?;
    Ok(())
}
