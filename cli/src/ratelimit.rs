//! `sluice ratelimit`: the rate limit service.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use sluice_ratelimit::{Options, Redis};
use tokio_util::sync::CancellationToken;

use crate::{args, limits, signals};

/// Holds Redis' password if no file does. Not a flag, which others on the machine could see.
const PASSWORD: &str = "SLUICE_REDIS_PASSWORD";

/// Runs the service until it is told to stop.
pub(crate) async fn run(args: args::Ratelimit) -> anyhow::Result<ExitCode> {
    limits::raise_open_files();
    let password = match &args.redis_password_file {
        Some(file) => Some(String::from_utf8(read(file)?)?.trim_end().to_owned()),
        None => std::env::var(PASSWORD).ok(),
    };
    let client_certificate = match (&args.redis_cert_file, &args.redis_key_file) {
        (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
        _ => None,
    };
    let options = Options {
        address: args.address,
        metrics_address: args.metrics_address,
        redis: Redis {
            url: args.redis_url,
            username: args.redis_username,
            password: password.filter(|password| !password.is_empty()),
            ca: args.redis_ca_file.as_deref().map(read).transpose()?,
            client_certificate,
            prefix: args.redis_prefix,
        },
    };
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        if let Err(error) = signals::stop().await {
            tracing::error!(%error, "signals cannot be received");
        }
        stopping.cancel();
    });
    sluice_ratelimit::run(options, stop).await?;
    Ok(ExitCode::SUCCESS)
}

fn read(file: impl AsRef<Path>) -> anyhow::Result<Vec<u8>> {
    let file = file.as_ref();
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
