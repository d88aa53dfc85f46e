//! The load tools: how they are started, and what their output says.
//!
//! wrk makes the closed loop over HTTP/1.1 because it is the lightest; h2load makes the rest. Any request that fails
//! fails the run: a proxy that answers with errors is quick.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::host::{self, LOAD_CORE};
use super::peer::{self, HOST, Running};
use super::process::pinned;
use super::stats::{as_f64, percentile};
use crate::cmd::{Run, line};

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
        Scenario::Http2 | Scenario::Grpc => h2load(scenario, proxy, connections, seconds, None, scratch),
    }
}

/// `rate` requests a second, however fast the answers come.
pub fn fixed(
    scenario: Scenario,
    proxy: &Running,
    connections: u32,
    rate: f64,
    seconds: u32,
    scratch: &Path,
) -> Result<Sample> {
    h2load(scenario, proxy, connections, seconds, Some(rate), scratch)
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
    let program = host::find("wrk").context("there is no wrk")?;
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

fn h2load(
    scenario: Scenario,
    proxy: &Running,
    connections: u32,
    seconds: u32,
    rate: Option<f64>,
    scratch: &Path,
) -> Result<Sample> {
    let log = scratch.join("h2load.log");
    // It appends.
    if log.exists() {
        fs::remove_file(&log)?;
    }
    let mut command = h2load_command(scenario, proxy, scratch)?;
    command
        .args(["-t1", "-m1", "--warm-up-time=500ms"])
        .args([format!("-c{connections}"), format!("-D{seconds}")])
        .arg(format!("--log-file={}", log.display()));
    if let Some(rate) = rate {
        command.arg(format!("--rps={:.3}", rate / f64::from(connections)));
    }
    let name = line(&command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let mut text = String::new();
    let (mut start, mut end) = (None, None);
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line?;
            let now = || Some((SystemTime::now(), proxy.process.cpu()));
            if line.starts_with("Main benchmark duration is started") {
                start = now();
            } else if line.starts_with("Main benchmark duration is over") {
                end = now();
            }
            text.push_str(&line);
            text.push('\n');
        }
    }
    if !child.wait()?.success() {
        bail!("`{name}` failed:\n{text}");
    }
    check_h2load(&text).with_context(|| format!("`{name}`"))?;
    let ((from, before), (to, after)) = start
        .zip(end)
        .with_context(|| format!("`{name}` did not say when it began and ended:\n{text}"))?;
    let window = Window {
        from: microseconds(from)?,
        to: microseconds(to)?,
    };
    let mut latencies = window.latencies(&fs::read_to_string(&log)?)?;
    latencies.sort_unstable();
    if latencies.is_empty() {
        bail!("`{name}`: not one request was answered");
    }
    let count = as_f64(latencies.len() as u64);
    Ok(Sample {
        cpu: after.saturating_sub(before).as_secs_f64() * 1e6 / count,
        rate: count / to.duration_since(from)?.as_secs_f64(),
        p50: as_f64(percentile(&latencies, 0.5)) / 1e3,
        p99: as_f64(percentile(&latencies, 0.99)) / 1e3,
    })
}

fn h2load_command(scenario: Scenario, proxy: &Running, scratch: &Path) -> Result<Command> {
    let program = host::find("h2load").context("there is no h2load")?;
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
    command.arg(format!("--connect-to=127.0.0.1:{port}")).arg(url);
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

/// The time between two looks at the proxy's CPU, in microseconds since the epoch.
struct Window {
    from: u64,
    to: u64,
}

impl Window {
    /// Latencies in microseconds of the requests that ended in the window, from h2load's log: start, status, duration.
    fn latencies(&self, log: &str) -> Result<Vec<u64>> {
        let mut latencies = Vec::new();
        for line in log.lines() {
            let mut fields = line.split('\t').map(str::parse::<u64>);
            let (Some(Ok(start)), Some(Ok(status)), Some(Ok(duration))) =
                (fields.next(), fields.next(), fields.next())
            else {
                bail!("h2load logged {line:?}");
            };
            if !(200..300).contains(&status) {
                bail!("a request was answered with status {status}");
            }
            if (self.from..self.to).contains(&(start + duration)) {
                latencies.push(duration);
            }
        }
        Ok(latencies)
    }
}

fn microseconds(time: SystemTime) -> Result<u64> {
    let since: Duration = time.duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(u64::try_from(since.as_micros())?)
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
        let window = Window { from: 1000, to: 2000 };
        let log = "900\t200\t50\n950\t200\t100\n1500\t200\t7\n1990\t200\t20\n";
        assert_eq!(window.latencies(log).unwrap(), [100, 7]);
        assert!(window.latencies("1500\t503\t1\n").is_err());
        assert!(window.latencies("nonsense\n").is_err());
    }

    #[test]
    fn times_have_units() {
        assert!((milliseconds("1.20s").unwrap() - 1200.0).abs() < 1e-9);
        assert!(milliseconds("12").is_err());
    }
}
