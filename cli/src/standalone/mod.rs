//! `sluice standalone`: controller and proxies in one process, with a folder in the place of the API server.
//!
//! Owns the folder's watch and one proxy for each Gateway. What is served, and every status, comes from the same
//! translation as in a cluster.

mod backends;
mod ports;
mod proxy;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use notify::Watcher;
use sluice_controller::engine::{Changes, Engine, Event, GatewayRef};
use tokio::sync::mpsc;

use crate::folder::Folder;
use crate::{args, limits, report, signals, translate};
use backends::EchoBackends;
use ports::Ports;
use proxy::Proxy;

/// How long a folder has to be quiet before it is read: editors write in several steps.
const SETTLE: Duration = Duration::from_millis(50);

/// Serves the folder until told to stop.
pub(crate) async fn run(args: args::Standalone) -> anyhow::Result<ExitCode> {
    limits::raise_open_files();
    let (_watcher, mut changed) = watch(&args)?;
    let mut folder = Folder::new(&args.config);
    let mut standalone = Standalone::new(args);
    standalone.reload(&mut folder).await?;
    let mut stop = std::pin::pin!(signals::stop());
    loop {
        tokio::select! {
            stopped = &mut stop => {
                stopped?;
                break;
            }
            Some(()) = changed.recv() => {
                tokio::time::sleep(SETTLE).await;
                while changed.try_recv().is_ok() {}
                if let Err(error) = standalone.reload(&mut folder).await {
                    println!("{error:#}");
                }
            }
        }
    }
    standalone.drain().await;
    Ok(ExitCode::SUCCESS)
}

fn watch(args: &args::Standalone) -> anyhow::Result<(impl Watcher + use<>, mpsc::Receiver<()>)> {
    let (sender, changed) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files makes events too.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            // If it is full, the folder will be read anyway.
            let _ = sender.try_send(());
        }
    })?;
    watcher
        .watch(&args.config, notify::RecursiveMode::NonRecursive)
        .with_context(|| format!("--config {}", args.config.display()))?;
    Ok((watcher, changed))
}

struct Standalone {
    args: args::Standalone,
    engine: Engine,
    proxies: BTreeMap<GatewayRef, Proxy>,
    ports: Ports,
    backends: EchoBackends,
}

impl Standalone {
    fn new(args: args::Standalone) -> Self {
        let mut environment =
            translate::environment(&args.controller_name, &args.bind.to_string(), &args.rate_limit);
        environment.allow_local_backends = args.allow_loopback_backends;
        let engine = Engine::new(environment);
        Self {
            args,
            engine,
            proxies: BTreeMap::new(),
            ports: Ports::default(),
            backends: EchoBackends::default(),
        }
    }

    async fn reload(&mut self, folder: &mut Folder) -> anyhow::Result<()> {
        let reload = folder.reload()?;
        for problem in reload.problems {
            println!("{problem}");
        }
        let mut events = reload.events;
        let mut changes = Changes::default();
        // A listener that a proxy refuses changes statuses once more.
        while !events.is_empty() {
            let more = self.engine.apply(events);
            events = self.publish(&more).await?;
            changes.statuses.extend(more.statuses);
        }
        self.backends.follow(self.engine.store()).await;
        for (object, status) in &changes.statuses {
            println!("{}", report::line(object, status.as_ref()));
        }
        Ok(())
    }

    /// Gives the changes to the proxies; what these refuse comes back as events.
    async fn publish(&mut self, changes: &Changes) -> anyhow::Result<Vec<Event>> {
        let mut events = Vec::new();
        for (gateway, change) in &changes.config {
            if !self.proxies.contains_key(gateway) {
                let proxy = Proxy::start(gateway.clone(), &self.args, self.proxies.is_empty()).await?;
                self.proxies.insert(gateway.clone(), proxy);
            }
            let Some(proxy) = self.proxies.get_mut(gateway) else {
                continue;
            };
            events.extend(proxy.apply(change, &mut self.ports));
            if self.engine.config(gateway).is_empty()
                && let Some(proxy) = self.proxies.remove(gateway)
            {
                tokio::spawn(async move { proxy.drain().await });
            }
        }
        // A port that one Gateway gave up may be another's now.
        for proxy in self.proxies.values_mut() {
            events.extend(proxy.retry_blocked(&mut self.ports));
        }
        Ok(events)
    }

    async fn drain(self) {
        futures::future::join_all(self.proxies.values().map(Proxy::drain)).await;
    }
}
