//! The images that a cluster needs besides Sluice's own, made from the programs in the catalogue.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::go::Program;
use super::oci::Image;
use super::programs::{AUTHZ, COREDNS, ECHO_BASIC, PAUSE};
use crate::paths;

/// The name under which containerd looks for the sandbox image.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10";
/// The cluster's name server.
pub const COREDNS_IMAGE: &str = "sluice.test/coredns:e2e";
/// The backend of our own tests.
pub const ECHO_IMAGE: &str = "registry.k8s.io/gateway-api/conformance/echo-basic:v0.1.0";

/// An image made of one program.
struct Single {
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

/// The authorizer of `e2e features`, which no other test needs.
const AUTHORIZER: Single = Single {
    program: &AUTHZ,
    names: &["sluice.test/authz:e2e"],
};

/// The archives that every cluster gets; makes those that the cache lacks.
pub fn ensure() -> Result<Vec<PathBuf>> {
    IMAGES.iter().map(Single::ensure).collect()
}

/// The authorizer's archive; makes it unless the cache has it.
pub fn authorizer() -> Result<PathBuf> {
    AUTHORIZER.ensure()
}

impl Single {
    fn ensure(&self) -> Result<PathBuf> {
        let store = paths::cache()?.join("images");
        fs::create_dir_all(&store).with_context(|| format!("cannot create {}", store.display()))?;
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
                user: "65532:65532",
                files: &[(binary, name, true)],
                labels: &[],
            }
            .write(&archive)?;
        }
        Ok(archive)
    }
}
