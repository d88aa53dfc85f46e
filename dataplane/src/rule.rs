//! A compiled rule: everything that happens to a request after it has been matched.
//!
//! Owns settings only; the forwarder acts on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use sluice_config::v1;

use crate::filter::order::Order;
use crate::filter::policy::{Chain, Extras, counted_as};
use crate::filter::session::Persistence;
use crate::filter::{Filter, Lookup};
pub use crate::retry::Retry;
use crate::telemetry::trace::RouteTracing;
use crate::telemetry::{BackendMetrics, RouteMetrics};
use crate::upstream::{Backend, Slot, fallback};

/// Namespace of a route's metadata.
pub const NAMESPACE: &str = "envoy-gateway";

/// One rule of a route.
#[derive(Debug)]
pub struct Rule {
    /// `HTTPRoute/namespace/name`.
    pub route_name: Arc<str>,
    /// The rule's own name, or empty.
    pub rule_name: Box<str>,
    /// Errors made here are answered as gRPC.
    pub grpc: bool,
    /// What happens to a request before it goes to a backend.
    pub chain: Chain,
    /// Where requests go.
    pub backends: Backends,
    /// Bound on the whole exchange with the client.
    pub request_timeout: Option<Duration>,
    /// Bound on one try.
    pub backend_request_timeout: Option<Duration>,
    /// What the rule says of retries. None: only what cannot have been seen by a backend is tried again.
    pub retry: Option<Retry>,
    /// What a policy asks for besides filters; most rules have none.
    pub extras: Option<Box<Extras>>,
    /// Set if requests of one session go to one endpoint.
    pub persistence: Option<Persistence>,
    /// What a policy asks of traces, if anything.
    pub tracing: Option<Box<RouteTracing>>,
    /// Counters of the route.
    pub metrics: Arc<RouteMetrics>,
    /// Counters of requests to the rule's backends; `None`: the backends' own.
    pub backend_metrics: Option<Arc<BackendMetrics>>,
    /// Annotations of the route object that its metadata has.
    annotations: BTreeMap<String, String>,
}

impl Rule {
    /// Compiles one rule, whose filters run in this order.
    ///
    /// # Errors
    /// `field: reason` of what cannot be honoured.
    pub fn compile(
        route_name: &Arc<str>,
        grpc: bool,
        rule: &v1::HttpRule,
        order: &Order,
        lookup: &mut dyn Lookup,
    ) -> Result<Self, String> {
        let duration = |ms: u64| (ms != 0).then(|| Duration::from_millis(ms));
        let persistence = rule
            .session_persistence
            .as_ref()
            .map(Persistence::compile)
            .transpose()
            .map_err(|e| format!("session_persistence.{e}"))?;
        let retry = rule.retry.as_ref().map(Retry::compile).transpose();
        let retry = retry.map_err(|e| format!("retry.{e}"))?;
        let per_try = retry.as_ref().and_then(|retry| retry.per_try_timeout);
        let extras = rule.policy.as_ref().map(Extras::compile).transpose();
        Ok(Self {
            route_name: Arc::clone(route_name),
            rule_name: rule.name.as_str().into(),
            grpc,
            chain: Chain::compile(rule, route_name, order, lookup)?,
            backends: Backends::compile(&rule.backends, lookup)?,
            request_timeout: duration(rule.request_timeout_ms),
            backend_request_timeout: duration(rule.backend_request_timeout_ms)
                .into_iter()
                .chain(per_try)
                .min(),
            retry,
            extras: extras.map_err(|e| format!("policy.{e}"))?.flatten(),
            persistence,
            tracing: rule
                .policy
                .as_ref()
                .and_then(|policy| policy.tracing.as_ref())
                .map(|tracing| Box::new(RouteTracing::compile(tracing))),
            annotations: rule.annotations.clone(),
            metrics: lookup.route_metrics(counted_as(rule.policy.as_ref(), route_name)),
            backend_metrics: match rule.backend_stat_name.as_str() {
                "" => None,
                name => Some(lookup.backend_metrics(name)),
            },
        })
    }
}

impl Rule {
    /// The metadata of the route as Envoy Gateway has it: a list with the object that the rule comes from.
    pub fn resources(&self) -> Value {
        let mut parts = self.route_name.splitn(3, '/');
        let mut next = || parts.next().unwrap_or_default();
        let mut object = json!({ "kind": next(), "namespace": next(), "name": next() });
        if !self.rule_name.is_empty() {
            object["sectionName"] = json!(self.rule_name);
        }
        if !self.annotations.is_empty() {
            object["annotations"] = json!(self.annotations);
        }
        json!([object])
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
    /// Place of the first of the rule's destinations that has the same filters.
    alike: usize,
    /// Sum of the weights up to and including this one.
    up_to: u64,
}

/// The destinations of a rule.
#[derive(Debug, Default)]
pub struct Backends {
    primary: Vec<WeightedBackend>,
    /// Drawn only as far as the others are not healthy enough.
    fallback: Vec<WeightedBackend>,
}

impl Backends {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the filter that cannot be honoured.
    pub fn compile(config: &[v1::WeightedBackend], lookup: &mut dyn Lookup) -> Result<Self, String> {
        let mut all = Self::default();
        // If all of them are fallbacks, none is.
        let ranked = config.iter().any(|b| b.weight != 0 && !b.fallback);
        for (i, backend) in config.iter().enumerate().filter(|(_, b)| b.weight != 0) {
            let tier = if ranked && backend.fallback {
                &mut all.fallback
            } else {
                &mut all.primary
            };
            let before = tier.last().map_or(0, |last| last.up_to);
            tier.push(WeightedBackend {
                key: backend.backend.as_str().into(),
                slot: (!backend.backend.is_empty()).then(|| lookup.backend(&backend.backend)),
                filters: Filter::compile_all(&backend.filters, lookup)
                    .map_err(|e| format!("backends[{i}].{e}"))?,
                alike: config
                    .iter()
                    .position(|other| other.filters == backend.filters)
                    .unwrap_or(i),
                up_to: before + u64::from(backend.weight),
            });
        }
        Ok(all)
    }

    /// Draws a destination by weight.
    pub fn pick(&self) -> Option<&WeightedBackend> {
        if self.fallback.is_empty() || fallback::need_not(slots(&self.primary), slots(&self.fallback)) {
            draw(&self.primary)
        } else {
            draw(&self.fallback)
        }
    }

    /// A backend of another priority than `this`, if there is a healthy one that requests to `this` may go to as they are: it has
    /// the same filters, for those would have to run anew.
    pub fn beyond(&self, this: &Arc<Backend>) -> Option<Arc<Backend>> {
        let is_this = |weighted: &WeightedBackend| {
            let slot = weighted.slot.as_ref();
            slot.and_then(|slot| slot.load())
                .is_some_and(|backend| Arc::ptr_eq(&backend, this))
        };
        // One that has changed meanwhile, or was found under the name that a request has, may be any of them.
        let is_known = self.iter().any(is_this);
        let mut filters = self.iter().filter(|weighted| !is_known || is_this(weighted));
        let alike = filters.next()?.alike;
        if filters.any(|other| other.alike != alike) {
            return None;
        }
        let others = if self.fallback.iter().any(is_this) {
            &self.primary
        } else {
            &self.fallback
        };
        let backend = draw_alike(others, alike)?.slot.as_ref()?.load()?;
        (backend.dynamic.is_none() && backend.health().0 > 0).then_some(backend)
    }

    /// All that could be drawn.
    pub fn iter(&self) -> impl Iterator<Item = &WeightedBackend> {
        self.primary.iter().chain(&self.fallback)
    }
}

fn slots(backends: &[WeightedBackend]) -> impl Iterator<Item = &Slot> {
    backends.iter().filter_map(|weighted| weighted.slot.as_deref())
}

fn draw(backends: &[WeightedBackend]) -> Option<&WeightedBackend> {
    match backends {
        [] => None,
        [only] => Some(only),
        all => {
            let drawn = rand::rng().random_range(0..all.last()?.up_to);
            all.get(all.partition_point(|backend| backend.up_to <= drawn))
        }
    }
}

/// One of those that have the same filters as the one at `alike`.
fn draw_alike(backends: &[WeightedBackend], alike: usize) -> Option<&WeightedBackend> {
    let mut before = 0;
    let weighted = backends.iter().map(|backend| {
        let weight = backend.up_to - before;
        before = backend.up_to;
        (backend, weight)
    });
    let weighted: Vec<_> = weighted.filter(|(backend, _)| backend.alike == alike).collect();
    let drawn = weighted.choose_weighted(&mut rand::rng(), |(_, weight)| *weight);
    drawn.ok().map(|(backend, _)| *backend)
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
                alike: 0,
                up_to,
            }
        });
        Backends {
            primary: each.collect(),
            fallback: Vec::new(),
        }
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
}
