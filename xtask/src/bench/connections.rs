//! `bench connections`: what a connection that does nothing costs in memory, and what a TLS handshake costs in CPU.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use rustix::process::{Resource, getrlimit};

use super::Common;
use super::helper::{Kind, Started};
use super::peer::{Peer, Setup};
use super::stats::{Table, as_f64, median};
use crate::progress;
use crate::scratch::Scratch;

/// Idle connections, if the limit of open files permits.
const CONNECTIONS: u64 = 10_000;
/// Files that a proxy has open besides its connections, generously.
const OTHER_FILES: u64 = 600;
const KINDS: [(Kind, &str, &str); 3] = [
    (Kind::Plain, "plain", "HTTP/1.1"),
    (Kind::Tls, "tls", "TLS 1.3"),
    (Kind::Websocket, "websocket", "WebSocket"),
];

/// Options of `bench connections`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
}

/// Runs it and prints its tables.
pub fn run(options: &Options) -> Result<()> {
    let common = &options.common;
    let scratch = Scratch::new()?;
    let (setup, _backend) = common.with_own_backend(&scratch)?;
    idle(common, &setup, &scratch)?;
    handshakes(common, &setup, &scratch)
}

fn idle(common: &Common, setup: &Setup, scratch: &Scratch) -> Result<()> {
    let columns = [
        "proxy",
        "connections",
        "number",
        "MB before",
        "MB after",
        "kB each",
    ];
    let mut table = Table::new("Memory of idle connections that have served a request", &columns);
    for (kind, argument, name) in KINDS {
        let number = number(common, kind);
        for peer in common.peers() {
            progress::say(format!("{}: {number} idle connections, {name}", peer.name()));
            let (before, after) = hold(setup, peer, kind, argument, number, scratch)
                .with_context(|| format!("{}: {number} connections, {name}", peer.name()))?;
            table.row([
                peer.name().to_owned(),
                name.to_owned(),
                number.to_string(),
                format!("{:.1}", before / 1e6),
                format!("{:.1}", after / 1e6),
                format!("{:.1}", (after - before) / as_f64(number) / 1e3),
            ]);
        }
    }
    table.print(common.markdown);
    Ok(())
}

/// How many connections of a kind a process may have open; a WebSocket is two in the proxy.
fn number(common: &Common, kind: Kind) -> u64 {
    let usual = if common.quick { 500 } else { CONNECTIONS };
    let wanted = common
        .connections
        .first()
        .map_or(usual, |&number| u64::from(number));
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let each = if kind == Kind::Websocket { 2 } else { 1 };
    wanted.min(files.saturating_sub(OTHER_FILES) / each)
}

/// Resident memory before and with the connections, of a proxy that has no other work.
fn hold(
    setup: &Setup,
    peer: Peer,
    kind: Kind,
    argument: &str,
    number: u64,
    scratch: &Scratch,
) -> Result<(f64, f64)> {
    let proxy = setup.start(peer, Stdio::null())?;
    let port = if kind == Kind::Tls {
        proxy.ports.https
    } else {
        proxy.ports.http
    };
    let certificate = scratch.path().join("tls.crt");
    let arguments = |number: u64| {
        let numbers = [port.to_string(), number.to_string()];
        let [port, number] = numbers;
        Started::new(
            &[
                "hold",
                "--port",
                &port,
                "--kind",
                argument,
                "--connections",
                &number,
                "--certificate",
                &certificate.to_string_lossy(),
            ],
            scratch.path(),
        )
    };
    // What a process sets up with its first connections is not theirs.
    let mut first = arguments(10)?;
    first.wait("ready")?;
    drop(first);
    std::thread::sleep(Duration::from_millis(500));
    let before = proxy.process.resident();
    let mut held = arguments(number)?;
    held.wait("ready")?;
    std::thread::sleep(Duration::from_secs(1));
    Ok((as_f64(before), as_f64(proxy.process.resident())))
}

fn handshakes(common: &Common, setup: &Setup, scratch: &Scratch) -> Result<()> {
    let (rounds, seconds) = (common.rounds(3), common.seconds(2));
    let certificate = scratch.path().join("tls.crt");
    let proxies = common
        .peers()
        .into_iter()
        .map(|peer| setup.start(peer, Stdio::null()))
        .collect::<Result<Vec<_>>>()?;
    let mut samples = vec![Vec::new(); proxies.len()];
    for round in 1..=rounds {
        progress::say(format!("TLS handshakes: round {round} of {rounds}"));
        for (proxy, samples) in proxies.iter().zip(&mut samples) {
            let mut load = Started::new(
                &[
                    "handshakes",
                    "--port",
                    &proxy.ports.https.to_string(),
                    "--seconds",
                    &seconds.to_string(),
                    "--certificate",
                    &certificate.to_string_lossy(),
                ],
                scratch.path(),
            )?;
            load.wait("start")?;
            let before = proxy.process.cpu();
            let count: u64 = load
                .wait("end")
                .with_context(|| format!("{}: TLS handshakes", proxy.peer.name()))?
                .parse()?;
            let cpu = proxy.process.cpu().saturating_sub(before);
            samples.push(cpu.as_secs_f64() * 1e6 / as_f64(count.max(1)));
        }
    }
    let ours = proxies
        .iter()
        .zip(&samples)
        .find(|(proxy, _)| proxy.peer == Peer::Sluice)
        .map_or(f64::NAN, |(_, samples)| median(samples.iter().copied()));
    let columns = [
        "proxy",
        "CPU µs each",
        "handshakes/s of a full core",
        "CPU, times Sluice's",
    ];
    let title = "TLS 1.3 handshakes, ECDSA P-256, none resumed; connection and close included";
    let mut table = Table::new(title, &columns);
    for (proxy, samples) in proxies.iter().zip(&samples) {
        let cpu = median(samples.iter().copied());
        table.row([
            proxy.peer.name().to_owned(),
            format!("{cpu:.0}"),
            format!("{:.0}", 1e6 / cpu),
            format!("{:.2}", cpu / ours),
        ]);
    }
    table.print(common.markdown);
    Ok(())
}
