//! What the harness needs of the machine: root, and a few Debian packages.

use std::path::Path;
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
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "missing: {}; there is no apt-get here, install them by hand",
            missing.join(", ")
        );
    }
    progress::long(&format!("installing {}", missing.join(", ")), || {
        apt(&["update", "-q"]).text()?;
        apt(&["install", "-qy", "--no-install-recommends"])
            .args(&missing)
            .text()?;
        Ok(())
    })
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}
