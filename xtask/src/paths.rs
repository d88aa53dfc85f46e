//! Where things are: the checkout, and the directories outside it that hold caches and the cluster's state.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The workspace's root.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// `$SLUICE_CACHE`, else `$XDG_CACHE_HOME/sluice`, else `~/.cache/sluice`.
pub fn cache() -> Result<PathBuf> {
    let directory = if let Some(own) = std::env::var_os("SLUICE_CACHE") {
        PathBuf::from(own)
    } else if let Some(xdg) = std::env::var_os("XDG_CACHE_HOME") {
        PathBuf::from(xdg).join("sluice")
    } else {
        let home =
            std::env::var_os("HOME").context("none of SLUICE_CACHE, XDG_CACHE_HOME and HOME is set")?;
        PathBuf::from(home).join(".cache/sluice")
    };
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    directory
        .canonicalize()
        .with_context(|| format!("cannot resolve {}", directory.display()))
}

/// The state of the harness's cluster; `cluster down` removes it.
pub fn state() -> Result<PathBuf> {
    Ok(cache()?.join("cluster"))
}

/// Sockets and runtime state of the cluster: short, because a socket's path is at most 107 bytes.
pub const RUN: &str = "/run/sluice-cluster";

/// The product's version, which is also the tag of its image.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
