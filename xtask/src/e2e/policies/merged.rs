//! Gateways of a class that share one fleet of proxies.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::{Check, NAMESPACE, World};
use crate::cmd::Run;
use crate::curl;
use crate::e2e::install;
use crate::e2e::site::{self, LIMIT, START};
use crate::netns::Netns;
use crate::progress::wait_for;

pub const CHECKS: [Check; 2] = [
    Check {
        name: "EnvoyProxyMergeGateways",
        run: together,
    },
    Check {
        name: "EnvoyProxyMergeGatewaysOffAndOn",
        run: off_and_on,
    },
];

/// The class of the guide's Gateways.
pub const CLASS: &str = "sluice-policies-merged";
/// The guide's Gateways by name, with the port of each and the host and path of its route.
const GATEWAYS: [(&str, u16, &str, &str); 3] = [
    ("merged-eg-1", 8080, "www.merged1.com", "/example"),
    ("merged-eg-2", 8081, "www.merged2.com", "/example2"),
    ("merged-eg-3", 8082, "www.merged3.com", "/example3"),
];

/// One address and one Deployment for all, and each Gateway serves its own route.
fn together(world: &World) -> Result<()> {
    shared(world)?;
    answers(world)
}

/// With the field off each Gateway has its own; on again, nothing of that is left.
fn off_and_on(world: &World) -> Result<()> {
    shared(world)?;
    merge(world, false)?;
    let apart = apart(world).and_then(|()| answers(world));
    merge(world, true)?;
    apart?;
    shared(world)?;
    answers(world)
}

fn shared(world: &World) -> Result<()> {
    wait_for("one Deployment and one address for all Gateways", START, || {
        ensure!(addresses(world)?.len() == 1, "addresses: {:?}", addresses(world)?);
        ensure!(deployments(world, NAMESPACE)? == 0, "a Gateway still has its own");
        ensure!(deployments(world, install::NAMESPACE)? == 1, "the class has none");
        Ok(Some(()))
    })
}

fn apart(world: &World) -> Result<()> {
    wait_for("a Deployment and an address for each Gateway", START, || {
        let all = GATEWAYS.len();
        ensure!(
            addresses(world)?.len() == all,
            "addresses: {:?}",
            addresses(world)?
        );
        ensure!(deployments(world, NAMESPACE)? == all, "a Gateway has none");
        ensure!(
            deployments(world, install::NAMESPACE)? == 0,
            "the class still has its own"
        );
        Ok(Some(()))
    })
}

/// Each Gateway is reached at its own port, which serves no other's route.
fn answers(world: &World) -> Result<()> {
    for (name, port, host, path) in GATEWAYS {
        let address = site::address(&world.cluster, NAMESPACE, name)?;
        let send = |host: &str| {
            let header = format!("Host: {host}");
            let url = format!("http://{address}:{port}{path}");
            curl::send(&world.cluster, Netns::Client, &url, &["--header", &header])
        };
        wait_for(&format!("an answer from Gateway {name}"), LIMIT, || {
            send(host)?.seen().map(|_| Some(()))
        })?;
        let other = send("www.merged.com")?.status;
        ensure!(other == 404, "Gateway {name} answers {other} to another host");
    }
    Ok(())
}

fn merge(world: &World, merge: bool) -> Result<()> {
    let patch = format!("{{\"spec\": {{\"mergeGateways\": {merge}}}}}");
    let patch = ["patch", "envoyproxy", "merged", "--type=merge", "--patch", &patch];
    let mut kubectl = world.cluster.kubectl(patch);
    kubectl.args(["--namespace", NAMESPACE]).text().map(drop)
}

/// The addresses of all the Gateways, each of which must be programmed.
fn addresses(world: &World) -> Result<BTreeSet<String>> {
    let mut addresses = BTreeSet::new();
    for (name, ..) in GATEWAYS {
        let status = &world.object("gateway", name)?["status"];
        let programmed = install::condition(&status["conditions"], "Programmed");
        ensure!(
            programmed.is_some_and(|(is, _)| is),
            "Gateway {name} is {programmed:?}"
        );
        addresses.extend(status["addresses"][0]["value"].as_str().map(str::to_owned));
    }
    Ok(addresses)
}

/// How many Deployments the class has in a namespace.
fn deployments(world: &World, namespace: &str) -> Result<usize> {
    let selector = format!("gateway.networking.k8s.io/gateway-class-name={CLASS}");
    let found = world
        .cluster
        .get(&["deployments", "--selector", &selector, "--namespace", namespace])?;
    Ok(found["items"].as_array().map_or(0, Vec::len))
}
