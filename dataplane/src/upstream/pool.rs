//! Idle connections of one worker.
//!
//! Owns them and nothing else: no lock is shared between workers, and a connection is only ever used by the worker
//! that opened it. Closed connections are found without a system call, because the runtime has heard of them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pingora_core::connectors::http::v2::ConnectionRef;

use super::breaker::Lease;
use super::h2::IdlePing;
use crate::wire::Wire;

/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Idle HTTP/1.1 connections kept for one destination.
const MAX_IDLE: usize = 512;

/// What must be equal for a connection to be reused: the address, and the identity of the TLS settings (0: none).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Where the connection goes.
    pub address: SocketAddr,
    /// Identity of the TLS settings; 0 for cleartext.
    pub tls: u64,
    /// Identity of what else the backend says of its connections; 0: nothing.
    pub settings: u64,
}

struct Idle {
    wire: Wire,
    since: Instant,
}

/// An HTTP/2 connection, which is shared while it is in use.
#[derive(Clone)]
pub struct Shared {
    /// The connection.
    pub connection: ConnectionRef,
    /// Our end of it.
    pub local: SocketAddr,
    /// Bounds on its life, if there are any.
    pub lease: Option<Arc<Lease>>,
    /// Set if it is pinged when it has not been used for long.
    pub idle_ping: Option<IdlePing>,
}

impl Shared {
    /// False if no further request may go over it.
    fn may_serve(&self) -> bool {
        self.lease.as_ref().is_none_or(|lease| !lease.is_spent())
    }
}

struct Multiplexed {
    shared: Shared,
    used: Instant,
}

#[derive(Default)]
struct Inner {
    h1: HashMap<Key, Vec<Idle>, ahash::RandomState>,
    h2: HashMap<Key, Vec<Multiplexed>, ahash::RandomState>,
}

/// The pool of one worker.
#[derive(Default)]
pub struct Pool(Mutex<Inner>);

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most recently used idle HTTP/1.1 connection that is still open.
    pub fn take_h1(&self, key: &Key) -> Option<Wire> {
        let mut inner = self.lock();
        let idle = inner.h1.get_mut(key)?;
        while let Some(candidate) = idle.pop() {
            if candidate.wire.lease().is_none_or(|lease| lease.begin()) && candidate.wire.is_quiet() {
                return Some(candidate.wire);
            }
        }
        None
    }

    /// Gives an HTTP/1.1 connection back.
    pub fn put_h1(&self, key: Key, wire: Wire) {
        let lease = wire.lease().cloned();
        if lease.as_ref().is_some_and(|lease| lease.is_spent()) {
            return;
        }
        let mut inner = self.lock();
        let idle = inner.h1.entry(key).or_default();
        if idle.len() < MAX_IDLE {
            idle.push(Idle {
                wire,
                since: Instant::now(),
            });
        }
        drop(inner);
        if let Some(lease) = lease {
            lease.returned();
        }
    }

    /// An HTTP/2 connection with a free stream.
    pub fn get_h2(&self, key: &Key) -> Option<Shared> {
        let mut inner = self.lock();
        let connections = inner.h2.get_mut(key)?;
        connections.retain(|c| is_usable(&c.shared.connection) && c.shared.may_serve());
        let found = connections
            .iter_mut()
            .find(|c| c.shared.connection.more_streams_allowed())?;
        if let Some(lease) = &found.shared.lease {
            lease.begin();
        }
        if let Some(ping) = found
            .shared
            .idle_ping
            .as_ref()
            .filter(|_| found.shared.connection.is_idle())
        {
            ping.used_after(found.used.elapsed());
        }
        found.used = Instant::now();
        Some(found.shared.clone())
    }

    /// True if there is a connection that may be free: an idle one of HTTP/1.1, or one of HTTP/2 with a free stream.
    pub fn has_free(&self, key: &Key, h1: bool, h2: bool) -> bool {
        let inner = self.lock();
        let idle = h1 && inner.h1.get(key).is_some_and(|idle| !idle.is_empty());
        let open = |c: &Multiplexed| {
            let connection = &c.shared.connection;
            is_usable(connection) && c.shared.may_serve() && connection.more_streams_allowed()
        };
        idle || (h2 && inner.h2.get(key).is_some_and(|all| all.iter().any(open)))
    }

    /// Idle HTTP/1.1 connections.
    pub fn idle_h1(&self, key: &Key) -> usize {
        self.lock().h1.get(key).map_or(0, Vec::len)
    }

    /// Shares a new HTTP/2 connection.
    pub fn put_h2(&self, key: Key, shared: Shared) {
        let lease = shared.lease.clone();
        self.lock().h2.entry(key).or_default().push(Multiplexed {
            shared,
            used: Instant::now(),
        });
        if let Some(lease) = lease {
            lease.returned();
        }
    }

    /// Closes what is closed on the other side or was not used for long. To be called now and then.
    pub fn sweep(&self) {
        let mut inner = self.lock();
        inner.h1.retain(|_, idle| {
            idle.retain(|c| c.since.elapsed() < idle_timeout(c.wire.lease()) && c.wire.is_quiet());
            !idle.is_empty()
        });
        inner.h2.retain(|_, connections| {
            connections.retain(|c| {
                let connection = &c.shared.connection;
                let idle = idle_timeout(c.shared.lease.as_ref());
                is_usable(connection) && (c.used.elapsed() < idle || !connection.is_idle())
            });
            !connections.is_empty()
        });
    }
}

fn idle_timeout(lease: Option<&Arc<Lease>>) -> Duration {
    lease.and_then(|lease| lease.idle()).unwrap_or(IDLE_TIMEOUT)
}

fn is_usable(connection: &ConnectionRef) -> bool {
    !connection.is_closed() && !connection.is_shutting_down()
}
