//! Retry budgets: retries as a bounded share of a backend's traffic, so that they cannot multiply an outage.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sluice_config::v1;

/// Default length of the window, as Gateway API has it.
const DEFAULT_INTERVAL_MS: u64 = 10_000;

/// How many retries a backend may get.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u64,
    interval: Duration,
    min_retries: u64,
    min_interval: Duration,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    requests: Window,
    retries: Window,
    /// Retries in the interval that `min_retries` speaks of.
    recent: Window,
}

/// Events in a sliding interval: those of the current one, and of the one before in proportion to what the sliding
/// interval still covers of it.
#[derive(Debug)]
struct Window {
    start: Instant,
    current: u64,
    previous: u64,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            start: now,
            current: 0,
            previous: 0,
        }
    }

    fn roll(&mut self, now: Instant, interval: Duration) {
        let since = now.saturating_duration_since(self.start);
        if since >= interval * 2 {
            *self = Self::new(now);
        } else if since >= interval {
            *self = Self {
                start: self.start + interval,
                current: 0,
                previous: self.current,
            };
        }
    }

    fn count(&mut self, now: Instant, interval: Duration) -> u64 {
        self.roll(now, interval);
        let left = interval.saturating_sub(now.saturating_duration_since(self.start));
        let share = u64::try_from(left.as_millis() * 1000 / interval.as_millis().max(1)).unwrap_or(1000);
        self.current + self.previous * share / 1000
    }

    fn add(&mut self, now: Instant, interval: Duration) {
        self.roll(now, interval);
        self.current += 1;
    }
}

impl RetryBudget {
    /// Reads the resource.
    pub fn new(config: &v1::RetryBudget) -> Self {
        let interval = |ms: u64| Duration::from_millis(if ms == 0 { DEFAULT_INTERVAL_MS } else { ms });
        let now = Instant::now();
        Self {
            percent: u64::from(config.percent),
            interval: interval(config.interval_ms),
            min_retries: u64::from(config.min_retries),
            min_interval: interval(config.min_retries_interval_ms),
            counts: Mutex::new(Counts {
                requests: Window::new(now),
                retries: Window::new(now),
                recent: Window::new(now),
            }),
        }
    }

    /// Counts a request.
    pub fn request(&self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.requests.add(Instant::now(), self.interval);
    }

    /// Takes leave for one retry.
    pub fn retry(&self) -> bool {
        self.retry_at(Instant::now())
    }

    fn retry_at(&self, now: Instant) -> bool {
        let counts = &mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let granted = counts.recent.count(now, self.min_interval) < self.min_retries
            || (counts.retries.count(now, self.interval) + 1) * 100
                <= counts.requests.count(now, self.interval) * self.percent;
        if granted {
            counts.retries.add(now, self.interval);
            counts.recent.add(now, self.min_interval);
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(percent: u32, min_retries: u32) -> RetryBudget {
        RetryBudget::new(&v1::RetryBudget {
            percent,
            interval_ms: 10_000,
            min_retries,
            min_retries_interval_ms: 1_000,
        })
    }

    #[test]
    fn retries_are_a_share_of_requests() {
        let budget = budget(20, 0);
        assert!(!budget.retry());
        (0..10).for_each(|_| budget.request());
        assert!(budget.retry());
        assert!(budget.retry());
        assert!(!budget.retry());
    }

    #[test]
    fn a_few_are_always_granted() {
        let budget = budget(0, 2);
        let now = Instant::now();
        assert!(budget.retry_at(now));
        assert!(budget.retry_at(now));
        assert!(!budget.retry_at(now));
        assert!(budget.retry_at(now + Duration::from_secs(3)));
    }
}
