//! What the harness needs of the machine: root, a few Debian packages, free ports.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::cmd::Run;
use crate::progress;

/// A file that the harness needs and the Debian package that holds it.
const NEEDED: [(&str, &[&str]); 11] = [
    ("containerd", &["/usr/bin/containerd"]),
    ("runc", &["/usr/sbin/runc", "/usr/bin/runc"]),
    ("containernetworking-plugins", &["/usr/lib/cni/bridge"]),
    ("iptables", &["/usr/sbin/iptables"]),
    ("conntrack", &["/usr/sbin/conntrack", "/usr/bin/conntrack"]),
    ("ipset", &["/usr/sbin/ipset", "/sbin/ipset"]),
    ("socat", &["/usr/bin/socat"]),
    ("iproute2", &["/usr/sbin/ip", "/sbin/ip", "/bin/ip"]),
    ("procps", &["/usr/sbin/sysctl", "/sbin/sysctl"]),
    ("util-linux", &["/usr/bin/nsenter"]),
    ("curl", &["/usr/bin/curl"]),
];

/// Fails unless it runs as root: network namespaces, mounts and cgroups need it.
pub fn need_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the cluster harness needs root: it makes network namespaces, mounts and cgroups");
    }
    Ok(())
}

/// Installs the packages that are missing.
pub fn ensure_packages() -> Result<()> {
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(_, files)| !files.iter().any(|file| Path::new(file).exists()))
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install_packages(&missing)
}

/// Installs what is missing of some programs, each named with the Debian package that holds it.
pub fn install(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install_packages(&missing)
}

fn install_packages(missing: &[&str]) -> Result<()> {
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "missing: {}; there is no apt-get here, install them by hand",
            missing.join(", ")
        );
    }
    progress::long(&format!("installing {}", missing.join(", ")), || {
        apt(&["update", "-q"]).text()?;
        apt(&["install", "-qy", "--no-install-recommends"])
            .args(missing)
            .text()?;
        Ok(())
    })
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    // Packages with a service would start it; nothing is to run but what the harness starts.
    command.env("RUNLEVEL", "1");
    command
}

/// The path of a program.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
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
