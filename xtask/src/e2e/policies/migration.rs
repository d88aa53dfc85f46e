//! The steps of docs/migrate-from-envoy-gateway.md: a Gateway beside Envoy Gateway's, a route that moves over with its
//! policies, and back. Envoy Gateway itself is not there; what it would have written is.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Check, NAMESPACE, World};
use crate::cmd::Run;
use crate::e2e::install;

pub const CHECKS: [Check; 1] = [Check {
    name: "MigrationBesideEnvoyGateway",
    run: beside,
}];

/// Envoy Gateway's name in statuses.
const OTHER: &str = "gateway.envoyproxy.io/gatewayclass-controller";

fn beside(world: &World<'_>) -> Result<()> {
    install::apply_file(world.cluster, "e2e/manifests/policies/migration.yaml")?;
    let result = migrate(world);
    let mut delete = world.cluster.kubectl(["delete", "--ignore-not-found"]);
    delete.args(["gatewayclass", "sluice-policies-eg"]).text()?;
    result
}

fn migrate(world: &World<'_>) -> Result<()> {
    world.wait_status("/plain", &[], 200)?;
    world.wait_status("/migrated", &[], 404)?;
    accepted_by_other(world)?;
    // Both Gateways serve it, and the policy that has it as its target goes with it.
    patch(
        world,
        "httproute",
        r#"[{"op": "add", "path": "/spec/parentRefs/-", "value": {"name": "main", "sectionName": "http"}}]"#,
    )?;
    world.wait_status("/migrated", &["--user", "foo:bar"], 200)?;
    world.wait_status("/migrated", &[], 401)?;
    world.accepted("securitypolicy", &["migrated"])?;
    untouched(world)?;
    // And back.
    patch(
        world,
        "httproute",
        r#"[{"op": "remove", "path": "/spec/parentRefs/1"}]"#,
    )?;
    world.wait_status("/migrated", &[], 404)?;
    untouched(world)
}

fn patch(world: &World<'_>, kind: &str, patch: &str) -> Result<()> {
    world
        .cluster
        .kubectl(["patch", kind, "migrated", "--namespace", NAMESPACE, "--type=json"])
        .args(["--patch", patch])
        .text()
        .map(drop)
}

/// Writes what Envoy Gateway says of the route.
fn accepted_by_other(world: &World<'_>) -> Result<()> {
    let condition = json!({
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
    });
    let parent = json!({"parentRef": {"name": "eg"}, "controllerName": OTHER, "conditions": [condition]});
    let status = json!({"status": {"parents": [parent]}});
    world
        .cluster
        .kubectl(["patch", "httproute", "migrated", "--namespace", NAMESPACE])
        .args(["--subresource=status", "--type=merge", "--patch"])
        .arg(status.to_string())
        .text()
        .map(drop)
}

/// What is Envoy Gateway's is as it was: its entry in the route's status, its Gateway, its class.
fn untouched(world: &World<'_>) -> Result<()> {
    let route = world.object("httproute", "migrated")?;
    let parents = route["status"]["parents"].as_array().context("no status")?;
    let theirs: Vec<&Value> = parents
        .iter()
        .filter(|parent| parent["controllerName"] == OTHER)
        .collect();
    ensure!(
        theirs.len() == 1 && theirs[0]["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:00:00Z",
        "Envoy Gateway's entry is not as it was: {parents:?}"
    );
    let gateway = world.object("gateway", "eg")?;
    let conditions = gateway["status"]["conditions"].as_array();
    ensure!(
        conditions
            .into_iter()
            .flatten()
            .all(|condition| condition["status"] == "Unknown"),
        "Envoy Gateway's Gateway has a status: {}",
        gateway["status"]
    );
    ensure!(
        world.object("service", "eg-sluice-policies-eg").is_err(),
        "proxies were made for Envoy Gateway's Gateway"
    );
    Ok(())
}
