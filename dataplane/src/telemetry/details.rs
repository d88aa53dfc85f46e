//! Counters that exist only where the configuration asks for them: of hosts, endpoints, sizes and methods of gRPC.
//!
//! They hang on the handle of their listener or backend and go with it. Each family is bounded: names that do not fit any
//! more are counted together.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sluice_config::v1;

use super::cells::{Requests, Sharded, add};
use super::metrics::{BackendMetrics, ListenerMetrics};

/// Names in a family.
const MOST: usize = 1000;
/// The name of those that do not fit.
pub(super) const OTHER: &str = "other";
/// Statuses that gRPC knows.
pub(super) const GRPC_STATUSES: usize = 17;
/// The service does not have the method.
const UNIMPLEMENTED: usize = 12;

/// Which of them the configuration asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Details {
    /// Hosts of routes.
    pub hosts: bool,
    /// Endpoints.
    pub endpoints: bool,
    /// Sizes of messages.
    pub sizes: bool,
    /// Methods of gRPC.
    pub grpc: bool,
}

impl Details {
    /// Reads the resource.
    pub fn compile(config: &v1::Metrics) -> Self {
        Self {
            hosts: config.hosts,
            endpoints: config.endpoints,
            sizes: config.sizes,
            grpc: config.grpc,
        }
    }

    /// True if something is counted of each try.
    pub fn counts_tries(self) -> bool {
        self.endpoints || self.sizes
    }
}

/// Counters by name.
#[derive(Debug)]
pub(super) struct Family<T>(Mutex<HashMap<Box<str>, One<T>>>);

#[derive(Debug)]
struct One<T> {
    counters: Arc<Sharded<T>>,
    /// What goes takes its counters along; `None`: they stay.
    owner: Option<Weak<dyn Any + Send + Sync>>,
}

impl<T> One<T> {
    fn is_alive(&self) -> bool {
        self.owner.as_ref().is_none_or(|owner| owner.strong_count() > 0)
    }
}

impl<T> Default for Family<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Family<T> {
    fn get(&self, name: &str, owner: Option<Weak<dyn Any + Send + Sync>>) -> Arc<Sharded<T>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = all.get_mut(name) {
            if !one.is_alive() {
                one.owner = owner;
            }
            return Arc::clone(&one.counters);
        }
        if all.len() >= MOST {
            all.retain(|_, one| one.is_alive());
        }
        let (name, owner) = if all.len() >= MOST {
            (OTHER, None)
        } else {
            (name, owner)
        };
        let one = all.entry(name.into()).or_insert_with(|| One {
            counters: Arc::default(),
            owner,
        });
        Arc::clone(&one.counters)
    }

    fn has(&self, name: &str) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.contains_key(name)
    }

    /// All of them, by name. Forgets those whose owner has gone.
    pub(super) fn held(&self) -> Vec<(Box<str>, Arc<Sharded<T>>)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, one| one.is_alive());
        let each = all
            .iter()
            .map(|(name, one)| (name.clone(), Arc::clone(&one.counters)));
        let mut held: Vec<_> = each.collect();
        held.sort_by(|(a, _), (b, _)| a.cmp(b));
        held
    }
}

#[derive(Debug, Default)]
pub(super) struct EndpointCells {
    /// As those of [`Requests`].
    pub(super) classes: [AtomicU64; 6],
    pub(super) connect_failures: AtomicU64,
}

/// Upper bounds of the buckets of sizes in bytes; one more catches the rest.
pub(super) const SIZES: [u64; 11] = [
    64,
    256,
    1 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    4 << 20,
    16 << 20,
    64 << 20,
];

/// Sizes of one kind.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    pub(super) buckets: [AtomicU64; SIZES.len() + 1],
    pub(super) sum: AtomicU64,
}

impl Bytes {
    fn count(&self, size: u64) {
        add(&self.buckets[SIZES.partition_point(|bound| *bound < size)], 1);
        add(&self.sum, size);
    }
}

#[derive(Debug, Default)]
pub(super) struct SizeCells {
    pub(super) request_headers: Bytes,
    pub(super) request_body: Bytes,
    pub(super) response_headers: Bytes,
    pub(super) response_body: Bytes,
}

#[derive(Debug, Default)]
pub(super) struct MethodCells {
    /// By status of gRPC; one more counts calls that have ended without one that is known.
    pub(super) statuses: [AtomicU64; GRPC_STATUSES + 1],
}

/// Those of a backend.
#[derive(Debug, Default)]
pub(super) struct BackendDetails {
    pub(super) endpoints: Family<EndpointCells>,
    pub(super) sizes: Sharded<SizeCells>,
    pub(super) methods: Family<MethodCells>,
}

/// How large head and body of a message are, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Names and values of header fields.
    pub headers: u64,
    /// The body.
    pub body: u64,
}

impl BackendMetrics {
    fn details(&self) -> &BackendDetails {
        self.2.get_or_init(Box::default)
    }

    /// A try at an endpoint has ended; status 0: without a response.
    pub fn endpoint<E: Any + Send + Sync>(
        &self,
        name: &str,
        endpoint: &Arc<E>,
        status: u16,
        connect_failed: bool,
    ) {
        let owner: Weak<E> = Arc::downgrade(endpoint);
        let counters = self.details().endpoints.get(name, Some(owner));
        let cells = counters.here();
        let class = usize::from(status / 100);
        add(&cells.classes[if class < 6 { class } else { 0 }], 1);
        if connect_failed {
            add(&cells.connect_failures, 1);
        }
    }

    /// How large a request and its response were; `None`: there was none.
    pub fn sizes(&self, request: Size, response: Option<Size>) {
        let cells = self.details().sizes.here();
        cells.request_headers.count(request.headers);
        cells.request_body.count(request.body);
        if let Some(response) = response {
            cells.response_headers.count(response.headers);
            cells.response_body.count(response.body);
        }
    }

    /// A call of a method, by the path of its request, has ended with this status.
    pub fn grpc(&self, path: &str, status: Option<u16>) {
        let status = status.map_or(GRPC_STATUSES, |status| usize::from(status).min(GRPC_STATUSES));
        let methods = &self.details().methods;
        let name = path.strip_prefix('/').unwrap_or_default();
        let is_method = name.split_once('/').is_some_and(|(service, method)| {
            !service.is_empty() && !method.is_empty() && !method.contains('/')
        });
        // Clients can ask for methods that there are not; that makes no names.
        let name = if is_method && (status != UNIMPLEMENTED || methods.has(name)) {
            name
        } else {
            OTHER
        };
        add(&methods.get(name, None).here().statuses[status], 1);
    }
}

impl ListenerMetrics {
    /// A request for a host, as routes name it, has been answered; status 0: it ended without a response.
    pub fn host(&self, name: &str, status: u16, duration: Duration) {
        let hosts: &Family<Requests> = self.1.get_or_init(Box::default);
        let name = if name.is_empty() { "*" } else { name };
        hosts.get(name, None).here().count(status, duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_bounded_and_forget() {
        let family = Family::<EndpointCells>::default();
        let owner = Arc::new(());
        let of = |owner: &Arc<()>| -> Option<Weak<dyn Any + Send + Sync>> {
            let owner: Weak<()> = Arc::downgrade(owner);
            Some(owner)
        };
        (0..MOST + 10).for_each(|n| drop(family.get(&n.to_string(), of(&owner))));
        assert_eq!(family.held().len(), MOST + 1);
        assert!(family.has(OTHER));
        drop(owner);
        let fresh = Arc::new(());
        family.get("fresh", of(&fresh));
        let names: Vec<_> = family.held().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["fresh".into(), OTHER.into()]);
    }

    #[test]
    fn only_methods_that_there_are_get_a_name() {
        let backend = BackendMetrics::default();
        for (path, status) in [
            ("/a.B/C", Some(12)),
            ("/a.B/C", Some(0)),
            ("/a.B/C", Some(12)),
            ("/a.B/D/E", Some(0)),
            ("/", Some(0)),
            ("/a.B/F", None),
            ("/a.B/F", Some(99)),
        ] {
            backend.grpc(path, status);
        }
        let held = backend.details().methods.held();
        let counts: Vec<_> = held
            .iter()
            .map(|(name, cells)| {
                let count = |status: usize| cells.sum(|cells| &cells.statuses[status]);
                (&**name, count(0), count(12), count(GRPC_STATUSES))
            })
            .collect();
        assert_eq!(counts, [("a.B/C", 1, 1, 0), ("a.B/F", 0, 0, 2), (OTHER, 2, 1, 0)]);
    }
}
