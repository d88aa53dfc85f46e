//! Limits on the bytes of bodies that pass in a time, for all requests of a rule together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::HeaderName;
use sluice_config::v1;

/// An idle limit lets pass what it allows in this time at once, or in its own time if that is shorter.
const BURST: Duration = Duration::from_secs(1);

/// Compiled limits.
#[derive(Debug, Default)]
pub struct Bandwidth {
    /// Of requests.
    pub request: Option<Arc<Pace>>,
    /// Of responses.
    pub response: Option<Arc<Pace>>,
    /// Set if responses that were held back end with trailers that say so.
    pub delays: Option<Arc<DelayNames>>,
}

/// How long a body took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spans {
    /// From its first piece to its last.
    pub transfer: Duration,
    /// Of it, while it was held back.
    pub waited: Duration,
}

/// Names of the trailers that say how long bodies took.
#[derive(Debug)]
pub struct DelayNames {
    request: HeaderName,
    response: HeaderName,
    request_held: HeaderName,
    response_held: HeaderName,
}

impl DelayNames {
    fn new(prefix: &str) -> Result<Self, String> {
        let name = |rest: &str| {
            let name = if prefix.is_empty() {
                rest.to_owned()
            } else {
                format!("{prefix}-{rest}")
            };
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("trailer_prefix: `{prefix}` cannot begin a header's name"))
        };
        Ok(Self {
            request: name("bandwidth-request-delay-ms")?,
            response: name("bandwidth-response-delay-ms")?,
            request_held: name("bandwidth-request-filter-delay-ms")?,
            response_held: name("bandwidth-response-filter-delay-ms")?,
        })
    }

    /// Adds what is more than nothing, if anything was held back.
    pub fn write(&self, request: Spans, response: Spans, trailers: &mut HeaderMap) {
        if request.waited.is_zero() && response.waited.is_zero() {
            return;
        }
        for (name, span) in [
            (&self.request, request.transfer),
            (&self.response, response.transfer),
            (&self.request_held, request.waited),
            (&self.response_held, response.waited),
        ] {
            let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            if ms > 0 {
                trailers.insert(name, ms.into());
            }
        }
    }
}

/// One limit. What passes is counted at once, and who comes next waits until it has been made up for.
#[derive(Debug)]
pub struct Pace {
    bytes: u64,
    /// Nanoseconds in which so many bytes may pass.
    per: u64,
    burst: u64,
    /// When all that has passed is made up for, in nanoseconds since the process began to count.
    even_at: AtomicU64,
}

impl Bandwidth {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::BandwidthLimit) -> Result<Self, String> {
        let pace = |rate: &v1::bandwidth_limit::Rate| {
            Pace::new(rate.bytes, Duration::from_millis(rate.per_ms)).map(Arc::new)
        };
        Ok(Self {
            request: config.request.as_ref().map(pace).transpose()?,
            response: config.response.as_ref().map(pace).transpose()?,
            delays: config
                .trailer_prefix
                .as_deref()
                .map(DelayNames::new)
                .transpose()?
                .map(Arc::new),
        })
    }
}

fn now() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    nanos(EPOCH.get_or_init(Instant::now).elapsed())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Pace {
    fn new(bytes: u64, per: Duration) -> Result<Self, String> {
        if bytes == 0 || per.is_zero() {
            return Err("a limit of nothing".into());
        }
        Ok(Self {
            bytes,
            per: nanos(per),
            burst: nanos(per.min(BURST)),
            even_at: AtomicU64::new(0),
        })
    }

    /// How long nothing may pass; `None`: something may.
    pub fn wait(&self) -> Option<Duration> {
        self.wait_at(now())
    }

    fn wait_at(&self, now: u64) -> Option<Duration> {
        let owed = self.even_at.load(Ordering::Relaxed).saturating_sub(now);
        // Room for as much as may pass in the burst's time, and not full yet.
        (owed >= self.burst).then(|| Duration::from_nanos(owed - self.burst + 1))
    }

    /// Counts bytes that have passed.
    pub fn spend(&self, bytes: u64) {
        self.spend_at(bytes, now());
    }

    fn spend_at(&self, bytes: u64, now: u64) {
        let cost = u128::from(bytes) * u128::from(self.per) / u128::from(self.bytes);
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let _ = self
            .even_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |even_at| {
                Some(even_at.max(now).saturating_add(cost))
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds() {
        let pace = Pace::new(1000, Duration::from_secs(2)).unwrap();
        let second = nanos(Duration::from_secs(1));
        let begin = 100 * second;
        let (mut now, mut passed) = (begin, 0);
        while passed < 10_000 {
            match pace.wait_at(now) {
                None => {
                    pace.spend_at(100, now);
                    passed += 100;
                }
                Some(wait) => now += nanos(wait),
            }
        }
        // Ten thousand bytes at five hundred a second, a second's worth and the last piece of them at once.
        let took = now - begin;
        assert!((18 * second..=19 * second + 100).contains(&took), "{took}");
        assert!(Pace::new(0, Duration::from_secs(1)).is_err());
        assert!(Pace::new(1, Duration::ZERO).is_err());
    }

    #[test]
    fn huge_numbers_do_no_harm() {
        let pace = Pace::new(1, Duration::from_secs(u64::MAX / 1_000_000_000)).unwrap();
        pace.spend(u64::MAX);
        assert!(pace.wait().is_some());
        let fast = Pace::new(u64::MAX, Duration::from_millis(1)).unwrap();
        fast.spend(u64::MAX / 2);
        assert!(fast.wait_at(u64::MAX).is_none());
    }
}
