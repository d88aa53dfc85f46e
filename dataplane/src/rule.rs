//! A compiled rule: everything that happens to a request after it has been matched.
//!
//! Owns settings only; the forwarder acts on them.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use sluice_config::v1;

use crate::filter::session::Persistence;
use crate::filter::{Filter, Lookup, policy};
use crate::telemetry::metrics::RouteMetrics;
use crate::upstream::Slot;

/// Smallest pause before a retry if the rule names none, as Envoy has it.
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);

/// One rule of a route.
#[derive(Debug)]
pub struct Rule {
    /// `HTTPRoute/namespace/name`.
    pub route_name: Arc<str>,
    /// The rule's own name, or empty.
    pub rule_name: Box<str>,
    /// Errors made here are answered as gRPC.
    pub grpc: bool,
    /// In the order in which they apply.
    pub filters: Vec<Filter>,
    /// Where requests go.
    pub backends: Backends,
    /// Bound on the whole exchange with the client.
    pub request_timeout: Option<Duration>,
    /// Bound on one try.
    pub backend_request_timeout: Option<Duration>,
    /// What the rule says of retries. None: only what cannot have been seen by a backend is tried again.
    pub retry: Option<Retry>,
    /// Set if requests of one session go to one endpoint.
    pub persistence: Option<Persistence>,
    /// Counters of the route.
    pub metrics: Arc<RouteMetrics>,
}

impl Rule {
    /// Compiles one rule.
    ///
    /// # Errors
    /// `field: reason` of what cannot be honoured.
    pub fn compile(
        route_name: &Arc<str>,
        grpc: bool,
        rule: &v1::HttpRule,
        lookup: &mut dyn Lookup,
    ) -> Result<Self, String> {
        let duration = |ms: u64| (ms != 0).then(|| Duration::from_millis(ms));
        let persistence = rule
            .session_persistence
            .as_ref()
            .map(Persistence::compile)
            .transpose()
            .map_err(|e| format!("session_persistence.{e}"))?;
        Ok(Self {
            route_name: Arc::clone(route_name),
            rule_name: rule.name.as_str().into(),
            grpc,
            filters: policy::chain(rule.policy.as_ref(), &rule.filters, lookup)?,
            backends: Backends::compile(&rule.backends, lookup)?,
            request_timeout: duration(rule.request_timeout_ms),
            backend_request_timeout: duration(rule.backend_request_timeout_ms),
            retry: rule.retry.as_ref().map(Retry::compile),
            persistence,
            metrics: lookup.route_metrics(route_name),
        })
    }
}

/// One weighted destination.
#[derive(Debug)]
pub struct WeightedBackend {
    /// Key of the backend; empty if the reference is invalid.
    pub key: Arc<str>,
    /// `None`: the reference is invalid.
    pub slot: Option<Arc<Slot>>,
    /// Filters of the backendRef; they run after the rule's.
    pub filters: Vec<Filter>,
    /// Sum of the weights up to and including this one.
    up_to: u64,
}

/// The destinations of a rule.
#[derive(Debug, Default)]
pub struct Backends(Vec<WeightedBackend>);

impl Backends {
    fn compile(config: &[v1::WeightedBackend], lookup: &mut dyn Lookup) -> Result<Self, String> {
        let mut up_to = 0;
        let mut all = Vec::with_capacity(config.len());
        for (i, backend) in config.iter().enumerate().filter(|(_, b)| b.weight != 0) {
            up_to += u64::from(backend.weight);
            all.push(WeightedBackend {
                key: backend.backend.as_str().into(),
                slot: (!backend.backend.is_empty()).then(|| lookup.backend(&backend.backend)),
                filters: Filter::compile_all(&backend.filters, lookup)
                    .map_err(|e| format!("backends[{i}].{e}"))?,
                up_to,
            });
        }
        Ok(Self(all))
    }

    /// Draws a destination by weight.
    pub fn pick(&self) -> Option<&WeightedBackend> {
        match self.0.as_slice() {
            [] => None,
            [only] => Some(only),
            all => {
                let drawn = rand::rng().random_range(0..all.last()?.up_to);
                all.get(all.partition_point(|backend| backend.up_to <= drawn))
            }
        }
    }

    /// All that could be drawn.
    pub fn iter(&self) -> impl Iterator<Item = &WeightedBackend> {
        self.0.iter()
    }
}

/// When and how a request is tried again.
#[derive(Debug)]
pub struct Retry {
    codes: Vec<u16>,
    /// Tries after the first; 0: there is no second.
    pub attempts: u32,
    backoff: Duration,
}

impl Retry {
    fn compile(config: &v1::Retry) -> Self {
        let backoff = match config.backoff_ms {
            0 => DEFAULT_BACKOFF,
            ms => Duration::from_millis(ms),
        };
        let codes = config
            .codes
            .iter()
            .filter_map(|code| u16::try_from(*code).ok())
            .collect();
        Self {
            codes,
            attempts: config.attempts,
            backoff,
        }
    }

    /// True if a response with this status is tried again.
    pub fn covers(&self, status: http::StatusCode) -> bool {
        self.codes.contains(&status.as_u16())
    }

    /// The pause before retry number `retry` (from 1): between the base and the base doubled with each retry, at most
    /// ten times the base, so that clients that failed together do not come back together.
    pub fn pause(&self, retry: u32) -> Duration {
        let most = self
            .backoff
            .saturating_mul(2u32.saturating_pow(retry.min(16)).min(10));
        let spread = most.saturating_sub(self.backoff);
        self.backoff + spread.mul_f64(rand::rng().random_range(0.0..1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(weights: &[u64]) -> Backends {
        let mut up_to = 0;
        let each = weights.iter().enumerate().map(|(i, weight)| {
            up_to += weight;
            WeightedBackend {
                key: i.to_string().into(),
                slot: None,
                filters: Vec::new(),
                up_to,
            }
        });
        Backends(each.collect())
    }

    #[test]
    fn weights_are_shares() {
        let backends = backends(&[1, 8, 1]);
        let drawn = (0..1000)
            .filter(|_| &*backends.pick().unwrap().key == "1")
            .count();
        // Seven standard deviations to either side.
        assert!((712..=888).contains(&drawn), "{drawn}");
        assert!(Backends::default().pick().is_none());
    }

    #[test]
    fn pauses_grow_within_bounds() {
        let retry = Retry {
            codes: vec![503],
            attempts: 3,
            backoff: Duration::from_millis(100),
        };
        for n in [1, 2, 3, 100] {
            let pause = retry.pause(n);
            assert!(
                pause >= Duration::from_millis(100) && pause <= Duration::from_secs(1),
                "{n}: {pause:?}"
            );
        }
        assert!(retry.pause(1) <= Duration::from_millis(200));
        assert!(retry.covers(http::StatusCode::SERVICE_UNAVAILABLE));
        assert!(!retry.covers(http::StatusCode::BAD_GATEWAY));
    }
}
