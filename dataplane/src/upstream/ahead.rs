//! How many connections there should be before they are needed.
//!
//! Owns the counts of what is under way, by worker, because connections are not shared among workers. Opens none itself:
//! [`crate::forward`] does, as [`Ahead::begin`] says.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use sluice_config::v1;

/// Connections that one request may have opened ahead for each of the two reasons, as in Envoy.
const AT_ONCE: u32 = 3;
/// Choices of endpoints that are made ahead at most.
const FORESEEN: usize = 16;

/// What a backend asks for.
#[derive(Debug)]
pub struct Ahead {
    /// Percent of connections beyond those in use, of one endpoint and of all.
    per_endpoint: u32,
    predictive: u32,
    workers: Mutex<HashMap<ThreadId, Busy>>,
}

/// What is under way on one worker, by endpoint.
#[derive(Debug, Default)]
struct Busy {
    requests: HashMap<SocketAddr, u32>,
    all: u32,
    opening: HashMap<SocketAddr, u32>,
    all_opening: u32,
}

/// How many connections should be opened now.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// To the endpoint that the request goes to.
    pub here: u32,
    /// To those that come next.
    pub next: u32,
}

/// Counts until it is dropped.
#[derive(Debug)]
pub struct Counted {
    ahead: Arc<Ahead>,
    worker: ThreadId,
    address: SocketAddr,
    opening: bool,
}

impl Ahead {
    /// Reads what a backend asks for; `None` if nothing. Connections that belong to one client are not opened ahead.
    pub fn new(config: &v1::Backend) -> Option<Arc<Self>> {
        let asked = config.preconnect?;
        let beyond = |percent: u32| percent.saturating_sub(100);
        let (per_endpoint, predictive) = (
            beyond(asked.per_endpoint_percent),
            beyond(asked.predictive_percent),
        );
        if (per_endpoint == 0 && predictive == 0)
            || config.proxy_protocol() != v1::ProxyProtocolVersion::Unspecified
        {
            return None;
        }
        Some(Arc::new(Self {
            per_endpoint,
            predictive,
            workers: Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ThreadId, Busy>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request goes to this endpoint. `idle` says how many connections there are with nothing to do: to this endpoint, and
    /// to all.
    pub fn begin(self: &Arc<Self>, address: SocketAddr, idle: impl Fn(bool) -> u32) -> (Counted, Wanted) {
        let counted = self.count(address, false);
        let mut workers = self.lock();
        let busy = workers.entry(counted.worker).or_default();
        let of = |counts: &HashMap<SocketAddr, u32>| counts.get(&address).copied().unwrap_or_default();
        let wanted = |beyond: u32, requests: u32, all: bool, opening: u32| {
            if beyond == 0 {
                return 0;
            }
            let want = (u64::from(requests) * u64::from(beyond)).div_ceil(100);
            // The request itself takes one of those to its endpoint.
            let have = idle(all)
                .saturating_sub(u32::from(idle(false) > 0))
                .saturating_add(opening);
            let missing = want.saturating_sub(u64::from(have)).min(u64::from(AT_ONCE));
            u32::try_from(missing).unwrap_or(AT_ONCE)
        };
        let here = wanted(self.per_endpoint, of(&busy.requests), false, of(&busy.opening));
        let next = wanted(self.predictive, busy.all, true, busy.all_opening);
        drop(workers);
        // Those of the endpoint count among all.
        let next = next.saturating_sub(here);
        (counted, Wanted { here, next })
    }

    /// A connection to this endpoint is being opened.
    pub fn opening(self: &Arc<Self>, address: SocketAddr) -> Counted {
        self.count(address, true)
    }

    fn count(self: &Arc<Self>, address: SocketAddr, opening: bool) -> Counted {
        let worker = thread::current().id();
        self.lock().entry(worker).or_default().add(address, opening, true);
        Counted {
            ahead: Arc::clone(self),
            worker,
            address,
            opening,
        }
    }
}

impl Busy {
    fn add(&mut self, address: SocketAddr, opening: bool, more: bool) {
        let (counts, all) = if opening {
            (&mut self.opening, &mut self.all_opening)
        } else {
            (&mut self.requests, &mut self.all)
        };
        let count = counts.entry(address).or_default();
        let change = |count: &mut u32| {
            *count = if more {
                count.saturating_add(1)
            } else {
                count.saturating_sub(1)
            };
        };
        change(count);
        if *count == 0 {
            counts.remove(&address);
        }
        change(all);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut workers = self.ahead.lock();
        if let Some(busy) = workers.get_mut(&self.worker) {
            busy.add(self.address, self.opening, false);
        }
    }
}

/// Choices of endpoints that were made ahead, by worker: a connection that was opened for one is of use where it was.
#[derive(Debug, Default)]
pub struct Foreseen(Mutex<HashMap<ThreadId, VecDeque<SocketAddr>>>);

impl Foreseen {
    /// The choice that comes next, if one has been made.
    pub fn take(&self) -> Option<SocketAddr> {
        let mut workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        workers.get_mut(&thread::current().id())?.pop_front()
    }

    /// Remembers a choice. False if there are enough of them.
    pub fn push(&self, address: SocketAddr) -> bool {
        let mut workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = workers.entry(thread::current().id()).or_default();
        let room = queue.len() < FORESEEN;
        if room {
            queue.push_back(address);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(per_endpoint_percent: u32, predictive_percent: u32) -> Option<Arc<Ahead>> {
        Ahead::new(&v1::Backend {
            preconnect: Some(v1::Preconnect {
                per_endpoint_percent,
                predictive_percent,
            }),
            ..Default::default()
        })
    }

    #[test]
    fn as_many_as_requests_ask_for() {
        let (one, two) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:1".parse().unwrap());
        assert!(ahead(0, 100).is_none());
        let ahead = ahead(150, 200).unwrap();
        let none = |_: bool| 0;
        // Half a connection is one.
        let (first, wanted) = ahead.begin(one, none);
        assert_eq!(wanted, Wanted { here: 1, next: 0 });
        // Two requests: half of one to each endpoint, and two in all, of which one is being opened.
        let opening = ahead.opening(one);
        let (second, wanted) = ahead.begin(two, none);
        assert_eq!(wanted, Wanted { here: 1, next: 0 });
        drop((opening, second));
        // One to the endpoint is taken by the request.
        let (_third, wanted) = ahead.begin(one, |_| 1);
        assert_eq!(wanted, Wanted { here: 1, next: 1 });
        drop(first);
        let (_fourth, wanted) = ahead.begin(one, |_| 9);
        assert_eq!(wanted, Wanted::default());
    }

    #[test]
    fn choices_come_in_their_order_and_are_bounded() {
        let foreseen = Foreseen::default();
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        assert_eq!(foreseen.take(), None);
        let kept = (0..100).filter(|port| foreseen.push(address(*port))).count();
        assert_eq!(kept, FORESEEN);
        assert_eq!(
            [foreseen.take(), foreseen.take()],
            [Some(address(0)), Some(address(1))]
        );
    }
}
