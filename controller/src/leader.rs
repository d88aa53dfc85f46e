//! Leader election by a `coordination.k8s.io/v1` Lease: one replica writes statuses and infrastructure.
//!
//! Every write to the Lease carries its resourceVersion, so of two candidates one wins. Expiry is measured by our own
//! clock since we saw the Lease change, never by comparing clocks of two machines. A leader that cannot renew stops
//! [`RENEW_WITHIN`] after its last renewal, before anybody else can take over at [`LEASE`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How long others wait for a leader that says nothing.
const LEASE: Duration = Duration::from_secs(15);
/// How long after its last renewal a leader still leads.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// Whether this replica leads. Cheap to clone.
#[derive(Clone)]
pub struct Leadership {
    leads: watch::Receiver<bool>,
    /// `None`: for ever.
    until: Arc<Mutex<Option<Instant>>>,
}

impl Leadership {
    /// A replica that always leads.
    pub fn always() -> Self {
        let (sender, leads) = watch::channel(true);
        drop(sender);
        Self {
            leads,
            until: Arc::default(),
        }
    }

    /// Whether this replica may write now.
    pub fn holds(&self) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        *self.leads.borrow() && until.is_none_or(|until| Instant::now() < until)
    }

    /// Waits until leadership is gained or lost; says which. Never returns if it cannot change any more.
    pub async fn changed(&mut self) -> bool {
        if self.leads.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.leads.borrow_and_update()
    }
}

/// Takes part in the election.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    leads: watch::Sender<bool>,
    until: Arc<Mutex<Option<Instant>>>,
    /// The Lease as last seen, and when we saw it become so.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Elector {
    /// A candidate for the Lease `name`; `identity` is unique among the candidates.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> (Self, Leadership) {
        let (leads, receiver) = watch::channel(false);
        let until = Arc::default();
        let leadership = Leadership {
            leads: receiver,
            until: Arc::clone(&until),
        };
        let elector = Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            leads,
            until,
            seen: None,
        };
        (elector, leadership)
    }

    /// Takes part until `stop`, then gives the Lease back.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut reported = false;
        while !stop.is_cancelled() {
            let started = Instant::now();
            match timeout(RENEW_WITHIN / 2, self.try_to_lead(started)).await {
                Ok(Ok(leads)) => {
                    reported = false;
                    self.set(leads, started);
                }
                Ok(Err(error)) => self.struggle(&error.to_string(), &mut reported),
                Err(_) => self.struggle("the API server does not answer", &mut reported),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = stop.cancelled() => {}
            }
        }
        let led = *self.leads.borrow();
        self.leads.send_replace(false);
        if led && let Ok(Err(error)) = timeout(RENEW_WITHIN / 2, self.release()).await {
            debug!(%error, "lease not released; it will expire");
        }
    }

    fn set(&mut self, leads: bool, since: Instant) {
        if leads {
            *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(since + RENEW_WITHIN);
        }
        if *self.leads.borrow() != leads {
            info!(
                lease = self.name,
                identity = self.identity,
                leads,
                "leadership changed"
            );
            self.leads.send_replace(leads);
        }
    }

    fn struggle(&mut self, error: &str, reported: &mut bool) {
        if !*reported {
            *reported = true;
            warn!(lease = self.name, error, "lease cannot be read or renewed");
        }
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_some_and(|until| until <= Instant::now()) {
            self.set(false, Instant::now());
        }
    }

    async fn try_to_lead(&mut self, now: Instant) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let spec = self.held(None);
            let metadata = ObjectMeta {
                name: Some(self.name.clone()),
                ..Default::default()
            };
            let lease = Lease {
                metadata,
                spec: Some(spec.clone()),
            };
            return self.written(self.api.create(&PostParams::default(), &lease).await, spec, now);
        };
        let current = lease.spec.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != current) {
            self.seen = Some((current.clone(), now));
        }
        if !self.may_take(&current, now) {
            return Ok(false);
        }
        let spec = self.held(Some(&current));
        lease.spec = Some(spec.clone());
        // The object carries the resourceVersion that we read.
        self.written(
            self.api.replace(&self.name, &PostParams::default(), &lease).await,
            spec,
            now,
        )
    }

    fn may_take(&self, current: &LeaseSpec, now: Instant) -> bool {
        let holder = current.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.identity {
            return true;
        }
        let seconds = current.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        let lease = seconds.map_or(LEASE, Duration::from_secs);
        self.seen
            .as_ref()
            .is_some_and(|(_, since)| now.duration_since(*since) >= lease)
    }

    fn held(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let same = before.filter(|b| b.holder_identity.as_deref() == Some(self.identity.as_str()));
        let transitions = before.and_then(|b| b.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            acquire_time: same
                .and_then(|b| b.acquire_time.clone())
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if same.is_some() || before.is_none() {
                transitions
            } else {
                transitions + 1
            }),
            ..Default::default()
        }
    }

    fn written(
        &mut self,
        result: Result<Lease, kube::Error>,
        spec: LeaseSpec,
        now: Instant,
    ) -> Result<bool, kube::Error> {
        match result {
            Ok(lease) => {
                self.seen = Some((lease.spec.unwrap_or(spec), now));
                Ok(true)
            }
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            return Ok(());
        };
        let Some(spec) = &mut lease.spec else {
            return Ok(());
        };
        if spec.holder_identity.as_deref() == Some(self.identity.as_str()) {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            self.api
                .replace(&self.name, &PostParams::default(), &lease)
                .await?;
        }
        Ok(())
    }
}
