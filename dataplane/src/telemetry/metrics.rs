//! The handles that count: one for each listener, route and backend, taken once when configuration is built.
//!
//! Nothing is looked up while a request is served. A handle's series exist as long as someone holds it: when an
//! object goes, so do its metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::cells::{Requests, Sharded, add};
use super::details::{BackendDetails, Family};
use super::export::Counts;
use super::exposition;
use crate::filter::text::TextMatch;

/// Every metric of the proxy.
#[derive(Debug, Default)]
pub struct Metrics {
    listeners: Handles<ListenerMetrics>,
    routes: Handles<RouteMetrics>,
    backends: Handles<BackendMetrics>,
    config: ConfigMetrics,
    telemetry: Counts,
    /// Only metrics with such names are told; `None`: all.
    names: ArcSwapOption<Vec<TextMatch>>,
}

impl Metrics {
    /// The handle of a listener; the same one while it is held.
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        self.listeners.get(name)
    }

    /// The handle of a route; the same one while it is held.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        self.routes.get(name)
    }

    /// The handle of a backend; the same one while it is held.
    pub fn backend(&self, name: &str) -> Arc<BackendMetrics> {
        self.backends.get(name)
    }

    /// What is counted about configuration.
    pub fn config(&self) -> &ConfigMetrics {
        &self.config
    }

    /// What is counted about what is told to collectors.
    pub fn telemetry(&self) -> &Counts {
        &self.telemetry
    }

    /// Says which metrics are told, by their names; none: all.
    pub fn tell_only(&self, names: Vec<TextMatch>) {
        self.names.store((!names.is_empty()).then(|| Arc::new(names)));
    }

    /// All metrics that are told, in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let text = self.text();
        match self.names.load().as_deref() {
            None => text,
            Some(names) => exposition::only(&text, |name| names.iter().any(|only| only.accepts(name))),
        }
    }

    fn text(&self) -> String {
        exposition::text(
            self.listeners.held(),
            self.routes.held(),
            self.backends.held(),
            &self.config,
            &self.telemetry,
        )
    }
}

/// Handles by name, as long as someone holds them.
#[derive(Debug)]
struct Handles<T>(Mutex<BTreeMap<Box<str>, Weak<T>>>);

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Handles<T> {
    fn get(&self, name: &str) -> Arc<T> {
        let mut handles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = handles.get(name).and_then(Weak::upgrade) {
            return handle;
        }
        let handle = Arc::default();
        handles.insert(name.into(), Arc::downgrade(&handle));
        handle
    }

    /// Those that are held, by name. Forgets the others.
    fn held(&self) -> Vec<(Box<str>, Arc<T>)> {
        let mut held = Vec::new();
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|name, handle| {
                let handle = handle.upgrade();
                let alive = handle.is_some();
                held.extend(handle.map(|handle| (name.clone(), handle)));
                alive
            });
        held
    }
}

#[derive(Debug, Default)]
pub(super) struct ListenerCells {
    pub(super) connections: AtomicU64,
    pub(super) active: AtomicI64,
    pub(super) tls_errors: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) dropped: AtomicU64,
}

/// Counts what happens at a listener.
#[derive(Debug, Default)]
pub struct ListenerMetrics(
    pub(super) Sharded<ListenerCells>,
    /// By host, if the configuration asks for that.
    pub(super) OnceLock<Box<Family<Requests>>>,
);

impl ListenerMetrics {
    /// Counts a connection (or UDP session), as active until the guard is dropped.
    pub fn connection(self: &Arc<Self>) -> ListenerConnection {
        let cells = self.0.here();
        add(&cells.connections, 1);
        cells.active.fetch_add(1, Ordering::Relaxed);
        ListenerConnection(Arc::clone(self))
    }

    /// A TLS handshake failed.
    pub fn tls_error(&self) {
        add(&self.0.here().tls_errors, 1);
    }

    /// Bytes that clients have sent.
    pub fn received(&self, bytes: u64) {
        add(&self.0.here().received, bytes);
    }

    /// Bytes sent to clients.
    pub fn sent(&self, bytes: u64) {
        add(&self.0.here().sent, bytes);
    }

    /// A connection or datagram that nobody could take.
    pub fn dropped(&self) {
        add(&self.0.here().dropped, 1);
    }
}

/// A connection that is counted as active.
#[derive(Debug)]
pub struct ListenerConnection(Arc<ListenerMetrics>);

impl ListenerConnection {
    /// The listener's handle.
    pub fn listener(&self) -> &Arc<ListenerMetrics> {
        &self.0
    }
}

impl Drop for ListenerConnection {
    fn drop(&mut self) {
        self.0.0.here().active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
pub(super) struct RouteCells {
    pub(super) requests: Requests,
    pub(super) connections: AtomicU64,
    pub(super) csrf_valid: AtomicU64,
    pub(super) csrf_invalid: AtomicU64,
}

/// Counts what a route serves.
#[derive(Debug, Default)]
pub struct RouteMetrics(pub(super) Sharded<RouteCells>);

impl RouteMetrics {
    /// A request has been answered; status 0: it ended without a response.
    pub fn request(&self, status: u16, duration: Duration) {
        self.0.here().requests.count(status, duration);
    }

    /// A connection (or UDP session) was routed.
    pub fn connection(&self) {
        add(&self.0.here().connections, 1);
    }

    /// The origin of a request that may change something was looked at.
    pub fn csrf(&self, valid: bool) {
        let cells = self.0.here();
        add(
            if valid {
                &cells.csrf_valid
            } else {
                &cells.csrf_invalid
            },
            1,
        );
    }
}

#[derive(Debug, Default)]
pub(super) struct BackendCells {
    pub(super) requests: Requests,
    pub(super) active: AtomicI64,
    pub(super) connections: AtomicU64,
    pub(super) connect_failures: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) overflows: AtomicU64,
}

/// Endpoints of a backend whose health is watched.
#[derive(Debug, Default)]
pub(super) struct Health {
    pub(super) watched: AtomicBool,
    pub(super) endpoints: AtomicI64,
    pub(super) healthy: AtomicI64,
}

/// Counts what a backend does.
#[derive(Debug, Default)]
pub struct BackendMetrics(
    pub(super) Sharded<BackendCells>,
    pub(super) Health,
    /// If the configuration asks for them.
    pub(super) OnceLock<Box<BackendDetails>>,
);

impl BackendMetrics {
    /// One try has ended, `duration` after it began; status 0: without a response.
    pub fn request(&self, status: u16, duration: Duration) {
        self.0.here().requests.count(status, duration);
    }

    /// A request (or connection, or UDP session) is under way until the guard is dropped.
    pub fn active(self: &Arc<Self>) -> BackendActive {
        self.0.here().active.fetch_add(1, Ordering::Relaxed);
        BackendActive(Arc::clone(self))
    }

    /// A new connection was opened.
    pub fn connected(&self) {
        add(&self.0.here().connections, 1);
    }

    /// A connection could not be opened.
    pub fn connect_failure(&self) {
        add(&self.0.here().connect_failures, 1);
    }

    /// A circuit breaker has no room for a request.
    pub fn overflow(&self) {
        add(&self.0.here().overflows, 1);
    }

    /// How many endpoints there are to choose from, and how many of them are healthy.
    pub fn endpoints(&self, all: usize, healthy: usize) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.1.endpoints.store(count(all), Ordering::Relaxed);
        self.1.healthy.store(count(healthy), Ordering::Relaxed);
        self.1.watched.store(true, Ordering::Relaxed);
    }

    /// A request is tried again.
    pub fn retry(&self) {
        add(&self.0.here().retries, 1);
    }
}

/// Something that a backend is working on.
#[derive(Debug)]
pub struct BackendActive(Arc<BackendMetrics>);

impl Drop for BackendActive {
    fn drop(&mut self) {
        self.0.0.here().active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts configuration.
#[derive(Debug, Default)]
pub struct ConfigMetrics {
    pub(super) updates: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) connected: AtomicI64,
    pub(super) resources: AtomicI64,
}

impl ConfigMetrics {
    /// An update was applied, of whose resources `rejected` were refused; `resources` are held now.
    pub fn update(&self, rejected: usize, resources: usize) {
        add(&self.updates, 1);
        add(&self.rejected, u64::try_from(rejected).unwrap_or(u64::MAX));
        self.resources
            .store(i64::try_from(resources).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Whether the stream to the controller stands.
    pub fn set_connected(&self, connected: bool) {
        self.connected.store(i64::from(connected), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
