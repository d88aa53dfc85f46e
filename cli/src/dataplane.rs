//! `sluice dataplane`: the proxy of one Gateway.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use sluice_dataplane::admin::Admin;
use sluice_dataplane::discovery::{self, Source};
use sluice_dataplane::telemetry::AccessLogTarget;
use sluice_dataplane::{Dataplane, Options};
use tokio::net::TcpListener;

use crate::{args, limits, signals};

/// Serves what the controller says until it is told to stop: then readiness fails first, new connections are taken for
/// a while longer, and those that are open get time to end.
pub(crate) async fn run(args: args::Dataplane) -> anyhow::Result<ExitCode> {
    limits::raise_open_files();
    let access_log = if args.no_access_log {
        AccessLogTarget::Off
    } else {
        AccessLogTarget::Stdout
    };
    let dataplane = Dataplane::start(Options {
        workers: args.workers,
        bind: args.bind,
        unready_delay: Duration::from_millis(args.unready_delay),
        drain_delay: Duration::from_secs(args.min_drain),
        drain_timeout: Duration::from_secs(args.drain_timeout),
        access_log,
        name_servers: Vec::new(),
        zone: args.zone,
    })?;
    let listener = TcpListener::bind(args.admin_address)
        .await
        .with_context(|| format!("--admin-address {}", args.admin_address))?;
    tokio::spawn(Admin::new(dataplane.clone()).serve(listener));
    let source = Source {
        endpoint: args.controller,
        server_name: args.controller_server_name,
        ca_file: args.ca_file,
        token_file: args.token_file,
        namespace: args.namespace,
        gateway: args.gateway,
        proxy: args.proxy_name,
        cache_dir: args.cache_dir,
    };
    tracing::info!(gateway = %format_args!("{}/{}", source.namespace, source.gateway), "proxy started");
    tokio::spawn(discovery::follow(source, dataplane.clone()));

    let signal = signals::stop().await?;
    tracing::info!(signal, "draining: readiness fails from now on");
    dataplane.drain().await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
