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
                "retry",
                "circuit-breaker",
                "fault-abort",
                "fault-delay",
                "consistent-hash",
                "response-override",
                "compression",
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
        run: |world| world.wait_status("/fault-abort", &[], 501).map(drop),
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
            world.wait_status("/request-buffer", &["--data", "eight by"], 200)?;
            world
                .wait_status("/request-buffer", &["--data", "nine byte"], 413)
                .map(drop)
        },
    },
];

/// The fourth request of the hour is refused; those of other clients are not counted.
fn rate_limit(world: &World<'_>) -> Result<()> {
    let mine = ["--header", "X-User-Id: one"];
    world.wait_status("/rate-limit", &[], 200)?;
    for expected in [200, 200, 200, 429] {
        let status = world.get("/rate-limit", &mine)?.status;
        ensure!(status == expected, "status {status} instead of {expected}");
    }
    world.wait_status("/rate-limit", &[], 200).map(drop)
}

/// Each of the three pods fails the first attempt that it gets.
fn retry(world: &World<'_>) -> Result<()> {
    let id = uuid::Uuid::new_v4();
    let path = format!("/retry/policy?uuid={id}&succeedAfter=1&responseCode=500");
    let status = world.get(&path, &[])?.status;
    ensure!(status == 200, "status {status}: not tried again");
    Ok(())
}

/// While one request is under way a second one is refused.
fn circuit_breaker(world: &World<'_>) -> Result<()> {
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

/// Less than the delay cannot be.
fn fault_delay(world: &World<'_>) -> Result<()> {
    let start = Instant::now();
    world.wait_status("/fault-delay", &[], 200)?.seen()?;
    ensure!(
        start.elapsed() >= Duration::from_secs(1),
        "answered after {:?}",
        start.elapsed()
    );
    Ok(())
}

/// A value of the header leads to one pod, and not all values to the same.
fn consistent_hash(world: &World<'_>) -> Result<()> {
    let mut pods = BTreeSet::new();
    for value in 0..12 {
        let header = format!("FooBar: {value}");
        let mut of_value = BTreeSet::new();
        for _ in 0..3 {
            let answer = world.wait_status("/consistent-hash", &["--header", &header], 200)?;
            of_value.insert(answer.seen()?.pod().to_owned());
        }
        ensure!(of_value.len() == 1, "{header} leads to {of_value:?}");
        pods.append(&mut of_value);
    }
    ensure!(pods.len() > 1, "all values lead to {pods:?}");
    Ok(())
}

fn response_override(world: &World<'_>) -> Result<()> {
    let answer = world.wait_status("/status/404", &[], 410)?;
    ensure!(
        answer.body == "Oops! Your request is not found.",
        "the body is {:?}",
        answer.body
    );
    Ok(())
}

fn compression(world: &World<'_>) -> Result<()> {
    let accepts = ["--header", "Accept-Encoding: gzip", "--compressed"];
    let answer = world.wait_status("/compression", &accepts, 200)?;
    ensure!(
        answer.header("content-encoding") == Some("gzip"),
        "the answer is not compressed: {answer:?}"
    );
    answer.seen().context("after decompression")?;
    let plain = world.wait_status("/compression", &[], 200)?;
    ensure!(
        plain.header("content-encoding").is_none(),
        "compressed for a client that does not ask for it"
    );
    Ok(())
}
