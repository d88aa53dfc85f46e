//! A directory for one run's files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// How the directories of runs begin; the process's PID follows.
const PREFIX: &str = "sluice-xtask-";

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
