//! Session persistence over three pods.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::{Check, World};
use crate::paths;

pub const CHECKS: [Check; 3] = [
    Check {
        name: "HTTPRouteSessionPersistenceCookie",
        run: cookie,
    },
    Check {
        name: "HTTPRouteSessionPersistenceHeader",
        run: |world| header(world, "/session-header"),
    },
    Check {
        name: "XBackendTrafficPolicySessionPersistence",
        run: |world| {
            world.wait_policy("xbackendtrafficpolicy", "session", &["Accepted"])?;
            header(world, "/session-policy")
        },
    },
];

/// That three pods are never hit by this many requests except the same one has a chance of less than one in a million,
/// even if each is chosen at random.
const REQUESTS: usize = 15;

fn cookie(world: &World) -> Result<()> {
    let path = "/session-cookie";
    let first = world.wait_status(path, &[], 200)?;
    let set = first.header("set-cookie").context("no set-cookie")?;
    let pair = set.split(';').next().unwrap_or_default();
    ensure!(
        pair.starts_with("features=") && set.contains("Path=/session-cookie"),
        "set-cookie: {set}"
    );
    sticks(
        world,
        path,
        &format!("Cookie: other=1; {pair}"),
        first.seen()?.pod(),
    )
}

/// The session is in the header X-Session.
pub fn header(world: &World, path: &str) -> Result<()> {
    let first = world.wait_status(path, &[], 200)?;
    let token = first.header("x-session").context("no x-session")?;
    sticks(world, path, &format!("X-Session: {token}"), first.seen()?.pod())
}

/// Requests with the session go to its pod, also after a change of the routes; those without go to several.
fn sticks(world: &World, path: &str, session: &str, pod: &str) -> Result<()> {
    let with = pods(world, path, &["--header", session])?;
    ensure!(with.iter().eq([pod]), "the session of {pod} went to {with:?}");
    let without = pods(world, path, &[])?;
    ensure!(
        without.len() > 1,
        "requests without a session all went to {without:?}"
    );
    change(world, path)?;
    let after = pods(world, path, &["--header", session])?;
    ensure!(
        after.iter().eq([pod]),
        "after a change the session of {pod} went to {after:?}"
    );
    Ok(())
}

fn pods(world: &World, path: &str, arguments: &[&str]) -> Result<BTreeSet<String>> {
    (0..REQUESTS)
        .map(|_| Ok(world.get(path, arguments)?.seen()?.pod().to_owned()))
        .collect()
}

/// Adds a route and waits until it is in effect.
fn change(world: &World, path: &str) -> Result<()> {
    let name = format!("late-{}", path.trim_start_matches('/'));
    let file = paths::root().join("e2e/manifests/features/late-route.yaml");
    let manifest =
        std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    world.cluster.apply(&manifest.replace("{{NAME}}", &name))?;
    world.wait_status(&format!("/{name}"), &[], 200).map(drop)
}
