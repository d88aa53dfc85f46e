//! Filters of type ExternalAuth, of listeners and of routes. The authorizer is e2e/modules/authz: what it tells the
//! backend is what it was shown.

use anyhow::{Context, Result, ensure};

use super::{Check, LIMIT, NAMESPACE, World, trust};
use crate::cmd::Run;
use crate::curl::{Answer, Seen};
use crate::e2e::install;
use crate::progress::wait_for;

pub const CHECKS: [Check; 8] = [
    Check {
        name: "ListenerExternalAuthHTTP",
        run: |world| listener(world, ":8081", "http"),
    },
    Check {
        name: "ListenerExternalAuthGRPC",
        run: |world| listener(world, ":8082", "grpc"),
    },
    Check {
        name: "ListenerExternalAuthHTTPS",
        run: https,
    },
    Check {
        name: "ListenerSetExternalAuth",
        run: |world| listener(world, ":8083", "grpc"),
    },
    Check {
        name: "HTTPRouteExternalAuthHTTP",
        run: route_http,
    },
    Check {
        name: "HTTPRouteExternalAuthGRPC",
        run: route_grpc,
    },
    Check {
        name: "HTTPRouteExternalAuthForwardBody",
        run: forward_body,
    },
    Check {
        name: "ExternalAuthAway",
        run: away,
    },
];

const GOOD: [&str; 2] = ["--header", "Authorization: Bearer good"];
const BAD: [&str; 2] = ["--header", "Authorization: Bearer bad"];

/// With the good token and, if the client's word counted, another user.
fn allowed(world: &World, path: &str, more: &[&str]) -> Result<Seen> {
    let mut arguments = GOOD.to_vec();
    arguments.extend(["--header", "X-Auth-User: mallory"]);
    arguments.extend(more);
    let seen = world.wait_status(path, &arguments, 200)?.seen()?;
    seen.expect("x-auth-user", Some("alice"))?;
    Ok(seen)
}

/// The authorizer's own answer reaches the client.
fn denied(world: &World, path: &str, protocol: &str) -> Result<()> {
    for arguments in [&BAD[..], &[]] {
        let answer: Answer = world.wait_status(path, arguments, 403)?;
        ensure!(
            answer.header("x-auth-denied") == Some(protocol)
                && answer.body == format!("denied over {protocol}"),
            "{path}: the answer is not the authorizer's: {answer:?}"
        );
    }
    Ok(())
}

/// The listener's route matches by the header that the authorizer adds, so the filter runs before routing.
fn listener(world: &World, port: &str, protocol: &str) -> Result<()> {
    let path = format!("{port}/listener");
    let seen = allowed(world, &path, &[])?;
    seen.expect("x-auth-protocol", Some(protocol))?;
    denied(world, &path, protocol)
}

/// As without TLS, on a listener that also asks for the client's certificate.
fn https(world: &World) -> Result<()> {
    const PORT: u16 = 8443;
    let call = |token: &[&str], status: u16| {
        wait_for(&format!("status {status} over TLS"), LIMIT, || {
            let answer = trust::call_at(world, PORT, "/listener", Some("good"), token)?;
            ensure!(answer.status == status, "it answers {}", answer.status);
            Ok(Some(answer))
        })
    };
    let seen = call(&GOOD, 200)?.seen()?;
    seen.expect("x-auth-user", Some("alice"))?;
    seen.expect("x-auth-protocol", Some("http"))?;
    let denied = call(&BAD, 403)?;
    ensure!(
        denied.header("x-auth-denied") == Some("http"),
        "the answer is not the authorizer's: {denied:?}"
    );
    Ok(())
}

/// The question has a path of its own and the headers that it may have; of the answer's headers the backend gets those
/// that are listed.
fn route_http(world: &World) -> Result<()> {
    let more = ["--header", "X-Tenant: t", "--header", "X-Private: p"];
    let seen = allowed(world, "/auth-http?a=b", &more)?;
    seen.expect("x-auth-protocol", Some("http"))?;
    seen.expect("x-auth-path", Some("/check/auth-http?a=b"))?;
    seen.expect("x-auth-body", None)?;
    shown(
        &seen,
        &["authorization", "x-tenant"],
        &["x-private", "x-auth-user"],
    )?;
    denied(world, "/auth-http", "http")
}

/// As over HTTP; and the answer takes a header away.
fn route_grpc(world: &World) -> Result<()> {
    let more = ["--header", "X-Tenant: t", "--header", "X-Private: p"];
    let seen = allowed(world, "/auth-grpc?a=b", &more)?;
    seen.expect("x-auth-protocol", Some("grpc"))?;
    seen.expect("x-auth-path", Some("/auth-grpc?a=b"))?;
    seen.expect("x-auth-body", Some("0:"))?;
    seen.expect("authorization", None)?;
    shown(
        &seen,
        &["authorization", "x-tenant"],
        &["x-private", "x-auth-user"],
    )?;
    denied(world, "/auth-grpc", "grpc")
}

fn shown(seen: &Seen, wanted: &[&str], unwanted: &[&str]) -> Result<()> {
    let list = seen.header("x-auth-headers").context("no x-auth-headers")?;
    let has = |name: &&str| list.split(' ').any(|shown| shown == *name);
    ensure!(
        wanted.iter().all(has) && !unwanted.iter().any(has),
        "the authorizer was shown: {list}"
    );
    Ok(())
}

/// The authorizer sees a body of up to `maxSize` bytes and the backend gets it whole; a larger one is refused.
fn forward_body(world: &World) -> Result<()> {
    for path in ["/auth-body-http", "/auth-body-grpc"] {
        let seen = allowed(world, path, &["--data", "eight by"])?;
        seen.expect("x-auth-body", Some("8:eight by"))?;
        seen.expect("content-length", Some("8"))?;
        let mut long = GOOD.to_vec();
        long.extend(["--data", "nine byte"]);
        world.wait_status(path, &long, 413)?;
    }
    Ok(())
}

/// Without an authorizer nobody passes, and when it is back everything is as before.
fn away(world: &World) -> Result<()> {
    const PATHS: [&str; 4] = [":8081/listener", ":8082/listener", "/auth-http", "/auth-grpc"];
    scale(world, 0)?;
    let refused = PATHS.iter().try_for_each(|path| {
        let answer = world.wait_status(path, &GOOD, 403)?;
        ensure!(
            answer.header("x-auth-denied").is_none(),
            "{path}: the authorizer still answers"
        );
        Ok(())
    });
    scale(world, 1)?;
    refused?;
    PATHS
        .iter()
        .try_for_each(|path| allowed(world, path, &[]).map(drop))
}

fn scale(world: &World, replicas: u8) -> Result<()> {
    world
        .cluster
        .kubectl(["scale", "deployment", "authz", "--namespace", NAMESPACE])
        .arg(format!("--replicas={replicas}"))
        .text()?;
    install::wait_deployment(&world.cluster, NAMESPACE, "authz")
}
