//! Our own tests on a real cluster.

mod client;
mod features;
mod hops;
pub mod install;
mod load;
mod policies;
mod resilience;
mod site;
mod walk;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::cluster::{self, Cluster, Target};
use crate::progress::say;

/// `cargo xtask e2e ...`
#[derive(Debug, Subcommand)]
pub enum Test {
    /// Follow one request through NodePort, proxy, Service and pod, and check every hop
    Walk(Options),
    /// Bad input and restarts: the healthy route keeps answering
    Resilience(Options),
    /// Features of Gateway API that the conformance suite has no test for
    Features(Options),
    /// Envoy Gateway's kinds, as its guides use them
    Policies(Options),
}

/// What the tests share.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Use the running cluster as it is instead of a fresh one
    #[arg(long)]
    pub reuse: bool,
    #[command(flatten)]
    pub image: install::ImageOptions,
}

/// Runs one test; on failure prints what helps to find the cause.
pub fn run(test: &Test, target: &Target) -> Result<()> {
    let (options, body): (_, fn(&Cluster) -> Result<()>) = match test {
        Test::Walk(options) => (options, walk::run),
        Test::Resilience(options) => (options, resilience::run),
        Test::Features(options) => (options, features::run),
        Test::Policies(options) => (options, policies::run),
    };
    let cluster = if options.reuse || target.kubeconfig.is_some() {
        Cluster::open(target.kubeconfig.as_deref())?
    } else {
        cluster::fresh()?
    };
    cluster.need_own("this test, which sends from the client's namespace,")?;
    let result = install::image(&cluster, &options.image).and_then(|()| body(&cluster));
    if result.is_err() {
        install::diagnose(&cluster);
    } else {
        say("passed");
    }
    result
}
