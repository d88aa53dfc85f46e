//! The load and the backend of `bulk` and `connections`: xtask itself, started again on the core of the load.
//!
//! Owns what these processes do and the lines they print; it measures nothing. The run that starts them reads the lines
//! and looks at the proxy when they come.

mod backend;
mod hold;
mod tls;
mod transfer;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};

use super::host::LOAD_CORE;
use crate::process::{Process, pinned};

/// What such a process does.
#[derive(Debug, Clone, Subcommand)]
pub enum Helper {
    /// Serves bodies and takes upgrades, until it is ended
    Backend {
        #[arg(long)]
        port: u16,
    },
    /// Opens connections, makes one request on each, and holds them until it is ended
    Hold {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        kind: Kind,
        #[arg(long)]
        connections: u32,
        #[arg(long)]
        certificate: PathBuf,
    },
    /// Makes TLS connections anew for some seconds
    Handshakes {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        seconds: u32,
        #[arg(long)]
        certificate: PathBuf,
    },
    /// Moves bodies for some seconds
    Transfer {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        direction: Direction,
        #[arg(long)]
        bytes: u64,
        #[arg(long)]
        connections: u32,
        #[arg(long)]
        seconds: u32,
        /// The receiver stops reading after a little
        #[arg(long)]
        stall: bool,
    },
}

/// A kind of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Plain,
    Tls,
    Websocket,
}

/// Which way a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    Download,
    Upload,
}

/// Does the work in this process.
pub fn run(helper: &Helper) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match helper {
            Helper::Backend { port } => backend::serve(*port).await,
            Helper::Hold {
                port,
                kind,
                connections,
                certificate,
            } => hold::hold(*port, *kind, *connections, certificate).await,
            Helper::Handshakes {
                port,
                seconds,
                certificate,
            } => tls::handshakes(*port, *seconds, certificate).await,
            Helper::Transfer {
                port,
                direction,
                bytes,
                connections,
                seconds,
                stall,
            } => {
                let transfer = transfer::Transfer {
                    port: *port,
                    direction: *direction,
                    bytes: *bytes,
                    stall: *stall,
                };
                transfer::run(transfer, *connections, *seconds).await
            }
        }
    })
}

/// Tells the run that started this process.
fn tell(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

/// A helper that runs, seen from the run that started it.
#[derive(Debug)]
pub struct Started {
    process: Process,
    lines: BufReader<ChildStdout>,
}

impl Started {
    /// Starts xtask again as a helper, with these arguments.
    pub fn new(arguments: &[&str], directory: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("where xtask itself is")?;
        let mut command = pinned(LOAD_CORE, &program);
        command.args(["bench", "helper"]).args(arguments);
        let name = arguments.first().copied().unwrap_or("helper");
        let mut process = Process::start(name, &mut command, directory, Stdio::piped())?;
        let lines = process.lines()?;
        Ok(Self { process, lines })
    }

    /// Waits for a line that begins with `word` and gives its rest.
    pub fn wait(&mut self, word: &str) -> Result<String> {
        let mut line = String::new();
        while self.lines.read_line(&mut line)? > 0 {
            if let Some(rest) = line.trim().strip_prefix(word) {
                return Ok(rest.trim().to_owned());
            }
            line.clear();
        }
        // Its output ends just before it does.
        std::thread::sleep(std::time::Duration::from_millis(100));
        self.process.check()?;
        bail!("the helper never said {word:?}")
    }
}
