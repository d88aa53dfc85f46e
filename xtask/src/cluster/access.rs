//! A cluster to work with: the harness's own, or whichever `--kubeconfig` names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::process::Table;
use super::settings::containerd_socket;
use crate::build::programs::{HELM, KUBECTL};
use crate::cmd::Run;
use crate::netns::Netns;
use crate::paths;

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub kubeconfig: PathBuf,
    /// The directory of kubectl, helm and the rest, for `$PATH`.
    tools: PathBuf,
    /// Whether it is the harness's own, with its namespaces and its containerd.
    own: bool,
}

impl Cluster {
    /// The cluster of `kubeconfig`, or the harness's own without one; fails if that does not run.
    pub fn open(kubeconfig: Option<&Path>) -> Result<Self> {
        let Some(path) = kubeconfig else {
            let cluster = Self::own()?;
            if !Table::load(&paths::state()?)?.all_alive() {
                bail!("no cluster runs; `cargo xtask cluster up` starts one");
            }
            return Ok(cluster);
        };
        let kubeconfig = path
            .canonicalize()
            .with_context(|| format!("no kubeconfig at {}", path.display()))?;
        Ok(Self {
            kubeconfig,
            tools: link_tools()?,
            own: false,
        })
    }

    /// The harness's own cluster, running or not.
    pub fn own() -> Result<Self> {
        Ok(Self {
            kubeconfig: paths::state()?.join("kubeconfig"),
            tools: link_tools()?,
            own: true,
        })
    }

    /// Fails with `what` unless this is the harness's own cluster.
    pub fn need_own(&self, what: &str) -> Result<()> {
        if !self.own {
            bail!("{what} needs the harness's own cluster; leave --kubeconfig out");
        }
        Ok(())
    }

    /// A command that reaches the API server, with this cluster's tools and credentials in its environment.
    pub fn command(&self, program: &str) -> Command {
        self.command_from(Netns::Node, program)
    }

    /// The same, seen from one of the two namespaces (of the harness's own cluster).
    pub fn command_from(&self, netns: Netns, program: &str) -> Command {
        let mut command = if self.own {
            netns.command(program)
        } else {
            Command::new(program)
        };
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("PATH", self.search_path());
        if self.own {
            command
                .env("CONTAINERD_ADDRESS", containerd_socket())
                .env("CONTAINERD_NAMESPACE", "k8s.io");
        }
        command
    }

    /// kubectl.
    pub fn kubectl<S: AsRef<str>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command("kubectl");
        for argument in arguments {
            command.arg(argument.as_ref());
        }
        command
    }

    /// helm, with nothing of the user's own settings.
    pub fn helm(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.command("helm");
        let home = paths::cache()?.join("helm");
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, &home);
        }
        command.args(arguments);
        Ok(command)
    }

    /// `kubectl apply` of manifests.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.kubectl(["apply", "--server-side", "--force-conflicts", "-f", "-"])
            .feed(manifests)
            .map(drop)
    }

    /// `kubectl get ... -o json`.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        self.kubectl(["get", "-o", "json"]).args(arguments).json()
    }

    fn search_path(&self) -> OsString {
        let mut path = self.tools.clone().into_os_string();
        if let Some(inherited) = std::env::var_os("PATH") {
            path.push(":");
            path.push(inherited);
        }
        path
    }
}

/// The directory with links to the tools, made by [`link_tools`].
fn tools() -> Result<PathBuf> {
    Ok(paths::cache()?.join("tools"))
}

/// Puts kubectl and helm where [`Cluster`] looks for them.
pub fn link_tools() -> Result<PathBuf> {
    let directory = tools()?;
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    for program in [&KUBECTL, &HELM] {
        let link = directory.join(program.name);
        // Renamed into place, because another run may use the link meanwhile.
        let partial = directory.join(format!("{}.{}", program.name, std::process::id()));
        std::os::unix::fs::symlink(program.ensure()?, &partial)
            .and_then(|()| std::fs::rename(&partial, &link))
            .with_context(|| format!("cannot create {}", link.display()))?;
    }
    Ok(directory)
}
