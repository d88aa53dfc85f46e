//! Logins at an OpenID provider, which runs in the node's network namespace: pods and the client reach it by the same
//! address.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::{Check, World};
use crate::browser::Browser;
use crate::e2e::site::LIMIT;
use crate::integration::install;
use crate::netns::{NODE_IP, Netns};
use crate::paths;
use crate::process::{Process, bound_in, wait_for_address};
use crate::progress::wait_for;

pub const CHECKS: [Check; 1] = [Check {
    name: "SecurityPolicyOIDC",
    run: oidc,
}];

/// The application's name.
pub const HOST: &str = "www.example.com";
/// The provider's name.
pub const PROVIDER: &str = "accounts.example.com";
/// The provider's port, which the manifest knows too.
const PORT: u16 = 9443;

/// Without a session the client is sent to the provider; after the login the page is there, until the logout.
fn oidc(world: &World) -> Result<()> {
    let directory = paths::state()?.join("policies");
    let home = format!("https://{HOST}:8443/myapp");
    let (issuer, address) = (format!("https://{PROVIDER}:{PORT}"), format!("{NODE_IP}:{PORT}"));
    let certificate = ["provider.crt", "provider.key"].map(|name| world.certificates.file(name));
    let mut node = bound_in(Netns::Node, "node");
    node.args(install::provider(&issuer, &address, &home)?)
        .args(certificate);
    let mut provider = Process::start("oidc-provider", &mut node, &directory, Stdio::null())?;
    wait_for_address(&mut provider, Netns::Node, &address)?;
    world.accepted("securitypolicy", &["oidc-example"])?;

    let resolve = [
        format!("{HOST}:8443:{}", world.gateway),
        format!("{PROVIDER}:{PORT}:{NODE_IP}"),
    ];
    let ca = world.certificates.file("ca.crt");
    let curl = || {
        let mut curl = world.cluster.command_from(Netns::Client, "curl");
        curl.args(["--cacert", &ca]);
        for known in &resolve {
            curl.args(["--resolve", known]);
        }
        curl
    };
    let browser = Browser::new(&directory, "alice", &curl)?;
    // The proxy has asked for a provider that was not there yet.
    let sent = wait_for("the way to the provider", LIMIT, || {
        let sent = browser.get(&home)?;
        ensure!(sent.status == 302, "status {}", sent.status);
        Ok(Some(sent))
    })?;
    let to = sent.header("location").context("sent nowhere")?;
    ensure!(to.starts_with(&format!("{issuer}/auth?")), "sent to {to}");
    let page = browser.log_in(&home)?.seen()?;
    ensure!(page.path() == "/myapp", "the way ends at {}", page.path());
    browser.get(&home)?.seen()?;
    // What the policy does not cover.
    Browser::new(&directory, "nobody", &curl)?
        .get(&format!("https://{HOST}:8443/foo"))?
        .seen()?;
    browser.get(&format!("{home}/logout"))?;
    let status = browser.get(&home)?.status;
    ensure!(status == 302, "after the logout the answer is {status}");
    Ok(())
}
