//! `cargo xtask integration`: the proxy beside real servers from packages, all on loopback. What only the proxy does is
//! tested by `cargo test`; here is what takes two programs to get right.
//!
//! A check installs its server, starts it together with `sluice standalone`, and drives both through curl. Everything
//! that it starts ends with it.

mod extproc;
mod geoip;
mod grpc_web;
mod http3;
pub mod install;
mod oidc;
mod otel;
mod rate_limits;
mod world;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::checks::{self, Chosen};
use crate::scratch::Scratch;
use crate::{build, host};
use world::World;

type Check = checks::Check<World>;

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
        name: "grpc-web",
        run: grpc_web::connect,
    },
    Check {
        name: "http3",
        run: http3::quic_go,
    },
    Check {
        name: "http3-merged",
        run: http3::merged,
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
    #[command(flatten)]
    chosen: Chosen,
    /// The program `sluice` to use, instead of building it
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Runs the checks, each with surroundings of its own.
pub fn run(options: &Options) -> Result<()> {
    let Some(chosen) = options.chosen.of(CHECKS)? else {
        return Ok(());
    };
    host::install(&[("curl", "curl"), ("setpriv", "util-linux")])?;
    let binary = match &options.binary {
        Some(path) => path
            .canonicalize()
            .with_context(|| format!("--binary {}", path.display()))?,
        None => build::sluice::plain()?,
    };
    let scratch = Scratch::new()?;
    checks::run(&chosen, |check| {
        let world = World::new(&scratch.path().join(check.name), &binary)?;
        (check.run)(&world)
    })
}
