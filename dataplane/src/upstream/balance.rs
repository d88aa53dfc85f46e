//! The choice among a backend's endpoints where the backend says how to choose.
//!
//! Owns one backend's view of its endpoints: their health, since when they take traffic, the hash table. A backend that
//! asks for nothing has none of this: [`super::EndpointSet::pick`] chooses. Opens no connection.

mod plan;
mod zones;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::HeaderName;
use rand::Rng;
use sluice_config::v1;

use self::plan::Plan;
use self::zones::{PreferLocal, draw_zone};
use super::EndpointSlot;
use super::ahead::Foreseen;
use super::endpoints::Active;
use super::hashing::ConsistentHash;
use super::health::{Member, Outcome, Outliers};
use super::utilization::Utilization;
use crate::telemetry::metrics::BackendMetrics;

/// What a request wants of an endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// Taken only if no other is left.
    pub tried: &'a [SocketAddr],
    /// Its hash, if the backend hashes.
    pub hash: Option<u64>,
    /// The request's headers, for those that may name an endpoint.
    pub headers: Option<&'a HeaderMap>,
}

/// How endpoints are chosen.
#[derive(Debug)]
enum Policy {
    LeastRequest,
    RoundRobin,
    Random,
    Hash(ConsistentHash),
    Utilization(Utilization),
}

/// Chooses among the endpoints of one backend.
#[derive(Debug)]
pub struct Balancer {
    policy: Policy,
    slow_start: Option<Duration>,
    prefer_local: Option<PreferLocal>,
    /// Weights of zones; one that is not among them has 1. Empty: zones have none.
    zone_weights: Vec<(Box<str>, u32)>,
    override_headers: Vec<HeaderName>,
    /// Set if choices may be made ahead.
    foreseen: Option<Foreseen>,
    panic_percent: usize,
    outliers: Option<Outliers>,
    plan: ArcSwap<Plan>,
    planning: Mutex<()>,
    turn: AtomicUsize,
    metrics: Arc<BackendMetrics>,
}

impl Balancer {
    /// Reads what a backend asks for; `None` if nothing but the default. Endpoints keep what `before`, the balancer of
    /// the backend's last version, knows of them. `zone` is the proxy's own, or empty.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(
        config: &v1::Backend,
        zone: &str,
        before: Option<&Self>,
        metrics: &Arc<BackendMetrics>,
    ) -> Result<Option<Self>, String> {
        let per_endpoint = config
            .circuit_breaker
            .is_some_and(|breaker| breaker.max_connections_per_endpoint.is_some());
        if config.load_balancer.is_none() && config.health_check.is_none() && !per_endpoint {
            return Ok(None);
        }
        let load_balancer = config.load_balancer.clone().unwrap_or_default();
        let policy = match load_balancer.policy() {
            v1::load_balancer::Policy::Unspecified | v1::load_balancer::Policy::LeastRequest => {
                Policy::LeastRequest
            }
            v1::load_balancer::Policy::RoundRobin => Policy::RoundRobin,
            v1::load_balancer::Policy::Random => Policy::Random,
            v1::load_balancer::Policy::BackendUtilization => {
                Policy::Utilization(Utilization::new(load_balancer.utilization.as_ref()))
            }
            v1::load_balancer::Policy::ConsistentHash => {
                let hash = load_balancer.consistent_hash.as_ref();
                let hash = hash.ok_or("load_balancer.consistent_hash: not set")?;
                let hash = ConsistentHash::compile(hash);
                Policy::Hash(hash.map_err(|e| format!("load_balancer.consistent_hash.{e}"))?)
            }
        };
        let headers = load_balancer.endpoint_override_headers.iter().map(|name| {
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                format!("load_balancer.endpoint_override_headers: `{name}` is not a header name")
            })
        });
        let health = config.health_check.as_ref();
        let slow_start = (load_balancer.slow_start_ms != 0
            && matches!(policy, Policy::LeastRequest | Policy::RoundRobin))
        .then(|| Duration::from_millis(load_balancer.slow_start_ms));
        let prefer = load_balancer.prefer_local.as_ref();
        Ok(Some(Self {
            policy,
            slow_start,
            prefer_local: prefer
                .filter(|_| !zone.is_empty())
                .map(|prefer| PreferLocal::new(prefer, zone)),
            zone_weights: load_balancer
                .weighted_zones
                .iter()
                .map(|zone| (zone.zone.as_str().into(), zone.weight))
                .collect(),
            override_headers: headers.collect::<Result<_, _>>()?,
            foreseen: config
                .preconnect
                .is_some_and(|asked| asked.predictive_percent > 100)
                .then(Foreseen::default),
            panic_percent: health.map_or(0, |health| health.panic_threshold_percent.min(100) as usize),
            outliers: health
                .and_then(|health| health.passive.as_ref())
                .map(Outliers::new),
            plan: ArcSwap::new(before.map_or_else(Arc::default, Self::keep)),
            planning: Mutex::new(()),
            turn: AtomicUsize::new(rand::rng().random_range(0..1024)),
            metrics: Arc::clone(metrics),
        }))
    }

    /// What is hashed, if the policy hashes.
    pub fn hashing(&self) -> Option<&ConsistentHash> {
        match &self.policy {
            Policy::Hash(hash) => Some(hash),
            _ => None,
        }
    }

    /// What is done with reports of load, if the policy wants them.
    pub fn by_load(&self) -> Option<&Utilization> {
        match &self.policy {
            Policy::Utilization(by_load) => Some(by_load),
            _ => None,
        }
    }

    /// An endpoint for a request. `None`: there is none, or none is healthy.
    pub fn pick(&self, slot: &EndpointSlot, ask: Ask<'_>) -> Option<Active> {
        let plan = self.plan(slot);
        if let Some(member) = ask
            .headers
            .and_then(|headers| self.named(&plan, headers, ask.tried))
        {
            return Some(Active::of(member));
        }
        if let Some(foreseen) = self.foreseen.as_ref().filter(|_| ask.tried.is_empty())
            && let Some(member) = foreseen.take().and_then(|address| plan.find(address))
            && member.is_healthy()
            && !member.endpoint().is_ejected()
        {
            return Some(Active::of(member));
        }
        self.decide(&plan, ask).map(Active::of)
    }

    /// Makes the next choice ahead, if the policy is one that can.
    pub fn foresee(&self, slot: &EndpointSlot) -> Option<Arc<Member>> {
        let foreseen = self.foreseen.as_ref()?;
        let plan = self.plan(slot);
        let member = self.decide(&plan, Ask::default())?;
        foreseen
            .push(member.endpoint().address())
            .then(|| Arc::clone(member))
    }

    fn decide<'p>(&self, plan: &'p Plan, ask: Ask<'_>) -> Option<&'p Arc<Member>> {
        let members = plan.members();
        let panic = self.is_panic(members);
        let healthy = |m: &Member| panic || m.is_healthy();
        let fresh = |m: &Member| healthy(m) && !ask.tried.contains(&m.endpoint().address());
        match members {
            [] => None,
            [only] => Some(only).filter(|only| healthy(only)),
            _ => self
                .choose(plan, ask.hash, &|m| fresh(m) && !m.endpoint().is_ejected())
                .or_else(|| self.choose(plan, ask.hash, &fresh))
                .or_else(|| self.choose(plan, ask.hash, &healthy)),
        }
    }

    /// The endpoint with this address, if it is there and healthy.
    pub fn claim(&self, slot: &EndpointSlot, address: SocketAddr) -> Option<Active> {
        let plan = self.plan(slot);
        let member = plan.find(address)?;
        (member.is_healthy() || self.is_panic(plan.members())).then(|| Active::of(member))
    }

    /// How many endpoints are healthy, and how many there are to choose from.
    pub fn health(&self, slot: &EndpointSlot) -> (usize, usize) {
        let plan = self.plan(slot);
        let members = plan.members();
        let healthy = members.iter().filter(|member| member.is_healthy()).count();
        (healthy, members.len())
    }

    /// Takes in how a request went.
    pub fn report(&self, member: &Member, outcome: Outcome) {
        let Some(outliers) = &self.outliers else { return };
        let plan = self.plan.load();
        if outliers.report(member, outcome, plan.members()) {
            tracing::info!(endpoint = member.endpoint().display(), "endpoint taken out");
            self.count(&plan);
        }
    }

    /// All endpoints, to be checked.
    pub fn members(&self, slot: &EndpointSlot) -> Vec<Arc<Member>> {
        let plan = self.plan(slot);
        let members = plan.serving.iter().chain(&plan.draining).cloned().collect();
        // Time may have brought some back.
        self.count(&plan);
        members
    }

    /// Takes in what a check has found. True if that is news.
    pub fn set_failing(&self, member: &Member, failing: bool) -> bool {
        let news = member.set_failing(failing);
        if news {
            tracing::info!(
                endpoint = member.endpoint().display(),
                healthy = !failing,
                "health check"
            );
            self.count(&self.plan.load());
        }
        news
    }

    fn count(&self, plan: &Plan) {
        let members = plan.members();
        let healthy = members.iter().filter(|member| member.is_healthy()).count();
        self.metrics.endpoints(members.len(), healthy);
    }

    fn is_panic(&self, members: &[Arc<Member>]) -> bool {
        if self.panic_percent == 0 {
            return false;
        }
        let healthy = members.iter().filter(|member| member.is_healthy()).count();
        healthy * 100 < members.len() * self.panic_percent
    }

    /// An endpoint that the request itself names.
    fn named<'p>(
        &self,
        plan: &'p Plan,
        headers: &HeaderMap,
        tried: &[SocketAddr],
    ) -> Option<&'p Arc<Member>> {
        self.override_headers
            .iter()
            .flat_map(|name| headers.get_all(name))
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|address| address.trim().parse().ok())
            .filter(|address| !tried.contains(address))
            .filter_map(|address| plan.find(address))
            .find(|member| member.is_healthy())
    }

    /// By policy, among those that `accept`; those of the own zone first where that is asked for.
    fn choose<'p>(
        &self,
        plan: &'p Plan,
        hash: Option<u64>,
        accept: &dyn Fn(&Member) -> bool,
    ) -> Option<&'p Arc<Member>> {
        if let Some(prefer) = self.prefer_local.as_ref().filter(|prefer| prefer.applies(plan)) {
            let local = prefer.draws_local(plan);
            let chosen = self.by_policy(plan, hash, &|m| {
                (*m.endpoint().zone() == *prefer.zone) == local && accept(m)
            });
            if chosen.is_some() {
                return chosen;
            }
        }
        if let Some(zone) = draw_zone(&plan.weighted) {
            let chosen = self.by_policy(plan, hash, &|m| *m.endpoint().zone() == *zone && accept(m));
            if chosen.is_some() {
                return chosen;
            }
        }
        self.by_policy(plan, hash, accept)
    }

    fn by_policy<'p>(
        &self,
        plan: &'p Plan,
        hash: Option<u64>,
        accept: &dyn Fn(&Member) -> bool,
    ) -> Option<&'p Arc<Member>> {
        let all = plan.members();
        match (&self.policy, hash, &plan.table) {
            (Policy::LeastRequest, ..) => {
                let first = self.draw(all, accept)?;
                let second = self.draw(all, accept)?;
                Some(if second.endpoint().load() < first.endpoint().load() {
                    second
                } else {
                    first
                })
            }
            (Policy::RoundRobin, ..) => self.next_in_turn(all, accept),
            (Policy::Hash(_), Some(hash), Some(table)) => {
                let in_order = table.order(hash).filter_map(|index| all.get(index));
                // Beyond a few rounds through all of them there is no news.
                in_order
                    .take(16 * all.len().max(64))
                    .find(|member| accept(member))
            }
            (Policy::Utilization(by_load), ..) => by_load.next(&plan.source, all, accept),
            (Policy::Random | Policy::Hash(_), ..) => draw(all, accept),
        }
    }

    /// Draws one; one that is still starting slowly is passed over in proportion.
    fn draw<'p>(&self, all: &'p [Arc<Member>], accept: &dyn Fn(&Member) -> bool) -> Option<&'p Arc<Member>> {
        let Some(slow_start) = self.slow_start else {
            return draw(all, accept);
        };
        for _ in 0..all.len().min(8) {
            let drawn = draw(all, accept)?;
            if rand::rng().random::<f64>() < drawn.share(slow_start) {
                return Some(drawn);
            }
        }
        draw(all, accept)
    }

    fn next_in_turn<'p>(
        &self,
        all: &'p [Arc<Member>],
        accept: &dyn Fn(&Member) -> bool,
    ) -> Option<&'p Arc<Member>> {
        // One that is not acceptable must not double its neighbour's share, so turns are among the others.
        let accepted: Vec<_> = all.iter().filter(|member| accept(member)).collect();
        if accepted.is_empty() {
            return None;
        }
        for _ in 0..accepted.len() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % accepted.len();
            let member = accepted[turn];
            match self.slow_start {
                Some(window) if rand::rng().random::<f64>() >= member.share(window) => {}
                _ => return Some(member),
            }
        }
        accepted.first().copied()
    }
}

/// Draws a place; walks on from one that is not acceptable.
fn draw<'p>(all: &'p [Arc<Member>], accept: &dyn Fn(&Member) -> bool) -> Option<&'p Arc<Member>> {
    if all.is_empty() {
        return None;
    }
    let start = rand::rng().random_range(0..all.len());
    all[start..]
        .iter()
        .chain(&all[..start])
        .find(|member| accept(member))
}

#[cfg(test)]
mod tests;
