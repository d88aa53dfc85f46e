//! `bench propagation`: how long a change takes from the API server's answer to the first request that it decides, on a
//! real cluster.
//!
//! One thread asks the proxy's pod without pause on a connection that stays open, from the node's network namespace; it
//! begins before the change is sent, so that a proxy that is faster than the API server's answer counts as 0.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::Common;
use super::client::{Answer, Client};
use super::live::api::Api;
use super::live::load::{Kind, Load};
use super::live::{NAMESPACE, ROUTES, World, host, nanoseconds, route, route_to};
use super::stats::{Table, as_f64, percentile};
use crate::e2e::install::ImageOptions;
use crate::netns::Netns;
use crate::progress::{long, say};

/// Between two requests that look for a change.
const POLL: Duration = Duration::from_micros(200);
/// Between two changes.
const APART: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(20);
/// Requests after a change of endpoints that must all reach the new one.
const AFTER: u32 = 20;
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/sluice-bench/endpointslices";
const SERVICES: &str = "/api/v1/namespaces/sluice-bench/services";
/// A Service whose endpoints are written here.
const MOVED: &str = "moved";

/// Options of `bench propagation`.
#[derive(Debug, Args)]
pub struct Options {
    /// Routes that are there beforehand
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    routes: u32,
    /// Changes of each sort
    #[arg(long, value_name = "N", default_value_t = 200)]
    changes: u32,
    #[command(flatten)]
    image: ImageOptions,
    #[command(flatten)]
    common: Common,
}

/// What one sort of change has shown, in nanoseconds.
#[derive(Debug, Default)]
struct Times {
    /// From the request to the API server to the first request that shows the change.
    sent: Vec<u64>,
    /// From the API server's answer.
    answered: Vec<u64>,
    /// Requests that still went the old way after one had gone the new.
    stale: u32,
}

/// Makes the changes of a sort.
type Measure<'a> = dyn Fn(&mut Api, &mut Poller) -> Result<Times> + Sync + 'a;

/// Runs it and prints its table.
pub fn run(options: &Options) -> Result<()> {
    let quick = options.common.quick;
    let routes = if quick { 100 } else { options.routes };
    let changes = if quick { 10 } else { options.changes };
    let world = World::new(&options.image, routes)?;
    let columns = [
        "change",
        "number",
        "p50 ms",
        "p99 ms",
        "p99 ms from the request on",
        "watch to ack ms",
        "stale",
        "failed requests",
    ];
    let mut table = Table::new(
        format!(
            "Propagation among {routes} routes: from the API server's answer to the first request that shows it"
        ),
        &columns,
    );
    let endpoints = endpoints(&world)?;
    Netns::Node.run(|| {
        let mut api = Api::open(&world.cluster)?;
        api.create(SERVICES, &service())?;
        api.create(SLICES, &slice(&endpoints[0]))?;
        api.create(ROUTES, &route_to(MOVED, "", MOVED, 80))
    })?;
    for loaded in [false, true] {
        let suffix = if loaded { ", under load" } else { "" };
        let sorts: [(&str, &Measure<'_>); 3] = [
            ("a new route", &|api, poller| {
                let name = |i| format!("{}{i}", if loaded { "m" } else { "n" });
                let mut create = |i, value: &str| api.create(ROUTES, &route(&name(i), value));
                route_changes(changes, loaded, poller, &mut create, |i| host(&name(i)))
            }),
            ("a changed route", &|api, poller| {
                let name = |i: u32| format!("r{}", i * 7919 % routes);
                let mut change = |i, value: &str| {
                    let changed = route(&name(i), value);
                    api.merge(
                        &format!("{ROUTES}/{}", name(i)),
                        &json!({ "spec": changed["spec"] }),
                    )
                };
                route_changes(changes, loaded, poller, &mut change, |i| host(&name(i)))
            }),
            ("another endpoint", &|api, poller| {
                endpoint_changes(changes, api, poller, &endpoints)
            }),
        ];
        for (sort, measure) in sorts {
            let name = format!("{sort}{suffix}");
            let load = loaded
                .then(|| Load::start(&Kind::ALL, world.outside, world.trusted()))
                .transpose()?;
            let before = acknowledged(&world)?;
            let mut times = long(&format!("{changes} times {name}"), || {
                Netns::Node.run(|| {
                    let mut api = Api::open(&world.cluster)?;
                    measure(&mut api, &mut Poller::start(world.pod)?)
                })
            })?;
            let after = acknowledged(&world)?;
            let seen = load.map(Load::finish).transpose()?;
            let failed: Option<u64> = seen
                .as_ref()
                .map(|seen| seen.iter().map(|(_, seen)| seen.failed).sum());
            for (kind, seen) in seen.iter().flatten().filter(|(_, seen)| seen.failed > 0) {
                say(format!("{name}: {kind}: {:?}", seen.told));
            }
            times.sent.sort_unstable();
            times.answered.sort_unstable();
            let milliseconds =
                |times: &[u64], share| format!("{:.2}", as_f64(percentile(times, share)) / 1e6);
            table.row([
                name,
                times.answered.len().to_string(),
                milliseconds(&times.answered, 0.5),
                milliseconds(&times.answered, 0.99),
                milliseconds(&times.sent, 0.99),
                format!("{:.2}", (after.0 - before.0) / (after.1 - before.1) * 1e3),
                times.stale.to_string(),
                failed.map_or_else(|| "no load".to_owned(), |failed| failed.to_string()),
            ]);
        }
    }
    table.print(options.common.markdown);
    Ok(())
}

/// Seconds from the controller's sight of changes to the proxy's acknowledgement, all in all, and how many.
fn acknowledged(world: &World) -> Result<(f64, f64)> {
    let name = "sluice_controller_ack_seconds";
    Ok((
        world.metric(&format!("{name}_sum"))?,
        world.metric(&format!("{name}_count"))?,
    ))
}

type Wanted = Box<dyn Fn(&Answer) -> bool + Send>;

/// Asks without pause until the answer is as wanted.
struct Poller {
    jobs: mpsc::Sender<(String, Wanted)>,
    found: mpsc::Receiver<Result<Instant>>,
}

impl Poller {
    fn start(proxy: SocketAddr) -> Result<Self> {
        let (jobs, waiting) = mpsc::channel::<(String, Wanted)>();
        let (tell, found) = mpsc::channel();
        std::thread::Builder::new().spawn(move || {
            let mut client = Netns::Node.enter().and_then(|()| Client::connect(proxy));
            while let Ok((host, wanted)) = waiting.recv() {
                let result = match &mut client {
                    Ok(client) => poll(client, &host, &wanted),
                    Err(error) => Err(anyhow!("{error:#}")),
                };
                if tell.send(result).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs, found })
    }

    /// Begins to look, lets `change` happen, and waits for it to show: times from the start of `change` and from its end.
    fn time(
        &mut self,
        host: String,
        wanted: Wanted,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<(u64, u64)> {
        self.jobs
            .send((host, wanted))
            .map_err(|_| anyhow!("the poller has ended"))?;
        let sent = Instant::now();
        change()?;
        let answered = Instant::now();
        let shown = self.found.recv().context("the poller has ended")??;
        Ok((nanoseconds(sent, shown), nanoseconds(answered, shown)))
    }
}

fn poll(client: &mut Client, host: &str, wanted: &Wanted) -> Result<Instant> {
    let start = Instant::now();
    while !wanted(&client.get(host, "/")?) {
        ensure!(start.elapsed() < LIMIT, "{host}: the change does not show");
        std::thread::sleep(POLL);
    }
    Ok(Instant::now())
}

fn route_changes(
    changes: u32,
    loaded: bool,
    poller: &mut Poller,
    change: &mut dyn FnMut(u32, &str) -> Result<()>,
    host: impl Fn(u32) -> String,
) -> Result<Times> {
    let mut times = Times::default();
    for i in 0..changes {
        // No two runs share a value, or one would find what the other has left.
        let value = format!("v{i}{}", if loaded { "-loaded" } else { "" });
        let shown = value.clone();
        let wanted: Wanted = Box::new(move |answer| answer.status == 200 && answer.says("x-version", &shown));
        let (sent, answered) = poller.time(host(i), wanted, || change(i, &value))?;
        times.sent.push(sent);
        times.answered.push(answered);
        std::thread::sleep(APART);
    }
    Ok(times)
}

/// A pod that serves: its name and address.
struct Endpoint {
    pod: String,
    address: String,
}

fn endpoints(world: &World) -> Result<Vec<Endpoint>> {
    let pods = world
        .cluster
        .get(&["pods", "--namespace", NAMESPACE, "--selector", "app=echo"])?;
    let endpoint = |pod: &Value| {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some(Endpoint {
            pod: text(&pod["metadata"]["name"])?,
            address: text(&pod["status"]["podIP"])?,
        })
    };
    let found: Vec<_> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(endpoint)
        .collect();
    ensure!(found.len() > 1, "there are fewer than two backends");
    Ok(found)
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": MOVED, "namespace": NAMESPACE },
        "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": 3000 }] },
    })
}

fn slice(endpoint: &Endpoint) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": MOVED, "namespace": NAMESPACE, "labels": { "kubernetes.io/service-name": MOVED } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 3000, "protocol": "TCP" }],
        "endpoints": [{ "addresses": [endpoint.address], "conditions": { "ready": true } }],
    })
}

fn endpoint_changes(
    changes: u32,
    api: &mut Api,
    poller: &mut Poller,
    endpoints: &[Endpoint],
) -> Result<Times> {
    let mut times = Times::default();
    let path = format!("{SLICES}/{MOVED}");
    for endpoint in endpoints.iter().cycle().skip(1).take(usize::try_from(changes)?) {
        let new = format!("\"{}\"", endpoint.pod);
        let is_new = move |answer: &Answer| answer.status == 200 && answer.body.contains(&new);
        let patch = json!({ "endpoints": slice(endpoint)["endpoints"] });
        let (sent, answered) =
            poller.time(host(MOVED), Box::new(is_new.clone()), || api.merge(&path, &patch))?;
        times.sent.push(sent);
        times.answered.push(answered);
        for _ in 0..AFTER {
            let (tell, told) = mpsc::channel();
            let is_new = is_new.clone();
            let look: Wanted = Box::new(move |answer| tell.send(is_new(answer)).is_ok());
            poller.time(host(MOVED), look, || Ok(()))?;
            times.stale += u32::from(!told.recv()?);
        }
        std::thread::sleep(APART);
    }
    Ok(times)
}
