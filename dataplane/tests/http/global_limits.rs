//! Limits that a service counts, here one that keeps its counts in memory and forgets nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use prost::Message;
use sluice_config::v1;
use sluice_dataplane::filter::rate_limit::proto::{
    Code, DescriptorStatus, Duration, Limit, RateLimitDescriptor, RateLimitRequest, RateLimitResponse,
    SHOULD_RATE_LIMIT, seconds,
};
use v1::selector_value::Kind;

use super::auth::answered;
use super::support::backend::Backend;
use super::support::client::{Got, Http};
use super::{Proxy, cfg, metadata, support};

const HOUR: u64 = 3600;

/// Counts by what descriptors say, and the questions that were asked.
#[derive(Default)]
struct Counts {
    counts: HashMap<String, u64>,
    asked: Vec<RateLimitRequest>,
}

struct Service {
    backend: Backend,
    counts: Arc<Mutex<Counts>>,
}

impl Service {
    async fn start() -> Self {
        let counts = Arc::<Mutex<Counts>>::default();
        let shared = Arc::clone(&counts);
        let backend = Backend::start(move |request| {
            let shared = Arc::clone(&shared);
            async move {
                assert_eq!(request.uri().path(), SHOULD_RATE_LIMIT);
                assert_eq!(request.version(), http::Version::HTTP_2);
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let asked = RateLimitRequest::decode(&body[5..]).unwrap();
                assert_eq!((asked.domain.as_str(), asked.hits_addend), ("sluice", 0));
                let mut counts = shared.lock().unwrap();
                let answer = counts.answer(&asked);
                counts.asked.push(asked);
                answered(&answer)
            }
        })
        .await;
        Self { backend, counts }
    }

    fn asked(&self) -> Vec<RateLimitRequest> {
        self.counts.lock().unwrap().asked.clone()
    }

    fn count(&self, name: &str) -> u64 {
        self.counts.lock().unwrap().counts[name]
    }
}

impl Counts {
    fn answer(&mut self, asked: &RateLimitRequest) -> RateLimitResponse {
        let statuses: Vec<_> = asked.descriptors.iter().map(|d| self.count(d)).collect();
        let over = statuses
            .iter()
            .any(|status| status.code == Code::OverLimit as i32);
        RateLimitResponse {
            overall_code: if over { Code::OverLimit } else { Code::Ok }.into(),
            statuses,
        }
    }

    fn count(&mut self, descriptor: &RateLimitDescriptor) -> DescriptorStatus {
        let count = self.counts.entry(named(descriptor)).or_default();
        *count += descriptor.hits_addend.map_or(1, |hits| hits.value);
        let limit = descriptor.limit.unwrap();
        let left = u64::from(limit.requests_per_unit).checked_sub(*count);
        DescriptorStatus {
            code: left.map_or(Code::OverLimit, |_| Code::Ok).into(),
            current_limit: Some(limit),
            limit_remaining: left.unwrap_or_default().try_into().unwrap(),
            duration_until_reset: Some(Duration {
                seconds: seconds(limit.unit).unwrap().try_into().unwrap(),
                nanos: 0,
            }),
        }
    }
}

/// `rule=a header:x-user=b`.
fn named(descriptor: &RateLimitDescriptor) -> String {
    let entries = descriptor.entries.iter();
    let named: Vec<_> = entries
        .map(|entry| format!("{}={}", entry.key, entry.value))
        .collect();
    named.join(" ")
}

fn limit(bucket: &str, requests: u64, selectors: Vec<v1::ClientSelector>) -> v1::RateLimitRule {
    v1::RateLimitRule {
        bucket: bucket.into(),
        selectors,
        requests,
        unit_seconds: HOUR,
        ..Default::default()
    }
}

fn limits(rules: Vec<v1::RateLimitRule>) -> v1::GlobalRateLimit {
    v1::GlobalRateLimit {
        rules,
        backend: "backend/counts".into(),
        // Long enough for a busy machine.
        timeout_ms: 30_000,
        fail_closed: false,
    }
}

/// A proxy with these limits; `local` are counted by itself.
async fn proxy(
    limits: v1::GlobalRateLimit,
    service: Option<&Service>,
    local: Vec<v1::RateLimitRule>,
) -> (Proxy, Backend, u16) {
    let policy = v1::Policy {
        global_rate_limit: Some(limits),
        rate_limit: Some(v1::RateLimit { rules: local }),
        ..Default::default()
    };
    let others = service.map(|service| cfg::h2c("counts", &[service.backend.address]));
    super::with_policy(policy, others.unwrap_or_default()).await
}

fn shown(got: &Got) -> [Option<&str>; 3] {
    ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map(|name| got.header(name))
}

#[tokio::test]
async fn proxies_share_a_limit() {
    let service = Service::start().await;
    let (_one, _first, first) = proxy(limits(vec![limit("a", 3, vec![])]), Some(&service), vec![]).await;
    let (_two, backend, second) = proxy(limits(vec![limit("a", 3, vec![])]), Some(&service), vec![]).await;
    for (port, left) in [(first, "2"), (second, "1"), (first, "0")] {
        let got = Http::new(port).get("/").await;
        let told = [Some("3, 3;w=3600"), Some(left), Some("3600")];
        assert_eq!((got.status, shown(&got)), (200, told));
        assert_eq!(got.header("x-envoy-ratelimited"), None);
    }
    for client in [Http::new(second), Http::h2(second)] {
        let got = client.get("/").await;
        assert_eq!(
            (got.status, got.header("x-envoy-ratelimited")),
            (429, Some("true"))
        );
        assert_eq!(shown(&got), [Some("3, 3;w=3600"), Some("0"), Some("3600")]);
        assert!(got.body.is_empty());
    }
    assert_eq!(backend.hits(), 1);
    let expected = Limit {
        requests_per_unit: 3,
        unit: 3,
    };
    assert_eq!(service.asked()[0].descriptors[0].limit, Some(expected));
}

#[tokio::test]
async fn rules_that_match_are_asked_about_at_once() {
    let service = Service::start().await;
    let user = v1::ClientSelector {
        headers: vec![v1::SelectorValue {
            name: "x-user".into(),
            kind: Kind::Distinct.into(),
            ..Default::default()
        }],
        source: Some(v1::SourceMatch {
            cidr: "127.0.0.0/8".into(),
            distinct: true,
            invert: false,
        }),
        ..Default::default()
    };
    let rules = vec![limit("all", 5, vec![]), limit("user", 1, vec![user])];
    let (_proxy, _backend, port) = proxy(limits(rules), Some(&service), vec![]).await;
    let client = Http::new(port);
    for (user, expected) in [("a", 200), ("a", 429), ("b", 200)] {
        let got = client.get_with("/", &[("x-user", user)]).await;
        assert_eq!(got.status, expected, "{user}");
        assert_eq!(got.header("x-ratelimit-limit"), Some("1, 5;w=3600, 1;w=3600"));
    }
    let got = client.get("/").await;
    assert_eq!(shown(&got), [Some("5, 5;w=3600"), Some("1"), Some("3600")]);
    let asked: Vec<Vec<_>> = service
        .asked()
        .iter()
        .map(|asked| asked.descriptors.iter().map(named).collect())
        .collect();
    assert_eq!(
        asked[0],
        ["rule=all", "rule=user source=127.0.0.1 header:x-user=a"]
    );
    assert_eq!((asked.len(), &asked[3][..]), (4, &["rule=all".to_owned()][..]));
}

#[tokio::test]
async fn a_service_that_cannot_be_asked_lets_pass_unless_told_otherwise() {
    for (fail_closed, status) in [(false, 200), (true, 500)] {
        let limits = v1::GlobalRateLimit {
            fail_closed,
            ..limits(vec![limit("a", 0, vec![])])
        };
        // There is none.
        let (_proxy, _backend, port) = proxy(limits.clone(), None, vec![]).await;
        assert_eq!(Http::new(port).get("/").await.status, status);
        // It speaks another language.
        let other = Service {
            backend: Backend::echo("other").await,
            counts: Arc::default(),
        };
        let (_proxy, _backend, port) = proxy(limits.clone(), Some(&other), vec![]).await;
        assert_eq!(Http::new(port).get("/").await.status, status);
        assert_eq!(other.backend.hits(), 1);
        // It is too slow.
        let mute = Service {
            backend: Backend::start(|_| std::future::pending()).await,
            counts: Arc::default(),
        };
        let impatient = v1::GlobalRateLimit {
            timeout_ms: 50,
            ..limits
        };
        let (_proxy, _backend, port) = proxy(impatient, Some(&mute), vec![]).await;
        assert_eq!(Http::new(port).get("/").await.status, status);
    }
}

#[tokio::test]
async fn what_only_watches_is_counted_and_turns_nobody_away() {
    let service = Service::start().await;
    let watches = v1::RateLimitRule {
        shadow: true,
        ..limit("watches", 1, vec![])
    };
    let rules = vec![watches, limit("holds", 2, vec![])];
    let (_proxy, _backend, port) = proxy(limits(rules), Some(&service), vec![]).await;
    let client = Http::new(port);
    for (expected, left) in [(200, "1"), (200, "0"), (429, "0")] {
        let got = client.get("/").await;
        assert_eq!(got.status, expected);
        assert_eq!(shown(&got), [Some("2, 2;w=3600"), Some(left), Some("3600")]);
    }
    assert_eq!(service.count("rule=watches"), 3);
}

#[tokio::test]
async fn requests_and_responses_cost_what_rules_say() {
    let service = Service::start().await;
    let rules = vec![
        v1::RateLimitRule {
            cost: Some(0),
            response_cost: 10,
            ..limit("responses", 21, vec![])
        },
        v1::RateLimitRule {
            cost: Some(7),
            ..limit("requests", 1000, vec![])
        },
    ];
    let (_proxy, backend, port) = proxy(limits(rules), Some(&service), vec![]).await;
    let client = Http::new(port);
    for served in 1..=3 {
        assert_eq!(client.get("/").await.status, 200);
        let counted = || service.count("rule=responses") == served * 10;
        support::eventually("the response is counted", counted).await;
    }
    assert_eq!(client.get("/").await.status, 429);
    assert_eq!(backend.hits(), 3);
    assert_eq!(service.count("rule=requests"), 28);
    assert_eq!(service.asked().len(), 7);
    assert_eq!(service.asked()[1].descriptors.len(), 1);
}

#[tokio::test]
async fn clients_are_told_of_the_stricter_limit_once() {
    let service = Service::start().await;
    let local = limit("local", 2, vec![]);
    let (_proxy, _backend, port) =
        proxy(limits(vec![limit("a", 1, vec![])]), Some(&service), vec![local]).await;
    let client = Http::new(port);
    for (expected, limit) in [(200, "1, 1;w=3600"), (429, "1, 1;w=3600"), (429, "2")] {
        let got = client.get("/").await;
        assert_eq!(
            (got.status, got.header("x-ratelimit-limit")),
            (expected, Some(limit))
        );
        assert_eq!(got.headers.get_all("x-ratelimit-limit").iter().count(), 1);
    }
    // What is turned away here is not asked about.
    assert_eq!(service.asked().len(), 2);
}

#[tokio::test]
async fn metadata_says_what_things_cost() {
    let service = Service::start().await;
    let address = super::ext_proc::processor(metadata::usage).await;
    let policy = v1::Policy {
        external_processors: vec![v1::ExternalProcessor {
            writes_metadata: vec!["usage".into()],
            ..super::ext_proc::both(v1::external_processor::BodyMode::Unspecified)
        }],
        global_rate_limit: Some(limits(vec![v1::RateLimitRule {
            cost_from: metadata::key("usage", "cost"),
            response_cost_from: metadata::key("usage", "tokens"),
            limit_from: metadata::key("usage", "cost"),
            ..limit("a", 100, vec![])
        }])),
        ..Default::default()
    };
    let mut others = cfg::h2c("counts", &[service.backend.address]);
    others.extend(cfg::h2c("processor", &[address]));
    let (_proxy, _backend, port) = super::with_policy(policy, others).await;
    assert_eq!(Http::new(port).get("/").await.status, 200);
    support::eventually("the response is paid for", || service.asked().len() == 2).await;
    let asked: Vec<_> = service
        .asked()
        .iter()
        .map(|asked| {
            let descriptor = &asked.descriptors[0];
            let limit = descriptor.limit.unwrap().requests_per_unit;
            (limit, descriptor.hits_addend.unwrap().value)
        })
        .collect();
    assert_eq!(asked, [(3, 3), (3, 5)]);
}
