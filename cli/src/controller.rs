//! `sluice controller`: the controller in a cluster.

use std::process::ExitCode;

use sluice_controller::Options;

use crate::{args, limits};

/// Runs the controller until it is told to stop.
pub(crate) async fn run(args: args::Controller) -> anyhow::Result<ExitCode> {
    limits::raise_open_files();
    let port = args.config_address.port();
    let config_service = args
        .config_service
        .unwrap_or_else(|| format!("sluice-controller.{}.svc:{port}", args.namespace));
    sluice_controller::run(Options {
        controller_name: args.controller_name,
        namespace: args.namespace,
        config_address: args.config_address,
        metrics_address: args.metrics_address,
        proxy_image: args.proxy_image,
        proxy_image_pull_policy: args.proxy_image_pull_policy.filter(|policy| !policy.is_empty()),
        config_service,
        xff_trusted_hops: args.xff_trusted_hops,
        allow_loopback_backends: args.allow_loopback_backends,
        rate_limit: args.rate_limit.service(),
        leader_election: args.leader_elect,
        pod_name: args.pod_name,
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}
