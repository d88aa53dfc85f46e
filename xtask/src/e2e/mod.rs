//! Our own tests on a real cluster.

mod client;
mod features;
mod hops;
pub mod install;
mod load;
mod migrate;
mod policies;
mod resilience;
mod site;
pub mod validation;
mod walk;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::checks::{Check, Chosen};
use crate::cluster::{self, Cluster, Target};
use crate::progress::say;
use site::Suite;

/// `cargo xtask e2e ...`
#[derive(Debug, Subcommand)]
pub enum Test {
    /// Follow one request through NodePort, proxy, Service and pod, and check every hop
    Walk(Options),
    /// Bad input and restarts: the healthy route keeps answering
    Resilience(Options),
    /// Features of Gateway API that the conformance suite has no test for
    Features(Selection),
    /// Envoy Gateway's kinds, as its guides use them
    Policies(Selection),
    /// The ways of docs/migrate-from-envoy-gateway.md, away from the real Envoy Gateway
    Migrate(Selection),
    /// The CRDs beside Envoy Gateway's, on an API server of the test's own: the same is admitted, refused and defaulted
    Validation(validation::Options),
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

/// The same, and which checks of a test are wanted.
#[derive(Clone, Debug, Args)]
pub struct Selection {
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
    pub chosen: Chosen,
}

/// Runs one test; on failure prints what helps to find the cause.
pub fn run(test: &Test, target: &Target) -> Result<()> {
    match test {
        Test::Walk(options) => on_cluster(options, target, walk::run),
        Test::Resilience(options) => on_cluster(options, target, resilience::run),
        Test::Features(selection) => suite::<features::World>(selection, target),
        Test::Policies(selection) => suite::<policies::World>(selection, target),
        Test::Migrate(selection) => match selection.chosen.of(&migrate::CHECKS)? {
            Some(checks) => on_cluster(&selection.options, target, |cluster| {
                migrate::run(cluster, &checks)
            }),
            None => Ok(()),
        },
        Test::Validation(options) => validation::run(options),
    }
}

fn suite<S: Suite>(selection: &Selection, target: &Target) -> Result<()> {
    let chosen: Option<Vec<&Check<S>>> = selection.chosen.of(S::checks())?;
    match chosen {
        Some(checks) => on_cluster(&selection.options, target, |cluster| site::run(cluster, &checks)),
        None => Ok(()),
    }
}

fn on_cluster(options: &Options, target: &Target, body: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
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
