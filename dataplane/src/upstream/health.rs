//! What is known of the health of a backend's endpoints: from checks, and from how requests fare.
//!
//! Owns the counters and the decision who is out; never sends anything. Time moves states on when somebody looks:
//! there is no task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sluice_config::v1;

use super::Endpoint;
use super::utilization::Load;

/// An endpoint is never out for longer than this at once, unless the base time is longer.
const MAX_EJECTION: Duration = Duration::from_mins(5);
/// Requests in an interval without which an endpoint's share of failures says nothing.
const FEW_REQUESTS: u32 = 50;
/// Endpoints with enough requests without which shares are not compared.
const FEW_ENDPOINTS: usize = 5;

/// How a request to an endpoint went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered with this status.
    Status(u16),
    /// No connection, no answer, or none in time.
    Failed,
}

/// Milliseconds of the process's own clock, never 0.
pub fn now_ms() -> u64 {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let elapsed = EPOCH.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).map_or(u64::MAX, |ms| ms + 1)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An endpoint as one backend knows it.
#[derive(Debug)]
pub struct Member {
    endpoint: Arc<Endpoint>,
    /// Since when it takes traffic, for the slow start.
    since: AtomicU64,
    /// Connections that are open to it for this backend; counted only if they are bounded.
    pub(super) connections: AtomicU32,
    failing: AtomicBool,
    ejected_until: AtomicU64,
    ejections: AtomicU32,
    run_5xx: AtomicU32,
    run_gateway: AtomicU32,
    run_local: AtomicU32,
    total: AtomicU32,
    failed: AtomicU32,
    /// What it has reported of its load.
    load: Load,
}

impl Member {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            since: AtomicU64::new(now_ms()),
            connections: AtomicU32::new(0),
            failing: AtomicBool::new(false),
            ejected_until: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            run_5xx: AtomicU32::new(0),
            run_gateway: AtomicU32::new(0),
            run_local: AtomicU32::new(0),
            total: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            load: Load::default(),
        }
    }

    /// What it has reported of its load.
    pub(super) fn load(&self) -> &Load {
        &self.load
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// False if checks or requests have found it not to be.
    pub fn is_healthy(&self) -> bool {
        !self.failing.load(Ordering::Relaxed) && !self.is_ejected(now_ms())
    }

    /// What checks have found. True if that is news.
    pub fn set_failing(&self, failing: bool) -> bool {
        let news = self.failing.swap(failing, Ordering::Relaxed) != failing;
        if news && !failing {
            self.since.store(now_ms(), Ordering::Relaxed);
        }
        news
    }

    #[cfg(test)]
    pub(super) fn backdate(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// How much of its full share it may have by now, over 0 and up to 1.
    pub(super) fn share(&self, slow_start: Duration) -> f64 {
        let since = now_ms().saturating_sub(self.since.load(Ordering::Relaxed));
        let elapsed = Duration::from_millis(since);
        if elapsed >= slow_start {
            return 1.0;
        }
        (elapsed.as_secs_f64() / slow_start.as_secs_f64()).max(0.1)
    }

    fn is_ejected(&self, now: u64) -> bool {
        let until = self.ejected_until.load(Ordering::Relaxed);
        until != 0 && until > now
    }

    fn forget_runs(&self) {
        for run in [&self.run_5xx, &self.run_gateway, &self.run_local] {
            run.store(0, Ordering::Relaxed);
        }
    }
}

/// Passive health checks of one backend.
#[derive(Debug)]
pub struct Outliers {
    interval: Duration,
    base: Duration,
    consecutive_5xx: u32,
    consecutive_gateway: u32,
    consecutive_local: u32,
    max_percent: usize,
    /// Not even one may be out beyond that.
    strict: bool,
    split_local: bool,
    failure_percent: u32,
    /// When the current interval began.
    began: AtomicU64,
}

impl Outliers {
    /// Reads the resource.
    pub fn new(config: &v1::OutlierDetection) -> Self {
        Self {
            interval: Duration::from_millis(config.interval_ms.max(1)),
            base: Duration::from_millis(config.base_ejection_ms),
            consecutive_5xx: config.consecutive_5xx,
            consecutive_gateway: config.consecutive_gateway_errors,
            consecutive_local: config.consecutive_local_origin_failures,
            max_percent: config.max_ejection_percent.min(100) as usize,
            strict: config.strict_max_ejection,
            split_local: config.split_local_origin,
            failure_percent: config.failure_percentage_threshold,
            began: AtomicU64::new(now_ms()),
        }
    }

    /// Takes in how a request to `member`, one of `all`, went. True if somebody was taken out.
    pub fn report(&self, member: &Member, outcome: Outcome, all: &[Arc<Member>]) -> bool {
        self.report_at(member, outcome, all, now_ms())
    }

    fn report_at(&self, member: &Member, outcome: Outcome, all: &[Arc<Member>], now: u64) -> bool {
        let mut news = self.end_interval(all, now);
        let local = outcome == Outcome::Failed && self.split_local;
        let (fails, gateway) = match outcome {
            Outcome::Status(status) => (status >= 500, (502..=504).contains(&status)),
            Outcome::Failed => (!local, !local),
        };
        // A run of one kind is not broken by what another kind of failure says nothing about.
        let runs = [
            (&member.run_5xx, fails, self.consecutive_5xx, !local),
            (&member.run_gateway, gateway, self.consecutive_gateway, !local),
            (&member.run_local, local, self.consecutive_local, self.split_local),
        ];
        let mut out = false;
        for (run, hit, limit, counts) in runs {
            if !counts {
                continue;
            }
            if hit {
                let length = run.fetch_add(1, Ordering::Relaxed) + 1;
                out |= limit != 0 && length >= limit;
            } else if run.load(Ordering::Relaxed) != 0 {
                run.store(0, Ordering::Relaxed);
            }
        }
        if self.failure_percent != 0 {
            member.total.fetch_add(1, Ordering::Relaxed);
            if fails || local {
                member.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        if out {
            news |= self.eject(member, all, now);
        }
        news
    }

    fn eject(&self, member: &Member, all: &[Arc<Member>], now: u64) -> bool {
        if member.is_ejected(now) {
            return false;
        }
        let out = all.iter().filter(|other| other.is_ejected(now)).count();
        if (out > 0 || self.strict) && (out + 1) * 100 > all.len() * self.max_percent {
            return false;
        }
        let times = member.ejections.fetch_add(1, Ordering::Relaxed) + 1;
        let time = self.base.saturating_mul(times).min(MAX_EJECTION.max(self.base));
        member.ejected_until.store(now + ms(time), Ordering::Relaxed);
        member.forget_runs();
        true
    }

    /// Once an interval: compares the shares of failures, and forgives those who have behaved.
    fn end_interval(&self, all: &[Arc<Member>], now: u64) -> bool {
        let began = self.began.load(Ordering::Relaxed);
        let since = now.saturating_sub(began);
        if since < ms(self.interval)
            || self
                .began
                .compare_exchange(began, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            return false;
        }
        let counts: Vec<(u32, u32)> = all
            .iter()
            .map(|m| {
                (
                    m.total.swap(0, Ordering::Relaxed),
                    m.failed.swap(0, Ordering::Relaxed),
                )
            })
            .collect();
        let intervals = u32::try_from(since / ms(self.interval).max(1)).unwrap_or(u32::MAX);
        for member in all.iter().filter(|member| !member.is_ejected(now)) {
            let left = member.ejections.load(Ordering::Relaxed).saturating_sub(intervals);
            member.ejections.store(left, Ordering::Relaxed);
        }
        if self.failure_percent == 0
            || counts.iter().filter(|(total, _)| *total >= FEW_REQUESTS).count() < FEW_ENDPOINTS
        {
            return false;
        }
        let mut news = false;
        for (member, (total, failed)) in all.iter().zip(counts) {
            let percent = u64::from(failed) * 100 / u64::from(total.max(1));
            if total >= FEW_REQUESTS && percent >= u64::from(self.failure_percent) {
                news |= self.eject(member, all, now);
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::EndpointSet;

    fn members(count: u32) -> Vec<Arc<Member>> {
        let endpoint = |port| v1::Endpoint {
            address: "127.0.0.1".into(),
            port,
            ..Default::default()
        };
        let set = EndpointSet::build(
            &v1::Endpoints {
                endpoints: (1..=count).map(endpoint).collect(),
            },
            &EndpointSet::default(),
        )
        .unwrap();
        set.serving()
            .iter()
            .map(|e| Arc::new(Member::new(Arc::clone(e))))
            .collect()
    }

    fn outliers(change: impl FnOnce(&mut v1::OutlierDetection)) -> Outliers {
        let mut config = v1::OutlierDetection {
            interval_ms: 3000,
            base_ejection_ms: 30_000,
            consecutive_5xx: 3,
            max_ejection_percent: 50,
            ..Default::default()
        };
        change(&mut config);
        Outliers::new(&config)
    }

    #[test]
    fn a_strict_bound_holds_for_the_first_one_too() {
        let all = members(4);
        let report = |outliers: &Outliers| {
            (0..3).any(|_| outliers.report_at(&all[0], Outcome::Status(500), &all, now_ms()))
        };
        assert!(!report(&outliers(|config| {
            config.strict_max_ejection = true;
            config.max_ejection_percent = 24;
        })));
        assert!(report(&outliers(|config| {
            config.strict_max_ejection = true;
            config.max_ejection_percent = 25;
        })));
    }

    #[test]
    fn a_run_of_errors_takes_an_endpoint_out_for_a_while() {
        let (all, outliers) = (members(4), outliers(|_| {}));
        let at = now_ms();
        let report = |status, at| outliers.report_at(&all[0], Outcome::Status(status), &all, at);
        assert!(
            !report(500, at) && !report(500, at) && !report(200, at) && !report(500, at) && !report(500, at)
        );
        assert!(report(503, at));
        assert!(all[0].is_ejected(at + 29_999));
        assert!(!all[0].is_ejected(at + 30_000));
        // The second time it is out for twice as long.
        let later = at + 30_001;
        all[0].ejections.store(1, Ordering::Relaxed);
        outliers.began.store(later, Ordering::Relaxed);
        assert!(!report(500, later) && !report(500, later) && report(500, later));
        assert!(all[0].is_ejected(later + 59_999));
    }

    #[test]
    fn not_too_many_are_out_but_one_may_be() {
        let (all, half) = (members(4), outliers(|_| {}));
        let at = now_ms();
        let fail = |outliers: &Outliers, all: &[Arc<Member>], i: usize| {
            (0..3).any(|_| outliers.report_at(&all[i], Outcome::Failed, all, at))
        };
        assert!(fail(&half, &all, 0) && fail(&half, &all, 1));
        assert!(!fail(&half, &all, 2));
        let (all, none) = (members(4), outliers(|c| c.max_ejection_percent = 0));
        assert!(fail(&none, &all, 0));
        assert!(!fail(&none, &all, 1));
    }

    #[test]
    fn kinds_of_failures_are_told_apart() {
        let all = members(4);
        let at = now_ms();
        let gateway = outliers(|c| (c.consecutive_5xx, c.consecutive_gateway_errors) = (0, 2));
        let report = |o: &Outliers, i: usize, outcome| o.report_at(&all[i], outcome, &all, at);
        assert!(!report(&gateway, 0, Outcome::Status(500)) && !report(&gateway, 0, Outcome::Status(502)));
        assert!(report(&gateway, 0, Outcome::Status(504)));
        let split = outliers(|c| {
            c.split_local_origin = true;
            c.consecutive_local_origin_failures = 2;
        });
        assert!(!report(&split, 1, Outcome::Failed));
        assert!(
            !report(&split, 1, Outcome::Status(500)),
            "an answer is no local failure"
        );
        assert!(!report(&split, 1, Outcome::Failed));
        assert!(report(&split, 1, Outcome::Failed));
    }

    #[test]
    fn shares_of_failures_are_compared() {
        let (all, outliers) = (
            members(5),
            outliers(|c| (c.consecutive_5xx, c.failure_percentage_threshold) = (0, 40)),
        );
        let at = outliers.began.load(Ordering::Relaxed);
        for i in 0..FEW_REQUESTS {
            for (n, member) in all.iter().enumerate() {
                let status = if n == 2 && i % 2 == 0 { 500 } else { 200 };
                assert!(!outliers.report_at(member, Outcome::Status(status), &all, at));
            }
        }
        assert!(outliers.report_at(&all[0], Outcome::Status(200), &all, at + 3000));
        assert!(all[2].is_ejected(at + 3001) && !all[1].is_ejected(at + 3001));
    }
}
