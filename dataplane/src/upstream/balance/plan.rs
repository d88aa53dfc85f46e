//! The endpoints of a backend as a balancer sees them.
//!
//! Owns what is worked out once for each endpoint set: members that outlive it, the hash table, shares of zones. Chooses none.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use super::{Balancer, Policy};
use crate::upstream::hashing::Table;
use crate::upstream::health::Member;
use crate::upstream::{Endpoint, EndpointSet, EndpointSlot};

/// The endpoints as of one endpoint set.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What it was made from.
    pub(super) source: Arc<EndpointSet>,
    pub(super) serving: Vec<Arc<Member>>,
    pub(super) draining: Vec<Arc<Member>>,
    pub(super) table: Option<Table>,
    /// How many of those in use are in the proxy's zone, and how many zones there are.
    pub(super) local: usize,
    pub(super) zones: usize,
    /// The zones of those in use, each with the sum of weights up to and including its own.
    pub(super) weighted: Vec<(Box<str>, u64)>,
}

impl Plan {
    /// Those that may be chosen.
    pub(super) fn members(&self) -> &[Arc<Member>] {
        if self.serving.is_empty() {
            &self.draining
        } else {
            &self.serving
        }
    }

    pub(super) fn find(&self, address: SocketAddr) -> Option<&Arc<Member>> {
        self.serving
            .iter()
            .chain(&self.draining)
            .find(|member| member.endpoint().address() == address)
    }
}

impl Balancer {
    /// The endpoints as they are now.
    pub(super) fn plan(&self, slot: &EndpointSlot) -> Arc<Plan> {
        let set = slot.load();
        let plan = self.plan.load();
        if Arc::ptr_eq(&plan.source, &set) {
            return Arc::clone(&plan);
        }
        let _planning = self.planning.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = self.plan.load();
        if Arc::ptr_eq(&plan.source, &set) {
            return Arc::clone(&plan);
        }
        let plan = Arc::new(self.make_plan(Arc::clone(&set), &plan));
        self.plan.store(Arc::clone(&plan));
        self.count(&plan);
        plan
    }

    fn make_plan(&self, source: Arc<EndpointSet>, before: &Plan) -> Plan {
        let member = |endpoint: &Arc<Endpoint>| {
            before
                .find(endpoint.address())
                .filter(|member| Arc::ptr_eq(member.endpoint(), endpoint))
                .map_or_else(|| Arc::new(Member::new(Arc::clone(endpoint))), Arc::clone)
        };
        let mut plan = Plan {
            serving: source.serving().iter().map(member).collect(),
            draining: source.draining().iter().map(member).collect(),
            source,
            ..Plan::default()
        };
        if let Policy::Hash(hash) = &self.policy {
            let names: Vec<&str> = plan.members().iter().map(|m| m.endpoint().display()).collect();
            plan.table = Some(Table::new(hash, &names));
        }
        if let Some(prefer) = &self.prefer_local {
            let zones: Vec<&str> = plan.members().iter().map(|m| m.endpoint().zone()).collect();
            let local = zones.iter().filter(|zone| ***zone == *prefer.zone).count();
            let count = zones.iter().collect::<std::collections::HashSet<_>>().len();
            (plan.local, plan.zones) = (local, count);
        }
        plan.weighted = self.weigh(plan.members());
        plan
    }

    /// The zones of these endpoints as weights want them drawn.
    fn weigh(&self, members: &[Arc<Member>]) -> Vec<(Box<str>, u64)> {
        if self.zone_weights.is_empty() {
            return Vec::new();
        }
        let zones: std::collections::BTreeSet<&str> = members.iter().map(|m| m.endpoint().zone()).collect();
        let mut up_to = 0;
        let weighted = zones.into_iter().filter_map(|zone| {
            let listed = self.zone_weights.iter().find(|(name, _)| **name == *zone);
            let weight = listed.map_or(1, |(_, weight)| *weight);
            up_to += u64::from(weight);
            (weight != 0).then(|| (zone.into(), up_to))
        });
        weighted.collect()
    }

    /// What another balancer of the same backend may go on with: the endpoints, but no set that they are made from.
    pub(super) fn keep(&self) -> Arc<Plan> {
        let plan = self.plan.load();
        Arc::new(Plan {
            serving: plan.serving.clone(),
            draining: plan.draining.clone(),
            ..Plan::default()
        })
    }
}
