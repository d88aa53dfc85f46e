//! Background processes: started in the node's namespace, recorded with their start time, and ended only if both the
//! PID and the start time still match. A PID alone may belong to a stranger by now.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// A process that `up` has started.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Recorded {
    pub name: String,
    pub pid: i32,
    /// Clock ticks after boot, field 22 of /proc/PID/stat.
    pub start: u64,
}

impl Recorded {
    /// Whether this very process still runs.
    pub fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.start)
    }

    fn signal(&self, signal: Signal) {
        if self.alive()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // It may have ended in between; then there is nothing to do.
            let _ = kill_process(pid, signal);
        }
    }
}

/// The processes of one cluster and the file that remembers them.
#[derive(Debug)]
pub struct Table {
    file: PathBuf,
    logs: PathBuf,
    pub processes: Vec<Recorded>,
}

impl Table {
    /// Reads what earlier runs have recorded.
    pub fn load(state: &Path) -> Result<Self> {
        let file = state.join("processes.json");
        let processes = match fs::read(&file) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("{} is broken", file.display()))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        Ok(Self {
            file,
            logs: state.join("logs"),
            processes,
        })
    }

    /// Starts `command` as a session of its own, its output in `logs/NAME.log`, and records it.
    pub fn start(&mut self, name: &str, command: &Command) -> Result<()> {
        let path = self.logs.join(format!("{name}.log"));
        let log = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut detached = Command::new("setsid");
        detached.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => detached.env(key, value),
                None => detached.env_remove(key),
            };
        }
        let child = detached
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = i32::try_from(child.id())?;
        let start =
            start_time(pid).with_context(|| format!("{name} ended at once; see {}", path.display()))?;
        self.processes.push(Recorded {
            name: name.to_owned(),
            pid,
            start,
        });
        let text = serde_json::to_vec_pretty(&self.processes)?;
        fs::write(&self.file, text).with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// Whether every recorded process runs, and there is one at all.
    pub fn all_alive(&self) -> bool {
        !self.processes.is_empty() && self.processes.iter().all(Recorded::alive)
    }

    /// Fails, with the end of its log, if a process has died.
    pub fn check(&self) -> Result<()> {
        for process in &self.processes {
            if !process.alive() {
                let path = self.logs.join(format!("{}.log", process.name));
                let log = fs::read_to_string(&path).unwrap_or_default();
                bail!(
                    "{} has died; {} ends with:\n{}",
                    process.name,
                    path.display(),
                    crate::cmd::tail(&log, 3000)
                );
            }
        }
        Ok(())
    }

    /// Ends the named processes: SIGTERM, and SIGKILL to those that are still there after `grace`.
    pub fn end(&self, names: &[&str], grace: Duration) {
        let chosen: Vec<&Recorded> = self
            .processes
            .iter()
            .filter(|process| names.contains(&process.name.as_str()))
            .collect();
        for process in &chosen {
            process.signal(Signal::TERM);
        }
        if !all_end(&chosen, grace) {
            for process in &chosen {
                process.signal(Signal::KILL);
            }
            all_end(&chosen, Duration::from_secs(5));
        }
    }
}

fn all_end(processes: &[&Recorded], limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while processes.iter().any(|process| process.alive()) {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Sends SIGKILL to a process that one has just found by its own files.
pub fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended in between; then there is nothing to do.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The start time of a process that runs; None if there is none or it is a zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Every process whose /proc/PID/`file` satisfies `wanted`.
pub fn find(file: &str, wanted: impl Fn(&str) -> bool) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/{file}"))
                .is_ok_and(|bytes| wanted(&String::from_utf8_lossy(&bytes)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_a_name_with_parentheses() {
        let rest = "S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        assert_eq!(parse_stat(&format!("12 (a) b) {rest}")), Some(4711));
        assert_eq!(parse_stat("12 (a) Z 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_recorded_process_is_ended_and_a_stranger_with_its_pid_is_not() {
        let state = tempfile::tempdir().unwrap();
        fs::create_dir(state.path().join("logs")).unwrap();
        let mut table = Table::load(state.path()).unwrap();
        let mut sleep = Command::new("sleep");
        table.start("sleeper", sleep.arg("600")).unwrap();
        assert!(table.all_alive());
        let mut reloaded = Table::load(state.path()).unwrap();
        assert_eq!(reloaded.processes, table.processes);

        reloaded.processes[0].start += 1;
        reloaded.end(&["sleeper"], Duration::from_secs(5));
        assert!(table.all_alive());

        table.end(&["sleeper"], Duration::from_secs(5));
        assert!(!table.all_alive());
        assert!(
            table
                .check()
                .unwrap_err()
                .to_string()
                .contains("sleeper has died")
        );
    }
}
