//! The images that a cluster needs besides Sluice's own, made from the programs in the catalogue, or from a program that is
//! installed on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::go::{Program, hex};
use super::oci::Image;
use super::programs::{
    AUTHZ, COREDNS, ECHO_BASIC, ENVOY_GATEWAY as ENVOY_GATEWAY_PROGRAM, EXTPROC, OTELCOL, PAUSE,
};
use crate::cmd::Run;
use crate::{host, paths};

/// The name under which containerd looks for the sandbox image.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10";
/// The cluster's name server.
pub const COREDNS_IMAGE: &str = "sluice.test/coredns:e2e";
/// The backend of our own tests.
pub const ECHO_IMAGE: &str = "registry.k8s.io/gateway-api/conformance/echo-basic:v0.1.0";

/// What `e2e migrate` moves away from.
pub const ENVOY_GATEWAY_IMAGE: &str = "sluice.test/envoy-gateway:e2e";
/// Its proxy.
pub const ENVOY_IMAGE: &str = "sluice.test/envoy:e2e";

/// Who has no account in the image.
const NOBODY: &str = "65532:65532";

/// An image made of one program.
pub struct Single {
    program: &'static Program,
    names: &'static [&'static str],
}

const IMAGES: [Single; 3] = [
    Single {
        program: &PAUSE,
        names: &[PAUSE_IMAGE],
    },
    // The conformance suite's manifests use both tags; one program serves them.
    Single {
        program: &ECHO_BASIC,
        names: &[
            ECHO_IMAGE,
            "registry.k8s.io/gateway-api/conformance/echo-basic:v0.2.0",
        ],
    },
    Single {
        program: &COREDNS,
        names: &[COREDNS_IMAGE],
    },
];

/// The authorizer, which also gives out keys.
pub const AUTHORIZER: Single = Single {
    program: &AUTHZ,
    names: &["sluice.test/authz:e2e"],
};
/// The external processor.
pub const PROCESSOR: Single = Single {
    program: &EXTPROC,
    names: &["sluice.test/extproc:e2e"],
};
/// OpenTelemetry's collector.
pub const COLLECTOR: Single = Single {
    program: &OTELCOL,
    names: &["sluice.test/otelcol:e2e"],
};

/// Envoy Gateway's controller.
pub const ENVOY_GATEWAY: Single = Single {
    program: &ENVOY_GATEWAY_PROGRAM,
    names: &[ENVOY_GATEWAY_IMAGE],
};

/// The archives that every cluster gets; makes those that the cache lacks.
pub fn ensure() -> Result<Vec<PathBuf>> {
    IMAGES.iter().map(Single::ensure).collect()
}

impl Single {
    /// The archive; makes it unless the cache has it.
    pub fn ensure(&self) -> Result<PathBuf> {
        let store = store()?;
        let binary = self.program.ensure()?;
        // The program's directory carries its key: a new build gives a new archive.
        let key = binary
            .parent()
            .and_then(|parent| parent.file_name())
            .context("a program outside the cache")?;
        let archive = store.join(format!("{}.oci.tar", key.to_string_lossy()));
        if !archive.exists() {
            let name = self.program.name;
            let entrypoint = format!("/{name}");
            Image {
                names: self.names,
                entrypoint: &[&entrypoint],
                user: NOBODY,
                files: &[(binary, name, true)],
                labels: &[],
            }
            .write(&archive)?;
        }
        Ok(archive)
    }
}

/// Redis, as Debian has it.
pub fn redis() -> Result<PathBuf> {
    host::install(&[("redis-server", "redis-server")])?;
    let program = host::find("redis-server").context("redis-server is not installed")?;
    // Without a password it would listen to nobody but itself.
    let entrypoint = ["/redis-server", "--protected-mode", "no", "--save", ""];
    installed(&program, "redis-server", &entrypoint, "sluice.test/redis:e2e")
}

/// Envoy, from its Python package.
pub fn envoy() -> Result<PathBuf> {
    host::install(&[("pip3", "python3-pip")])?;
    installed(&crate::bench::envoy()?, "envoy", &["/envoy"], ENVOY_IMAGE)
}

/// The archive of an image with a program of this machine, as `/NAME`, and the libraries that it needs.
fn installed(program: &Path, name: &str, entrypoint: &[&str], image: &str) -> Result<PathBuf> {
    let listed = Command::new("ldd").arg(program).text()?;
    let libraries = libraries(&listed)?;
    let mut files = vec![(program.to_owned(), name, true)];
    files.extend(libraries.iter().map(|path| {
        let target = path.trim_start_matches('/');
        (PathBuf::from(path), target, true)
    }));
    let mut hash = Sha256::new();
    hash.update(entrypoint.join(" "));
    for (path, ..) in &files {
        hash.update(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let key = &hex(&hash.finalize())[..16];
    let archive = store()?.join(format!("{name}-{key}.oci.tar"));
    if !archive.exists() {
        Image {
            names: &[image],
            entrypoint,
            user: NOBODY,
            files: &files,
            labels: &[],
        }
        .write(&archive)?;
    }
    Ok(archive)
}

/// The paths in what ldd prints, that of the dynamic linker among them.
fn libraries(listed: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for line in listed.lines().map(str::trim) {
        if line.ends_with("not found") {
            bail!("a library is missing: {line}");
        }
        let path = line.split_once("=> ").map_or(line, |(_, path)| path);
        let path = path.split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            found.push(path.to_owned());
        }
    }
    Ok(found)
}

fn store() -> Result<PathBuf> {
    let store = paths::cache()?.join("images");
    fs::create_dir_all(&store).with_context(|| format!("cannot create {}", store.display()))?;
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let listed = "\tlinux-vdso.so.1 (0x1)\n\tlibm.so.6 => /lib/libm.so.6 (0x2)\n\t/lib64/ld.so.2 (0x3)\n";
        assert_eq!(libraries(listed).unwrap(), ["/lib/libm.so.6", "/lib64/ld.so.2"]);
        assert!(libraries("\tlibz.so => not found\n").is_err());
    }
}
