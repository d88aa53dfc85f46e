//! `bench routes`: what a route costs at rest and when it changes, from 1 to 40,000 of them.
//!
//! The processes `sluice controller` and `sluice dataplane` run as they are deployed. The API server is xtask's own, in
//! memory: a real one needs many minutes to take in 40,000 objects, and its own work would weigh on the two cores
//! while the controller is measured.

mod objects;
mod peers;
mod sluice;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use super::Common;
use super::client::Client;
use super::helper::Started;
use super::host;
use super::peer::Peer;
use super::stats::{Table, as_f64, percentile};
use crate::process::Process;
use crate::progress::{long, say};
use crate::scratch::Scratch;
use objects::Size;
use sluice::Measured;

/// From this many on, routes are at ListenerSets: one for sixteen routes.
const SETS_FROM: u32 = 40_000;
/// Requests whose cost is measured, each to another route.
const REQUESTS: u32 = 4_000;
/// Requests before.
const WARM_UP: u32 = 500;
/// A step through all routes that visits none twice soon.
const STEP: u32 = 7919;

/// Options of `bench routes`.
#[derive(Debug, Args)]
pub struct Options {
    /// Numbers of routes
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    routes: Vec<u32>,
    /// Changes that are measured at each number
    #[arg(long, value_name = "N", default_value_t = 100)]
    changes: u32,
    #[command(flatten)]
    common: Common,
}

/// What holds for all proxies.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Resident bytes before the first request.
    resident: u64,
    /// CPU of a request.
    request: Duration,
}

/// Runs it and prints its tables.
pub fn run(options: &Options) -> Result<()> {
    let common = &options.common;
    let binary = host::sluice(common.binary.as_deref())?;
    let scratch = Scratch::new()?;
    let [backend] = crate::host::free_ports()?;
    let mut server = Started::new(&["backend", "--port", &backend.to_string()], scratch.path())?;
    server.wait("listening")?;
    let numbers = match (options.routes.as_slice(), common.quick) {
        ([], true) => vec![1, 1_000],
        ([], false) => vec![1, 100, 1_000, 5_000, 40_000],
        (given, _) => given.to_vec(),
    };
    let mut costs = Table::new(
        "Routes: resident memory of the proxy, and CPU of a request to any of them",
        &["routes", "proxy", "MB", "µs/request"],
    );
    let mut control = Table::new(
        "Routes: the controller, and a change of one route (CPU; time to the first answer that shows it)",
        &[
            "routes",
            "controller MB",
            "CPU at rest",
            "ms/change",
            "proxy ms/change",
            "p50 ms",
            "p99 ms",
            "start to read s",
            "start to serving s",
            "statuses written s",
        ],
    );
    for routes in numbers {
        let [port] = crate::host::free_ports()?;
        let sets = if routes >= SETS_FROM { routes / 16 } else { 0 };
        let size = Size {
            routes,
            sets,
            port,
            backend,
        };
        for peer in common.peers() {
            let cost = long(&format!("{}: {routes} routes", peer.name()), || {
                if peer == Peer::Sluice {
                    let measured = sluice::measure(size, options.changes, &binary, scratch.path())?;
                    control.row(row(routes, &measured));
                    return Ok(measured.cost);
                }
                let mut process = peers::start(peer, size, scratch.path())?;
                cost(&mut process, size)
            });
            match cost {
                Ok(Cost { resident, request }) => costs.row([
                    routes.to_string(),
                    peer.name().to_owned(),
                    megabytes(resident),
                    format!("{:.1}", request.as_secs_f64() * 1e6),
                ]),
                Err(error) if peer != Peer::Sluice => say(format!("{}: {error:#}", peer.name())),
                Err(error) => return Err(error),
            }
        }
    }
    costs.print(common.markdown);
    control.print(common.markdown);
    Ok(())
}

fn row(routes: u32, measured: &Measured) -> [String; 10] {
    let milliseconds = |nanoseconds: u64| format!("{:.2}", as_f64(nanoseconds) / 1e6);
    let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
    let mut times = measured.times.clone();
    times.sort_unstable();
    [
        routes.to_string(),
        megabytes(measured.controller_resident),
        format!("{:.2} %", measured.controller_rest * 100.0),
        format!("{:.2}", measured.controller_change.as_secs_f64() * 1e3),
        format!("{:.2}", measured.proxy_change.as_secs_f64() * 1e3),
        milliseconds(percentile(&times, 0.5)),
        milliseconds(percentile(&times, 0.99)),
        seconds(measured.read),
        seconds(measured.serving),
        seconds(measured.stated),
    ]
}

/// Memory of a proxy that has just been loaded, then CPU of requests over all routes.
fn cost(process: &mut Process, size: Size) -> Result<Cost> {
    settle(process);
    let resident = process.resident();
    let mut client = Client::connect(address(size))?;
    let mut send = |number: u32, offset: u32| {
        for i in 0..number {
            let route = u64::from(i + offset) * u64::from(STEP) % u64::from(size.routes);
            let answer = client.get(&size.host(u32::try_from(route)?), "/")?;
            ensure!(answer.status == 200, "route {route}: {}", answer.head);
        }
        anyhow::Ok(())
    };
    send(WARM_UP, 0)?;
    let before = process.cpu();
    send(REQUESTS, WARM_UP)?;
    let request = process.cpu().saturating_sub(before) / REQUESTS;
    process.check()?;
    Ok(Cost { resident, request })
}

fn address(size: Size) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, size.port).into()
}

/// Waits until a process does nothing any more, for a minute and a half at most.
fn settle(process: &Process) {
    let pause = Duration::from_millis(500);
    let start = Instant::now();
    let mut before = process.cpu();
    while start.elapsed() < Duration::from_secs(90) {
        std::thread::sleep(pause);
        let now = process.cpu();
        if now.saturating_sub(before) < pause / 50 {
            return;
        }
        before = now;
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", as_f64(bytes) / 1e6)
}
