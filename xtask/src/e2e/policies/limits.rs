//! Global rate limits: the chart's service, with a Redis in the cluster.

use anyhow::{Result, bail, ensure};

use super::{Check, World};

pub const CHECKS: [Check; 2] = [
    Check {
        name: "BackendTrafficPolicyGlobalRateLimit",
        run: |world| {
            world.accepted("backendtrafficpolicy", &["policy-httproute"])?;
            limited(world, "ratelimit.example", "one")?;
            free(world, "ratelimit.example", "two")
        },
    },
    Check {
        name: "BackendTrafficPolicyGlobalRateLimitDistinct",
        run: |world| {
            world.accepted("backendtrafficpolicy", &["policy-httproute-distinct"])?;
            for user in ["one", "two"] {
                limited(world, "distinct.ratelimit.example", user)?;
            }
            free(world, "distinct.ratelimit.example", "admin")
        },
    },
];

/// Requests that a user may send in an hour.
const LIMIT: usize = 3;

fn status(world: &World, host: &str, user: &str) -> Result<u16> {
    let (host, user) = (format!("Host: {host}"), format!("x-user-id: {user}"));
    Ok(world.get("/get", &["--header", &host, "--header", &user])?.status)
}

/// After the permitted requests one is turned away. While they are sent another hour may begin, once.
fn limited(world: &World, host: &str, user: &str) -> Result<()> {
    for served in 0..=2 * LIMIT {
        match status(world, host, user)? {
            200 => {}
            429 => {
                ensure!(served >= LIMIT, "{user} is turned away after {served}");
                return Ok(());
            }
            other => bail!("{user} gets {other}"),
        }
    }
    bail!("{user} is never turned away")
}

/// Nobody counts these.
fn free(world: &World, host: &str, user: &str) -> Result<()> {
    for sent in 0..=LIMIT {
        let status = status(world, host, user)?;
        ensure!(status == 200, "{user} gets {status} after {sent}");
    }
    Ok(())
}
