//! XBackends: pods by label, and names that the cluster's DNS answers for as if they were outside of it
//! (`SERVICE.NAMESPACE.external.example`).

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Check, LIMIT, NAMESPACE, START, World, session, trust};
use crate::cmd::Run;
use crate::e2e::install;
use crate::progress::wait_for;

pub const CHECKS: [Check; 6] = [
    Check {
        name: "XBackendEndpointSelector",
        run: scaling,
    },
    Check {
        name: "XBackendEndpointSelectorService",
        run: service,
    },
    Check {
        name: "XBackendSessionPersistence",
        run: |world| session::header(world, "/xbackend-session"),
    },
    Check {
        name: "XBackendExternalHostname",
        run: external,
    },
    Check {
        name: "XBackendExternalHostnameTLS",
        run: tls,
    },
    Check {
        name: "XBackendRefusesClusterHostname",
        run: of_cluster,
    },
];

/// What the check `scaling` scales and `service` edits.
const LABELLED: &str = "labelled";

/// Pods come and go with their Deployment.
fn scaling(world: &World) -> Result<()> {
    const PATH: &str = "/xbackend-pods";
    world.wait_policy("xbackend", LABELLED, &["Accepted"])?;
    world.wait_status(PATH, &[], 200)?;
    scale(world, 2)?;
    let mut pods = BTreeSet::new();
    wait_for("both pods answer", LIMIT, || {
        pods.insert(world.get(PATH, &[])?.seen()?.pod().to_owned());
        ensure!(pods.len() == 2, "so far {pods:?}");
        Ok(Some(()))
    })?;
    scale(world, 0)?;
    let none = world.wait_status(PATH, &[], 503);
    scale(world, 1)?;
    none?;
    world.wait_status(PATH, &[], 200).map(drop)
}

fn scale(world: &World, replicas: u8) -> Result<()> {
    world
        .cluster
        .kubectl(["scale", "deployment", LABELLED, "--namespace", NAMESPACE])
        .arg(format!("--replicas={replicas}"))
        .text()?;
    install::wait_deployment(&world.cluster, NAMESPACE, LABELLED)
}

/// There is one headless Service, which is repaired, and goes when the type changes.
fn service(world: &World) -> Result<()> {
    let made = the_service(world)?;
    let name = made["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    ensure!(
        name.starts_with("xbackend-") && name != "xbackend-" && made["spec"]["clusterIP"] == "None",
        "not a headless Service with a name of its own: {made}"
    );
    let patch = json!({ "spec": { "selector": { "app": "nobody", "more": "x" } } });
    patch_object(world, "service", &name, &patch)?;
    wait_for("the Service is repaired", LIMIT, || {
        let service = the_service(world)?;
        let selector = &service["spec"]["selector"];
        ensure!(*selector == json!({ "app": LABELLED }), "it selects {selector}");
        ensure!(service["metadata"]["name"] == name, "it is another one");
        Ok(Some(()))
    })?;
    world.wait_status("/xbackend-pods", &[], 200)?;

    let outside = json!({ "spec": {
        "type": "ExternalHostname", "port": { "number": 3000 }, "endpointSelector": null,
        "externalHostname": { "hostname": format!("echo.{NAMESPACE}.external.example") },
    } });
    patch_object(world, "xbackend", LABELLED, &outside)?;
    wait_for("the Service is gone", LIMIT, || {
        let left = services(world)?;
        ensure!(left.is_empty(), "there are {}", left.len());
        Ok(Some(()))
    })?;
    let inside = json!({ "spec": {
        "type": "EndpointSelector", "externalHostname": null,
        "endpointSelector": { "matchLabels": { "app": LABELLED } },
    } });
    patch_object(world, "xbackend", LABELLED, &inside)?;
    wait_for("there is a Service again", LIMIT, || the_service(world).map(Some))?;
    world.wait_status("/xbackend-pods", &[], 200).map(drop)
}

fn patch_object(world: &World, kind: &str, name: &str, patch: &Value) -> Result<()> {
    world
        .cluster
        .kubectl(["patch", kind, name, "--namespace", NAMESPACE, "--type=merge"])
        .arg(format!("--patch={patch}"))
        .text()
        .map(drop)
}

fn services(world: &World) -> Result<Vec<Value>> {
    let label = format!("--selector=sluice.dev/xbackend={LABELLED}");
    let list = world
        .cluster
        .get(&["services", "--namespace", NAMESPACE, &label])?;
    let items = list["items"].as_array().context("no list of Services")?;
    Ok(items.clone())
}

fn the_service(world: &World) -> Result<Value> {
    let mut services = services(world)?;
    ensure!(services.len() == 1, "there are {} Services", services.len());
    services.pop().context("no Service")
}

/// The name is looked up by the proxy; the request's own host reaches the backend.
fn external(world: &World) -> Result<()> {
    world.wait_policy("xbackend", "outside", &["Accepted"])?;
    let seen = world
        .wait_status("/xbackend-outside", &["--header", "Host: shop.example"], 200)?
        .seen()?;
    ensure!(
        seen.host() == "shop.example",
        "the backend saw the host {:?}",
        seen.host()
    );
    Ok(())
}

/// The backend is asked for the name of `validation.hostname`, and its certificate is verified.
fn tls(world: &World) -> Result<()> {
    world.wait_policy("xbackend", "outside-tls", &["Accepted"])?;
    trust::is_verified(world, "/xbackend-tls")
}

/// A name of a Service's is no way around ReferenceGrants: the API server refuses it, or else we do.
fn of_cluster(world: &World) -> Result<()> {
    world.wait_status("/xbackend-outside", &[], 200)?;
    let patch = |hostname: &str| json!({ "spec": { "externalHostname": { "hostname": hostname } } });
    let name = format!("echo.{NAMESPACE}.svc.cluster.local");
    let taken = patch_object(world, "xbackend", "outside", &patch(&name)).is_ok();
    let refused = if taken {
        wait_for("XBackend outside is not accepted", START, || {
            let backend = world.object("xbackend", "outside")?;
            let entry = &backend["status"]["ancestors"][0];
            let found = install::condition(&entry["conditions"], "Accepted");
            ensure!(
                found.as_ref().is_some_and(|(status, _)| !status),
                "Accepted is {found:?}"
            );
            Ok(Some(()))
        })
        .and_then(|()| world.wait_status("/xbackend-outside", &[], 500).map(drop))
    } else {
        Ok(())
    };
    let good = format!("echo.{NAMESPACE}.external.example");
    patch_object(world, "xbackend", "outside", &patch(&good))?;
    refused?;
    world.wait_status("/xbackend-outside", &[], 200).map(drop)
}
