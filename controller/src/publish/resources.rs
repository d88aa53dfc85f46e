//! The resources of one Gateway's proxies, and for each stream which of them its proxy does not hold yet.
//!
//! Owns the order of an update and the bookkeeping of acknowledgements. Does no I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prost::Message;
use sluice_config::{key, v1};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::engine::{ConfigChange, GatewayRef, ProxyReport};

/// An update is closed when it holds this many bytes of resources.
const UPDATE_BYTES: usize = 1 << 20;
/// Updates that may be unacknowledged.
const WINDOW: usize = 4;
/// Longest reason that is taken from a proxy.
const REASON_CHARS: usize = 500;

/// The resources of one Gateway's proxies.
pub(crate) struct Resources {
    gateway: GatewayRef,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    account: Option<String>,
    resources: BTreeMap<String, Arc<v1::Resource>>,
    sessions: HashMap<u64, Session>,
    next_session: u64,
    reported: ProxyReport,
}

struct Session {
    proxy: String,
    wake: Arc<Notify>,
    /// Keys that the proxy does not hold in their present version, by rank.
    dirty: BTreeSet<(u8, String)>,
    /// When the first of `dirty` became so.
    since: Option<Instant>,
    in_flight: VecDeque<InFlight>,
    nonce: u64,
    synced: bool,
    closed: bool,
    /// What the proxy refused: version and reason by key.
    rejected: BTreeMap<String, (String, String)>,
}

struct InFlight {
    nonce: u64,
    keys: Vec<String>,
    since: Instant,
}

/// What a stream has to do next.
pub(crate) enum Next {
    Send(v1::Update),
    Wait,
    Close,
}

impl Resources {
    pub fn new(gateway: GatewayRef) -> Self {
        Self {
            gateway,
            state: Mutex::default(),
        }
    }

    pub fn gateway(&self) -> &GatewayRef {
        &self.gateway
    }

    /// Whether this service account may have the resources.
    pub fn permits(&self, account: &str) -> bool {
        self.lock().account.as_deref() == Some(account)
    }

    /// Sets the permitted account; streams of another end.
    pub fn permit(&self, account: Option<String>) {
        let mut state = self.lock();
        if state.account != account {
            state.account = account;
            for session in state.sessions.values_mut() {
                session.closed = true;
                session.wake.notify_one();
            }
        }
    }

    /// Sets the permitted account if there is none.
    pub fn permit_if_none_is(&self, account: String) {
        self.lock().account.get_or_insert(account);
    }

    pub fn is_unused(&self) -> bool {
        let state = self.lock();
        state.account.is_none() && state.resources.is_empty() && state.sessions.is_empty()
    }

    /// Takes in a change and wakes the streams.
    pub fn apply(&self, change: ConfigChange) {
        let now = Instant::now();
        let mut guard = self.lock();
        let state = &mut *guard;
        for session in state.sessions.values_mut() {
            session.dirty.extend(
                change
                    .upserts
                    .keys()
                    .chain(&change.removes)
                    .map(|key| (key::rank(key), key.clone())),
            );
            session.since.get_or_insert(now);
            session.wake.notify_one();
        }
        for key in &change.removes {
            state.resources.remove(key);
        }
        state.resources.extend(change.upserts);
    }

    /// Opens a stream for a proxy that holds `known` (key to version).
    pub fn open(&self, proxy: String, known: &HashMap<String, String>) -> (u64, Arc<Notify>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let stale = state
            .resources
            .values()
            .filter(|r| known.get(&r.key) != Some(&r.version))
            .map(|r| &r.key);
        let gone = known.keys().filter(|key| !state.resources.contains_key(*key));
        let dirty = stale
            .chain(gone)
            .map(|key| (key::rank(key), key.clone()))
            .collect();
        let id = state.next_session;
        state.next_session += 1;
        let wake = Arc::new(Notify::new());
        let session = Session {
            proxy,
            wake: Arc::clone(&wake),
            dirty,
            since: Some(Instant::now()),
            in_flight: VecDeque::new(),
            nonce: 0,
            synced: false,
            closed: false,
            rejected: BTreeMap::new(),
        };
        state.sessions.insert(id, session);
        (id, wake)
    }

    /// Forgets a stream.
    pub fn close(&self, id: u64) {
        self.lock().sessions.remove(&id);
    }

    /// What a stream has to do next.
    pub fn next(&self, id: u64) -> Next {
        let (mut update, taken) = {
            let mut guard = self.lock();
            let State {
                sessions, resources, ..
            } = &mut *guard;
            let Some(session) = sessions.get_mut(&id).filter(|session| !session.closed) else {
                return Next::Close;
            };
            // A Gateway without configuration is not served yet; what its proxy holds must not be taken away for that.
            let waits = !session.synced && resources.is_empty();
            if waits || session.in_flight.len() >= WINDOW || (session.synced && session.dirty.is_empty()) {
                return Next::Wait;
            }
            session.take(resources)
        };
        update.upserts = taken
            .iter()
            .map(|resource| v1::Resource::clone(resource))
            .collect();
        Next::Send(update)
    }

    /// Takes in an acknowledgement; gives the time from the change to it, and how much was refused.
    pub fn ack(&self, id: u64, ack: v1::Ack) -> Option<(Duration, usize)> {
        let mut state = self.lock();
        let session = state.sessions.get_mut(&id)?;
        let at = session
            .in_flight
            .iter()
            .position(|sent| sent.nonce == ack.nonce)?;
        let sent = session.in_flight.remove(at)?;
        let refused = session.acknowledge(&self.gateway, &sent, ack.rejected);
        session.wake.notify_one();
        Some((sent.since.elapsed(), refused))
    }

    /// What the gateway's proxies refuse, if that differs from what was said last.
    pub fn news(&self) -> Option<ProxyReport> {
        let mut state = self.lock();
        let refused = state.sessions.values().flat_map(|session| &session.rejected);
        let rejected = refused
            .map(|(key, (_, reason))| (key.clone(), reason.clone()))
            .collect();
        let report = ProxyReport { rejected };
        (report != state.reported).then(|| {
            state.reported = report.clone();
            report
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// The next update, in the order of the contract: what a resource names comes before it, and nothing is removed
    /// while anything is still to be put.
    fn take(
        &mut self,
        resources: &BTreeMap<String, Arc<v1::Resource>>,
    ) -> (v1::Update, Vec<Arc<v1::Resource>>) {
        let mut taken = Vec::new();
        let mut gone = BTreeSet::new();
        let mut bytes = 0;
        while bytes < UPDATE_BYTES
            && let Some((rank, key)) = self.dirty.pop_first()
        {
            match resources.get(&key) {
                Some(resource) => {
                    bytes += resource.encoded_len();
                    taken.push(Arc::clone(resource));
                }
                None => _ = gone.insert((rank, key)),
            }
        }
        if !self.dirty.is_empty() {
            self.dirty.append(&mut gone);
        }
        self.synced |= self.dirty.is_empty();
        self.nonce += 1;
        let keys = taken
            .iter()
            .map(|r| r.key.clone())
            .chain(gone.iter().map(|(_, key)| key.clone()))
            .collect();
        let since = self.since.unwrap_or_else(Instant::now);
        if self.dirty.is_empty() {
            self.since = None;
        }
        self.in_flight.push_back(InFlight {
            nonce: self.nonce,
            keys,
            since,
        });
        // Listeners go before routes, routes before backends: the reverse of how they came.
        let removes = gone.into_iter().rev().map(|(_, key)| key).collect();
        (
            v1::Update {
                nonce: self.nonce,
                upserts: Vec::new(),
                removes,
                synced: self.synced,
            },
            taken,
        )
    }

    fn acknowledge(&mut self, gateway: &GatewayRef, sent: &InFlight, rejected: Vec<v1::Rejection>) -> usize {
        let mut before = BTreeMap::new();
        for key in &sent.keys {
            if let Some(rejection) = self.rejected.remove(key) {
                before.insert(key.clone(), rejection);
            }
        }
        let mut refused = 0;
        for mut rejection in rejected {
            if !sent.keys.contains(&rejection.key) {
                continue;
            }
            refused += 1;
            if let Some((end, _)) = rejection.reason.char_indices().nth(REASON_CHARS) {
                rejection.reason.truncate(end);
            }
            let v1::Rejection { key, version, reason } = rejection;
            if before.get(&key).is_none_or(|(old, _)| *old != version) {
                warn!(%gateway, proxy = self.proxy, key, version, reason, "resource refused by proxy");
            }
            self.rejected.insert(key, (version, reason));
        }
        for key in before.keys().filter(|key| !self.rejected.contains_key(*key)) {
            info!(%gateway, proxy = self.proxy, key, "resource accepted by proxy");
        }
        refused
    }
}

#[cfg(test)]
mod tests;
