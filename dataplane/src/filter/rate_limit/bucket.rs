//! Buckets of tokens.
//!
//! A bucket is one number: the time at which it would be full again if nothing were taken from now on (the generic
//! cell rate algorithm's theoretical arrival time). It fills steadily, needs no timer, and is shared by all workers.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

/// Values that have buckets of their own at one time, of one rule; the one that was used least lately makes room.
const DISTINCT: usize = 16 * 1024;
/// Units in which the largest debt is paid off.
const MOST_UNITS_OWED: u64 = 1_000;
/// Locks over which they are spread.
const SHARDS: usize = 16;

/// So many requests in so much time.
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    /// Tokens of a full bucket.
    pub requests: u64,
    /// Nanoseconds in which an empty bucket fills.
    unit: u64,
}

/// Whether a bucket may owe tokens afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// If there are enough.
    IfEnough,
    /// What is missing fills up before the bucket does.
    InAnyCase,
}

/// What is left after a request has been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// False: there were too few tokens, and none was taken.
    pub allowed: bool,
    /// Tokens in the bucket.
    pub remaining: u64,
    /// Until it is full.
    pub full_in: Duration,
}

impl Quota {
    /// `requests` in `unit`.
    pub fn new(requests: u64, unit: Duration) -> Self {
        let unit = u64::try_from(unit.as_nanos()).unwrap_or(u64::MAX / 4).max(1);
        Self { requests, unit }
    }

    /// Another number of requests in as much time.
    pub fn of(self, requests: u64) -> Self {
        Self { requests, ..self }
    }

    /// Takes `cost` tokens at `now` from a bucket that is full at `full_at`; returns when it is full then.
    fn take(self, full_at: u64, now: u64, cost: u64, how: How) -> (u64, Left) {
        let each = self.unit / self.requests.max(1);
        let each = each.max(1);
        let owed = full_at.saturating_sub(now);
        let after = owed.saturating_add(each.saturating_mul(cost));
        let allowed = after <= self.unit && (cost == 0 || self.requests > 0);
        let owed = if allowed || how == How::InAnyCase {
            after.min(self.unit.saturating_mul(MOST_UNITS_OWED))
        } else {
            owed
        };
        let left = Left {
            allowed,
            remaining: (self.unit.saturating_sub(owed) / each).min(self.requests),
            full_in: Duration::from_nanos(owed),
        };
        (now.saturating_add(owed), left)
    }
}

/// Nanoseconds since the process began to count.
fn now() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let elapsed = EPOCH.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// When buckets are full, by the digests of the values that they are of.
type Shards = Box<[Mutex<LruCache<u64, u64>>]>;

/// The buckets of one rule.
#[derive(Debug)]
pub struct Buckets {
    one: AtomicU64,
    distinct: OnceLock<Shards>,
    hasher: ahash::RandomState,
}

impl Default for Buckets {
    fn default() -> Self {
        Self {
            one: AtomicU64::new(0),
            distinct: OnceLock::new(),
            hasher: ahash::RandomState::new(),
        }
    }
}

impl Buckets {
    /// Takes from the bucket of these values; without values, from the one that all share.
    pub fn take(&self, values: &[u8], quota: Quota, cost: u64) -> Left {
        self.take_as(values, quota, cost, How::IfEnough)
    }

    /// As [`Self::take`], even if there is not enough.
    pub fn charge(&self, values: &[u8], quota: Quota, cost: u64) {
        self.take_as(values, quota, cost, How::InAnyCase);
    }

    fn take_as(&self, values: &[u8], quota: Quota, cost: u64, how: How) -> Left {
        if values.is_empty() {
            self.take_common(quota, cost, how)
        } else {
            self.take_distinct(values, quota, cost, how)
        }
    }

    fn take_common(&self, quota: Quota, cost: u64, how: How) -> Left {
        let now = now();
        let mut full_at = self.one.load(Ordering::Relaxed);
        loop {
            let (after, left) = quota.take(full_at, now, cost, how);
            match self
                .one
                .compare_exchange_weak(full_at, after, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return left,
                Err(current) => full_at = current,
            }
        }
    }

    fn take_distinct(&self, values: &[u8], quota: Quota, cost: u64, how: How) -> Left {
        let key = self.hasher.hash_one(values);
        let shards = self.distinct.get_or_init(|| {
            let each = NonZeroUsize::new(DISTINCT / SHARDS).unwrap_or(NonZeroUsize::MIN);
            (0..SHARDS).map(|_| Mutex::new(LruCache::new(each))).collect()
        });
        let shard = &shards[usize::try_from(key % SHARDS as u64).unwrap_or_default()];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = shard.get_or_insert_mut(key, || 0);
        let (after, left) = quota.take(*full_at, now(), cost, how);
        *full_at = after;
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn buckets_empty_and_fill() {
        let quota = Quota::new(3, Duration::from_secs(1));
        let mut full_at = 0;
        let mut take = |now, cost| {
            let (after, left) = quota.take(full_at, now, cost, How::IfEnough);
            full_at = after;
            (left.allowed, left.remaining)
        };
        // Long unused, it holds no more than a full bucket.
        let at = 100 * SECOND;
        assert_eq!(take(at, 1), (true, 2));
        assert_eq!(take(at, 1), (true, 1));
        assert_eq!(take(at, 0), (true, 1));
        assert_eq!(take(at, 1), (true, 0));
        assert_eq!(take(at, 1), (false, 0));
        assert_eq!(take(at, 0), (true, 0));
        assert_eq!(take(at + SECOND / 6, 1), (false, 0));
        assert_eq!(take(at + SECOND / 3, 1), (true, 0));
        assert_eq!(take(at + SECOND / 3, 1), (false, 0));
        // What was refused has cost nothing.
        assert_eq!(take(at + 2 * SECOND, 2), (true, 1));
        assert_eq!(take(at + 2 * SECOND, 2), (false, 1));
    }

    #[test]
    fn odd_quotas() {
        let none = Quota::new(0, Duration::from_secs(1));
        assert!(!none.take(0, SECOND, 1, How::IfEnough).1.allowed);
        assert!(none.take(0, SECOND, 0, How::IfEnough).1.allowed);
        let huge = Quota::new(u64::MAX, Duration::from_secs(1));
        assert!(huge.take(0, SECOND, 1, How::IfEnough).1.allowed);
        let year = Quota::new(1, Duration::from_hours(366 * 24));
        let (full_at, left) = year.take(0, SECOND, 1, How::IfEnough);
        let (_, next) = year.take(full_at, 2 * SECOND, 1, How::IfEnough);
        assert!(left.allowed && !next.allowed);
    }

    #[test]
    fn what_is_owed_is_paid_first() {
        let quota = Quota::new(3, Duration::from_secs(1));
        let at = 100 * SECOND;
        let (full_at, _) = quota.take(0, at, 7, How::InAnyCase);
        // Four tokens are missing: not even a request that costs nothing passes before they are there.
        for (later, cost, allowed) in [(0, 0, false), (4, 0, true), (4, 1, false), (5, 1, true)] {
            let now = at + later * SECOND / 3 + later;
            let (_, left) = quota.take(full_at, now, cost, How::IfEnough);
            assert_eq!(left.allowed, allowed, "{later} {cost}");
        }
        let (full_at, _) = quota.take(full_at, at, u64::MAX, How::InAnyCase);
        let (_, left) = quota.take(full_at, at + 1_000 * SECOND, 1, How::IfEnough);
        assert!(left.allowed);
    }

    #[test]
    fn many_values_take_bounded_room() {
        let buckets = Buckets::default();
        let quota = Quota::new(1, Duration::from_hours(1));
        assert!(buckets.take(b"a", quota, 1).allowed);
        assert!(!buckets.take(b"a", quota, 1).allowed);
        assert!(buckets.take(b"b", quota, 1).allowed);
        for value in 0..100_000u32 {
            buckets.take(&value.to_ne_bytes(), quota, 1);
        }
        let shards = buckets.distinct.get().unwrap();
        let held: usize = shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(held <= DISTINCT);
    }

    #[test]
    fn no_token_is_given_twice() {
        let buckets = Buckets::default();
        let quota = Quota::new(1000, Duration::from_hours(24));
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| buckets.take(b"", quota, 1).allowed).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }
}
