//! Everything that is not HTTP: TCP, TLS (passed through or terminated) and UDP.
//!
//! Owns the choice of a backend for a connection or session, and the copying of bytes both ways. Never looks into
//! the bytes; which route a connection belongs to was decided in `listen`.

mod log;
mod relay;
mod sessions;
mod tcp;
mod udp;

use std::net::IpAddr;
use std::sync::Arc;

use rand::Rng;
use sluice_config::v1;

use crate::filter::Lookup;
use crate::filter::policy::AddressRules;
use crate::telemetry::RouteMetrics;
use crate::upstream::{Slot, fallback};

pub use tcp::tcp;
pub use udp::udp;

/// The backends of a TLSRoute, TCPRoute or UDPRoute.
#[derive(Debug)]
pub struct L4Route {
    /// `TCPRoute/namespace/name`, for logs and metrics.
    pub name: Arc<str>,
    /// Each with the sum of the weights up to and including its own. Those of weight 0 are left out.
    backends: Vec<(u64, Target)>,
    /// The same, for what the others are not healthy enough for.
    fallback: Vec<(u64, Target)>,
    /// Who may connect; `None`: anyone.
    access: Option<AddressRules>,
    metrics: Arc<RouteMetrics>,
}

/// Where a share of the traffic goes.
#[derive(Debug)]
enum Target {
    /// To a backend.
    Backend(Arc<Slot>),
    /// Nowhere: the reference is invalid.
    Refused,
}

impl L4Route {
    /// Compiles the rules of a route.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(name: &str, rules: &v1::L4Rules, lookup: &mut dyn Lookup) -> Result<Self, String> {
        let (mut backends, mut fallback) = (Vec::with_capacity(rules.backends.len()), Vec::new());
        // If all of them are fallbacks, none is.
        let ranked = rules.backends.iter().any(|b| b.weight > 0 && !b.fallback);
        for backend in rules.backends.iter().filter(|backend| backend.weight > 0) {
            let tier = if ranked && backend.fallback {
                &mut fallback
            } else {
                &mut backends
            };
            let before = tier.last().map_or(0, |(up_to, _)| *up_to);
            let total = before + u64::from(backend.weight);
            let target = match backend.backend.as_str() {
                "" => Target::Refused,
                key => Target::Backend(lookup.backend(key)),
            };
            tier.push((total, target));
        }
        Ok(Self {
            name: name.into(),
            backends,
            fallback,
            access: rules
                .authorization
                .as_ref()
                .map(AddressRules::compile)
                .transpose()
                .map_err(|e| format!("authorization.{e}"))?,
            metrics: lookup.route_metrics(name),
        })
    }

    /// True if a client with this address may connect.
    fn admits(&self, client: IpAddr) -> bool {
        self.access.as_ref().is_none_or(|access| access.allows(client))
    }

    /// A backend by weight; `None`: this share is refused, or there is none.
    fn pick(&self) -> Option<&Arc<Slot>> {
        let stay =
            self.fallback.is_empty() || fallback::need_not(slots(&self.backends), slots(&self.fallback));
        let backends = if stay { &self.backends } else { &self.fallback };
        let (total, _) = backends.last()?;
        let at = rand::rng().random_range(0..*total);
        let index = backends.partition_point(|(up_to, _)| *up_to <= at);
        match &backends.get(index)?.1 {
            Target::Backend(slot) => Some(slot),
            Target::Refused => None,
        }
    }

    /// True if a share of the traffic goes to this backend.
    fn contains(&self, slot: &Arc<Slot>) -> bool {
        self.backends
            .iter()
            .chain(&self.fallback)
            .any(|(_, target)| matches!(target, Target::Backend(held) if Arc::ptr_eq(held, slot)))
    }
}

fn slots(targets: &[(u64, Target)]) -> impl Iterator<Item = &Slot> {
    targets.iter().filter_map(|(_, target)| match target {
        Target::Backend(slot) => Some(&**slot),
        Target::Refused => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::tests::Nothing;

    fn route(slots: &mut Nothing, backends: &[(&str, u32)]) -> L4Route {
        let backends = backends.iter().map(|(backend, weight)| v1::WeightedBackend {
            backend: (*backend).into(),
            weight: *weight,
            ..Default::default()
        });
        L4Route::compile(
            "TCPRoute/default/a",
            &v1::L4Rules {
                backends: backends.collect(),
                ..Default::default()
            },
            slots,
        )
        .unwrap()
    }

    #[test]
    fn shares_follow_weights() {
        let mut slots = Nothing::default();
        let route = route(&mut slots, &[("a", 1), ("b", 0), ("c", 3), ("", 4)]);
        let mut seen = [0; 4];
        for _ in 0..8000 {
            let place = match route.pick() {
                None => 3,
                Some(slot) => ["a", "b", "c"]
                    .iter()
                    .position(|key| Arc::ptr_eq(&slots.backend(key), slot))
                    .unwrap(),
            };
            seen[place] += 1;
        }
        assert_eq!(seen[1], 0, "{seen:?}");
        for (place, wanted) in [(0, 1000), (2, 3000), (3, 4000)] {
            assert!((wanted - 300..wanted + 300).contains(&seen[place]), "{seen:?}");
        }
    }

    #[test]
    fn without_weight_nothing_is_served() {
        let mut slots = Nothing::default();
        assert!(route(&mut slots, &[]).pick().is_none());
        assert!(route(&mut slots, &[("a", 0)]).pick().is_none());
        let held = route(&mut slots, &[("a", 0), ("b", 1)]);
        assert!(!held.contains(&slots.backend("a")));
        assert!(held.contains(&slots.backend("b")));
    }
}
