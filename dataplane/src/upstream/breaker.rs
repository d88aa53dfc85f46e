//! Bounds on what is under way to a backend, and on the life of its connections.
//!
//! Owns the counts, which all workers share and which outlive changes of the backend. A backend without such bounds has
//! none of this. Opens no connection; [`super::connect`] asks here before it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_config::v1;
use tokio::sync::Notify;

use super::health::Member;

/// Workers whose connections are told apart.
const PLACES: usize = 256;

/// There is no room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("circuit breaker open")]
pub struct Overflow;

#[derive(Debug)]
struct Counts {
    connections: AtomicU32,
    pending: AtomicU32,
    requests: AtomicU32,
    retries: AtomicU32,
    /// Connections of each worker.
    places: Box<[AtomicU32]>,
    /// A connection has ended, or has nothing to do.
    freed: Notify,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            connections: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            retries: AtomicU32::new(0),
            places: (0..PLACES).map(|_| AtomicU32::new(0)).collect(),
            freed: Notify::new(),
        }
    }
}

/// This thread's place among the workers.
fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static PLACE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % PLACES);
    PLACE.with(|place| *place)
}

/// The bounds of one backend.
#[derive(Debug)]
pub struct Breaker {
    max_connections: Option<u32>,
    max_per_endpoint: Option<u32>,
    max_pending: Option<u32>,
    max_requests: Option<u32>,
    max_retries: Option<u32>,
    /// Retries at once, in millionths of requests, and how many are granted in any case.
    retry_share: Option<(u32, u32)>,
    /// Requests on one connection; 0: any number.
    per_connection: u32,
    idle: Option<Duration>,
    max_age: Option<Duration>,
    counts: Arc<Counts>,
}

/// Something that is counted until it is dropped.
#[derive(Debug)]
pub struct Permit {
    counts: Arc<Counts>,
    of: fn(&Counts) -> &AtomicU32,
}

impl Drop for Permit {
    fn drop(&mut self) {
        (self.of)(&self.counts).fetch_sub(1, Ordering::Relaxed);
    }
}

/// What comes of asking for a connection.
pub enum Admission<T> {
    /// One may be opened; it holds the lease for as long as it lives.
    Open(Arc<Lease>),
    /// Another one has become free meanwhile.
    Reuse(T),
}

impl Breaker {
    /// Reads what a backend asks for; `None` if nothing. Counts go on from the backend's last version.
    pub fn new(config: &v1::Backend, before: Option<&Self>) -> Option<Arc<Self>> {
        let limits = config.circuit_breaker;
        let timeouts = config.timeouts.unwrap_or_default();
        let duration = |ms: u64| (ms != 0).then(|| Duration::from_millis(ms));
        let (idle, max_age) = (
            duration(timeouts.idle_ms),
            duration(timeouts.max_connection_duration_ms),
        );
        if limits.is_none() && idle.is_none() && max_age.is_none() {
            return None;
        }
        let limits = limits.unwrap_or_default();
        Some(Arc::new(Self {
            max_connections: limits.max_connections,
            max_per_endpoint: limits.max_connections_per_endpoint,
            max_pending: limits.max_pending_requests,
            max_requests: limits.max_parallel_requests,
            max_retries: limits.max_parallel_retries,
            retry_share: limits
                .retry_share
                .map(|share| (share, limits.min_parallel_retries)),
            per_connection: limits.max_requests_per_connection,
            idle,
            max_age,
            counts: before.map_or_else(Arc::default, |before| Arc::clone(&before.counts)),
        }))
    }

    /// Room for one more request.
    ///
    /// # Errors
    /// [`Overflow`] if there is none.
    pub fn request(&self) -> Result<Permit, Overflow> {
        self.permit(self.max_requests, |counts| &counts.requests)
    }

    /// Room for one more retry.
    ///
    /// # Errors
    /// [`Overflow`] if there is none.
    pub fn retry(&self) -> Result<Permit, Overflow> {
        let most = self.retry_share.map(|(share, least)| {
            let requests = u64::from(self.counts.requests.load(Ordering::Relaxed));
            let part = requests * u64::from(share) / 1_000_000;
            u32::try_from(part).unwrap_or(u32::MAX).max(least)
        });
        self.permit(most.or(self.max_retries), |counts| &counts.retries)
    }

    fn permit(&self, most: Option<u32>, of: fn(&Counts) -> &AtomicU32) -> Result<Permit, Overflow> {
        let most = most.unwrap_or(u32::MAX);
        of(&self.counts)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < most).then(|| n + 1)
            })
            .map_err(|_| Overflow)?;
        Ok(Permit {
            counts: Arc::clone(&self.counts),
            of,
        })
    }

    /// Asks for a connection to `member`. While there are too many this waits, as a pending request, until one ends or
    /// `reuse` finds one. Who need not wait is not pending: with room for none, requests still open connections. The permit
    /// of one that has waited is to be held until the connection is established.
    ///
    /// # Errors
    /// [`Overflow`] if too many wait already.
    pub async fn admit<T>(
        self: &Arc<Self>,
        member: Option<&Arc<Member>>,
        mut reuse: impl FnMut() -> Option<T>,
    ) -> Result<(Admission<T>, Option<Permit>), Overflow> {
        if let Some(lease) = self.try_lease(member) {
            return Ok((Admission::Open(lease), None));
        }
        let pending = self.permit(self.max_pending, |counts| &counts.pending)?;
        loop {
            let freed = self.counts.freed.notified();
            let mut freed = std::pin::pin!(freed);
            // From here on nothing that becomes free is missed.
            freed.as_mut().enable();
            if let Some(lease) = self.try_lease(member) {
                return Ok((Admission::Open(lease), Some(pending)));
            }
            if let Some(found) = reuse() {
                return Ok((Admission::Reuse(found), Some(pending)));
            }
            freed.await;
        }
    }

    /// Room for one more connection, if there is some. A worker that has none may always open one: those of the others
    /// are of no use to it.
    pub fn try_lease(self: &Arc<Self>, member: Option<&Arc<Member>>) -> Option<Arc<Lease>> {
        let place = place();
        let own = &self.counts.places[place];
        let most = match self.max_connections {
            Some(0) => return None,
            Some(most) if own.load(Ordering::Relaxed) > 0 => most,
            _ => u32::MAX,
        };
        let below = |count: &AtomicU32, most: u32| {
            count
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                    (n < most).then(|| n + 1)
                })
                .is_ok()
        };
        if !below(&self.counts.connections, most) {
            return None;
        }
        let member = member.filter(|_| self.max_per_endpoint.is_some()).cloned();
        if let (Some(member), Some(most)) = (&member, self.max_per_endpoint)
            && !below(&member.connections, most)
        {
            self.counts.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        own.fetch_add(1, Ordering::Relaxed);
        Some(Arc::new(Lease {
            breaker: Arc::clone(self),
            member,
            place,
            opened: Instant::now(),
            requests: AtomicU32::new(0),
        }))
    }
}

/// What a connection holds for as long as it lives.
#[derive(Debug)]
pub struct Lease {
    breaker: Arc<Breaker>,
    member: Option<Arc<Member>>,
    place: usize,
    opened: Instant,
    requests: AtomicU32,
}

impl Lease {
    /// Counts a request; false if the connection must not serve it.
    pub fn begin(&self) -> bool {
        if self.is_spent() {
            return false;
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// True if no further request may go over the connection.
    pub fn is_spent(&self) -> bool {
        let most = self.breaker.per_connection;
        (most != 0 && self.requests.load(Ordering::Relaxed) >= most)
            || self
                .breaker
                .max_age
                .is_some_and(|age| self.opened.elapsed() >= age)
    }

    /// How long the connection may be unused, if the backend says so.
    pub fn idle(&self) -> Option<Duration> {
        self.breaker.idle
    }

    /// The connection has nothing to do: whoever waits may look for it.
    pub fn returned(&self) {
        self.breaker.counts.freed.notify_waiters();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let counts = &self.breaker.counts;
        counts.connections.fetch_sub(1, Ordering::Relaxed);
        counts.places[self.place].fetch_sub(1, Ordering::Relaxed);
        if let Some(member) = &self.member {
            member.connections.fetch_sub(1, Ordering::Relaxed);
        }
        counts.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(limits: v1::CircuitBreaker) -> Arc<Breaker> {
        let config = v1::Backend {
            circuit_breaker: Some(limits),
            ..Default::default()
        };
        Breaker::new(&config, None).unwrap()
    }

    #[test]
    fn nothing_asked_for_costs_nothing() {
        assert!(Breaker::new(&v1::Backend::default(), None).is_none());
    }

    #[test]
    fn requests_are_counted_over_versions() {
        let first = breaker(v1::CircuitBreaker {
            max_parallel_requests: Some(2),
            ..Default::default()
        });
        let held = (first.request().unwrap(), first.request().unwrap());
        assert_eq!(first.request().unwrap_err(), Overflow);
        let config = v1::Backend {
            circuit_breaker: Some(v1::CircuitBreaker {
                max_parallel_requests: Some(3),
                ..Default::default()
            }),
            ..Default::default()
        };
        let second = Breaker::new(&config, Some(&first)).unwrap();
        let third = second.request().unwrap();
        assert!(second.request().is_err());
        drop((held, third));
        assert!(first.request().is_ok());
    }

    #[test]
    fn retries_are_a_share_of_requests() {
        let breaker = breaker(v1::CircuitBreaker {
            max_parallel_retries: Some(0),
            retry_share: Some(250_000),
            min_parallel_retries: 1,
            ..Default::default()
        });
        let first = breaker.retry().unwrap();
        assert!(breaker.retry().is_err());
        let requests: Vec<_> = (0..8).map(|_| breaker.request().unwrap()).collect();
        let second = breaker.retry().unwrap();
        assert!(breaker.retry().is_err(), "a quarter of eight");
        drop((requests, second));
        assert!(breaker.retry().is_err());
        drop(first);
        assert!(breaker.retry().is_ok());
    }

    #[tokio::test]
    async fn who_waits_gets_what_is_given_back() {
        let breaker = breaker(v1::CircuitBreaker {
            max_connections: Some(1),
            max_pending_requests: Some(1),
            ..Default::default()
        });
        let lease = breaker.try_lease(None).unwrap();
        assert!(breaker.try_lease(None).is_none());
        let mut waiting = std::pin::pin!(breaker.admit(None, || None::<()>));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert!(
            breaker.admit(None, || None::<()>).await.is_err(),
            "one waits already"
        );
        drop(lease);
        assert!(matches!(waiting.await, Ok((Admission::Open(_), _))));
    }

    #[tokio::test]
    async fn with_room_for_no_pending_request_connections_are_still_opened() {
        let breaker = breaker(v1::CircuitBreaker {
            max_connections: Some(1),
            max_pending_requests: Some(0),
            ..Default::default()
        });
        let first = breaker.admit(None, || None::<()>).await;
        assert!(matches!(first, Ok((Admission::Open(_), None))));
        assert!(breaker.admit(None, || None::<()>).await.is_err());
    }

    #[test]
    fn connections_have_their_time() {
        let breaker = breaker(v1::CircuitBreaker {
            max_requests_per_connection: 2,
            ..Default::default()
        });
        let lease = breaker.try_lease(None).unwrap();
        assert!(lease.begin() && lease.begin() && lease.is_spent() && !lease.begin());
    }
}
