//! The threads that serve.
//!
//! Owns one runtime a worker and what belongs to it alone. A connection stays on the worker that accepted it, and so
//! do the connections to backends that it uses. Decides nothing about them.

use std::future::Future;
use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use arc_swap::ArcSwap;
use sluice_config::v1;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::drain::Drain;
use crate::filter::geo::Databases;
use crate::{telemetry, upstream};

/// How often idle connections to backends are looked through.
const SWEEP: Duration = Duration::from_secs(15);

/// What belongs to one worker.
pub struct Worker {
    /// From 0.
    pub id: usize,
    /// Its connections to backends.
    pub pool: upstream::Pool,
    /// What all workers share.
    pub shared: Arc<Shared>,
}

/// What all workers share.
pub struct Shared {
    /// All metrics.
    pub metrics: Arc<telemetry::Metrics>,
    /// The access log.
    pub access_log: telemetry::AccessLog,
    /// What the configuration asks to be told besides. `None`: nothing.
    pub telemetry: arc_swap::ArcSwapOption<telemetry::settings::Settings>,
    /// Settings of the proxy as a whole.
    pub settings: ArcSwap<v1::Settings>,
    /// Where clients are looked up.
    pub geo: ArcSwap<Databases>,
    /// Whether service goes on.
    pub drain: Drain,
}

/// A way to run something on a worker.
#[derive(Clone)]
pub struct WorkerHandle {
    /// The worker.
    pub worker: Arc<Worker>,
    /// Its runtime.
    pub runtime: Handle,
}

/// All workers. Dropping it stops them and what runs on them.
pub struct Workers {
    handles: Vec<WorkerHandle>,
    stop: CancellationToken,
}

impl Workers {
    /// Starts `count` workers; 0: one for each core.
    ///
    /// # Errors
    /// If a thread or a runtime cannot be had.
    pub fn start(count: usize, shared: &Arc<Shared>) -> io::Result<Self> {
        let count = match count {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let stop = CancellationToken::new();
        let mut workers = Self {
            handles: Vec::with_capacity(count),
            stop,
        };
        for id in 0..count {
            let worker = Arc::new(Worker {
                id,
                pool: upstream::Pool::default(),
                shared: Arc::clone(shared),
            });
            let runtime = start_thread(Arc::clone(&worker), workers.stop.clone())?;
            workers.handles.push(WorkerHandle { worker, runtime });
        }
        Ok(workers)
    }

    /// A handle on each.
    pub fn handles(&self) -> Vec<WorkerHandle> {
        self.handles.clone()
    }

    /// Runs something on the first worker.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(first) = self.handles.first() {
            first.runtime.spawn(task);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Starts a worker's thread and waits until its runtime stands.
fn start_thread(worker: Arc<Worker>, stop: CancellationToken) -> io::Result<Handle> {
    let (ready, is_ready) = mpsc::channel();
    std::thread::Builder::new()
        .name(format!("worker-{}", worker.id))
        .spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    // The receiver waits for exactly this.
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _ = ready.send(Ok(runtime.handle().clone()));
            runtime.block_on(run(&worker, stop));
        })?;
    is_ready
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("thread ended at its start")))
}

async fn run(worker: &Worker, stop: CancellationToken) {
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = sweep.tick() => worker.pool.sweep(),
        }
    }
}
