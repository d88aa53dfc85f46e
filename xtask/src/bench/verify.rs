//! Before anything is measured: every proxy answers as it should, adds the headers that it should, and logs.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::load::Scenario;
use super::peer::{HOST, Peer, Running, Setup, message};
use crate::cmd::Run;
use crate::progress;

/// Starts the proxy for this alone, with its access log in a file.
pub fn verify(setup: &Setup, peer: Peer, scenarios: &[Scenario], scratch: &Path) -> Result<()> {
    let log = scratch.join(format!("{}.access", peer.name()));
    let proxy = setup.start(peer, File::create(&log)?.into())?;
    for &scenario in scenarios {
        answers(&proxy, scenario, scratch)
            .with_context(|| format!("{}: {}", peer.name(), scenario.title()))?;
    }
    // Some write in batches, and the slowest every ten seconds: their end makes them write.
    drop(proxy);
    progress::wait_for("an access log", Duration::from_secs(5), || {
        let text = std::fs::read_to_string(&log)?;
        let lines: Vec<serde_json::Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        if lines.len() < scenarios.len() {
            bail!("{} wrote {text:?}", peer.name());
        }
        Ok(Some(()))
    })
}

fn answers(proxy: &Running, scenario: Scenario, scratch: &Path) -> Result<()> {
    let (text, wanted) = match scenario {
        Scenario::Http1 => (
            curl(proxy.ports.http, "http", "--http1.1")?,
            ["HTTP/1.1 200", "proto=http "],
        ),
        Scenario::Http2 => (
            curl(proxy.ports.https, "https", "--http2")?,
            ["HTTP/2 200", "proto=https "],
        ),
        Scenario::Grpc => (
            nghttp(proxy.ports.grpc, scratch)?,
            [":status: 200", "proto=http "],
        ),
    };
    let seen = text
        .split_once(" id=")
        .with_context(|| format!("not the backend's answer:\n{text}"))?
        .1;
    let id = seen.split('.').next().unwrap_or_default();
    if id.len() < 16 {
        bail!("no request ID reached the backend:\n{text}");
    }
    // Envoy writes the machine's own address in the place of a loopback one.
    let forwarded = text
        .split_once("for=")
        .is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    if !forwarded {
        bail!("no X-Forwarded-For reached the backend:\n{text}");
    }
    let mut wanted = wanted.to_vec();
    if scenario == Scenario::Grpc {
        wanted.push("grpc-status: 0");
        wanted.push("content-type: application/grpc");
    }
    for wanted in wanted {
        if !text.to_lowercase().contains(&wanted.to_lowercase()) {
            bail!("{wanted:?} is missing:\n{text}");
        }
    }
    Ok(())
}

fn curl(port: u16, scheme: &str, version: &str) -> Result<String> {
    let url = format!("{scheme}://{HOST}/seen");
    let connect = format!("::127.0.0.1:{port}");
    Command::new("curl")
        .args([
            "-sSk",
            "-i",
            "--max-time",
            "5",
            version,
            "--connect-to",
            &connect,
            &url,
        ])
        .text()
}

fn nghttp(port: u16, scratch: &Path) -> Result<String> {
    let program = crate::host::find("nghttp").context("there is no nghttp")?;
    let mut command = Command::new(program);
    command
        .args(["-v", "--no-dep", "--timeout=5s", "-d"])
        .arg(message(scratch));
    for header in [
        format!(":authority: {HOST}"),
        "content-type: application/grpc".to_owned(),
        "te: trailers".to_owned(),
    ] {
        command.args(["-H", &header]);
    }
    let output = command
        .arg(format!("http://127.0.0.1:{port}/bench.Echo/Unary"))
        .capture()?;
    // What was sent must not pass for an answer, and the message is not text.
    let text = String::from_utf8_lossy(&output.stdout);
    let received: Vec<&str> = text.lines().filter(|line| line.contains("recv")).collect();
    Ok(received.join("\n"))
}
