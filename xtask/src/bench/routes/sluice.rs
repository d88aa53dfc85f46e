//! Controller and proxy of Sluice with many routes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::objects::{GATEWAY, NAMESPACE, ROUTES, Size};
use super::{Cost, STEP, address, cost, settle};
use crate::bench::apiserver::ApiServer;
use crate::bench::client::Client;
use crate::process::Process;

/// How long the CPU at rest is watched, before the memory is read.
const REST: Duration = Duration::from_secs(15);
/// Between two probes of readiness meanwhile.
const PROBES: Duration = Duration::from_millis(500);
/// Between two changes whose CPU is measured: nothing is left of the first when the second comes.
const APART: Duration = Duration::from_millis(20);
/// Between two requests that look for a change.
const POLL: Duration = Duration::from_micros(200);
const LIMIT: Duration = Duration::from_mins(3);

/// What is measured.
pub struct Measured {
    pub cost: Cost,
    pub controller_resident: u64,
    /// Share of a core.
    pub controller_rest: f64,
    pub controller_change: Duration,
    pub proxy_change: Duration,
    /// From a change to the first answer that shows it, in nanoseconds.
    pub times: Vec<u64>,
    /// From the controller's start until it has read the cluster.
    pub read: Duration,
    /// From the controller's start until the proxy serves every route.
    pub serving: Duration,
    /// From the controller's start until all statuses are written.
    pub stated: Duration,
}

/// Starts both with the routes of `size` and measures.
pub fn measure(size: Size, changes: u32, binary: &Path, scratch: &Path) -> Result<Measured> {
    let directory = scratch.join(format!("sluice-{}", size.routes));
    fs::create_dir_all(&directory)?;
    let server = ApiServer::start()?;
    for object in size.others() {
        server.put(&object)?;
    }
    for route in 0..size.routes {
        server.put(&size.route(route, ""))?;
    }
    let [config, metrics, admin] = crate::host::free_ports()?;
    let start = Instant::now();
    let mut controller = controller(binary, &server, &directory, config, metrics)?;
    soon("the controller", LIMIT, || {
        controller.check()?;
        Ok(is_ok(metrics, "/readyz").then_some(()))
    })?;
    let read = start.elapsed();
    let mut proxy = proxy(binary, &server, &directory, config, admin)?;
    soon("the proxy", LIMIT, || {
        proxy.check()?;
        Ok(is_ok(admin, "/healthz/ready").then_some(()))
    })?;
    let serving = start.elapsed();
    ensure_served(size)?;
    soon("statuses", LIMIT, || {
        controller.check()?;
        let waiting = metric(metrics, "sluice_controller_status_waiting");
        Ok((waiting == Some(0.0) && are_stated(size, &server)).then_some(()))
    })?;
    let stated = start.elapsed();
    settle(&controller);
    let before = controller.cpu();
    let watched = Instant::now();
    while watched.elapsed() < REST {
        // As the kubelet does.
        let ready = is_ok(metrics, "/readyz") && is_ok(admin, "/healthz/ready");
        ensure!(ready, "the controller or the proxy is not ready any more");
        std::thread::sleep(PROBES);
    }
    let rest = controller.cpu().saturating_sub(before).as_secs_f64() / watched.elapsed().as_secs_f64();
    let cost = cost(&mut proxy, size)?;

    let (controller_before, proxy_before, from) = (controller.cpu(), proxy.cpu(), Instant::now());
    for (route, value) in changed(size, changes, 0) {
        server.put(&size.route(route, &value))?;
        std::thread::sleep(APART);
    }
    settle(&controller);
    let idle = from.elapsed().mul_f64(rest);
    let used = controller.cpu().saturating_sub(controller_before);
    let controller_change = used.saturating_sub(idle) / changes.max(1);
    let proxy_change = proxy.cpu().saturating_sub(proxy_before) / changes.max(1);

    let mut times = Vec::new();
    let mut client = Client::connect(address(size))?;
    for (route, value) in changed(size, changes, changes) {
        let object = size.route(route, &value);
        let host = size.host(route);
        let sent = Instant::now();
        server.put(&object)?;
        while !client.get(&host, "/")?.says("x-version", &value) {
            ensure!(
                sent.elapsed() < LIMIT,
                "a change of route {route} does not take effect"
            );
            std::thread::sleep(POLL);
        }
        times.push(u64::try_from(sent.elapsed().as_nanos())?);
        std::thread::sleep(APART);
    }
    controller.check()?;
    proxy.check()?;
    Ok(Measured {
        cost,
        controller_resident: controller.resident(),
        controller_rest: rest,
        controller_change,
        proxy_change,
        times,
        read,
        serving,
        stated,
    })
}

/// Like `progress::wait_for`, but looks often: the time is measured.
fn soon<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        ensure!(
            start.elapsed() < limit,
            "{what}: not within {} s",
            limit.as_secs()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn changed(size: Size, changes: u32, offset: u32) -> impl Iterator<Item = (u32, String)> {
    (offset..offset + changes).map(move |i| (i.wrapping_mul(STEP) % size.routes, format!("v{i}")))
}

fn controller(
    binary: &Path,
    server: &ApiServer,
    directory: &Path,
    config: u16,
    metrics: u16,
) -> Result<Process> {
    let mut command = bound(binary);
    command
        .args(["controller", "--config-address", &format!("127.0.0.1:{config}")])
        .args(["--metrics-address", &format!("127.0.0.1:{metrics}")])
        .env("KUBECONFIG", server.kubeconfig(directory)?)
        .env("SLUICE_LOG", "warn");
    Process::start("controller", &mut command, directory, Stdio::null())
}

/// The proxy, with one worker. Like in a pod, it finds the CA's bundle and its token in files.
fn proxy(binary: &Path, server: &ApiServer, directory: &Path, config: u16, admin: u16) -> Result<Process> {
    let name = format!("{GATEWAY}-sluice");
    let bundle = soon("the proxies' ConfigMap", LIMIT, || {
        let map = server.get("/api/v1/configmaps", NAMESPACE, &name);
        Ok(map.and_then(|map| map["data"]["ca.crt"].as_str().map(str::to_owned)))
    })?;
    let (ca, token) = (directory.join("ca.crt"), directory.join("token"));
    fs::write(&ca, bundle)?;
    fs::write(&token, format!("system:serviceaccount:{NAMESPACE}:{name}"))?;
    let mut command = bound(binary);
    command
        .args([
            "dataplane",
            "--workers",
            "1",
            "--bind",
            "127.0.0.1",
            "--no-access-log",
        ])
        .args(["--controller", &format!("https://127.0.0.1:{config}")])
        .args(["--controller-server-name", "sluice-controller.sluice-system.svc"])
        .args(["--namespace", NAMESPACE, "--gateway", GATEWAY])
        .args(["--admin-address", &format!("127.0.0.1:{admin}")])
        .arg("--ca-file")
        .arg(ca)
        .arg("--token-file")
        .arg(token)
        .arg("--cache-dir")
        .arg(directory.join("cache"))
        .args(["--drain-timeout", "1", "--min-drain", "0"])
        .env("SLUICE_LOG", "warn");
    Process::start("proxy", &mut command, directory, Stdio::null())
}

/// The program on any core, ended with the thread that starts it.
fn bound(binary: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(binary);
    command
}

fn is_ok(port: u16, path: &str) -> bool {
    let address = ([127, 0, 0, 1], port).into();
    let answer = Client::connect(address).and_then(|mut client| client.get("localhost", path));
    answer.is_ok_and(|answer| answer.status == 200)
}

fn metric(port: u16, name: &str) -> Option<f64> {
    let mut client = Client::connect(([127, 0, 0, 1], port).into()).ok()?;
    let text = client.get("localhost", "/metrics").ok()?.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

fn ensure_served(size: Size) -> Result<()> {
    let mut client = Client::connect(address(size))?;
    for route in [0, size.routes / 2, size.routes - 1] {
        let answer = client.get(&size.host(route), "/")?;
        ensure!(
            answer.status == 200,
            "route {route} is not served: {}",
            answer.head
        );
    }
    Ok(())
}

/// Whether every route has a status that accepts it.
fn are_stated(size: Size, server: &ApiServer) -> bool {
    let accepted = |route: &Value| {
        let conditions = route["status"]["parents"][0]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|condition| condition["type"] == "Accepted" && condition["status"] == "True")
    };
    (0..size.routes).all(|route| {
        let stored = server.get(ROUTES, NAMESPACE, &format!("r{route}"));
        stored.as_ref().is_some_and(accepted)
    })
}
