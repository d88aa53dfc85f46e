//! The project's own Kubernetes cluster: one node, real components at fixed versions, in a network namespace without
//! a way out, and a second namespace for a client outside of it.

mod access;
mod addons;
mod down;
mod lb;
mod load;
mod pki;
mod process;
mod settings;
mod up;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

pub use access::Cluster;
pub use load::{copy_program, load_sluice};
pub use up::{load_images, up};

use crate::cmd::Run;
use crate::netns::{CLIENT_IP, NODE_IP, Netns};
use crate::progress::{long, say};
use crate::{host, paths};

/// Where a task finds its cluster.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// Use this cluster instead of the harness's own
    #[arg(long, value_name = "PATH", global = true)]
    pub kubeconfig: Option<PathBuf>,
}

/// `cargo xtask cluster ...`
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Start the cluster; builds its parts on the first run (about 10 minutes on 2 cores)
    Up,
    /// Remove the cluster: processes, mounts, namespaces, cgroups and state; the caches stay
    Down,
    /// Say what runs and how to reach it
    Status,
    /// Run a command with kubectl, helm and ctr set up, inside the node's namespace
    Exec {
        /// Run it in the outside client's namespace
        #[arg(long)]
        client: bool,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Build Sluice's image, load it into the node and restart the pods that use it
    LoadImage {
        /// Cargo profile; `dev` compiles fastest
        #[arg(long, default_value = "release", value_name = "PROFILE")]
        cargo_profile: String,
        /// Load this archive instead of building
        #[arg(long)]
        archive: Option<PathBuf>,
    },
    /// The load balancer's process; `up` starts it
    #[command(hide = true)]
    LoadBalancer,
}

/// A cluster with nothing on it yet: one that runs already is removed.
pub fn fresh() -> Result<Cluster> {
    host::need_root()?;
    down()?;
    up()
}

fn down() -> Result<()> {
    let _lock = up::lock()?;
    long("removing the cluster", || down::down(&paths::state()?))
}

/// Runs one action.
pub fn run(action: Action, target: &Target) -> Result<ExitCode> {
    match action {
        Action::Up => {
            if let Some(path) = &target.kubeconfig {
                let cluster = Cluster::open(Some(path))?;
                print!("{}", cluster.kubectl(["get", "nodes", "-o", "wide"]).text()?);
            } else {
                status(&up()?)?;
            }
        }
        Action::Down => {
            host::need_root()?;
            down()?;
        }
        Action::Status => {
            let cluster = Cluster::open(target.kubeconfig.as_deref())?;
            status(&cluster)?;
        }
        Action::Exec { client, command } => return exec(target, client, &command),
        Action::LoadImage {
            cargo_profile,
            archive,
        } => {
            let cluster = Cluster::open(target.kubeconfig.as_deref())?;
            load_sluice(&cluster, &cargo_profile, archive)?;
        }
        Action::LoadBalancer => lb::serve()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn status(cluster: &Cluster) -> Result<()> {
    print!("{}", cluster.kubectl(["get", "nodes", "-o", "wide"]).text()?);
    print!("{}", cluster.kubectl(["get", "pods", "-A"]).text()?);
    say(format!("kubeconfig: {}", cluster.kubeconfig.display()));
    if cluster.need_own("").is_ok() {
        say(format!(
            "node {NODE_IP} in namespace {}: cargo xtask cluster exec CMD",
            Netns::Node.name()
        ));
        say(format!(
            "client {CLIENT_IP} in namespace {}: cargo xtask cluster exec --client CMD",
            Netns::Client.name()
        ));
        say(format!("logs: {}", paths::state()?.join("logs").display()));
    }
    Ok(())
}

fn exec(target: &Target, client: bool, command: &[OsString]) -> Result<ExitCode> {
    let cluster = Cluster::open(target.kubeconfig.as_deref())?;
    let (program, arguments) = command.split_first().context("no command")?;
    let netns = if client { Netns::Client } else { Netns::Node };
    let mut child: Command = cluster.command_from(netns, &program.to_string_lossy());
    let status = child
        .args(arguments)
        .status()
        .context("cannot start the command")?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}
