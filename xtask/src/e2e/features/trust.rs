//! CA certificates from ClusterTrustBundles, for backends and for clients.

use anyhow::{Result, bail, ensure};

use super::certificates::{BACKEND_HOST, BACKENDS, CLIENTS, GATEWAY_HOST, trust};
use super::{Check, LIMIT, World};
use crate::curl::{self, Answer};
use crate::netns::Netns;
use crate::progress::wait_for;

pub const CHECKS: [Check; 2] = [
    Check {
        name: "ClusterTrustBundleBackend",
        run: backend,
    },
    Check {
        name: "ClusterTrustBundleClient",
        run: client,
    },
];

/// A BackendTLSPolicy refers to the bundle; a change of the bundle takes effect.
fn backend(world: &World) -> Result<()> {
    world.wait_policy("backendtlspolicy", "tls-backend", &["Accepted", "ResolvedRefs"])?;
    is_verified(world, "/tls-backend")
}

/// The backend behind `path` is asked for its name, and served as long as its authority is in the bundle.
pub fn is_verified(world: &World, path: &str) -> Result<()> {
    let seen = world.wait_status(path, &[], 200)?.seen()?;
    ensure!(
        seen.server_name() == BACKEND_HOST,
        "the backend was asked for {:?}",
        seen.server_name()
    );
    trust(&world.cluster, BACKENDS, &world.certificates.bad)?;
    let refused = world.wait_status(path, &[], 503);
    trust(&world.cluster, BACKENDS, &world.certificates.good)?;
    refused?;
    world.wait_status(path, &[], 200).map(drop)
}

/// The Gateway's frontend validation refers to the bundle.
fn client(world: &World) -> Result<()> {
    wait_for("the client with a certificate is served", LIMIT, || {
        let answer = call(world, Some("good"))?;
        ensure!(answer.status == 200, "status {}", answer.status);
        Ok(Some(()))
    })?;
    refused(world, None)?;
    refused(world, Some("bad"))?;
    trust(&world.cluster, CLIENTS, &world.certificates.bad)?;
    let changed = wait_for(
        "the clients of the bundle's new authority are served",
        LIMIT,
        || call(world, Some("bad")).map(Some),
    )
    .and_then(|_| refused(world, Some("good")));
    trust(&world.cluster, CLIENTS, &world.certificates.good)?;
    changed
}

/// The proxy must end the connection during the handshake or, since a client of TLS 1.3 may send before its certificate
/// is looked at, while the request is on its way. curl's status tells that from a proxy that is not there.
fn refused(world: &World, certificate: Option<&str>) -> Result<()> {
    const TLS: u8 = 35;
    const SEND: u8 = 55;
    const RECEIVE: u8 = 56;
    match call(world, certificate) {
        Ok(answer) => bail!("with certificate {certificate:?} the answer is {}", answer.status),
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(
                [TLS, SEND, RECEIVE]
                    .iter()
                    .any(|status| text.contains(&format!("(exit status: {status})"))),
                "with certificate {certificate:?}: {text}"
            );
            Ok(())
        }
    }
}

fn call(world: &World, certificate: Option<&str>) -> Result<Answer> {
    call_at(world, 443, "/", certificate, &[])
}

/// A request over TLS to a port of the Gateway `main`, by a client with this certificate.
pub fn call_at(
    world: &World,
    port: u16,
    path: &str,
    certificate: Option<&str>,
    more: &[&str],
) -> Result<Answer> {
    let resolve = format!("{GATEWAY_HOST}:{port}:{}", world.gateway);
    let ca = world.certificates.file("ca.crt");
    let mut arguments = vec!["--resolve", &resolve, "--cacert", &ca];
    let files = certificate.map(|name| {
        let file = |kind: &str| world.certificates.file(&format!("{name}.{kind}"));
        (file("crt"), file("key"))
    });
    if let Some((certificate, key)) = &files {
        arguments.extend(["--cert", certificate, "--key", key]);
    }
    arguments.extend(more);
    curl::send(
        &world.cluster,
        Netns::Client,
        &format!("https://{GATEWAY_HOST}:{port}{path}"),
        &arguments,
    )
}
