//! Builds Go programs from the modules under e2e/ into a cache outside the tree.
//!
//! The cache's key is everything that decides the binary: go.mod, go.sum, the module's own sources, the package, the
//! flags and the toolchain. A warm run therefore builds nothing and asks no proxy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::cmd::Run;
use crate::{paths, progress};

/// Go's own release, which go fetches through the module proxy; the conformance suite needs this one.
const TOOLCHAIN: &str = "go1.27.0";

/// How a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `go build`.
    Binary,
    /// `go build` with Kubernetes' version stamped in, which its programs compare with one another.
    Kubernetes,
    /// `go test -c`.
    TestBinary,
}

/// One program from one of our Go modules.
#[derive(Debug)]
pub struct Program {
    /// The binary's name.
    pub name: &'static str,
    /// The module's directory, from the workspace's root.
    pub module: &'static str,
    /// What to build: an import path, or a path inside the module that starts with a dot.
    pub package: &'static str,
    pub kind: Kind,
}

impl Program {
    /// The binary's path; builds it unless the cache has it.
    pub fn ensure(&self) -> Result<PathBuf> {
        let key = self.key()?;
        let store = paths::cache()?.join("bin");
        let directory = store.join(format!("{}-{key}", self.name));
        let binary = directory.join(self.name);
        if binary.exists() {
            return Ok(binary);
        }
        need_go()?;
        progress::long(&format!("building {} ({})", self.name, self.package), || {
            self.build(&directory)
        })?;
        remove_others(&store, self.name, &directory)?;
        Ok(binary)
    }

    /// Builds beside the target and renames, so that a cache entry is always whole.
    fn build(&self, directory: &Path) -> Result<()> {
        let partial = directory.with_extension(format!("partial-{}", std::process::id()));
        fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
        let module = paths::root().join(self.module);
        let mut go = go(&module);
        match self.kind {
            Kind::TestBinary => go.args(["test", "-c"]),
            Kind::Binary | Kind::Kubernetes => go.arg("build"),
        };
        go.args(["-ldflags", &self.ldflags()?, "-o"])
            .arg(partial.join(self.name))
            .arg(self.package);
        go.text()?;
        fs::remove_dir_all(directory).or_else(ignore_missing)?;
        fs::rename(&partial, directory).with_context(|| format!("cannot create {}", directory.display()))
    }

    fn ldflags(&self) -> Result<String> {
        let mut flags = "-s -w".to_owned();
        if self.kind == Kind::Kubernetes {
            let version = required_version(&paths::root().join(self.module), "k8s.io/kubernetes")?;
            let mut numbers = version.trim_start_matches('v').split('.');
            let package = "k8s.io/component-base/version";
            for (name, value) in [
                ("gitVersion", version.as_str()),
                ("gitMajor", numbers.next().unwrap_or_default()),
                ("gitMinor", numbers.next().unwrap_or_default()),
            ] {
                flags.extend([" -X ", package, ".", name, "=", value]);
            }
        }
        Ok(flags)
    }

    fn key(&self) -> Result<String> {
        let module = paths::root().join(self.module);
        let mut hash = Sha256::new();
        for part in [
            TOOLCHAIN,
            self.package,
            &format!("{:?}", self.kind),
            &self.ldflags()?,
        ] {
            hash.update(part);
            hash.update([0]);
        }
        let mut files = vec![module.join("go.mod"), module.join("go.sum")];
        if self.package.starts_with('.') {
            files.extend(go_sources(&module.join(self.package))?);
        }
        for file in files {
            hash.update(fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
            hash.update([0]);
        }
        Ok(hex(&hash.finalize())[..16].to_owned())
    }
}

/// The directory of a dependency in the module cache; downloads it if it is missing.
pub fn module_directory(module: &Path, dependency: &str) -> Result<PathBuf> {
    need_go()?;
    go(module).args(["mod", "download", dependency]).text()?;
    let text = go(module)
        .args(["list", "-m", "-f", "{{.Dir}}", dependency])
        .text()?;
    if text.trim().is_empty() {
        bail!("{dependency} is no dependency of {}", module.display());
    }
    Ok(PathBuf::from(text.trim()))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn go(module: &Path) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", TOOLCHAIN)
        .env("GOFLAGS", "-buildvcs=false -mod=readonly")
        .env("GOWORK", "off");
    command
}

fn need_go() -> Result<()> {
    if !Command::new("go").arg("version").succeeds() {
        bail!(
            "`go` is missing: install it (any release from 1.21 on fetches {TOOLCHAIN} itself; `.ci/run` installs \
             Debian's golang) and run this again"
        );
    }
    Ok(())
}

/// The version of `dependency` that go.mod requires.
fn required_version(module: &Path, dependency: &str) -> Result<String> {
    let path = module.join("go.mod");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    find_version(&text, dependency)
        .with_context(|| format!("{} does not require {dependency}", path.display()))
}

fn find_version(go_mod: &str, dependency: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(dependency)).then(|| words.next().unwrap_or_default().to_owned())
    })
}

fn go_sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "go") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Drops older builds of the same program: they are large and never used again.
fn remove_others(store: &Path, name: &str, keep: &Path) -> Result<()> {
    for entry in fs::read_dir(store)? {
        let path = entry?.path();
        let other = path
            .file_name()
            .and_then(|file| file.to_str())
            .and_then(|file| file.strip_prefix(name));
        if path != keep && other.is_some_and(|rest| rest.len() == 17 && rest.starts_with('-')) {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Turns "not found" into success.
pub fn ignore_missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_either_form_of_require() {
        assert_eq!(
            find_version("require a.test/b v1.2.3\n", "a.test/b").as_deref(),
            Some("v1.2.3")
        );
        let block = "require (\n\ta.test/bc v0.1.0\n\ta.test/b v1.2.3 // indirect\n)\n";
        assert_eq!(find_version(block, "a.test/b").as_deref(), Some("v1.2.3"));
        assert_eq!(find_version(block, "a.test"), None);
    }

    #[test]
    fn the_key_differs_between_programs_of_one_module() {
        use crate::build::programs::{KUBECTL, KUBELET};
        assert_ne!(KUBECTL.key().unwrap(), KUBELET.key().unwrap());
    }

    #[test]
    fn older_builds_of_the_same_program_alone_are_removed() {
        let store = tempfile::tempdir().unwrap();
        let names = [
            "kubelet-0123456789abcdef",
            "kubelet-fedcba9876543210",
            "kubelet-x-0123456789abcdef",
        ];
        for name in names {
            fs::create_dir(store.path().join(name)).unwrap();
        }
        remove_others(store.path(), "kubelet", &store.path().join(names[0])).unwrap();
        let left = names.map(|name| store.path().join(name).exists());
        assert_eq!(left, [true, false, true]);
    }
}
