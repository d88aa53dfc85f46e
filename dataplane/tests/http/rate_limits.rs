//! Limits on the rate of requests. Units are long, so that no bucket fills while a test runs.

use sluice_config::v1;
use v1::selector_value::Kind;

use super::support::backend::Backend;
use super::support::client::{Got, Http};
use super::{cfg, with_policy};

const DAY: u64 = 24 * 3600;

fn limit(bucket: &str, requests: u64, selectors: Vec<v1::ClientSelector>) -> v1::RateLimitRule {
    v1::RateLimitRule {
        bucket: bucket.into(),
        selectors,
        requests,
        unit_seconds: DAY,
        ..Default::default()
    }
}

fn policy(rules: Vec<v1::RateLimitRule>) -> v1::Policy {
    v1::Policy {
        rate_limit: Some(v1::RateLimit { rules }),
        ..Default::default()
    }
}

fn value(name: &str, kind: Kind, value: &str) -> v1::SelectorValue {
    v1::SelectorValue {
        name: name.into(),
        kind: kind.into(),
        value: value.into(),
        invert: false,
    }
}

fn header(selector: v1::SelectorValue) -> Vec<v1::ClientSelector> {
    vec![v1::ClientSelector {
        headers: vec![selector],
        ..Default::default()
    }]
}

fn shown(got: &Got) -> (&str, &str) {
    (
        got.header("x-ratelimit-limit").unwrap(),
        got.header("x-ratelimit-remaining").unwrap(),
    )
}

#[tokio::test]
async fn a_limit_holds_over_connections_and_workers() {
    let (_proxy, backend, port) = with_policy(policy(vec![limit("a", 3, vec![])]), vec![]).await;
    for left in ["2", "1", "0"] {
        let got = Http::new(port).get("/").await;
        assert_eq!((got.status, shown(&got)), (200, ("3", left)));
        let reset: u64 = got.header("x-ratelimit-reset").unwrap().parse().unwrap();
        assert!((1..=DAY).contains(&reset), "{reset}");
        assert_eq!(got.header("x-envoy-ratelimited"), None);
    }
    for client in [Http::new(port), Http::h2(port)] {
        let got = client.get("/").await;
        assert_eq!((got.status, shown(&got)), (429, ("3", "0")));
        assert_eq!(got.header("x-envoy-ratelimited"), Some("true"));
        assert_eq!(got.body, "local_rate_limited");
    }
    assert_eq!(backend.hits(), 3);
}

#[tokio::test]
async fn selectors_choose_what_is_counted() {
    let team = value("x-team", Kind::Exact, "red");
    let mut others = header(value("x-team", Kind::Regex, "red|blue"));
    others[0].headers[0].invert = true;
    others.push(v1::ClientSelector {
        methods: vec![v1::MethodMatch {
            method: "POST".into(),
            invert: false,
        }],
        path: Some(v1::RequestPath {
            path: Some(v1::PathMatch {
                kind: v1::path_match::Kind::Prefix.into(),
                value: "/api".into(),
            }),
            invert: false,
        }),
        ..Default::default()
    });
    let rules = vec![limit("red", 1, header(team)), limit("others", 0, others)];
    let (_proxy, _backend, port) = with_policy(policy(rules), vec![]).await;
    let client = Http::new(port);
    for (method, path, team, expected) in [
        ("GET", "/", "red", 200),
        ("GET", "/", "red", 429),
        ("GET", "/", "blue", 200),
        ("POST", "/api/a", "blue", 200),
        ("POST", "/api/a", "green", 429),
        ("POST", "/other", "green", 200),
        ("GET", "/api/a", "green", 200),
    ] {
        let got = client.send_with(method, path, &[("x-team", team)], "").await;
        assert_eq!(got.status, expected, "{method} {path} {team}");
    }
    assert_eq!(client.send_with("POST", "/api", &[], "").await.status, 429);
}

#[tokio::test]
async fn distinct_values_have_their_own_buckets() {
    let by_address = v1::ClientSelector {
        source: Some(v1::SourceMatch {
            cidr: "0.0.0.0/0".into(),
            distinct: true,
            invert: false,
        }),
        query: vec![value("key", Kind::Distinct, "")],
        ..Default::default()
    };
    let hops = cfg::settings(v1::Settings {
        xff_trusted_hops: 1,
        ..Default::default()
    });
    let (_proxy, _backend, port) =
        with_policy(policy(vec![limit("d", 1, vec![by_address])]), vec![hops]).await;
    let client = Http::new(port);
    for (path, address, expected) in [
        ("/?key=a", "192.0.2.1", 200),
        ("/?key=a", "192.0.2.1", 429),
        ("/?key=%61", "192.0.2.1", 429),
        ("/?key=b", "192.0.2.1", 200),
        ("/?key=a", "192.0.2.2", 200),
        // Without the value the rule does not count.
        ("/", "192.0.2.1", 200),
        ("/", "192.0.2.1", 200),
        ("/?key=a", "2001:db8::1", 200),
        ("/?key=a", "2001:db8::1", 200),
    ] {
        let got = client.get_with(path, &[("x-forwarded-for", address)]).await;
        assert_eq!(got.status, expected, "{path} {address}");
    }
}

#[tokio::test]
async fn counts_outlive_changes_and_are_shared_by_name() {
    let (proxy, _backend, port) = with_policy(policy(vec![limit("shared", 2, vec![])]), vec![]).await;
    let client = Http::new(port);
    assert_eq!(client.get("/").await.status, 200);
    let mut one = cfg::rule("/", &["b"]);
    one.policy = Some(policy(vec![limit("shared", 2, vec![])]));
    let mut two = cfg::rule("/two", &["b"]);
    two.policy = Some(policy(vec![v1::RateLimitRule {
        headers: v1::rate_limit_rule::Headers::Off.into(),
        ..limit("shared", 2, vec![])
    }]));
    proxy.apply(vec![cfg::route("r", "l", vec![one, two])]);
    let got = client.get("/two").await;
    assert_eq!((got.status, got.header("x-ratelimit-limit")), (200, None));
    let got = client.get("/two").await;
    assert_eq!((got.status, got.header("x-ratelimit-limit")), (429, None));
    assert_eq!(client.get("/").await.status, 429);
}

#[tokio::test]
async fn the_strictest_limit_is_shown_and_costs_count() {
    let dear = v1::RateLimitRule {
        cost: Some(4),
        ..limit("dear", 10, vec![])
    };
    let (_proxy, _backend, port) = with_policy(policy(vec![limit("wide", 100, vec![]), dear]), vec![]).await;
    let client = Http::new(port);
    assert_eq!(shown(&client.get("/").await), ("10", "6"));
    assert_eq!(shown(&client.get("/").await), ("10", "2"));
    assert_eq!(client.get("/").await.status, 429);
}

#[tokio::test]
async fn what_only_watches_turns_nobody_away() {
    let watches = v1::RateLimitRule {
        shadow: true,
        ..limit("watches", 1, vec![])
    };
    let (_proxy, _backend, port) =
        with_policy(policy(vec![watches, limit("holds", 3, vec![])]), vec![]).await;
    let client = Http::new(port);
    for (status, left) in [(200, "2"), (200, "1"), (200, "0"), (429, "0")] {
        let got = client.get("/").await;
        assert_eq!((got.status, shown(&got)), (status, ("3", left)));
    }
}

#[tokio::test]
async fn responses_cost_what_later_requests_miss() {
    let rule = v1::RateLimitRule {
        cost: Some(0),
        response_cost: 10,
        ..limit("responses", 21, vec![])
    };
    let (_proxy, backend, port) = with_policy(policy(vec![rule]), vec![]).await;
    let client = Http::new(port);
    // The third response takes more than there is left: what is missing keeps others away.
    for served in 1..=3 {
        let got = client.get("/").await;
        assert_eq!((got.status, got.header("x-ratelimit-limit")), (200, Some("21")));
        assert_eq!(backend.hits(), served);
    }
    // The response is paid when it has ended, which the client may see a little earlier.
    let mut status = 200;
    for _ in 0..100 {
        status = client.get("/").await.status;
        if status == 429 {
            break;
        }
    }
    assert_eq!(status, 429);
    // A request that is turned away has no response that could cost anything.
    assert_eq!(client.get("/").await.status, 429);
}

#[tokio::test]
async fn grpc_clients_are_told_in_grpc() {
    let backend = Backend::echo("b").await;
    let port = super::support::free_port();
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = Some(policy(vec![limit("g", 0, vec![])]));
    let mut resources = vec![
        cfg::http_listener("l", port),
        cfg::grpc_route("r", "l", vec![rule]),
    ];
    resources.extend(cfg::h2c("b", &[backend.address]));
    let _proxy = super::Proxy::start(resources).await;
    let got = Http::h2(port).get("/a.B/C").await;
    assert_eq!((got.status, got.header("grpc-status")), (200, Some("14")));
    assert_eq!(got.header("x-envoy-ratelimited"), Some("true"));
}

#[tokio::test]
async fn the_listener_says_whether_limits_are_shown() {
    let backend = Backend::echo("b").await;
    let port = super::support::free_port();
    let quiet = v1::Listener {
        port: port.into(),
        bind_port: port.into(),
        protocol: v1::Protocol::Http.into(),
        client: Some(v1::ClientSettings {
            headers: Some(v1::ClientHeaders {
                no_rate_limit_headers: true,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = Some(policy(vec![limit("quiet", 1, vec![])]));
    let mut loud = cfg::rule("/loud", &["b"]);
    loud.policy = Some(policy(vec![v1::RateLimitRule {
        headers: v1::rate_limit_rule::Headers::Draft03.into(),
        ..limit("loud", 1, vec![])
    }]));
    let mut resources = vec![cfg::listener("l", quiet), cfg::route("r", "l", vec![rule, loud])];
    resources.extend(cfg::backend("b", &[backend.address]));
    let _proxy = super::Proxy::start(resources).await;
    let client = Http::new(port);
    for status in [200, 429] {
        let got = client.get("/").await;
        assert_eq!((got.status, got.header("x-ratelimit-limit")), (status, None));
        let got = client.get("/loud").await;
        assert_eq!((got.status, got.header("x-ratelimit-limit")), (status, Some("1")));
    }
}
