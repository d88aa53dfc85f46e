//! Shares of endpoints by the load that they report: client-side weighted round robin, with Envoy's weights.
//!
//! Owns the weights of one backend's endpoints and whose turn it is. Reports are read by [`super::orca`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use http::HeaderMap;
use sluice_config::v1;

use super::EndpointSet;
use super::health::{Member, now_ms};
use super::orca::Report;

/// Envoy's defaults.
const BLACKOUT_MS: u64 = 10_000;
const EXPIRATION_MS: u64 = 180_000;
const UPDATE_MS: u64 = 1_000;
const MIN_UPDATE_MS: u64 = 100;
/// The greatest weight as turns know it.
const FULL: u64 = u16::MAX as u64;
/// The least is this part of the greatest, so that every endpoint gets its turn in bounded time.
const LEAST: u64 = FULL / 100;

/// What an endpoint has reported.
#[derive(Debug, Default)]
pub struct Load {
    /// Bits of its weight; 0: none yet.
    weight: AtomicU64,
    /// Since when it has been reporting, and when it last did; 0: never.
    since: AtomicU64,
    last: AtomicU64,
}

impl Load {
    fn put(&self, weight: f64, now: u64) {
        self.weight.store(weight.to_bits(), Ordering::Relaxed);
        self.last.store(now, Ordering::Relaxed);
        if self.since.load(Ordering::Relaxed) == 0 {
            self.since.store(now, Ordering::Relaxed);
        }
    }

    /// The weight, if it counts.
    fn weight(&self, now: u64, blackout: u64, expiration: u64) -> Option<f64> {
        let (since, last) = (
            self.since.load(Ordering::Relaxed),
            self.last.load(Ordering::Relaxed),
        );
        if since == 0 {
            return None;
        }
        if now.saturating_sub(last) >= expiration {
            // It has to be reporting for a while again.
            self.since.store(0, Ordering::Relaxed);
            return None;
        }
        (now.saturating_sub(since) >= blackout).then(|| f64::from_bits(self.weight.load(Ordering::Relaxed)))
    }
}

/// The policy of one backend.
#[derive(Debug)]
pub struct Utilization {
    blackout: u64,
    expiration: u64,
    update: u64,
    penalty: f64,
    metrics: Box<[Box<str>]>,
    keep_headers: bool,
    /// Endpoints are asked for reports; those in responses do not count.
    out_of_band: bool,
    weights: ArcSwap<Weights>,
    turn: AtomicUsize,
}

/// Weights of the endpoints of a set, in their order.
#[derive(Debug, Default)]
struct Weights {
    source: Arc<EndpointSet>,
    made: u64,
    each: Box<[u64]>,
}

impl Utilization {
    /// Reads the resource.
    pub fn new(config: Option<&v1::BackendUtilization>) -> Self {
        let config = config.cloned().unwrap_or_default();
        let or = |ms: u64, default: u64| if ms == 0 { default } else { ms };
        Self {
            blackout: config.blackout_ms.unwrap_or(BLACKOUT_MS),
            expiration: or(config.expiration_ms, EXPIRATION_MS),
            update: or(config.update_ms, UPDATE_MS).max(MIN_UPDATE_MS),
            penalty: f64::from(config.error_penalty_percent) / 100.0,
            metrics: config
                .metric_names
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            keep_headers: config.keep_response_headers,
            out_of_band: config.out_of_band.is_some(),
            weights: ArcSwap::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Takes in what an endpoint reports in headers or trailers, and takes it out of them.
    pub fn take(&self, member: &Member, headers: &mut HeaderMap) {
        if !self.out_of_band
            && let Some(report) = Report::read(headers)
        {
            self.put(member, &report);
        }
        if !self.keep_headers {
            Report::remove(headers);
        }
    }

    /// Takes in what an endpoint reports.
    pub fn put(&self, member: &Member, report: &Report) {
        if let Some(weight) = self.weight(report) {
            member.load().put(weight, now_ms());
        }
    }

    /// Requests a second for each part of itself that the endpoint uses for them. `None`: the report says too little.
    fn weight(&self, report: &Report) -> Option<f64> {
        let positive = |value: f64| (value > 0.0 && value.is_finite()).then_some(value);
        let named = || {
            let named = self.metrics.iter().filter_map(|name| report.metric(name));
            named.filter_map(positive).max_by(f64::total_cmp)
        };
        let used = positive(report.application_utilization)
            .or_else(named)
            .or_else(|| positive(report.cpu_utilization))?;
        // Without a rate, what is left is that who uses less of itself gets more.
        let Some(rate) = positive(report.rps_fractional) else {
            return positive(1.0 / used);
        };
        let errors = positive(report.eps).unwrap_or_default();
        positive(rate / (used + errors / rate * self.penalty))
    }

    /// Whose turn it is among `members`, those of `source` that may be chosen.
    pub fn next<'p>(
        &self,
        source: &Arc<EndpointSet>,
        members: &'p [Arc<Member>],
        accept: &dyn Fn(&Member) -> bool,
    ) -> Option<&'p Arc<Member>> {
        let weights = self.weights(source, members);
        let count = members.len().min(weights.each.len());
        // As many turns as the least weight may have to wait for, for each endpoint.
        for _ in 0..count.saturating_mul(128) {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let (index, round) = (turn % count, (turn / count) as u64);
            let weight = weights.each[index];
            // In each round, so many of `FULL` rounds are the endpoint's; the offset keeps equal ones apart.
            let offset = (index as u64).wrapping_mul(FULL / 2);
            let place = weight.wrapping_mul(round).wrapping_add(offset) % FULL;
            if place >= FULL - weight && accept(&members[index]) {
                return Some(&members[index]);
            }
        }
        // Those with weight may all be out.
        members.iter().find(|member| accept(member))
    }

    fn weights(&self, source: &Arc<EndpointSet>, members: &[Arc<Member>]) -> Arc<Weights> {
        let now = now_ms();
        let weights = self.weights.load();
        if Arc::ptr_eq(&weights.source, source) && now.saturating_sub(weights.made) < self.update {
            return Arc::clone(&weights);
        }
        let weights = Arc::new(Weights {
            source: Arc::clone(source),
            made: now,
            each: self.weigh(members, now),
        });
        self.weights.store(Arc::clone(&weights));
        weights
    }

    /// Endpoints without a weight that counts get the median of the others.
    fn weigh(&self, members: &[Arc<Member>], now: u64) -> Box<[u64]> {
        let known: Vec<_> = members
            .iter()
            .map(|member| member.load().weight(now, self.blackout, self.expiration))
            .collect();
        let mut sorted: Vec<f64> = known.iter().flatten().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(1.0);
        let most = sorted.last().copied().unwrap_or(median);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "it is between 0 and FULL"
        )]
        let scaled = |weight: f64| ((weight / most * FULL as f64) as u64).clamp(LEAST, FULL);
        known
            .into_iter()
            .map(|weight| scaled(weight.unwrap_or(median)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: u32) -> (Arc<EndpointSet>, Vec<Arc<Member>>) {
        let endpoint = |port| v1::Endpoint {
            address: "127.0.0.1".into(),
            port,
            ..Default::default()
        };
        let config = v1::Endpoints {
            endpoints: (1..=count).map(endpoint).collect(),
        };
        let set = Arc::new(EndpointSet::build(&config, &EndpointSet::default()).unwrap());
        let members = set.serving().iter().map(|e| Arc::new(Member::new(Arc::clone(e))));
        let members = members.collect();
        (set, members)
    }

    fn policy(change: impl FnOnce(&mut v1::BackendUtilization)) -> Utilization {
        let mut config = v1::BackendUtilization {
            blackout_ms: Some(0),
            ..Default::default()
        };
        change(&mut config);
        Utilization::new(Some(&config))
    }

    fn shares(
        policy: &Utilization,
        set: &Arc<EndpointSet>,
        members: &[Arc<Member>],
        all: usize,
    ) -> Vec<usize> {
        let mut shares = vec![0; members.len()];
        for _ in 0..all {
            let chosen = policy.next(set, members, &|_| true).unwrap();
            shares[usize::from(chosen.endpoint().address().port()) - 1] += 1;
        }
        shares
    }

    #[test]
    fn shares_follow_weights() {
        let (set, members) = members(4);
        let policy = policy(|_| {});
        assert_eq!(shares(&policy, &set, &members, 400), [100; 4], "nothing is known");
        let now = now_ms();
        for (member, weight) in members.iter().zip([400.0, 200.0, 100.0]) {
            member.load().put(weight, now);
        }
        policy.weights.store(Arc::default());
        // The fourth has reported nothing and gets the median.
        let shares = shares(&policy, &set, &members, 9000);
        for (share, wanted) in shares.iter().zip([4000, 2000, 1000, 2000]) {
            assert!(share.abs_diff(wanted) <= 10, "{shares:?}");
        }
        // One that has all the weight is passed over if it is out.
        let other = |m: &Member| m.endpoint().address().port() != 1;
        assert!((0..100).all(|_| policy.next(&set, &members, &other).is_some_and(|m| other(m))));
        assert!(policy.next(&set, &members, &|_| false).is_none());
        assert!(policy.next(&set, &[], &|_| true).is_none());
    }

    #[test]
    fn reports_count_for_a_time() {
        let policy = policy(|config| {
            config.blackout_ms = Some(1_000);
            config.expiration_ms = 5_000;
        });
        let load = Load::default();
        let weight = |now| load.weight(now, policy.blackout, policy.expiration);
        assert_eq!(weight(100), None);
        load.put(2.0, 100);
        assert_eq!(weight(1_099), None, "it has not been reporting for long");
        load.put(3.0, 1_000);
        assert_eq!(weight(1_100), Some(3.0));
        assert_eq!(weight(6_000), None, "it has not been heard of for long");
        load.put(4.0, 7_000);
        assert_eq!(weight(7_001), None, "and begins anew");
        assert_eq!(weight(8_000), Some(4.0));
    }

    #[test]
    fn load_is_what_the_policy_says() {
        let report = Report {
            cpu_utilization: 0.5,
            rps_fractional: 100.0,
            eps: 10.0,
            ..Report::default()
        };
        let of = |policy: &Utilization, report: &Report| policy.weight(report).unwrap();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        let strict = policy(|config| config.error_penalty_percent = 100);
        assert!(close(of(&strict, &report), 100.0 / 0.6));
        let lenient = policy(|_| {});
        assert!(close(of(&lenient, &report), 200.0));
        let mut named = report.clone();
        named.named_metrics.insert("queue".into(), 0.8);
        let by_queue = policy(|config| {
            config.metric_names = vec!["named_metrics.queue".into(), "mem_utilization".into()];
        });
        assert!(close(of(&by_queue, &named), 125.0));
        assert!(close(of(&by_queue, &report), 200.0));
        named.application_utilization = 0.25;
        assert!(close(of(&by_queue, &named), 400.0));
        let bare = Report {
            rps_fractional: 0.0,
            ..report.clone()
        };
        assert!(close(of(&strict, &bare), 2.0));
        for nothing in [
            Report::default(),
            Report {
                cpu_utilization: f64::NAN,
                ..report
            },
        ] {
            assert_eq!(lenient.weight(&nothing), None);
        }
    }
}
