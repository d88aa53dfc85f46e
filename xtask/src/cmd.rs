//! Running other programs: every failure names the command line and ends with what it wrote to standard error.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use crate::paths;

/// cargo, in the project's folder.
///
/// What the cargo that runs xtask says of the crate `xtask` is taken back: build scripts that watch it would compile
/// their crates anew whenever a build is not started in the same way as the one before.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// The ways in which xtask runs a [`Command`].
pub trait Run {
    /// Runs with inherited standard streams.
    fn run(&mut self) -> Result<()>;
    /// Runs and returns everything; an exit status other than 0 is not an error.
    fn capture(&mut self) -> Result<Output>;
    /// Runs quietly and returns standard output.
    fn text(&mut self) -> Result<String>;
    /// Runs quietly and parses standard output as JSON.
    fn json<T: DeserializeOwned>(&mut self) -> Result<T>;
    /// Runs quietly with `input` on standard input and returns standard output.
    fn feed(&mut self, input: &str) -> Result<String>;
    /// Whether it runs and exits with 0; its output is dropped.
    fn succeeds(&mut self) -> bool;
}

impl Run for Command {
    fn run(&mut self) -> Result<()> {
        let status = self
            .status()
            .with_context(|| format!("cannot start `{}`", line(self)))?;
        if !status.success() {
            bail!("`{}` failed ({status})", line(self));
        }
        Ok(())
    }

    fn capture(&mut self) -> Result<Output> {
        self.stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start `{}`", line(self)))
    }

    fn text(&mut self) -> Result<String> {
        let output = self.capture()?;
        checked(self, &output)
    }

    fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        let text = self.text()?;
        serde_json::from_str(&text)
            .with_context(|| format!("`{}` did not print the expected JSON", line(self)))
    }

    fn feed(&mut self, input: &str) -> Result<String> {
        self.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self
            .spawn()
            .with_context(|| format!("cannot start `{}`", line(self)))?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let input = input.to_owned();
        // A thread of its own: a program that fills its output before it has read all input would block us.
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output()?;
        // A broken pipe here means that the program gave up early; its exit status says why.
        drop(writer.join());
        checked(self, &output)
    }

    fn succeeds(&mut self) -> bool {
        self.stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

fn checked(command: &Command, output: &Output) -> Result<String> {
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed ({}): {}",
            line(command),
            output.status,
            tail(stderr.trim(), 2000)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The last `max` bytes of `text`, cut at a character's boundary.
pub fn tail(text: &str, max: usize) -> &str {
    let mut start = text.len().saturating_sub(max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// The command line as one would type it.
pub fn line(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_its_standard_error() {
        let error = Command::new("sh")
            .args(["-c", "echo broken >&2; exit 3"])
            .text()
            .unwrap_err()
            .to_string();
        assert!(error.contains("sh -c"), "{error}");
        assert!(error.contains("broken"), "{error}");
    }

    #[test]
    fn input_larger_than_a_pipe_passes_through() {
        let input = "x".repeat(1 << 20);
        assert_eq!(Command::new("cat").feed(&input).unwrap(), input);
    }

    #[test]
    fn tail_keeps_whole_characters() {
        assert_eq!(tail("aé", 1), "");
        assert_eq!(tail("aé", 2), "é");
    }
}
