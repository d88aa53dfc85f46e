//! Development tasks: the local cluster, the image, the conformance suite and the test run.

mod bench;
mod browser;
mod build;
mod chart;
mod checks;
mod cluster;
mod cmd;
mod conformance;
mod curl;
mod e2e;
mod host;
mod integration;
mod netns;
mod paths;
mod process;
mod progress;
mod scratch;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Development tasks of Sluice
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// The local Kubernetes cluster
    Cluster {
        #[command(flatten)]
        target: cluster::Target,
        #[command(subcommand)]
        action: cluster::Action,
    },
    /// Build the container image as an OCI archive, without a container runtime
    Image {
        /// Cargo profile; the size limit holds for `release` alone
        #[arg(long, default_value = "release", value_name = "PROFILE")]
        cargo_profile: String,
        /// Where the archive goes [default: target/sluice-VERSION.oci.tar]
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Lint the helm chart and compare what it renders with charts/golden
    Chart {
        /// Rewrite the golden files
        #[arg(long)]
        update: bool,
    },
    /// Run the Gateway API conformance suite
    Conformance {
        #[command(flatten)]
        target: cluster::Target,
        #[command(flatten)]
        options: Box<conformance::Options>,
    },
    /// Our own tests on a real cluster
    E2e {
        #[command(flatten)]
        target: cluster::Target,
        #[command(subcommand)]
        test: e2e::Test,
    },
    /// The proxy beside real servers from packages, on loopback
    Integration(integration::Options),
    /// Measure Sluice beside other proxies
    Bench {
        #[command(subcommand)]
        bench: bench::Bench,
    },
    /// Every check of the project, as the README says
    Test(test::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            progress::say(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Cluster { target, action } => cluster::run(action, &target),
        Task::Image {
            cargo_profile,
            output,
        } => {
            build::sluice::image(&cargo_profile, output)?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Chart { update } => chart::check(update).map(|()| ExitCode::SUCCESS),
        Task::Conformance { target, options } => {
            conformance::run(&options, &target).map(|_| ExitCode::SUCCESS)
        }
        Task::E2e { target, test } => e2e::run(&test, &target).map(|()| ExitCode::SUCCESS),
        Task::Integration(options) => integration::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Bench { bench } => bench::run(&bench).map(|()| ExitCode::SUCCESS),
        Task::Test(options) => test::run(&options).map(|passed| {
            if passed {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
