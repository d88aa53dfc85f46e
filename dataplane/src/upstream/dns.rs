//! How names are looked up: in which families, and how often.
//!
//! Owns settings only; [`super::resolve`] and [`super::dynamic`] act on them.

use std::time::Duration;

use hickory_resolver::config::LookupIpStrategy;
use sluice_config::v1;
use sluice_config::v1::dns::Family;

/// Bounds on how long an answer holds, whatever its TTL.
const MIN_TTL: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_mins(5);
/// Time between look-ups where TTLs have no say, unless the backend says otherwise.
const REFRESH: Duration = Duration::from_secs(30);
/// The shortest of such times.
const MIN_REFRESH: Duration = Duration::from_millis(100);
/// Pauses between tries that fail: the first, and the longest unless the backend says otherwise.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How names are looked up.
#[derive(Debug, Clone, Copy)]
pub struct LookUp {
    /// In which families.
    pub families: LookupIpStrategy,
    /// Set if the backend names a time.
    refresh: Option<Duration>,
    ignore_ttl: bool,
}

impl LookUp {
    /// Reads the resource; without one, both families are asked as often as TTLs say.
    pub fn new(config: Option<&v1::Dns>) -> Self {
        let config = config.copied().unwrap_or_default();
        Self {
            families: match config.family() {
                Family::Unspecified | Family::Both => LookupIpStrategy::Ipv4AndIpv6,
                Family::Ipv4 => LookupIpStrategy::Ipv4Only,
                Family::Ipv6 => LookupIpStrategy::Ipv6Only,
                Family::Ipv4Preferred => LookupIpStrategy::Ipv4thenIpv6,
                Family::Ipv6Preferred => LookupIpStrategy::Ipv6thenIpv4,
            },
            refresh: (config.refresh_ms != 0)
                .then(|| Duration::from_millis(config.refresh_ms).max(MIN_REFRESH)),
            ignore_ttl: config.ignore_ttl,
        }
    }

    /// How long an answer with this TTL holds.
    pub fn holds(&self, ttl: Duration) -> Duration {
        if self.ignore_ttl {
            self.refresh.unwrap_or(REFRESH)
        } else {
            ttl.clamp(MIN_TTL, MAX_TTL)
        }
    }

    /// How long an answer holds that cannot change.
    pub fn forever() -> Duration {
        MAX_TTL
    }

    /// The pause before the next try where so many have failed already.
    pub fn pause(&self, failures: u32) -> Duration {
        FIRST_PAUSE
            .saturating_mul(1 << failures.min(10))
            .min(self.refresh.unwrap_or(LONGEST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_hold_as_long_as_is_said() {
        let seconds = Duration::from_secs;
        let plain = LookUp::new(None);
        assert_eq!(plain.holds(seconds(0)), MIN_TTL);
        assert_eq!(plain.holds(seconds(7)), seconds(7));
        assert_eq!(plain.holds(seconds(86_400)), MAX_TTL);
        let config = v1::Dns {
            refresh_ms: 5_000,
            ..Default::default()
        };
        // Where TTLs count, the time is for failures alone.
        assert_eq!(LookUp::new(Some(&config)).holds(seconds(7)), seconds(7));
        assert_eq!(LookUp::new(Some(&config)).pause(9), seconds(5));
        let ignoring = v1::Dns {
            ignore_ttl: true,
            ..config
        };
        assert_eq!(LookUp::new(Some(&ignoring)).holds(seconds(7)), seconds(5));
        assert_eq!([plain.pause(0), plain.pause(9)], [FIRST_PAUSE, LONGEST_PAUSE]);
    }
}
