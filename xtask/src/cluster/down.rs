//! Takes a cluster apart, whole or half dead: by what it has recorded and left behind, never by a program's name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};

use super::process::{self, Table};
use super::settings::CNI_NETWORK;
use super::settings::containerd_socket;
use crate::build::go::ignore_missing;
use crate::netns;
use crate::paths::RUN;

/// Where containerd's runtime keeps one directory a container, named by its ID.
const TASKS: &str = "/run/sluice-cluster/containerd/io.containerd.runtime.v2.task/k8s.io";

/// Removes processes, containers, mounts, cgroups, namespaces and `state`. Caches stay.
pub fn down(state: &Path) -> Result<()> {
    let table = Table::load(state)?;
    // The kubelet first, or it would start anew what dies below.
    table.end(&["kubelet", "load-balancer"], Duration::from_secs(5));
    let clients = [
        "kube-proxy",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-apiserver",
    ];
    // Nothing here is kept, so nothing needs a long goodbye.
    table.end(&clients, Duration::from_millis(300));
    table.end(&["etcd"], Duration::from_millis(300));
    let containers = containers()?;
    let namespaces = pod_namespaces(&containers);
    table.end(&["containerd"], Duration::from_secs(3));
    end_containers(&containers)?;
    remove_mounts(state)?;
    for namespace in namespaces {
        remove_namespace(&namespace);
    }
    netns::remove()?;
    remove_cgroups()?;
    remove_leftovers(state, &containers)?;
    for directory in [Path::new(RUN), state] {
        fs::remove_dir_all(directory)
            .or_else(ignore_missing)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}

/// The IDs of all containers that containerd has started, alive or not.
fn containers() -> Result<BTreeSet<String>> {
    match fs::read_dir(TASKS) {
        Ok(entries) => Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error).context(TASKS),
    }
}

/// The network namespaces that the containers' runtime configuration names.
fn pod_namespaces(containers: &BTreeSet<String>) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for id in containers {
        let Ok(bytes) = fs::read(Path::new(TASKS).join(id).join("config.json")) else {
            continue;
        };
        let Ok(config) = serde_json::from_slice::<serde_json::Value>(&bytes) else {
            continue;
        };
        let namespaces = config["linux"]["namespaces"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for namespace in namespaces
            .iter()
            .filter(|namespace| namespace["type"] == "network")
        {
            if let Some(path) = namespace["path"]
                .as_str()
                .filter(|path| path.contains("/netns/cni-"))
            {
                found.insert(PathBuf::from(path));
            }
        }
    }
    found
}

/// Ends the shims of our containerd, found by its socket, and every process in a cgroup that carries a container's ID.
fn end_containers(containers: &BTreeSet<String>) -> Result<()> {
    let socket = containerd_socket();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let shims = process::find("cmdline", |line| {
            line.contains("containerd-shim") && line.contains(&socket)
        });
        let inside = process::find("cgroup", |cgroups| {
            containers.iter().any(|id| cgroups.contains(id.as_str()))
        });
        let left: Vec<i32> = shims
            .into_iter()
            .chain(inside)
            .filter(|pid| process::start_time(*pid).is_some())
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("processes {left:?} of the cluster's containers do not end");
        }
        left.into_iter().for_each(process::kill);
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn remove_mounts(state: &Path) -> Result<()> {
    let state = state.to_string_lossy();
    let text = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    let below = |path: &str, root: &str| path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    for path in mount_points(&text).iter().rev() {
        if below(path, &state) || below(path, RUN) {
            unmount(path.as_str(), UnmountFlags::DETACH).with_context(|| format!("cannot unmount {path}"))?;
        }
    }
    Ok(())
}

/// The second field of each line, with the kernel's octal escapes undone.
fn mount_points(mounts: &str) -> Vec<String> {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(|path| {
            escapes
                .iter()
                .fold(path.to_owned(), |path, (code, text)| path.replace(code, text))
        })
        .collect()
}

fn remove_namespace(path: &Path) {
    // Best effort: the CNI plugins may have removed it when the pod ended.
    let _ = unmount(path, UnmountFlags::DETACH);
    let _ = fs::remove_file(path);
}

/// Removes the kubelet's cgroups, children first; those of another cluster hold processes and refuse.
fn remove_cgroups() -> Result<()> {
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup/kubepods")];
    for entry in fs::read_dir("/sys/fs/cgroup").context("/sys/fs/cgroup")? {
        roots.push(entry?.path().join("kubepods"));
    }
    for root in roots.iter().filter(|root| root.is_dir()) {
        remove_cgroup(root);
    }
    Ok(())
}

fn remove_cgroup(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

/// Files that the kubelet and the CNI plugins keep at fixed places of the machine.
fn remove_leftovers(state: &Path, containers: &BTreeSet<String>) -> Result<()> {
    for directory in ["/var/log/containers", "/var/log/pods"] {
        for path in children(directory) {
            if fs::read_link(&path).is_ok_and(|target| target.starts_with(state)) {
                fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
    }
    let prefix = format!("{CNI_NETWORK}-");
    for path in children("/var/lib/cni/results")
        .into_iter()
        .chain(children("/var/lib/cni/cache/results"))
    {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with(&prefix) && containers.iter().any(|id| name.contains(id.as_str())) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn children(directory: &str) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_mount_points_are_read_back() {
        let text = "tmpfs /a\\040b tmpfs rw 0 0\nproc /proc proc rw 0 0\n";
        assert_eq!(mount_points(text), ["/a b", "/proc"]);
    }
}
