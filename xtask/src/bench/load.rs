//! The load tools: how they are started, and what their output says.
//!
//! wrk makes the closed loop over HTTP/1.1 because it is the lightest; h2load makes the rest. Any request that fails
//! fails the run: a proxy that answers with errors is quick.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::host::LOAD_CORE;
use super::peer::{self, HOST, Running};
use super::stats::{as_f64, percentile};
use crate::cmd::{Run, line};
use crate::process::pinned;

/// What clients and backends speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// HTTP/1.1 to HTTP/1.1
    Http1,
    /// HTTP/2 over TLS to HTTP/1.1
    Http2,
    /// Unary gRPC without TLS on both sides
    Grpc,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Grpc];

    /// As tables call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1 to HTTP/1.1",
            Self::Http2 => "TLS and HTTP/2 to HTTP/1.1",
            Self::Grpc => "gRPC, h2c to h2c",
        }
    }
}

/// What one measurement found. Latencies in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Microseconds of the proxy's CPU for each request.
    pub cpu: f64,
    /// Requests in a second.
    pub rate: f64,
    pub p50: f64,
    pub p99: f64,
}

/// As many requests as `connections` give when each waits for its answer.
pub fn closed(
    scenario: Scenario,
    proxy: &Running,
    connections: u32,
    seconds: u32,
    scratch: &Path,
) -> Result<Sample> {
    match scenario {
        Scenario::Http1 => wrk(proxy, connections, seconds),
        Scenario::Http2 | Scenario::Grpc => h2load_closed(scenario, proxy, connections, seconds, scratch),
    }
}

fn wrk(proxy: &Running, connections: u32, seconds: u32) -> Result<Sample> {
    let before = proxy.process.cpu();
    let report = run_wrk(proxy, connections, seconds)?;
    let cpu = proxy.process.cpu().saturating_sub(before);
    Ok(Sample {
        cpu: cpu.as_secs_f64() * 1e6 / as_f64(report.requests),
        ..report.sample
    })
}

/// Loads with wrk and gives no more than the number of requests.
pub fn requests(proxy: &Running, connections: u32, seconds: u32) -> Result<u64> {
    Ok(run_wrk(proxy, connections, seconds)?.requests)
}

fn run_wrk(proxy: &Running, connections: u32, seconds: u32) -> Result<WrkReport> {
    let program = crate::host::find("wrk").context("there is no wrk")?;
    let mut command = pinned(LOAD_CORE, &program);
    command
        .args([
            "-t1",
            "--latency",
            "--timeout",
            "5s",
            "-H",
            &format!("Host: {HOST}"),
        ])
        .args([format!("-c{connections}"), format!("-d{seconds}s")])
        .arg(format!("http://127.0.0.1:{}/", proxy.ports.http));
    let text = command.text()?;
    parse_wrk(&text).with_context(|| format!("`{}` printed:\n{text}", line(&command)))
}

struct WrkReport {
    requests: u64,
    sample: Sample,
}

fn parse_wrk(text: &str) -> Result<WrkReport> {
    for bad in ["Non-2xx", "Socket errors"] {
        if let Some(line) = text.lines().find(|line| line.trim().starts_with(bad)) {
            bail!("requests failed: {}", line.trim());
        }
    }
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(str::trim)
            .with_context(|| format!("wrk did not say {name:?}"))
    };
    let requests = text.lines().find(|line| line.contains(" requests in "));
    let requests: u64 = requests
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .context("wrk did not say how many requests")?;
    if requests == 0 {
        bail!("not one request was answered");
    }
    Ok(WrkReport {
        requests,
        sample: Sample {
            cpu: f64::NAN,
            rate: field("Requests/sec:")?.parse()?,
            p50: milliseconds(field("50%")?)?,
            p99: milliseconds(field("99%")?)?,
        },
    })
}

/// A time as wrk prints it: `270.00us`, `5.12ms`, `1.20s`.
fn milliseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 60e3)] {
        if let Some(number) = text.strip_suffix(unit)
            && let Ok(number) = number.parse::<f64>()
        {
            return Ok(number * factor);
        }
    }
    bail!("{text:?} is no time")
}

/// h2load's closed loop; it says itself when warming up is over.
fn h2load_closed(
    scenario: Scenario,
    proxy: &Running,
    connections: u32,
    seconds: u32,
    scratch: &Path,
) -> Result<Sample> {
    let mut command = h2load(scenario, proxy, connections, scratch)?;
    command.args(["--warm-up-time=500ms", &format!("-D{seconds}")]);
    let look = |output: ChildStdout, text: &mut String| {
        let (mut start, mut end) = (None, None);
        for line in BufReader::new(output).lines() {
            let line = line?;
            if line.starts_with("Main benchmark duration is started") {
                start = Some(Look::at(proxy)?);
            } else if line.starts_with("Main benchmark duration is over") {
                end = Some(Look::at(proxy)?);
            }
            text.push_str(&line);
            text.push('\n');
        }
        start
            .zip(end)
            .with_context(|| format!("h2load did not say when it began and ended:\n{text}"))
    };
    run_h2load(command, scratch, look)
}

/// `rate` requests a second, however fast the answers come. With a duration h2load lets all connections send at the same
/// moments; with a number of requests their beginnings can be spread.
pub fn fixed(
    scenario: Scenario,
    proxy: &Running,
    connections: u32,
    rate: f64,
    seconds: u32,
    scratch: &Path,
) -> Result<Sample> {
    let mut command = h2load(scenario, proxy, connections, scratch)?;
    let total = (rate * f64::from(seconds + 1)).round();
    command
        .args(["-r1", "--rate-period=1ms", &format!("-n{total:.0}")])
        .arg(format!("--rps={:.3}", rate / f64::from(connections)));
    let look = |mut output: ChildStdout, text: &mut String| {
        // Half a second for the connections to come, and as much is left at the end.
        std::thread::sleep(Duration::from_millis(500));
        let start = Look::at(proxy)?;
        std::thread::sleep(Duration::from_secs(seconds.into()));
        let end = Look::at(proxy)?;
        output.read_to_string(text)?;
        Ok((start, end))
    };
    run_h2load(command, scratch, look)
}

fn run_h2load(
    mut command: Command,
    scratch: &Path,
    look: impl FnOnce(ChildStdout, &mut String) -> Result<(Look, Look)>,
) -> Result<Sample> {
    let log = scratch.join("h2load.log");
    // It appends.
    if log.exists() {
        fs::remove_file(&log)?;
    }
    command.arg(format!("--log-file={}", log.display()));
    let name = line(&command);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("no standard output")?;
    let mut text = String::new();
    let looks = look(output, &mut text);
    if !child.wait()?.success() {
        bail!("`{name}` failed:\n{text}");
    }
    check_h2load(&text).with_context(|| format!("`{name}`"))?;
    let (start, end) = looks?;
    let mut latencies = latencies(&fs::read_to_string(&log)?, start.time..end.time)?;
    latencies.sort_unstable();
    if latencies.is_empty() {
        bail!("`{name}`: not one request was answered");
    }
    let count = as_f64(latencies.len() as u64);
    Ok(Sample {
        cpu: end.cpu.saturating_sub(start.cpu).as_secs_f64() * 1e6 / count,
        rate: count * 1e6 / as_f64(end.time - start.time),
        p50: as_f64(percentile(&latencies, 0.5)) / 1e3,
        p99: as_f64(percentile(&latencies, 0.99)) / 1e3,
    })
}

/// One thread, and one request at a time on each connection.
fn h2load(scenario: Scenario, proxy: &Running, connections: u32, scratch: &Path) -> Result<Command> {
    let program = crate::host::find("h2load").context("there is no h2load")?;
    let mut command = pinned(LOAD_CORE, &program);
    let (port, url) = match scenario {
        Scenario::Http1 => {
            command.arg("--h1");
            (proxy.ports.http, format!("http://{HOST}/"))
        }
        Scenario::Http2 => (proxy.ports.https, format!("https://{HOST}/")),
        Scenario::Grpc => {
            command.arg("-d").arg(peer::message(scratch));
            command.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
            (proxy.ports.grpc, format!("http://{HOST}/bench.Echo/Unary"))
        }
    };
    command
        .args(["-t1", "-m1", &format!("-c{connections}")])
        .arg(format!("--connect-to=127.0.0.1:{port}"))
        .arg(url);
    Ok(command)
}

fn check_h2load(text: &str) -> Result<()> {
    let requests = text.lines().find(|line| line.starts_with("requests: "));
    let status = text.lines().find(|line| line.starts_with("status codes: "));
    let (Some(requests), Some(status)) = (requests, status) else {
        bail!("h2load did not say how it went:\n{text}");
    };
    let clean = [
        (requests, " 0 failed"),
        (requests, " 0 errored"),
        (requests, " 0 timeout"),
        (status, " 0 3xx"),
        (status, " 0 4xx"),
        (status, " 0 5xx"),
    ];
    if clean.iter().any(|(line, wanted)| !line.contains(wanted)) {
        bail!("requests failed: {requests}; {status}");
    }
    Ok(())
}

/// A look at the proxy: when, in microseconds since the epoch, and the CPU that it has used by then.
#[derive(Clone, Copy)]
struct Look {
    time: u64,
    cpu: Duration,
}

impl Look {
    fn at(proxy: &Running) -> Result<Self> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(Self {
            time: u64::try_from(since.as_micros())?,
            cpu: proxy.process.cpu(),
        })
    }
}

/// Latencies in microseconds of the requests that ended in the window, from h2load's log: start, status, duration.
fn latencies(log: &str, window: Range<u64>) -> Result<Vec<u64>> {
    let mut latencies = Vec::new();
    for line in log.lines() {
        let mut fields = line.split('\t').map(str::parse::<u64>);
        let (Some(Ok(start)), Some(Ok(status)), Some(Ok(duration))) =
            (fields.next(), fields.next(), fields.next())
        else {
            bail!("h2load logged {line:?}");
        };
        // 0: the head came while h2load warmed up, and the end after that. Its counts of failures, which have been looked
        // at, include none of these.
        if status != 0 && !(200..300).contains(&status) {
            bail!("a request was answered with status {status}");
        }
        if window.contains(&(start + duration)) {
            latencies.push(duration);
        }
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 2s test @ http://127.0.0.1:18999/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   524.95us    0.91ms   8.71ms   93.93%
    Req/Sec   101.49k    25.45k  117.36k    75.00%
  Latency Distribution
     50%  271.00us
     75%  302.00us
     90%  549.00us
     99%    5.12ms
  202038 requests in 2.01s, 33.33MB read
Requests/sec: 100722.87
Transfer/sec:     16.62MB
";

    #[test]
    fn wrk_is_understood() {
        let report = parse_wrk(WRK).unwrap();
        assert_eq!(report.requests, 202_038);
        assert!((report.sample.rate - 100_722.87).abs() < 1e-6);
        assert!((report.sample.p50 - 0.271).abs() < 1e-9);
        assert!((report.sample.p99 - 5.12).abs() < 1e-9);
    }

    #[test]
    fn failed_requests_of_wrk_are_an_error() {
        for bad in [
            "  Non-2xx or 3xx responses: 3",
            "  Socket errors: connect 0, read 1, write 0, timeout 0",
        ] {
            assert!(parse_wrk(&format!("{WRK}{bad}\n")).is_err());
        }
    }

    #[test]
    fn failed_requests_of_h2load_are_an_error() {
        let good = "requests: 9 total, 9 started, 9 done, 9 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 9 2xx, 0 3xx, 0 4xx, 0 5xx
";
        check_h2load(good).unwrap();
        assert!(check_h2load(&good.replace("0 5xx", "10 5xx")).is_err());
        assert!(check_h2load(&good.replace("0 errored", "1 errored")).is_err());
        assert!(check_h2load("").is_err());
    }

    #[test]
    fn latencies_count_when_their_request_ended_in_the_window() {
        let log = "900\t200\t50\n950\t0\t100\n1500\t200\t7\n1990\t200\t20\n";
        assert_eq!(latencies(log, 1000..2000).unwrap(), [100, 7]);
        assert!(latencies("1500\t503\t1\n", 1000..2000).is_err());
        assert!(latencies("nonsense\n", 1000..2000).is_err());
    }

    #[test]
    fn times_have_units() {
        assert!((milliseconds("1.20s").unwrap() - 1200.0).abs() < 1e-9);
        assert!(milliseconds("12").is_err());
    }
}
