//! Counters that many threads increase without meeting in one cache line.
//!
//! Each thread counts in a shard of its own, which is allocated when it first counts there: an object without traffic
//! costs a few pointers. Reading adds the shards up.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Shards of one object; threads beyond this number share.
const SHARDS: usize = 8;

/// Upper bounds of the latency buckets in seconds; one more catches the rest.
pub(super) const BOUNDS: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// The same bounds in microseconds.
const BOUNDS_US: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];

/// One `T` a thread.
#[derive(Debug)]
pub(super) struct Sharded<T> {
    shards: [OnceLock<Box<T>>; SHARDS],
}

impl<T> Default for Sharded<T> {
    fn default() -> Self {
        Self {
            shards: [const { OnceLock::new() }; SHARDS],
        }
    }
}

impl<T: Default> Sharded<T> {
    /// This thread's shard.
    pub(super) fn here(&self) -> &T {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SHARD: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
        }
        // A thread that is ending counts in the first shard.
        let shard = SHARD.try_with(|shard| *shard).unwrap_or_default();
        self.shards[shard].get_or_init(Box::default)
    }

    /// Adds up one counter over all shards.
    pub(super) fn sum(&self, counter: impl Fn(&T) -> &AtomicU64) -> u64 {
        self.used()
            .map(|shard| counter(shard).load(Ordering::Relaxed))
            .sum()
    }

    /// Adds up one gauge over all shards.
    pub(super) fn total(&self, gauge: impl Fn(&T) -> &AtomicI64) -> i64 {
        self.used()
            .map(|shard| gauge(shard).load(Ordering::Relaxed))
            .sum()
    }

    fn used(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().filter_map(OnceLock::get).map(Box::as_ref)
    }
}

/// Requests by status class, and how long they took.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// 0: no response; 1 to 5: the status' first digit.
    pub(super) classes: [AtomicU64; 6],
    pub(super) buckets: [AtomicU64; BOUNDS.len() + 1],
    pub(super) sum_us: AtomicU64,
}

impl Requests {
    pub(super) fn count(&self, status: u16, duration: Duration) {
        let class = usize::from(status / 100);
        add(&self.classes[if class < 6 { class } else { 0 }], 1);
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        add(&self.buckets[BOUNDS_US.partition_point(|bound| *bound < us)], 1);
        add(&self.sum_us, us);
    }
}

/// Increases a counter; readers need no order.
pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_agree() {
        for (seconds, us) in BOUNDS.iter().zip(BOUNDS_US) {
            assert_eq!(Duration::from_secs_f64(*seconds), Duration::from_micros(us));
        }
    }

    #[test]
    fn threads_add_up() {
        let counter = std::sync::Arc::new(Sharded::<AtomicU64>::default());
        let threads: Vec<_> = (0..20)
            .map(|_| {
                let counter = std::sync::Arc::clone(&counter);
                std::thread::spawn(move || (0..1000).for_each(|_| add(counter.here(), 1)))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(counter.sum(|c| c), 20_000);
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let requests = Requests::default();
        requests.count(200, Duration::from_micros(500));
        requests.count(200, Duration::from_micros(501));
        requests.count(0, Duration::from_hours(1));
        let at = |i: usize| requests.buckets[i].load(Ordering::Relaxed);
        assert_eq!((at(0), at(1), at(BOUNDS.len())), (1, 1, 1));
        assert_eq!(requests.classes[0].load(Ordering::Relaxed), 1);
        assert_eq!(requests.classes[2].load(Ordering::Relaxed), 2);
    }
}
