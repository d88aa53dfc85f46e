//! Processes of a run: perhaps pinned to a core, ended by PID when they go out of scope, and measured through `/proc`.

use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::io::BufReader;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::netns::Netns;
use crate::{cmd, progress};

/// How long a process has to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(3);

/// A program on one core. It ends with this value, and also if xtask is killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// `program`, ended when the thread that starts it ends.
pub fn bound(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(program);
    command
}

/// [`bound`], in a network namespace.
pub fn bound_in(netns: Netns, program: impl AsRef<OsStr>) -> Command {
    let mut command = netns.command("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(program);
    command
}

/// `program` on `core` alone, ended when the thread that starts it ends.
pub fn pinned(core: usize, program: &Path) -> Command {
    let mut command = bound("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

impl Process {
    /// Starts a command made by [`bound`] or [`pinned`]; standard error goes to `NAME.log` in `dir`.
    pub fn start(name: &str, command: &mut Command, dir: &Path, stdout: Stdio) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// What it writes to standard output, if that was started as a pipe.
    pub fn lines(&mut self) -> Result<BufReader<ChildStdout>> {
        let output = self.child.stdout.take();
        output
            .map(BufReader::new)
            .with_context(|| format!("the output of {} goes elsewhere", self.name))
    }

    /// Fails, with the end of what it wrote to standard error, if the process has ended.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            bail!(
                "{} has ended ({status}): {}",
                self.name,
                cmd::tail(log.trim(), 2000)
            );
        }
        Ok(())
    }

    /// The process and all that it started.
    pub fn family(&self) -> Vec<u32> {
        let mut family = vec![self.child.id()];
        let mut next = 0;
        while let Some(&pid) = family.get(next) {
            next += 1;
            for task in tasks(pid) {
                let children = fs::read_to_string(task.join("children")).unwrap_or_default();
                family.extend(
                    children
                        .split_whitespace()
                        .filter_map(|pid| pid.parse::<u32>().ok()),
                );
            }
        }
        family
    }

    /// CPU time so far, user and system, of all threads of the process and its children.
    pub fn cpu(&self) -> Duration {
        let nanoseconds = self
            .family()
            .into_iter()
            .flat_map(tasks)
            .filter_map(|task| {
                let text = fs::read_to_string(task.join("schedstat")).ok()?;
                text.split_whitespace().next()?.parse::<u64>().ok()
            })
            .sum();
        Duration::from_nanos(nanoseconds)
    }

    /// Resident memory in bytes, of the process and its children.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most resident memory in bytes since [`Self::forget_peak`].
    pub fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Starts the peak of resident memory anew.
    pub fn forget_peak(&self) -> Result<()> {
        for pid in self.family() {
            // See proc(5): 5 resets the peak.
            fs::write(format!("/proc/{pid}/clear_refs"), "5")
                .with_context(|| format!("cannot reset the memory peak of {}", self.name))?;
        }
        Ok(())
    }

    fn memory(&self, field: &str) -> u64 {
        self.family()
            .into_iter()
            .filter_map(|pid| status_field(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, field))
            .sum()
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: Signal) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else {
            return;
        };
        let deadline = Instant::now() + PATIENCE;
        // It has not been waited for, so the PID is still its own.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(pid, signal);
        }
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Signal::TERM);
    }
}

fn tasks(pid: u32) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// A field of `/proc/PID/status`, which is in kB, in bytes.
fn status_field(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Waits until a process listens on 127.0.0.1.
pub fn wait_for_port(process: &mut Process, port: u16) -> Result<()> {
    wait_for(process, || Ok(TcpStream::connect(("127.0.0.1", port)).ok()))
}

/// Waits until a process listens at an address of a network namespace.
pub fn wait_for_address(process: &mut Process, netns: Netns, address: &str) -> Result<()> {
    wait_for(process, || netns.run(|| Ok(TcpStream::connect(address).ok())))
}

fn wait_for(process: &mut Process, connect: impl Fn() -> Result<Option<TcpStream>>) -> Result<()> {
    progress::wait_for("a listening port", Duration::from_secs(20), || {
        process.check()?;
        connect()
    })?;
    // One that could not have the port ends about now.
    process.check()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t     100 kB\n";
        assert_eq!(status_field(status, "VmRSS:"), Some(102_400));
        assert_eq!(status_field(status, "VmSwap:"), None);
    }

    #[test]
    fn a_family_is_found_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = pinned(0, Path::new("sh"));
        command.args(["-c", "sleep 600 & wait"]);
        let mut process = Process::start("family", &mut command, dir.path(), Stdio::null()).unwrap();
        while process.family().len() < 2 {
            process.check().unwrap();
            std::thread::yield_now();
        }
        let sleep = process.family()[1];
        process.end(Signal::TERM);
        assert!(process.check().is_err());
        // The shell leaves its child behind; it is this test's.
        let sleep = Pid::from_raw(i32::try_from(sleep).unwrap()).unwrap();
        let _ = kill_process(sleep, Signal::KILL);
    }
}
