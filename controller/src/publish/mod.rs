//! Pushes each Gateway's configuration to its proxies.
//!
//! ```text
//! engine --changes--> Publisher: one Resources a Gateway, holding what its proxies should hold and a Session a stream
//!                        Session: the keys that its proxy does not hold yet --Update--> proxy --Ack--> reports --> engine
//! ```
//! A session remembers keys, never messages: a slow proxy costs no memory, and gets the newest state when it can take
//! it. This module decides nothing about the content of resources and talks to the API server only to keep the CA and
//! to verify tokens.

mod authority;
mod identity;
mod resources;
mod server;
mod service;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

pub use authority::{Authority, AuthorityError, Ca, Leaf, server_names};
pub use identity::{AUDIENCE, AuthError, Authenticator, Identity, TokenReviewer};
pub(crate) use resources::Resources;
pub use server::serve;

use crate::engine::{ConfigChange, Event, GatewayRef};
use crate::metrics::Metrics;

/// What all proxies should hold. Every replica has one.
pub struct Publisher {
    gateways: Mutex<HashMap<GatewayRef, Arc<Resources>>>,
    ready: watch::Sender<bool>,
    reports: mpsc::UnboundedSender<Event>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Publisher {
    /// A publisher that serves nothing until [`Self::set_ready`]. What proxies report comes out of the receiver; an
    /// event is sent only when a report differs from the last.
    pub fn new(metrics: Arc<Metrics>) -> (Arc<Self>, mpsc::UnboundedReceiver<Event>) {
        let (reports, receiver) = mpsc::unbounded_channel();
        let publisher = Self {
            gateways: Mutex::default(),
            ready: watch::Sender::new(false),
            reports,
            metrics,
        };
        (Arc::new(publisher), receiver)
    }

    /// Says that what has been published so far is whole.
    pub fn set_ready(&self) {
        self.ready.send_replace(true);
    }

    /// Takes in changes; streams are told at once.
    pub fn publish(&self, changes: BTreeMap<GatewayRef, ConfigChange>) {
        for (gateway, change) in changes {
            self.metrics
                .published
                .inc_by((change.upserts.len() + change.removes.len()) as u64);
            self.entry(&gateway).apply(change);
            self.forget_if_unused(&gateway);
        }
    }

    /// Says which service account a Gateway's proxies run as; `None`: it has no proxies any more.
    pub fn permit(&self, gateway: &GatewayRef, account: Option<String>) {
        self.entry(gateway).permit(account);
        self.forget_if_unused(gateway);
    }

    /// Says which service account a Gateway's proxies run as most likely; what is known for sure counts more.
    pub fn permit_if_none_is(&self, gateway: &GatewayRef, account: String) {
        self.entry(gateway).permit_if_none_is(account);
    }

    pub(crate) async fn wait_until_ready(&self) {
        // The sender lives as long as self.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    pub(crate) fn find(&self, gateway: &GatewayRef) -> Option<Arc<Resources>> {
        self.lock().get(gateway).cloned()
    }

    /// Tells the engine what the gateway's proxies refuse, if that is news.
    pub(crate) fn report(&self, resources: &Resources) {
        if let Some(report) = resources.news() {
            // Nobody listens any more only when the controller stops.
            let _ = self
                .reports
                .send(Event::Proxies(resources.gateway().clone(), report));
        }
    }

    pub(crate) fn forget_if_unused(&self, gateway: &GatewayRef) {
        let mut gateways = self.lock();
        if gateways
            .get(gateway)
            .is_some_and(|resources| resources.is_unused())
        {
            gateways.remove(gateway);
        }
    }

    fn entry(&self, gateway: &GatewayRef) -> Arc<Resources> {
        let mut gateways = self.lock();
        let entry = gateways
            .entry(gateway.clone())
            .or_insert_with(|| Arc::new(Resources::new(gateway.clone())));
        Arc::clone(entry)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GatewayRef, Arc<Resources>>> {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
