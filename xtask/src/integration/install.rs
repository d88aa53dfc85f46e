//! Servers from packages, kept in the cache by name and version. Debian's come through `host::install`, Go programs
//! through `build::go` from a module under e2e/modules.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::cmd::Run;
use crate::{host, paths, progress};

/// Version of the OpenID provider.
const PROVIDER: &str = "9.13.3";

/// Arguments of `node` for an OpenID provider: its issuer's URL, where it listens, what its client's URLs begin with.
pub fn provider(issuer: &str, address: &str, client: &str) -> Result<[OsString; 5]> {
    let packages = npm("oidc-provider", PROVIDER)?;
    let program = paths::root().join("xtask/src/integration/oidc-provider.mjs");
    Ok([
        program.into(),
        packages.into(),
        issuer.into(),
        address.into(),
        client.into(),
    ])
}

/// A Node.js package; returns the directory that holds its `node_modules`. Installed once.
pub fn npm(package: &str, version: &str) -> Result<PathBuf> {
    host::install(&[("node", "nodejs"), ("npm", "npm")])?;
    let directory = paths::cache()?.join(format!("npm-{package}-{version}"));
    let installed = directory.join("node_modules").join(package);
    if !installed.exists() {
        progress::long(&format!("installing {package} {version}"), || {
            fs::create_dir_all(&directory)?;
            let mut npm = Command::new("npm");
            npm.args([
                "install",
                "--silent",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
            ]);
            npm.arg("--prefix").arg(&directory);
            npm.arg(format!("{package}@{version}")).text()
        })?;
        ensure!(installed.exists(), "npm has not installed {package}");
    }
    Ok(directory)
}
