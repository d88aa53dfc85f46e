//! Sluice's image in a running cluster: imported into containerd, and the pods that use it made anew.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::access::Cluster;
use super::up::load_images;
use crate::build::{oci, sluice};
use crate::cmd::Run;
use crate::progress::say;

/// Builds the image unless `archive` is given, loads it, and restarts what runs it.
pub fn load_sluice(cluster: &Cluster, profile: &str, archive: Option<PathBuf>) -> Result<()> {
    cluster.need_own("loading an image")?;
    let archive = match archive {
        Some(archive) => archive,
        None => sluice::image(profile, None)?,
    };
    load_images(cluster, &[archive])?;
    let pods = cluster.get(&["pods", "--all-namespaces"])?;
    let name = sluice::image_name();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
        if containers
            .iter()
            .any(|container| container["image"] == name.as_str())
        {
            let metadata = &pod["metadata"];
            let pod = metadata["name"].as_str().unwrap_or_default();
            let namespace = metadata["namespace"].as_str().unwrap_or_default();
            cluster
                .kubectl(["delete", "pod", "--wait=false", "-n", namespace, pod])
                .text()?;
            say(format!("restarting pod {namespace}/{pod}"));
        }
    }
    Ok(())
}

/// Copies the program `sluice` out of the image that the cluster has.
pub fn copy_program(cluster: &Cluster, to: &Path) -> Result<()> {
    cluster.need_own("reading an image")?;
    let image = oci::qualified(&sluice::image_name());
    let mount = to.with_extension("image");
    fs::create_dir_all(&mount).with_context(|| format!("cannot create {}", mount.display()))?;
    let ctr = |arguments: &[&str]| cluster.command("ctr").args(arguments).arg(&mount).text();
    ctr(&["images", "mount", &image])?;
    let copied = fs::copy(mount.join("sluice"), to).with_context(|| format!("no program in {image}"));
    ctr(&["images", "unmount", "--rm"])?;
    copied.map(drop)
}
