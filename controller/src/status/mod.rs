//! Writes statuses to the API server: only those that differ from what is there, and only while this replica leads.
//!
//! Two ways, because of how the CRDs declare their lists. GatewayClass, Gateway and ListenerSet have one controller
//! each: server-side apply as field manager `sluice`. `status.parents` of routes and `status.ancestors` of policies hold
//! entries of several controllers in a list that the CRDs declare atomic, so applying would take over the whole list:
//! they are read, our entries are replaced, and they are written back on condition that nobody wrote in between.
//! Others may write such a list without our entries; therefore it is looked at again a little later.
//! A time (`lastTransitionTime`) changes only with its condition's status.

mod merge;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::engine::Status;
use crate::leader::Leadership;
use crate::metrics::Metrics;
use crate::store::ObjectRef;
use crate::work::Work;
use write::{Outcome, Writer};

/// Statuses that are written at the same time.
const WORKERS: usize = 16;
/// When a status that others write to as well is looked at once more. Envoy Gateway writes the whole list of a policy's
/// ancestors, from what it has read before.
const SECOND_LOOK: Duration = Duration::from_secs(3);

/// The statuses that are still to be written, and who writes them.
#[derive(Clone)]
pub struct Statuses {
    work: Arc<Work<ObjectRef, Option<Status>>>,
    metrics: Arc<Metrics>,
}

impl Statuses {
    /// Starts the writers, until `stop`.
    pub fn start(
        client: &Client,
        controller_name: &str,
        leadership: &Leadership,
        metrics: &Arc<Metrics>,
        stop: &CancellationToken,
    ) -> Self {
        let statuses = Self {
            work: Arc::default(),
            metrics: Arc::clone(metrics),
        };
        for _ in 0..WORKERS {
            let (statuses, stop) = (statuses.clone(), stop.clone());
            let writer = Writer::new(client.clone(), controller_name, leadership.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = statuses.work(writer) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        statuses
    }

    /// Has these written; what still waits for the same objects is superseded.
    pub fn put(&self, statuses: impl IntoIterator<Item = (ObjectRef, Option<Status>)>) {
        for (object, status) in statuses {
            self.work.put(object, status);
        }
        self.count();
    }

    /// Writes nothing of what still waits.
    pub fn clear(&self) {
        self.work.clear();
        self.count();
    }

    async fn work(&self, writer: Writer) {
        loop {
            let job = self.work.next().await;
            self.count();
            let kind = [("kind", job.key.kind.as_str())];
            match writer.write(&job.key, job.value.as_ref()).await {
                Ok(Outcome::Kept) => self.work.done(&job.key),
                Ok(written) => {
                    debug!(object = %job.key, "status written");
                    self.metrics.status_writes.get_or_create(&kind).inc();
                    if written == Outcome::Shared {
                        self.work.revisit(job, SECOND_LOOK);
                    } else {
                        self.work.done(&job.key);
                    }
                }
                Err(error) => {
                    self.metrics.status_errors.get_or_create(&kind).inc();
                    if job.is_first_try() && !write::is_conflict(&error) {
                        warn!(object = %job.key, %error, "status not written; it is tried again");
                    }
                    self.work.failed(job);
                }
            }
        }
    }

    fn count(&self) {
        self.metrics
            .status_waiting
            .set(i64::try_from(self.work.len()).unwrap_or(i64::MAX));
    }
}

/// Objects that carry entries of ours although nothing is stated of them: to be withdrawn by a new leader.
pub fn leftovers<'a>(
    objects: impl Iterator<Item = &'a crate::store::Object>,
    stated: &BTreeMap<ObjectRef, Option<Status>>,
) -> Vec<ObjectRef> {
    // Watches keep of such statuses our own entries alone.
    let ours =
        objects.filter(|object| write::has_entries(object) && !stated.contains_key(object.reference()));
    ours.map(|object| object.reference().clone()).collect()
}
