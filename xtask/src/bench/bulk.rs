//! `bench bulk`: what large bodies cost in CPU, and that no proxy's memory grows with them.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::Common;
use super::helper::{Direction, Started};
use super::peer::{Peer, Running, Setup};
use super::stats::{Table, as_f64, median};
use crate::progress;
use crate::scratch::Scratch;

const MEGABYTE: u64 = 1_000_000;
const SIZES: [u64; 2] = [MEGABYTE, 100 * MEGABYTE];
const CONNECTIONS: [u32; 2] = [1, 16];
/// Connections whose receiver stops, and how large their bodies are.
const STALLED: (u32, u64) = (16, 100 * MEGABYTE);
const DIRECTIONS: [(Direction, &str); 2] = [(Direction::Download, "download"), (Direction::Upload, "upload")];

/// Options of `bench bulk`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
}

/// What one measurement found.
#[derive(Clone, Copy)]
struct Sample {
    /// Bytes in a second.
    rate: f64,
    /// Bytes for each second of the proxy's CPU.
    per_cpu: f64,
    /// Most resident bytes of the proxy.
    peak: f64,
}

/// Runs it and prints its tables.
pub fn run(options: &Options) -> Result<()> {
    let common = &options.common;
    let scratch = Scratch::new()?;
    let (setup, _backend) = common.with_own_backend(&scratch)?;
    stalled(common, &setup, &scratch)?;
    let proxies = common
        .peers()
        .into_iter()
        .map(|peer| setup.start(peer, Stdio::null()))
        .collect::<Result<Vec<_>>>()?;
    for (direction, name) in DIRECTIONS {
        moved(common, &proxies, direction, name, &scratch)?;
    }
    Ok(())
}

fn moved(
    common: &Common,
    proxies: &[Running],
    direction: Direction,
    name: &str,
    scratch: &Scratch,
) -> Result<()> {
    let (rounds, seconds) = (common.rounds(3), common.seconds(1));
    let connections = common.connections(&CONNECTIONS);
    let mut samples: BTreeMap<(u64, u32, Peer), Vec<Sample>> = BTreeMap::new();
    for round in 1..=rounds {
        progress::say(format!("{name}: round {round} of {rounds}"));
        for bytes in SIZES {
            for &connections in &connections {
                for proxy in proxies {
                    let sample = transfer(proxy, direction, bytes, connections, seconds, scratch)
                        .with_context(|| {
                            format!("{}: {name} of {bytes} bytes on {connections}", proxy.peer.name())
                        })?;
                    let key = (bytes, connections, proxy.peer);
                    samples.entry(key).or_default().push(sample);
                }
            }
        }
    }
    let columns = [
        "body",
        "connections",
        "proxy",
        "GB/s of a full core",
        "Sluice's, times this",
        "GB/s",
        "peak MB",
    ];
    let mut table = Table::new(format!("Bodies, {name}, HTTP/1.1"), &columns);
    for &(bytes, connections, peer) in samples.keys() {
        let of = |peer: Peer, value: fn(&Sample) -> f64| {
            let samples = samples.get(&(bytes, connections, peer)).map(Vec::as_slice);
            median(samples.unwrap_or_default().iter().map(value))
        };
        let per_cpu = of(peer, |sample| sample.per_cpu);
        let ours = of(Peer::Sluice, |sample| sample.per_cpu);
        table.row([
            format!("{} MB", bytes / MEGABYTE),
            connections.to_string(),
            peer.name().to_owned(),
            format!("{:.2}", per_cpu / 1e9),
            format!("{:.2}", ours / per_cpu),
            format!("{:.2}", of(peer, |sample| sample.rate) / 1e9),
            format!("{:.1}", of(peer, |sample| sample.peak) / 1e6),
        ]);
    }
    table.print(common.markdown);
    Ok(())
}

fn transfer(
    proxy: &Running,
    direction: Direction,
    bytes: u64,
    connections: u32,
    seconds: u32,
    scratch: &Scratch,
) -> Result<Sample> {
    proxy.process.forget_peak()?;
    let mut load = start(proxy, direction, bytes, connections, seconds, false, scratch)?;
    let before = proxy.process.cpu();
    let moved: u64 = load.wait("end")?.parse()?;
    let cpu = proxy.process.cpu().saturating_sub(before);
    Ok(Sample {
        rate: as_f64(moved) / f64::from(seconds),
        per_cpu: as_f64(moved) / cpu.as_secs_f64(),
        peak: as_f64(proxy.process.peak()),
    })
}

/// Starts a transfer and waits until it begins.
fn start(
    proxy: &Running,
    direction: Direction,
    bytes: u64,
    connections: u32,
    seconds: u32,
    stall: bool,
    scratch: &Scratch,
) -> Result<Started> {
    let numbers = [
        proxy.ports.http.to_string(),
        bytes.to_string(),
        connections.to_string(),
        seconds.to_string(),
    ];
    let [port, bytes, connections, seconds] = &numbers;
    let direction = match direction {
        Direction::Download => "download",
        Direction::Upload => "upload",
    };
    let mut arguments = vec![
        "transfer",
        "--port",
        port,
        "--direction",
        direction,
        "--bytes",
        bytes,
        "--connections",
        connections,
        "--seconds",
        seconds,
    ];
    if stall {
        arguments.push("--stall");
    }
    let mut load = Started::new(&arguments, scratch.path())?;
    load.wait("start")?;
    Ok(load)
}

/// Memory while receivers have stopped and senders go on for as long as they can.
fn stalled(common: &Common, setup: &Setup, scratch: &Scratch) -> Result<()> {
    let (connections, bytes) = STALLED;
    let title = format!(
        "Memory while the receivers of {connections} bodies of {} MB stand still",
        bytes / MEGABYTE
    );
    let columns = [
        "proxy",
        "MB before",
        "download: peak MB",
        "upload: peak MB",
        "most a connection, kB",
    ];
    let mut table = Table::new(title, &columns);
    for peer in common.peers() {
        progress::say(format!("{}: receivers that stand still", peer.name()));
        let mut row = vec![peer.name().to_owned()];
        let mut most = 0.0_f64;
        for (direction, name) in DIRECTIONS {
            // A process of its own: what an earlier load left allocated would hide what this one takes.
            let proxy = setup.start(peer, Stdio::null())?;
            std::thread::sleep(Duration::from_millis(200));
            let before = as_f64(proxy.process.resident());
            if row.len() == 1 {
                row.push(format!("{:.1}", before / 1e6));
            }
            let mut load = start(&proxy, direction, bytes, connections, 2, true, scratch)?;
            load.wait("end")
                .with_context(|| format!("{}: {name} that stands still", peer.name()))?;
            let peak = as_f64(proxy.process.peak());
            row.push(format!("{:.1}", peak / 1e6));
            most = most.max((peak - before) / f64::from(connections));
        }
        row.push(format!("{:.0}", most / 1e3));
        table.row(row);
    }
    table.print(common.markdown);
    Ok(())
}
