//! Turning requests away while the backend fails, with a chance that follows its failures.
//!
//! The chance is ((total - successes / threshold) / (total + 1)) ^ (1 / aggression) over a sliding window, as Envoy's
//! admission control has it. Requests that are turned away do not count.

use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use http::StatusCode;
use rand::Rng;
use sluice_config::v1;

/// Seconds that a window may have.
const MAX_WINDOW: u64 = 3600;

/// A compiled policy, with what it has counted.
#[derive(Debug)]
pub struct Admission {
    /// Seconds.
    window: u64,
    /// From 0 to 1.
    threshold: f64,
    aggression: f64,
    min_rate: u32,
    /// From 0 to 1.
    max_chance: f64,
    http_success: Box<[(u16, u16)]>,
    grpc_success: Box<[u32]>,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    /// Second, requests, successes; the oldest first.
    seconds: VecDeque<(u64, u32, u32)>,
    total: u64,
    successes: u64,
}

impl Counted {
    fn forget_before(&mut self, second: u64) {
        while let Some((at, total, successes)) = self.seconds.front().copied()
            && at < second
        {
            self.seconds.pop_front();
            self.total -= u64::from(total);
            self.successes -= u64::from(successes);
        }
    }
}

impl Admission {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::AdmissionControl) -> Result<Self, String> {
        let share = |name: &str, percent: f64| {
            if (0.0..=100.0).contains(&percent) {
                Ok(percent / 100.0)
            } else {
                Err(format!("{name}: {percent} is no percentage"))
            }
        };
        let threshold = share("min_success_percent", config.min_success_percent)?;
        if threshold == 0.0 {
            return Err("min_success_percent: is zero".into());
        }
        if config.aggression.is_nan() || config.aggression < 1.0 {
            return Err(format!("aggression: {} is less than 1", config.aggression));
        }
        let range = |range: &v1::StatusRange| {
            let narrow = |code| u16::try_from(code).map_err(|_| format!("http_success: {code} is no status"));
            Ok::<_, String>((narrow(range.first)?, narrow(range.last)?))
        };
        Ok(Self {
            window: (config.window_ms / 1000).clamp(1, MAX_WINDOW),
            threshold,
            aggression: config.aggression,
            min_rate: config.min_requests_per_second,
            max_chance: share("max_rejection_percent", config.max_rejection_percent)?,
            http_success: config.http_success.iter().map(range).collect::<Result<_, _>>()?,
            grpc_success: config.grpc_success.clone().into(),
            counted: Mutex::default(),
        })
    }

    /// Draws whether a request may pass.
    pub fn admits(&self) -> bool {
        let chance = self.chance(now());
        chance <= 0.0 || rand::rng().random_range(0.0..1.0) >= chance
    }

    /// Counts how a request has ended. `grpc` is its gRPC status, if it has one.
    pub fn report(&self, status: StatusCode, grpc: Option<u32>) {
        let success = match grpc {
            Some(code) if self.grpc_success.is_empty() => !matches!(code, 2 | 4 | 8 | 12..=15),
            Some(code) => self.grpc_success.contains(&code),
            None => self.is_http_success(status.as_u16()),
        };
        self.count(now(), success);
    }

    fn is_http_success(&self, status: u16) -> bool {
        if self.http_success.is_empty() {
            return status < 500;
        }
        self.http_success
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&status))
    }

    fn count(&self, second: u64, success: bool) {
        let counted = &mut *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        match counted.seconds.back_mut() {
            Some(last) if last.0 == second => {
                last.1 += 1;
                last.2 += u32::from(success);
            }
            _ => counted.seconds.push_back((second, 1, u32::from(success))),
        }
        counted.total += 1;
        counted.successes += u64::from(success);
        counted.forget_before((second + 1).saturating_sub(self.window));
    }

    /// The chance that a request is turned away.
    #[allow(clippy::cast_precision_loss)] // Counts of an hour at most.
    fn chance(&self, second: u64) -> f64 {
        let counted = &mut *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.forget_before((second + 1).saturating_sub(self.window));
        if counted.total < u64::from(self.min_rate) * self.window {
            return 0.0;
        }
        let (total, successes) = (counted.total as f64, counted.successes as f64);
        let failing = ((total - successes / self.threshold) / (total + 1.0)).max(0.0);
        failing.powf(1.0 / self.aggression).min(self.max_chance)
    }
}

/// Seconds since the process began to count.
fn now() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    EPOCH.get_or_init(Instant::now).elapsed().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(change: impl FnOnce(&mut v1::AdmissionControl)) -> Admission {
        let mut config = v1::AdmissionControl {
            window_ms: 10_000,
            min_success_percent: 50.0,
            aggression: 1.0,
            max_rejection_percent: 80.0,
            ..Default::default()
        };
        change(&mut config);
        Admission::compile(&config).unwrap()
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn the_chance_follows_failures() {
        let admission = self::admission(|_| {});
        assert!(near(admission.chance(0), 0.0));
        (0..99).for_each(|i| admission.count(i / 50, i % 2 == 0));
        assert!(
            near(admission.chance(2), 0.0),
            "half of them succeed, as they should"
        );
        (0..100).for_each(|_| admission.count(3, false));
        // (199 - 50 / 0.5) / 200
        assert!(near(admission.chance(3), 0.495), "{}", admission.chance(3));
        (0..10_000).for_each(|_| admission.count(4, false));
        assert!(near(admission.chance(4), 0.8), "bounded");
        assert!(near(admission.chance(14), 0.0), "the window has passed");
        assert!(admission.counted.lock().unwrap().seconds.is_empty());
    }

    #[test]
    fn aggression_and_rate() {
        let steep = admission(|config| config.aggression = 2.0);
        (0..3).for_each(|_| steep.count(0, false));
        assert!(near(steep.chance(0), 0.75f64.sqrt().min(0.8)));
        let busy = admission(|config| config.min_requests_per_second = 1);
        (0..9).for_each(|_| busy.count(0, false));
        assert!(near(busy.chance(0), 0.0), "too few requests to judge");
        busy.count(0, false);
        assert!(busy.chance(0) > 0.0);
    }

    #[test]
    fn success_is_configured() {
        let default = admission(|_| {});
        let judge = |admission: &Admission, status: u16, grpc| {
            admission.report(StatusCode::from_u16(status).unwrap(), grpc);
            let successes = admission.counted.lock().unwrap().successes;
            *admission.counted.lock().unwrap() = Counted::default();
            successes == 1
        };
        assert!(judge(&default, 404, None) && !judge(&default, 503, None));
        assert!(judge(&default, 200, Some(5)) && !judge(&default, 200, Some(14)));
        let own = admission(|config| {
            config.http_success = vec![v1::StatusRange {
                first: 200,
                last: 299,
            }];
            config.grpc_success = vec![0];
        });
        assert!(judge(&own, 204, None) && !judge(&own, 404, None));
        assert!(judge(&own, 200, Some(0)) && !judge(&own, 200, Some(5)));
        for odd in [0.0, 101.0, f64::NAN] {
            let config = v1::AdmissionControl {
                min_success_percent: odd,
                aggression: 1.0,
                ..Default::default()
            };
            assert!(Admission::compile(&config).is_err());
        }
    }
}
