//! Backend, HTTPRouteFilter, EnvoyProxy.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Check, NAMESPACE, World};
use crate::e2e::install;
use crate::e2e::site::LIMIT;
use crate::progress::wait_for;

pub const CHECKS: [Check; 7] = [
    Check {
        name: "BackendFQDN",
        run: |world| world.wait_status("/backend-fqdn", &[], 200)?.seen().map(drop),
    },
    Check {
        name: "BackendIP",
        run: backend_ip,
    },
    Check {
        name: "BackendLoopback",
        run: loopback,
    },
    Check {
        name: "HTTPRouteFilterDirectResponse",
        run: direct_response,
    },
    Check {
        name: "HTTPRouteFilterRegexRewrite",
        run: |world| {
            let answer = world.wait_status("/regex-rewrite/foo/v1/api", &[], 200)?;
            let path = answer.seen()?.path().to_owned();
            ensure!(path == "/v1/api/instance/foo", "the backend saw {path}");
            Ok(())
        },
    },
    Check {
        name: "HTTPRouteFilterCredentialInjection",
        run: |world| {
            let own = ["--header", "Authorization: Basic other"];
            let seen = world.wait_status("/credential-injection", &own, 200)?.seen()?;
            seen.expect("authorization", Some("Bearer abc.def.ghi"))
        },
    },
    Check {
        name: "EnvoyProxyDeploymentAndService",
        run: proxy,
    },
];

/// The address is that of the echo backend's Service.
fn backend_ip(world: &World) -> Result<()> {
    let service = world.object("service", "backend")?;
    let address = service["spec"]["clusterIP"].as_str().context("no clusterIP")?;
    let backend = json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "Backend",
        "metadata": {"name": "backend-ip", "namespace": NAMESPACE},
        "spec": {"endpoints": [{"ip": {"address": address, "port": 3000}}]},
    });
    world.cluster.apply(&backend.to_string())?;
    world.wait_status("/backend-ip", &[], 200)?.seen().map(drop)
}

/// The proxy's own port for probes and metrics stays out of reach, and the statuses say so.
fn loopback(world: &World) -> Result<()> {
    world.wait_status("/backend-loopback", &[], 500)?;
    let backend = world.object("backend", "backend-loopback")?;
    let accepted = install::condition(&backend["status"]["conditions"], "Accepted");
    ensure!(
        accepted.is_some_and(|(status, _)| !status),
        "the Backend's Accepted is {accepted:?}"
    );
    Ok(())
}

fn direct_response(world: &World) -> Result<()> {
    let host = ["--header", "Host: www.example.com"];
    for (path, status, kind, body) in [
        ("/inline", 503, "text/plain", "Oops! Your request is not found."),
        (
            "/value-ref",
            500,
            "application/json",
            "{\"error\": \"Internal Server Error\"}",
        ),
    ] {
        let answer = world.wait_status(path, &host, status)?;
        ensure!(
            answer.body == body && answer.header("content-type") == Some(kind),
            "{path}: {answer:?}"
        );
    }
    Ok(())
}

/// What the EnvoyProxy asks for and its patches are in the objects.
fn proxy(world: &World) -> Result<()> {
    let deployment = world.object("deployment", "main-sluice")?;
    let template = &deployment["spec"]["template"];
    for (field, value, wanted) in [
        ("replicas", &deployment["spec"]["replicas"], json!(1)),
        (
            "annotation",
            &template["metadata"]["annotations"]["custom1"],
            json!("annotation1"),
        ),
        ("hostname", &template["spec"]["hostname"], json!("patched")),
    ] {
        ensure!(
            *value == wanted,
            "Deployment: {field} is {value} instead of {wanted}"
        );
    }
    let env = &template["spec"]["containers"][0]["env"];
    let workers = env
        .as_array()
        .into_iter()
        .flatten()
        .find(|variable| variable["name"] == "SLUICE_WORKERS");
    ensure!(
        workers.is_some_and(|workers| workers["value"] == "2"),
        "env is {env}"
    );
    // The patched Service is applied after an annotation may have been there already.
    wait_for("the Service as the EnvoyProxy has it", LIMIT, || {
        let service = world.object("service", "main-sluice")?;
        let annotated = &service["metadata"]["annotations"]["custom2"] == "annotation2";
        let affinity = &service["spec"]["sessionAffinity"];
        ensure!(
            annotated && affinity == "ClientIP",
            "annotated: {annotated}, sessionAffinity {affinity}"
        );
        Ok(Some(()))
    })
}
