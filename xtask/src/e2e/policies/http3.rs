//! HTTP/3 of a ClientTrafficPolicy, by a client that is not ours: through the load balancer's address, TCP and UDP.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Check, World};
use crate::build::programs::HTTP3;
use crate::cmd::Run;
use crate::e2e::features::certificates::GATEWAY_HOST;
use crate::e2e::site::LIMIT;
use crate::netns::Netns;
use crate::progress::wait_for;

pub const CHECKS: [Check; 2] = [
    Check {
        name: "ClientTrafficPolicyHTTP3Accepted",
        run: |world| world.accepted("clienttrafficpolicy", &["enable-http3"]),
    },
    Check {
        name: "ClientTrafficPolicyHTTP3",
        run: http3,
    },
];

fn http3(world: &World) -> Result<()> {
    let program = HTTP3.ensure()?;
    let address = format!("{}:9443", world.gateway);
    let ca = world.certificates.file("ca.crt");
    let seen = wait_for("an answer over HTTP/3", LIMIT, || {
        let mut get = Netns::Client.command(&program);
        get.args(["get", &address, GATEWAY_HOST, &ca]).text().map(Some)
    })?;
    let seen: Value = serde_json::from_str(&seen).with_context(|| format!("no JSON: {seen}"))?;
    ensure!(seen["host"] == GATEWAY_HOST, "{seen}");
    ensure!(seen["headers"]["X-Forwarded-Proto"][0] == "https", "{seen}");
    Ok(())
}
