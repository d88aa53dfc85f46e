use std::collections::BTreeMap;

use super::*;
use crate::upstream::EndpointSet;

fn endpoints(each: &[(u16, &str)]) -> v1::Endpoints {
    let endpoint = |(port, zone): &(u16, &str)| v1::Endpoint {
        address: "127.0.0.1".into(),
        port: u32::from(*port),
        zone: (*zone).into(),
        ..Default::default()
    };
    v1::Endpoints {
        endpoints: each.iter().map(endpoint).collect(),
    }
}

fn slot(each: &[(u16, &str)]) -> EndpointSlot {
    let set = EndpointSet::build(&endpoints(each), &EndpointSet::default()).unwrap();
    ArcSwap::from_pointee(set)
}

fn ports(count: u16) -> Vec<(u16, &'static str)> {
    (1..=count).map(|port| (port, "")).collect()
}

fn backend(policy: v1::load_balancer::Policy) -> v1::Backend {
    v1::Backend {
        load_balancer: Some(v1::LoadBalancer {
            policy: policy.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn balancer(config: &v1::Backend) -> Balancer {
    Balancer::compile(config, "here", None, &Arc::default())
        .unwrap()
        .unwrap()
}

fn picked(balancer: &Balancer, slot: &EndpointSlot, ask: Ask<'_>, times: usize) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        let active = balancer.pick(slot, ask).unwrap();
        *counts.entry(active.endpoint().address().port()).or_default() += 1;
    }
    counts
}

#[test]
fn nothing_asked_for_costs_nothing() {
    assert!(
        Balancer::compile(&v1::Backend::default(), "", None, &Arc::default())
            .unwrap()
            .is_none()
    );
}

#[test]
fn in_turn_is_exactly_even() {
    let (slot, balancer) = (
        slot(&ports(3)),
        balancer(&backend(v1::load_balancer::Policy::RoundRobin)),
    );
    let counts = picked(&balancer, &slot, Ask::default(), 30);
    assert!(counts.values().all(|count| *count == 10), "{counts:?}");
    // One that is out leaves the others with equal shares.
    balancer.members(&slot)[0].set_failing(true);
    let counts = picked(&balancer, &slot, Ask::default(), 30);
    assert_eq!(counts, BTreeMap::from([(2, 15), (3, 15)]));
}

#[test]
fn random_and_least_request_reach_all() {
    for policy in [
        v1::load_balancer::Policy::Random,
        v1::load_balancer::Policy::LeastRequest,
    ] {
        let counts = picked(
            &balancer(&backend(policy)),
            &slot(&ports(4)),
            Ask::default(),
            2000,
        );
        assert!(
            counts.len() == 4 && counts.values().all(|c| (350..=650).contains(c)),
            "{counts:?}"
        );
    }
}

fn hashing() -> v1::Backend {
    let mut config = backend(v1::load_balancer::Policy::ConsistentHash);
    config.load_balancer.as_mut().unwrap().consistent_hash = Some(v1::ConsistentHash {
        input: v1::consistent_hash::Input::SourceIp.into(),
        ..Default::default()
    });
    config
}

#[test]
fn a_hash_stays_where_it_is() {
    let (slot, balancer) = (slot(&ports(5)), balancer(&hashing()));
    let owner = |hash| {
        let ask = Ask {
            hash: Some(hash),
            ..Ask::default()
        };
        let counts = picked(&balancer, &slot, ask, 5);
        assert_eq!(counts.len(), 1);
        *counts.keys().next().unwrap()
    };
    let before: Vec<u16> = (0..500).map(|i| owner(i * 0x9e37_79b9_7f4a)).collect();
    // Only those of one that is out go elsewhere, and they come back.
    let members = balancer.members(&slot);
    let out = members
        .iter()
        .find(|m| m.endpoint().address().port() == 2)
        .unwrap();
    out.set_failing(true);
    for (i, was) in (0..500).zip(&before) {
        let now = owner(i * 0x9e37_79b9_7f4a);
        assert!(now != 2 && (*was == 2 || now == *was));
    }
    out.set_failing(false);
    assert!(
        (0..500)
            .zip(&before)
            .all(|(i, was)| owner(i * 0x9e37_79b9_7f4a) == *was)
    );
}

#[test]
fn panic_disregards_health() {
    let mut config = backend(v1::load_balancer::Policy::Random);
    config.health_check = Some(v1::HealthCheck {
        panic_threshold_percent: 50,
        ..Default::default()
    });
    let (slot, careful) = (slot(&ports(4)), balancer(&config));
    let members = careful.members(&slot);
    members[0].set_failing(true);
    members[1].set_failing(true);
    assert_eq!(picked(&careful, &slot, Ask::default(), 200).len(), 2);
    members[2].set_failing(true);
    assert_eq!(picked(&careful, &slot, Ask::default(), 400).len(), 4);
    config.health_check.as_mut().unwrap().panic_threshold_percent = 0;
    let calm = Balancer::compile(&config, "", Some(&careful), &Arc::default())
        .unwrap()
        .unwrap();
    // What was known of the endpoints is known to the backend's next version.
    assert_eq!(
        picked(&calm, &slot, Ask::default(), 50),
        BTreeMap::from([(4, 50)])
    );
    members[3].set_failing(true);
    assert!(calm.pick(&slot, Ask::default()).is_none());
}

#[test]
fn new_ones_start_slowly() {
    let mut config = backend(v1::load_balancer::Policy::RoundRobin);
    config.load_balancer.as_mut().unwrap().slow_start_ms = 3_600_000;
    let balancer = balancer(&config);
    let slot = slot(&ports(1));
    for member in balancer.members(&slot) {
        // As if it had been there for long.
        member.backdate();
    }
    let set = EndpointSet::build(&endpoints(&ports(2)), &slot.load()).unwrap();
    slot.store(Arc::new(set));
    let counts = picked(&balancer, &slot, Ask::default(), 1000);
    assert!(counts[&1] > 800 && counts[&2] > 20, "{counts:?}");
}

#[test]
fn the_own_zone_comes_first() {
    let mut config = backend(v1::load_balancer::Policy::Random);
    let prefer = v1::load_balancer::PreferLocal::default();
    config.load_balancer.as_mut().unwrap().prefer_local = Some(prefer);
    let even = slot(&[(1, "here"), (2, "there"), (3, "here"), (4, "there")]);
    let counts = picked(&balancer(&config), &even, Ask::default(), 200);
    assert!(counts.keys().all(|port| [1, 3].contains(port)), "{counts:?}");
    // A zone with less than its share of endpoints gives some away, unless it is told not to.
    let few = slot(&[(1, "here"), (2, "there"), (3, "there"), (4, "there")]);
    let counts = picked(&balancer(&config), &few, Ask::default(), 1000);
    assert!((400..=600).contains(&counts[&1]), "{counts:?}");
    config.load_balancer.as_mut().unwrap().prefer_local = Some(v1::load_balancer::PreferLocal {
        force_min_endpoints_in_zone: Some(1),
        ..Default::default()
    });
    let forced = balancer(&config);
    assert_eq!(picked(&forced, &few, Ask::default(), 100).len(), 1);
    forced.members(&few)[0].set_failing(true);
    assert_eq!(picked(&forced, &few, Ask::default(), 300).len(), 3);
}

#[test]
fn a_request_may_name_its_endpoint() {
    let mut config = backend(v1::load_balancer::Policy::Random);
    config.load_balancer.as_mut().unwrap().endpoint_override_headers = vec!["x-endpoint".into()];
    let (slot, balancer) = (slot(&ports(3)), balancer(&config));
    let mut headers = HeaderMap::new();
    headers.insert("x-endpoint", "nonsense, 10.0.0.1:1, 127.0.0.1:2".parse().unwrap());
    let ask = |tried| Ask {
        tried,
        hash: None,
        headers: Some(&headers),
    };
    assert_eq!(picked(&balancer, &slot, ask(&[]), 20), BTreeMap::from([(2, 20)]));
    let tried = ["127.0.0.1:2".parse().unwrap()];
    assert!(!picked(&balancer, &slot, ask(&tried), 20).contains_key(&2));
}

#[test]
fn zones_have_their_shares() {
    let mut config = backend(v1::load_balancer::Policy::Random);
    let weight = |zone: &str, weight| v1::load_balancer::ZoneWeight {
        zone: zone.to_owned(),
        weight,
    };
    config.load_balancer.as_mut().unwrap().weighted_zones = vec![weight("a", 8), weight("c", 0)];
    let balancer = balancer(&config);
    // Zone b is not listed, and counts with 1; how many endpoints a zone has does not matter.
    let slot = slot(&[(1, "a"), (2, "b"), (3, "b"), (4, "b"), (5, "c")]);
    let counts = picked(&balancer, &slot, Ask::default(), 900);
    // More than seven standard deviations to either side.
    assert!((730..=870).contains(&counts[&1]), "{counts:?}");
    assert!(!counts.contains_key(&5), "{counts:?}");
    // A zone without weight is better than none.
    let tried: Vec<SocketAddr> = (1..=4).map(|port| ([127, 0, 0, 1], port).into()).collect();
    let ask = Ask {
        tried: &tried,
        ..Ask::default()
    };
    assert_eq!(picked(&balancer, &slot, ask, 20).len(), 1);
}
