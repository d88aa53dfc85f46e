//! BackendTrafficPolicy.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Check, World};

pub const CHECKS: [Check; 11] = [
    Check {
        name: "BackendTrafficPolicyAccepted",
        run: |world| {
            let names = [
                "rate-limit",
                "retry-for-route",
                "circuitbreaker-for-route",
                "fault-injection-50-percent-abort",
                "fault-injection-delay",
                "header-policy",
                "response-override",
                "response-compression",
                "timeout",
                "request-buffer",
            ];
            world.accepted("backendtrafficpolicy", &names)
        },
    },
    Check {
        name: "BackendTrafficPolicyLocalRateLimit",
        run: rate_limit,
    },
    Check {
        name: "BackendTrafficPolicyRetry",
        run: retry,
    },
    Check {
        name: "BackendTrafficPolicyCircuitBreaker",
        run: circuit_breaker,
    },
    Check {
        name: "BackendTrafficPolicyFaultAbort",
        run: fault_abort,
    },
    Check {
        name: "BackendTrafficPolicyFaultDelay",
        run: fault_delay,
    },
    Check {
        name: "BackendTrafficPolicyConsistentHash",
        run: consistent_hash,
    },
    Check {
        name: "BackendTrafficPolicyResponseOverride",
        run: response_override,
    },
    Check {
        name: "BackendTrafficPolicyCompression",
        run: compression,
    },
    Check {
        name: "BackendTrafficPolicyTimeout",
        run: |world| {
            world.wait_status("/timeout", &[], 200)?;
            world.wait_status("/timeout?delay=3s", &[], 504).map(drop)
        },
    },
    Check {
        name: "BackendTrafficPolicyRequestBuffer",
        run: |world| {
            world.wait_status("/request-buffer", &["--data", "{}"], 200)?;
            let long = ["--data", "{\"key\": \"value\"}"];
            world.wait_status("/request-buffer", &long, 413).map(drop)
        },
    },
];

/// The fourth request of the hour is refused; those of other clients are not counted.
fn rate_limit(world: &World) -> Result<()> {
    let mine = ["--header", "X-User-Id: one"];
    world.wait_status("/rate-limit", &[], 200)?;
    for expected in [200, 200, 200, 429] {
        let status = world.get("/rate-limit", &mine)?.status;
        ensure!(status == expected, "status {status} instead of {expected}");
    }
    world.wait_status("/rate-limit", &[], 200).map(drop)
}

/// Each of the three pods fails the first attempt that it gets.
fn retry(world: &World) -> Result<()> {
    let id = uuid::Uuid::new_v4();
    let path = format!("/retry/policy?uuid={id}&succeedAfter=1&responseCode=500");
    let status = world.get(&path, &[])?.status;
    ensure!(status == 200, "status {status}: not tried again");
    Ok(())
}

/// While one request is under way a second one is refused.
fn circuit_breaker(world: &World) -> Result<()> {
    world.wait_status("/circuit-breaker", &[], 200)?;
    let send = || Ok::<_, anyhow::Error>(world.get("/circuit-breaker?delay=2s", &[])?.status);
    let statuses = std::thread::scope(|scope| {
        let both = [scope.spawn(send), scope.spawn(send)];
        both.map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a request panicked")))
    });
    let mut sorted = Vec::new();
    for status in statuses {
        sorted.push(status??);
    }
    sorted.sort_unstable();
    ensure!(sorted == [200, 503], "statuses {sorted:?}");
    Ok(())
}

/// That forty requests all end alike has a chance of less than one in a hundred thousand million.
fn fault_abort(world: &World) -> Result<()> {
    world.wait_status("/fault-abort", &[], 501)?;
    let mut statuses = BTreeSet::new();
    for _ in 0..40 {
        statuses.insert(world.get("/fault-abort", &[])?.status);
    }
    ensure!(statuses.iter().eq(&[200, 501]), "statuses {statuses:?}");
    Ok(())
}

/// Less than the delay cannot be.
fn fault_delay(world: &World) -> Result<()> {
    let start = Instant::now();
    world.wait_status("/fault-delay", &[], 200)?.seen()?;
    ensure!(
        start.elapsed() >= Duration::from_secs(2),
        "answered after {:?}",
        start.elapsed()
    );
    Ok(())
}

/// A value of the header leads to one pod, and not all values to the same.
fn consistent_hash(world: &World) -> Result<()> {
    let mut pods = BTreeSet::new();
    for value in 0..12 {
        let header = format!("FooBar: {value}");
        let mut of_value = BTreeSet::new();
        for _ in 0..3 {
            let answer = world.wait_status("/header", &["--header", &header], 200)?;
            of_value.insert(answer.seen()?.pod().to_owned());
        }
        ensure!(of_value.len() == 1, "{header} leads to {of_value:?}");
        pods.append(&mut of_value);
    }
    ensure!(pods.len() > 1, "all values lead to {pods:?}");
    Ok(())
}

fn response_override(world: &World) -> Result<()> {
    let expect = |status: u16, kind: &str, body: &str| -> Result<()> {
        let answer = world.wait_status(&format!("/status/{status}"), &[], status)?;
        ensure!(
            answer.body == body && answer.header("content-type") == Some(kind),
            "status {status}: {answer:?}"
        );
        Ok(())
    };
    expect(404, "text/plain", "Oops! Your request is not found.")?;
    let error = "{\"error\": \"Internal Server Error\"}";
    expect(500, "application/json", error)?;
    expect(511, "application/json", error)?;
    let sent = world.wait_status("/status/403", &[], 302)?;
    ensure!(
        sent.header("location") == Some("https://www.example.com/get"),
        "{sent:?}"
    );
    Ok(())
}

/// The client's preferred coding; none for a client that asks for none.
fn compression(world: &World) -> Result<()> {
    for (accepted, coding) in [("br;q=1.0, gzip;q=0.8", "br"), ("br;q=0.8, gzip;q=1.0", "gzip")] {
        let accepts = format!("Accept-Encoding: {accepted}");
        let answer = world.wait_status("/compression", &["--header", &accepts], 200)?;
        let found = answer.header("content-encoding");
        ensure!(found == Some(coding), "{accepted}: {found:?}");
    }
    let accepts = ["--header", "Accept-Encoding: gzip", "--compressed"];
    let answer = world.wait_status("/compression", &accepts, 200)?;
    answer.seen().context("after decompression")?;
    let plain = world.wait_status("/compression", &[], 200)?;
    ensure!(
        plain.header("content-encoding").is_none(),
        "compressed for a client that does not ask for it"
    );
    Ok(())
}
