//! The Sluice proxy: listen -> tls -> route -> filter -> upstream, and l4 for what is not HTTP.
//!
//! Configuration comes in as [`v1::Update`]s and is all this crate knows of the world: it has never heard of
//! Kubernetes. N workers, each a thread with a runtime, its own sockets and its own connections to backends, share
//! nothing on the request's path but immutable tables.
//!
//! ```no_run
//! # async fn run(update: sluice_config::v1::Update) -> Result<(), sluice_dataplane::StartError> {
//! let dataplane = sluice_dataplane::Dataplane::start(sluice_dataplane::Options::default())?;
//! let ack = dataplane.apply(&update);
//! assert!(ack.rejected.is_empty());
//! dataplane.drain().await;
//! # Ok(())
//! # }
//! ```

pub mod admin;
pub mod discovery;
pub mod drain;
pub mod filter;
pub mod forward;
pub mod l4;
pub mod listen;
mod own_calls;
mod retry;
pub mod route;
pub mod rule;
pub mod state;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod wire;
pub mod worker;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use sluice_config::v1;

use drain::{Drain, Phase};
use state::State;
use worker::{Shared, Workers};

/// How often a socket that could not be bound is tried again.
const BIND_RETRY: Duration = Duration::from_secs(2);

/// How a dataplane runs. Everything else is configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that serve; 0: one for each core.
    pub workers: usize,
    /// Address that listeners bind. `::` also takes IPv4.
    pub bind: IpAddr,
    /// How long readiness stands when service is to end.
    pub unready_delay: Duration,
    /// How long new connections are still taken after readiness has failed, so that those who send them can hear of it.
    pub drain_delay: Duration,
    /// How long connections may take to end after that.
    pub drain_timeout: Duration,
    /// Where the access log goes.
    pub access_log: telemetry::AccessLogTarget,
    /// Servers that know the hostnames of endpoints; none: those of the system.
    pub name_servers: Vec<SocketAddr>,
    /// The zone that the proxy is in; empty: not known.
    pub zone: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 0,
            bind: Ipv6Addr::UNSPECIFIED.into(),
            unready_delay: Duration::ZERO,
            drain_delay: Duration::from_secs(10),
            drain_timeout: Duration::from_mins(1),
            access_log: telemetry::AccessLogTarget::Stdout,
            name_servers: Vec::new(),
            zone: String::new(),
        }
    }
}

/// Why a dataplane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The access log's target cannot be opened.
    #[error("access log: {0}")]
    AccessLog(#[source] io::Error),
    /// A worker's thread or runtime cannot be had.
    #[error("worker: {0}")]
    Worker(#[source] io::Error),
}

/// A handle on a running dataplane; clones share it. It stops when the last one goes.
#[derive(Clone)]
pub struct Dataplane(Arc<Inner>);

struct Inner {
    // Before the workers: its sockets are closed first.
    state: Mutex<State>,
    shared: Arc<Shared>,
    workers: Workers,
    synced: AtomicBool,
    /// Latched once every socket that was asked for is bound.
    bound: AtomicBool,
    options: Options,
}

impl Dataplane {
    /// Starts the workers. Nothing is served before [`Dataplane::apply`] says what.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(options: Options) -> Result<Self, StartError> {
        let access_log = telemetry::AccessLog::start(&options.access_log).map_err(StartError::AccessLog)?;
        let shared = Arc::new(Shared {
            metrics: Arc::default(),
            access_log,
            telemetry: arc_swap::ArcSwapOption::empty(),
            settings: ArcSwap::from_pointee(v1::Settings::default()),
            geo: ArcSwap::default(),
            drain: Drain::new(),
        });
        let workers = Workers::start(options.workers, &shared).map_err(StartError::Worker)?;
        let handles = workers.handles();
        let sockets = listen::Sockets::new(options.bind, handles.clone());
        let first = handles.first();
        let resolver =
            first.map(|worker| upstream::Resolver::new(worker.runtime.clone(), options.name_servers.clone()));
        let mut state = State::new(Arc::clone(&shared), Box::new(sockets), resolver);
        let prober = first.map(|worker| upstream::Prober::new(worker.runtime.clone()));
        state.situate(&options.zone, prober);
        let state = Mutex::new(state);
        let inner = Arc::new(Inner {
            state,
            shared,
            workers,
            synced: AtomicBool::new(false),
            bound: AtomicBool::new(false),
            options,
        });
        if let Some(first) = inner.workers.handles().into_iter().next() {
            inner.workers.spawn(telemetry::export::run(first));
        }
        inner.workers.spawn(retry_binds(Arc::downgrade(&inner)));
        Ok(Self(inner))
    }

    /// Applies an update as one. What is rejected keeps its last good version; everything else takes effect.
    pub fn apply(&self, update: &v1::Update) -> v1::Ack {
        let mut state = self.0.state();
        let ack = state.apply(update);
        self.0
            .shared
            .metrics
            .config()
            .update(ack.rejected.len(), state.len());
        if update.synced {
            self.0.synced.store(true, Ordering::Release);
        }
        self.0.note_bound(&state);
        ack
    }

    /// Key and version of everything that is in effect.
    pub fn known(&self) -> HashMap<String, String> {
        self.0.state().known()
    }

    /// True once the whole configuration has arrived and every socket is bound, until the drain begins.
    pub fn is_ready(&self) -> bool {
        let inner = &self.0;
        inner.synced.load(Ordering::Acquire)
            && inner.bound.load(Ordering::Acquire)
            && inner.shared.drain.phase() == Phase::Serving
    }

    /// The metrics.
    pub fn metrics(&self) -> &Arc<telemetry::Metrics> {
        &self.0.shared.metrics
    }

    /// Whether metrics cannot be fetched, and whether they may be fetched compressed.
    pub fn fetching_metrics(&self) -> (bool, bool) {
        let told = self.0.shared.telemetry.load();
        told.as_ref()
            .map_or((false, false), |told| (told.no_prometheus, told.compress))
    }

    /// Everything that is in effect, without private keys.
    pub fn dump(&self) -> serde_json::Value {
        self.0.state().dump()
    }

    /// Ends service: after one delay readiness fails; after another no connection is taken any more and those that stand are asked
    /// to end; returns when they have, or after the timeout.
    pub async fn drain(&self) {
        let drain = &self.0.shared.drain;
        tokio::time::sleep(self.0.options.unready_delay).await;
        drain.enter(Phase::Leaving);
        tokio::time::sleep(self.0.options.drain_delay).await;
        drain.enter(Phase::Draining);
        self.0.state().close_sockets();
        if tokio::time::timeout(self.0.options.drain_timeout, drain.idle())
            .await
            .is_err()
        {
            tracing::warn!(connections = drain.open(), "drain timeout: connections are cut");
        }
        drain.enter(Phase::Ended);
        if let Some(first) = self.0.workers.handles().into_iter().next() {
            // On the worker's own runtime, where its connections live.
            let told = first.runtime.spawn(telemetry::export::last(first.clone()));
            let _ = told.await;
        }
        self.0.shared.access_log.flush().await;
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_bound(&self, state: &State) {
        if self.synced.load(Ordering::Acquire) && state.all_bound() {
            self.bound.store(true, Ordering::Release);
        }
    }
}

async fn retry_binds(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(BIND_RETRY).await;
        let Some(inner) = inner.upgrade() else { return };
        let mut state = inner.state();
        if !state.all_bound() {
            state.retry_binds();
            inner.note_bound(&state);
        }
    }
}
