//! `bench proxy`: what a small request costs, and how long it takes, beside other proxies.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use clap::Args;
use rustix::process::Signal;

use super::Common;
use super::host;
use super::load::{self, Sample, Scenario};
use super::peer::{Backends, Peer, Running, Setup};
use super::stats::{Table, as_f64, median};
use super::verify::verify;
use crate::process::Process;
use crate::progress;
use crate::scratch::Scratch;

const CONNECTIONS: [u32; 5] = [1, 16, 64, 256, 1000];
/// Connections of the measurements at a fixed rate.
const PACED: u32 = 64;
/// The fixed rate, as a share of what the slowest proxy can do.
const PACE: f64 = 0.5;

/// Options of `bench proxy`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Which scenarios
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    scenarios: Vec<Scenario>,
    /// Leave out the measurements at a fixed rate
    #[arg(long)]
    no_paced: bool,
    /// Count system calls (HTTP/1.1, 64 connections) instead of measuring
    #[arg(long)]
    syscalls: bool,
}

/// Runs it and prints its tables.
pub fn run(options: &Options) -> Result<()> {
    let binary = host::sluice(options.common.binary.as_deref())?;
    let scratch = Scratch::new()?;
    let [http, grpc] = crate::host::free_ports()?;
    let setup = Setup::new(scratch.path(), binary, Backends { http, grpc })?;
    let _backend = setup.small_backend()?;
    let bench = Bench {
        options,
        scratch: &scratch,
        scenarios: if options.scenarios.is_empty() {
            Scenario::ALL.to_vec()
        } else {
            options.scenarios.clone()
        },
    };
    for peer in options.common.peers() {
        let mut scenarios = bench.scenarios.clone();
        scenarios.retain(|&scenario| peer.can(scenario));
        verify(&setup, peer, &scenarios, scratch.path())?;
    }
    progress::say("all proxies answer, add their headers and log");
    let proxies = options
        .common
        .peers()
        .into_iter()
        .map(|peer| setup.start(peer, Stdio::null()))
        .collect::<Result<Vec<_>>>()?;
    if options.syscalls {
        return bench.syscalls(&proxies);
    }
    for &scenario in &bench.scenarios {
        let able: Vec<_> = proxies.iter().filter(|proxy| proxy.peer.can(scenario)).collect();
        bench.scenario(scenario, &able)?;
    }
    Ok(())
}

struct Bench<'a> {
    options: &'a Options,
    scratch: &'a Scratch,
    scenarios: Vec<Scenario>,
}

type Samples = BTreeMap<(u32, Peer), Vec<Sample>>;

impl Bench<'_> {
    fn scenario(&self, scenario: Scenario, proxies: &[&Running]) -> Result<()> {
        let common = &self.options.common;
        let connections = common.connections(&CONNECTIONS);
        let (rounds, seconds) = (common.rounds(3), common.seconds(1));
        let mut samples = Samples::new();
        for round in 1..=rounds {
            progress::say(format!("{}: round {round} of {rounds}", scenario.title()));
            for &connections in &connections {
                for proxy in proxies {
                    let sample = load::closed(scenario, proxy, connections, seconds, self.scratch.path())
                        .with_context(|| format!("{}, {connections} connections", proxy.peer.name()))?;
                    samples.entry((connections, proxy.peer)).or_default().push(sample);
                }
            }
        }
        closed_table(scenario, &samples).print(common.markdown);
        if self.options.no_paced {
            return Ok(());
        }
        let busy = if connections.contains(&PACED) {
            PACED
        } else {
            connections[0]
        };
        let slowest = proxies
            .iter()
            .filter_map(|proxy| samples.get(&(busy, proxy.peer)))
            .map(|samples| median(samples.iter().map(|sample| sample.rate)))
            .fold(f64::INFINITY, f64::min);
        self.paced(scenario, proxies, (slowest * PACE / 100.0).round() * 100.0)
    }

    fn paced(&self, scenario: Scenario, proxies: &[&Running], rate: f64) -> Result<()> {
        let common = &self.options.common;
        let (rounds, seconds) = (common.rounds(3), common.seconds(2));
        let mut samples = Samples::new();
        for round in 1..=rounds {
            progress::say(format!(
                "{} at {rate:.0} requests a second: round {round} of {rounds}",
                scenario.title()
            ));
            for proxy in proxies {
                let sample = load::fixed(scenario, proxy, PACED, rate, seconds, self.scratch.path())
                    .with_context(|| format!("{} at {rate:.0} a second", proxy.peer.name()))?;
                samples.entry((PACED, proxy.peer)).or_default().push(sample);
            }
        }
        let title = format!(
            "{}, {rate:.0} requests a second over {PACED} connections",
            scenario.title()
        );
        let columns = [
            "proxy",
            "requests/s",
            "CPU µs/request",
            "CPU, times Sluice's",
            "p50 ms",
            "p99 ms",
        ];
        let mut table = Table::new(title, &columns);
        for proxy in proxies {
            let row = Row::of(&samples, PACED, proxy.peer);
            table.row([
                proxy.peer.name().to_owned(),
                format!("{:.0}", row.middle.rate),
                format!("{:.1}", row.middle.cpu),
                row.ratio(),
                format!("{:.2}", row.middle.p50),
                format!("{:.2}", row.middle.p99),
            ]);
        }
        table.print(common.markdown);
        Ok(())
    }

    /// System calls for each request, as strace counts them.
    fn syscalls(&self, proxies: &[Running]) -> Result<()> {
        let seconds = self.options.common.seconds(2);
        let mut table = Table::new(
            format!("System calls, HTTP/1.1, {PACED} connections"),
            &["proxy", "calls/request", "most frequent, for 100 requests"],
        );
        for proxy in proxies {
            progress::say(format!("system calls of {}", proxy.peer.name()));
            // What is set up once is not to count.
            load::requests(proxy, PACED, 1)?;
            let report = self.scratch.path().join("strace.txt");
            let mut strace = Command::new("strace");
            strace.args(["-c", "-f", "-o"]).arg(&report);
            for pid in proxy.process.family() {
                strace.args(["-p", &pid.to_string()]);
            }
            let mut strace = Process::start("strace", &mut strace, self.scratch.path(), Stdio::null())?;
            // It says on standard error when it is attached, but not to how many threads; there are few.
            std::thread::sleep(std::time::Duration::from_millis(500));
            strace.check()?;
            let requests = load::requests(proxy, PACED, seconds)?;
            strace.end(Signal::INT);
            let text = std::fs::read_to_string(&report).context("strace wrote no summary")?;
            let mut calls = parse_strace(&text);
            calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            let total: u64 = calls.iter().map(|(_, count)| count).sum();
            let per_request = as_f64(total) / as_f64(requests);
            let frequent = calls
                .iter()
                .take(6)
                .map(|(name, count)| format!("{name} {:.0}", as_f64(*count) * 100.0 / as_f64(requests)));
            table.row([
                proxy.peer.name().to_owned(),
                format!("{per_request:.2}"),
                frequent.collect::<Vec<_>>().join(", "),
            ]);
        }
        table.print(self.options.common.markdown);
        Ok(())
    }
}

fn closed_table(scenario: Scenario, samples: &Samples) -> Table {
    let columns = [
        "connections",
        "proxy",
        "CPU µs/request",
        "CPU, times Sluice's",
        "requests/s",
        "requests/s of a full core",
        "p50 ms",
        "p99 ms",
    ];
    let mut table = Table::new(format!("{}, closed loop", scenario.title()), &columns);
    for &(connections, peer) in samples.keys() {
        let row = Row::of(samples, connections, peer);
        table.row([
            connections.to_string(),
            peer.name().to_owned(),
            format!("{:.1}", row.middle.cpu),
            row.ratio(),
            format!("{:.0}", row.middle.rate),
            format!("{:.0}", 1e6 / row.middle.cpu),
            format!("{:.2}", row.middle.p50),
            format!("{:.2}", row.middle.p99),
        ]);
    }
    table
}

/// One line of a table: the medians of a proxy's samples.
struct Row {
    middle: Sample,
    /// CPU as a multiple of Sluice's, if that was measured.
    times: f64,
}

impl Row {
    fn of(samples: &Samples, connections: u32, peer: Peer) -> Self {
        let of = |peer: Peer, value: fn(&Sample) -> f64| {
            let samples = samples.get(&(connections, peer)).map(Vec::as_slice);
            median(samples.unwrap_or_default().iter().map(value))
        };
        let cpu = of(peer, |sample| sample.cpu);
        Self {
            middle: Sample {
                cpu,
                rate: of(peer, |sample| sample.rate),
                p50: of(peer, |sample| sample.p50),
                p99: of(peer, |sample| sample.p99),
            },
            times: cpu / of(Peer::Sluice, |sample| sample.cpu),
        }
    }

    fn ratio(&self) -> String {
        if self.times.is_nan() {
            "-".to_owned()
        } else {
            format!("{:.2}", self.times)
        }
    }
}

/// Calls and how often each was made, from the summary of `strace -c`.
fn parse_strace(text: &str) -> Vec<(String, u64)> {
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // % time, seconds, usecs/call, calls, errors if any, name
            let name = *fields.last()?;
            let calls = fields.get(3)?.parse().ok()?;
            (fields.len() >= 5 && name != "total").then(|| (name.to_owned(), calls))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_with_and_without_errors() {
        let text = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000100           1       120           sendto
 40.00    0.000050           1        80         3 recvfrom
------ ----------- ----------- --------- --------- ----------------
100.00    0.000150           0       200         3 total
";
        assert_eq!(
            parse_strace(text),
            [("sendto".to_owned(), 120), ("recvfrom".to_owned(), 80)]
        );
    }

    #[test]
    fn a_row_is_the_median_and_its_ratio_to_ours() {
        let sample = |cpu| Sample {
            cpu,
            rate: 1.0,
            p50: 1.0,
            p99: 1.0,
        };
        let mut samples = Samples::new();
        samples.insert((64, Peer::Sluice), [30.0, 10.0, 20.0].map(sample).to_vec());
        samples.insert((64, Peer::Envoy), [50.0].map(sample).to_vec());
        let row = Row::of(&samples, 64, Peer::Envoy);
        assert_eq!(row.ratio(), "2.50");
        assert_eq!(Row::of(&samples, 1, Peer::Envoy).ratio(), "-");
    }
}
