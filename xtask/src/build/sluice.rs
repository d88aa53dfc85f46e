//! Sluice's own image: the static release binary and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::oci::Image;
use crate::cmd::{Run, cargo};
use crate::paths::VERSION;
use crate::progress;

/// The target is named explicitly so that the static linking applies to the binary and not to build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What a release image may weigh.
const LIMIT: u64 = 25 * 1000 * 1000;

/// The image's name without its tag.
pub const REPOSITORY: &str = "sluice";

/// `sluice:VERSION`.
pub fn image_name() -> String {
    format!("{REPOSITORY}:{VERSION}")
}

/// Builds the binary with a cargo profile and writes the OCI archive; returns its path.
pub fn image(profile: &str, output: Option<PathBuf>) -> Result<PathBuf> {
    let binary = binary(profile)?;
    check_static(&binary)?;
    let archive = match output {
        Some(path) => path,
        None => default_archive(profile)?,
    };
    let name = image_name();
    let size = Image {
        names: &[&name],
        entrypoint: &["/sluice"],
        user: "65532",
        files: &[(binary, "sluice", true)],
        labels: &[
            ("org.opencontainers.image.title", "Sluice"),
            (
                "org.opencontainers.image.description",
                "Gateway API controller and proxy",
            ),
            ("org.opencontainers.image.version", VERSION),
            ("org.opencontainers.image.licenses", "Apache-2.0"),
        ],
    }
    .write(&archive)?;
    if profile == "release" && size > LIMIT {
        bail!("{} is {size} bytes; the limit is {LIMIT}", archive.display());
    }
    progress::say(format!(
        "{name}: {} ({:.1} MB)",
        archive.display(),
        megabytes(size)
    ));
    Ok(archive)
}

/// Where `cargo xtask image` leaves the archive; those of other profiles never pass for the release.
fn default_archive(profile: &str) -> Result<PathBuf> {
    let suffix = if profile == "release" {
        String::new()
    } else {
        format!("-{profile}")
    };
    Ok(target_directory()?.join(format!("{REPOSITORY}-{VERSION}{suffix}.oci.tar")))
}

/// Builds `sluice` as `cargo build` does, for tests on this machine; returns the binary.
pub fn plain() -> Result<PathBuf> {
    progress::long("cargo build sluice", || {
        cargo()
            .args(["build", "--locked", "--package", "sluice-cli", "--bin", "sluice"])
            .run()
    })?;
    Ok(target_directory()?.join("debug/sluice"))
}

/// Builds `sluice` statically; returns the binary.
pub fn binary(profile: &str) -> Result<PathBuf> {
    let rustflags = format!("target.{TARGET}.rustflags=[\"-C\", \"target-feature=+crt-static\"]");
    progress::long(&format!("cargo build sluice ({profile}, static)"), || {
        cargo()
            .args(["build", "--locked", "--package", "sluice-cli", "--bin", "sluice"])
            .args(["--profile", profile, "--target", TARGET, "--config", &rustflags])
            .env_remove("RUSTFLAGS")
            .run()
    })?;
    let directory = if profile == "dev" { "debug" } else { profile };
    Ok(target_directory()?.join(TARGET).join(directory).join("sluice"))
}

fn target_directory() -> Result<PathBuf> {
    let metadata: serde_json::Value = cargo()
        .args(["metadata", "--no-deps", "--format-version=1"])
        .json()?;
    let directory = metadata["target_directory"]
        .as_str()
        .context("cargo metadata without target_directory")?;
    Ok(PathBuf::from(directory))
}

fn check_static(binary: &Path) -> Result<()> {
    let bytes = fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    match interpreter(&bytes) {
        None => bail!("{} is no 64-bit little-endian ELF file", binary.display()),
        Some(true) => bail!(
            "{} is not static: it asks for a program interpreter",
            binary.display()
        ),
        Some(false) => Ok(()),
    }
}

/// Whether an ELF file has a PT_INTERP segment (System V ABI, chapter 5), that is, needs a dynamic linker.
fn interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let offset = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
    let size = usize::from(u16::from_le_bytes(elf.get(54..56)?.try_into().ok()?));
    let count = usize::from(u16::from_le_bytes(elf.get(56..58)?.try_into().ok()?));
    for index in 0..count {
        let start = offset.checked_add(index.checked_mul(size)?)?;
        let kind = elf.get(start..start.checked_add(4)?)?;
        if u32::from_le_bytes(kind.try_into().ok()?) == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

#[expect(clippy::cast_precision_loss, reason = "a size for people, to one decimal")]
fn megabytes(size: u64) -> f64 {
    size as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(kinds: &[u32]) -> Vec<u8> {
        let mut file = vec![0; 64 + 56 * kinds.len()];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64;
        file[54] = 56;
        file[56] = u8::try_from(kinds.len()).unwrap();
        for (index, kind) in kinds.iter().enumerate() {
            file[64 + 56 * index..][..4].copy_from_slice(&kind.to_le_bytes());
        }
        file
    }

    #[test]
    fn a_program_interpreter_is_found_wherever_it_stands() {
        assert_eq!(interpreter(&elf(&[1, 2])), Some(false));
        assert_eq!(interpreter(&elf(&[1, 3])), Some(true));
    }

    #[test]
    fn what_is_no_elf_file_or_is_cut_short_is_neither() {
        assert_eq!(interpreter(b"#!/bin/sh"), None);
        assert_eq!(interpreter(&elf(&[1, 1])[..100]), None);
    }
}
