//! Addresses with routability Cluster.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Check, START, World};
use crate::curl;
use crate::e2e::install;
use crate::netns::Netns;
use crate::progress::wait_for;

pub const CHECKS: [Check; 1] = [Check {
    name: "GatewayAddressRoutabilityCluster",
    run: cluster,
}];

/// The Gateway's only address is its ClusterIP, which answers inside of the cluster.
fn cluster(world: &World) -> Result<()> {
    let status = wait_for("Gateway inside Programmed", START, || {
        let gateway = world.object("gateway", "inside")?;
        let found = install::condition(&gateway["status"]["conditions"], "Programmed");
        ensure!(found.is_some_and(|(status, _)| status), "it is {found:?}");
        Ok(Some(gateway["status"].clone()))
    })?;
    let service = world.object("service", "inside-sluice")?;
    let spec = &service["spec"];
    let address = spec["clusterIP"]
        .as_str()
        .context("the Service has no ClusterIP")?;
    ensure!(
        spec["type"] == "ClusterIP",
        "the Service has type {}",
        spec["type"]
    );
    let balancer = &service["status"]["loadBalancer"]["ingress"];
    ensure!(balancer.is_null(), "the load balancer gave it {balancer}");
    let wanted = json!([{"type": "IPAddress", "value": address, "routability": "Cluster"}]);
    ensure!(
        status["addresses"] == wanted,
        "status.addresses is {} instead of {wanted}",
        status["addresses"]
    );
    let url = format!("http://{address}/");
    wait_for(&format!("{url} answers inside of the cluster"), START, || {
        curl::send(&world.cluster, Netns::Node, &url, &[])?
            .seen()
            .map(Some)
    })?;
    ensure!(
        curl::send(&world.cluster, Netns::Client, &url, &[]).is_err(),
        "{url} answers outside of the cluster"
    );
    Ok(())
}
