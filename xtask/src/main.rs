//! Development tasks: the local cluster, the image, the conformance suite and the test run.

mod build;
mod cluster;
mod cmd;
mod host;
mod netns;
mod paths;
mod progress;

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
        #[arg(long, default_value = "release")]
        profile: String,
        /// Where the archive goes [default: target/sluice-VERSION.oci.tar]
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
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
        Task::Image { profile, output } => {
            build::sluice::image(&profile, output)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
