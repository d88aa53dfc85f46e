//! Which zone a request goes to.

use rand::Rng;
use sluice_config::v1;

use super::Plan;

/// Requests stay in the proxy's own zone as far as it can take them.
#[derive(Debug)]
pub(super) struct PreferLocal {
    pub(super) zone: Box<str>,
    min_endpoints: usize,
    force: Option<usize>,
    percent: u32,
}

impl PreferLocal {
    /// Reads the resource; `zone` is the proxy's.
    pub(super) fn new(config: &v1::load_balancer::PreferLocal, zone: &str) -> Self {
        Self {
            zone: zone.into(),
            min_endpoints: config.min_endpoints as usize,
            force: config.force_min_endpoints_in_zone.map(|least| least as usize),
            percent: config.percent.unwrap_or(100),
        }
    }

    /// Whether zones matter to the next request.
    pub(super) fn applies(&self, plan: &Plan) -> bool {
        let all = plan.members().len();
        plan.local > 0
            && plan.local < all
            && all >= self.min_endpoints
            && (self.percent >= 100 || rand::rng().random_range(0..100) < self.percent)
    }

    /// Whether a request stays in the zone: as many as the zone can take without more load than the others have.
    pub(super) fn draws_local(&self, plan: &Plan) -> bool {
        if self.force.is_some_and(|least| plan.local >= least.max(1)) {
            return true;
        }
        // The zone has local/all of the endpoints, and its proxies see 1/zones of the traffic.
        let (can, need) = (plan.local * plan.zones, plan.members().len());
        can >= need || rand::rng().random_range(0..need) < can
    }
}

/// Draws a zone by weight.
pub(super) fn draw_zone(weighted: &[(Box<str>, u64)]) -> Option<&str> {
    let (_, sum) = weighted.last()?;
    let drawn = rand::rng().random_range(0..*sum);
    let place = weighted.partition_point(|(_, up_to)| *up_to <= drawn);
    weighted.get(place).map(|(zone, _)| &**zone)
}
