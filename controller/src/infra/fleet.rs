//! All Gateways' proxies: what is wanted, what has been applied, and the queue between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::apply::{Applied, Applier, ApplyError, State};
use super::render::{Child, ChildKind, Settings, label_value, render};
use crate::engine::{GatewayRef, Infra, Infrastructure};
use crate::leader::Leadership;
use crate::metrics::Metrics;
use crate::work::Work;

/// Gateways that are worked on at the same time.
const WORKERS: usize = 8;

type ChildId = (ChildKind, String);

/// Everything that runs for Gateways. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    applier: Applier,
    settings: Settings,
    bundle: watch::Receiver<String>,
    leadership: Leadership,
    metrics: Arc<Metrics>,
    work: Work<GatewayRef, ()>,
    state: Mutex<Book>,
    digests: ahash::RandomState,
}

/// What this replica knows since it leads.
#[derive(Default)]
struct Book {
    wanted: BTreeMap<GatewayRef, Arc<Infra>>,
    /// Gateways of which it is not known what is wanted: their objects stay as they are.
    kept: BTreeSet<GatewayRef>,
    /// Objects in the state that we have left them in, by Gateway.
    applied: BTreeMap<GatewayRef, BTreeMap<ChildId, Record>>,
    /// What was wanted when all else was last removed.
    pruned: BTreeMap<GatewayRef, BTreeSet<ChildId>>,
    /// Watches for drift run until this is cancelled.
    watches: CancellationToken,
}

impl Book {
    fn take_in(&mut self, gateway: &GatewayRef, infra: Infrastructure) {
        match infra {
            Infrastructure::Wanted(infra) => {
                self.kept.remove(gateway);
                self.wanted.insert(gateway.clone(), Arc::new(infra));
            }
            // What was wanted last is what runs.
            Infrastructure::Keep(_) if self.wanted.contains_key(gateway) => {}
            Infrastructure::Keep(_) => _ = self.kept.insert(gateway.clone()),
            Infrastructure::None => {
                self.kept.remove(gateway);
                self.wanted.remove(gateway);
            }
        }
    }

    /// The Gateway, wanted or kept, whose label has this name.
    fn labelled(&self, label: &GatewayRef) -> Option<GatewayRef> {
        if self.wanted.contains_key(label) || self.kept.contains(label) {
            return Some(label.clone());
        }
        // Labels hold long names in another form.
        let is_it = |gateway: &&GatewayRef| {
            gateway.namespace == label.namespace
                && gateway.name.len() > 63
                && label_value(&gateway.name) == *label.name
        };
        self.wanted.keys().chain(&self.kept).find(is_it).cloned()
    }
}

struct Record {
    digest: u64,
    state: State,
}

impl Fleet {
    /// Starts the workers, until `stop`. `bundle` is the CA by which proxies know the controller.
    pub fn start(
        client: &Client,
        settings: Settings,
        bundle: watch::Receiver<String>,
        leadership: &Leadership,
        metrics: &Arc<Metrics>,
        stop: &CancellationToken,
    ) -> Self {
        let applier = Applier {
            client: client.clone(),
            controller_name: settings.controller_name.clone(),
        };
        let inner = Inner {
            client: client.clone(),
            applier,
            settings,
            bundle,
            leadership: leadership.clone(),
            metrics: Arc::clone(metrics),
            work: Work::default(),
            state: Mutex::default(),
            digests: ahash::RandomState::new(),
        };
        let fleet = Self {
            inner: Arc::new(inner),
        };
        for _ in 0..WORKERS {
            let (worker, stop) = (fleet.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = worker.work() => {}
                    () = stop.cancelled() => worker.clear(),
                }
            });
        }
        let rotation = fleet.clone();
        tokio::spawn(async move { rotation.follow_bundle().await });
        fleet
    }

    /// Takes in changes of what is wanted.
    pub fn put(&self, changes: impl IntoIterator<Item = (GatewayRef, Infrastructure)>) {
        for (gateway, infra) in changes {
            self.lock().take_in(&gateway, infra);
            self.inner.work.put(gateway, ());
        }
    }

    /// Starts over with all that is wanted or may stay: this replica leads now.
    pub fn lead(&self, all: impl IntoIterator<Item = (GatewayRef, Infrastructure)>) {
        self.clear();
        let watches = CancellationToken::new();
        {
            let mut book = self.lock();
            book.watches = watches.clone();
            for (gateway, infra) in all {
                book.take_in(&gateway, infra);
            }
            for gateway in book.wanted.keys() {
                self.inner.work.put(gateway.clone(), ());
            }
        }
        super::drift::start(&self.inner.client, self, &watches);
    }

    /// Stops applying: this replica does not lead any more.
    pub fn clear(&self) {
        let book = std::mem::take(&mut *self.lock());
        book.watches.cancel();
        self.inner.work.clear();
    }

    pub(super) fn controller_name(&self) -> &str {
        &self.inner.settings.controller_name
    }

    /// Takes in that an object is in this state, or gone. `gateway` is as the object's label has it.
    pub(super) fn notice(&self, gateway: &GatewayRef, child: &ChildId, state: Option<&State>) {
        let mut book = self.lock();
        let Some(gateway) = book.labelled(gateway) else {
            // Left over from a Gateway that went while nobody led, or is not ours any more.
            if state.is_some() {
                drop(book);
                self.inner.work.put(gateway.clone(), ());
            }
            return;
        };
        let applied = book.applied.entry(gateway.clone()).or_default();
        // What has not been applied yet is being applied.
        if applied
            .get(child)
            .is_some_and(|record| Some(&record.state) != state)
        {
            applied.remove(child);
            drop(book);
            self.inner.work.put(gateway, ());
        }
    }

    async fn follow_bundle(&self) {
        let mut bundle = self.inner.bundle.clone();
        while bundle.changed().await.is_ok() {
            let gateways: Vec<_> = self.lock().wanted.keys().cloned().collect();
            for gateway in gateways {
                self.inner.work.put(gateway, ());
            }
        }
    }

    async fn work(&self) {
        loop {
            let job = self.inner.work.next().await;
            match self.reconcile(&job.key).await {
                Ok(()) => self.inner.work.done(&job.key),
                Err(error) => {
                    self.inner.metrics.infra_errors.inc();
                    if job.is_first_try() {
                        warn!(gateway = %job.key, %error, "proxies not as they should be; it is tried again");
                    }
                    self.inner.work.failed(job);
                }
            }
        }
    }

    async fn reconcile(&self, gateway: &GatewayRef) -> Result<(), ApplyError> {
        if !self.inner.leadership.holds() {
            return Ok(());
        }
        let (infra, is_kept) = {
            let book = self.lock();
            (book.wanted.get(gateway).cloned(), book.kept.contains(gateway))
        };
        if is_kept {
            return Ok(());
        }
        let Some(infra) = infra else {
            self.inner.applier.prune(gateway, &BTreeSet::new()).await?;
            let mut book = self.lock();
            book.applied.remove(gateway);
            book.pruned.remove(gateway);
            return Ok(());
        };
        let settings = Settings {
            ca_bundle: self.inner.bundle.borrow().clone(),
            ..self.inner.settings.clone()
        };
        let children = render(&infra, &settings)?;
        // What a pod needs to start comes before the pod.
        let (first, then): (Vec<_>, Vec<_>) = children.iter().partition(|child| {
            matches!(
                child.kind,
                ChildKind::ServiceAccount | ChildKind::ConfigMap | ChildKind::Service
            )
        });
        for stage in [first, then] {
            // One object that cannot be applied keeps none of its stage from being so.
            let applied =
                futures::future::join_all(stage.into_iter().map(|child| self.apply(gateway, child))).await;
            applied.into_iter().collect::<Result<(), _>>()?;
        }
        let wanted: BTreeSet<ChildId> = children
            .iter()
            .map(|child| (child.kind, child.name.clone()))
            .collect();
        if self.lock().pruned.get(gateway) != Some(&wanted) {
            self.inner.applier.prune(gateway, &wanted).await?;
            self.lock().pruned.insert(gateway.clone(), wanted);
        }
        Ok(())
    }

    async fn apply(&self, gateway: &GatewayRef, child: &Child) -> Result<(), ApplyError> {
        let id = (child.kind, child.name.clone());
        let digest = self.digest(child);
        let known = {
            let book = self.lock();
            let record = book.applied.get(gateway).and_then(|applied| applied.get(&id));
            if record.is_some_and(|record| record.digest == digest) {
                return Ok(());
            }
            record.is_some()
        };
        if !self.inner.leadership.holds() {
            return Ok(());
        }
        let applied = self.inner.applier.apply(gateway, child, known).await?;
        if let Applied::Done { state, created } = applied {
            let (kind, name) = (child.kind.as_str(), &child.name);
            if created {
                info!(%gateway, kind, name, "object created");
            } else {
                debug!(%gateway, kind, name, "object applied");
            }
            self.inner
                .metrics
                .infra_writes
                .get_or_create(&[("kind", kind)])
                .inc();
            let record = Record { digest, state };
            self.lock()
                .applied
                .entry(gateway.clone())
                .or_default()
                .insert(id, record);
        }
        Ok(())
    }

    fn digest(&self, child: &Child) -> u64 {
        let mut hasher = self.inner.digests.build_hasher();
        hasher.write(child.object.to_string().as_bytes());
        hasher.finish()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
