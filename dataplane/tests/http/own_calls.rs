//! Calls of the proxy's own, made as their backends ask: several backends, tries, bounds, the choice of endpoints.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sluice_config::v1;
use v1::external_auth::Protocol;
use v1::filter::Filter as F;

use super::ext_proc::{self, nothing};
use super::jwt::{self, Issuer};
use super::support::Proxy;
use super::support::backend::{Backend, response};
use super::support::client::Http;
use super::{cfg, with_others, with_policy, with_rule};

/// Where nobody listens.
async fn nobody() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A rule whose requests an authorizer is asked about, at the backend `auth`.
fn asking(timeout_ms: u64) -> v1::HttpRule {
    let mut rule = cfg::rule("/", &["b"]);
    rule.filters = vec![cfg::filter(F::ExternalAuth(v1::ExternalAuth {
        protocol: Protocol::Http.into(),
        backend: "backend/auth".into(),
        timeout_ms,
        ..Default::default()
    }))];
    rule
}

fn own(own_calls: v1::OwnCalls) -> v1::Backend {
    v1::Backend {
        own_calls: Some(own_calls),
        ..Default::default()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the message's field is optional")]
fn retry(attempts: u32, codes: &[u32]) -> Option<v1::Retry> {
    Some(v1::Retry {
        attempts,
        codes: codes.to_vec(),
        backoff_ms: 1,
        ..Default::default()
    })
}

pub(super) async fn proxy(rule: v1::HttpRule, others: Vec<v1::Resource>) -> (Proxy, Backend, Http) {
    let (proxy, backend, port) = with_others(rule, others).await;
    (proxy, backend, Http::new(port))
}

#[tokio::test]
async fn one_of_several_is_asked_and_others_when_it_is_gone() {
    let (first, second) = (Backend::status(200).await, Backend::status(200).await);
    let mut fallback = cfg::weighted("second", 1);
    fallback.fallback = true;
    let members = vec![cfg::weighted("first", 1), cfg::weighted("never", 0), fallback];
    let mut resources = cfg::backend("first", &[first.address]);
    resources.extend(cfg::backend("second", &[second.address]));
    let group = own(v1::OwnCalls {
        members,
        ..Default::default()
    });
    resources.extend(cfg::backend_with("auth", &[], group));
    let (proxy, backend, http) = proxy(asking(0), resources).await;
    for _ in 0..4 {
        assert_eq!(http.get("/").await.status, 200);
    }
    assert_eq!((first.hits(), second.hits()), (4, 0));
    proxy.apply(vec![cfg::endpoints("first", &[])]);
    assert_eq!(http.get("/").await.status, 200);
    assert_eq!((first.hits(), second.hits(), backend.hits()), (4, 1, 5));
    proxy.apply(vec![cfg::endpoints("second", &[])]);
    assert_eq!(http.get("/").await.status, 403, "nobody is there to be asked");
}

#[tokio::test]
async fn it_is_asked_again_as_often_as_it_says() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let authorizer = Backend::start(move |_| {
        let nth = counted.fetch_add(1, Ordering::SeqCst);
        async move { response(if nth.is_multiple_of(3) { 200 } else { 503 }, "") }
    })
    .await;
    let to = |attempts| {
        let own_calls = v1::OwnCalls {
            retry: retry(attempts, &[503]),
            ..Default::default()
        };
        cfg::backend_with("auth", &[authorizer.address], own(own_calls))
    };
    let (proxy, _backend, http) = proxy(asking(0), to(2)).await;
    assert_eq!(http.get("/").await.status, 200, "at once");
    assert_eq!(http.get("/").await.status, 200, "after two retries");
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    proxy.apply(to(1));
    assert_eq!(http.get("/").await.status, 403);
    assert_eq!(asked.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn a_try_is_cut_and_another_one_follows() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let authorizer = Backend::start(move |_| {
        let nth = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            if nth == 0 {
                std::future::pending::<()>().await;
            }
            response(200, "")
        }
    })
    .await;
    let mut again = retry(1, &[]);
    if let Some(retry) = &mut again {
        retry.per_try_timeout_ms = 50;
    }
    let own_calls = v1::OwnCalls {
        retry: again,
        ..Default::default()
    };
    let to = cfg::backend_with("auth", &[authorizer.address], own(own_calls));
    let (_proxy, _backend, http) = proxy(asking(60_000), to).await;
    assert_eq!(http.get("/").await.status, 200);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    let authorizer = Backend::start(|_| async move {
        std::future::pending::<()>().await;
        response(200, "")
    })
    .await;
    let own_calls = v1::OwnCalls {
        idle_timeout_ms: 50,
        ..Default::default()
    };
    let to = cfg::backend_with("auth", &[authorizer.address], own(own_calls));
    // Were it not for the idle timeout this would take an hour.
    let (_proxy, _backend, http) = proxy(asking(3_600_000), to).await;
    assert_eq!(http.get("/").await.status, 403);
}

#[tokio::test]
async fn bounds_on_connections_hold() {
    let authorizer = Backend::status(200).await;
    let breaker = |most| {
        let config = v1::Backend {
            circuit_breaker: Some(v1::CircuitBreaker {
                max_parallel_requests: Some(most),
                ..Default::default()
            }),
            ..Default::default()
        };
        cfg::backend_with("auth", &[authorizer.address], config)
    };
    let (proxy, _backend, http) = proxy(asking(0), breaker(0)).await;
    assert_eq!((http.get("/").await.status, authorizer.hits()), (403, 0));
    proxy.apply(breaker(1));
    for _ in 0..3 {
        assert_eq!(http.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn endpoints_that_fail_are_left_out() {
    let (good, bad) = (Backend::status(200).await, Backend::status(500).await);
    let config = v1::Backend {
        load_balancer: Some(v1::LoadBalancer {
            policy: v1::load_balancer::Policy::RoundRobin.into(),
            ..Default::default()
        }),
        health_check: Some(v1::HealthCheck {
            passive: Some(v1::OutlierDetection {
                interval_ms: 1,
                base_ejection_ms: 3_600_000,
                consecutive_5xx: 2,
                max_ejection_percent: 100,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let to = cfg::backend_with("auth", &[good.address, bad.address], config);
    let (_proxy, _backend, http) = proxy(asking(0), to).await;
    let mut denied = 0;
    for _ in 0..20 {
        denied += usize::from(http.get("/").await.status == 403);
    }
    assert_eq!((denied, bad.hits()), (2, 2), "it is ejected for its second error");
}

#[tokio::test]
async fn questions_of_one_client_go_to_one_endpoint() {
    let (one, two) = (Backend::status(200).await, Backend::status(200).await);
    let config = v1::Backend {
        load_balancer: Some(v1::LoadBalancer {
            policy: v1::load_balancer::Policy::ConsistentHash.into(),
            consistent_hash: Some(v1::ConsistentHash {
                input: v1::consistent_hash::Input::SourceIp.into(),
                table_size: 101,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let to = cfg::backend_with("auth", &[one.address, two.address], config);
    let (_proxy, _backend, http) = proxy(asking(0), to).await;
    for _ in 0..16 {
        assert_eq!(http.get("/").await.status, 200);
    }
    let hits = [one.hits(), two.hits()];
    assert!(hits == [16, 0] || hits == [0, 16], "{hits:?}");
}

/// Keys whose place is the host of their URL, asked for again.
#[tokio::test]
async fn keys_are_fetched_from_the_host_that_is_named() {
    let issuer = Issuer::new("k");
    let keys = jwt::set(&[issuer.jwk()]);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let server = Backend::start(move |_| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        let keys = keys.clone();
        async move { response(if first { 503 } else { 200 }, keys) }
    })
    .await;
    let config = v1::Backend {
        dynamic: Some(v1::DynamicResolver {
            allow_local: true,
            ..Default::default()
        }),
        own_calls: Some(v1::OwnCalls {
            retry: retry(1, &[503]),
            ..Default::default()
        }),
        ..Default::default()
    };
    let policy = v1::Policy {
        jwt: Some(v1::Jwt {
            providers: vec![jwt::provider(v1::jwt_provider::Keys::Remote(v1::RemoteJwks {
                backend: "backend/keys".into(),
                host: server.address.to_string(),
                path: "/keys".into(),
                ..Default::default()
            }))],
            ..Default::default()
        }),
        ..Default::default()
    };
    let (_proxy, _backend, port) = with_policy(policy, cfg::backend_with("keys", &[], config)).await;
    let claims = serde_json::json!({
        "iss": "https://issuer.example", "aud": "api", "exp": jwt::now() + 600, "sub": "alice"
    });
    let bearer = format!("Bearer {}", issuer.sign(&claims));
    let got = Http::new(port).get_with("/", &[("authorization", &bearer)]).await;
    assert_eq!((got.status, asked.load(Ordering::SeqCst)), (200, 2));
}

#[tokio::test]
async fn a_processor_that_is_not_there_is_looked_for_elsewhere() {
    let there = ext_proc::processor(|_, answers| {
        answers.push(ext_proc::answer(
            sluice_dataplane::filter::ext_proc::proto::Answer::RequestHeaders(nothing()),
        ));
    })
    .await;
    let gone = nobody().await;
    // Both in turn, so that one of two requests comes to the one that is gone first.
    let config = |attempts| v1::Backend {
        protocol: v1::BackendProtocol::H2c.into(),
        load_balancer: Some(v1::LoadBalancer {
            policy: v1::load_balancer::Policy::RoundRobin.into(),
            ..Default::default()
        }),
        own_calls: Some(v1::OwnCalls {
            retry: retry(attempts, &[]),
            ..Default::default()
        }),
        ..Default::default()
    };
    let to = |attempts| cfg::backend_with("processor", &[gone, there], config(attempts));
    let policy = ext_proc::policy(vec![ext_proc::config(
        v1::external_processor::BodyMode::Unspecified,
    )]);
    let (_proxy, _backend, port) = with_policy(policy, to(1)).await;
    let http = Http::new(port);
    for _ in 0..4 {
        assert_eq!(http.get("/").await.status, 200);
    }
}

/// The tries of one priority are used up before the next one is turned to.
#[tokio::test]
async fn priorities_take_turns() {
    let (first, second) = (Backend::status(503).await, Backend::status(200).await);
    let mut fallback = cfg::weighted("second", 1);
    fallback.fallback = true;
    let mut again = retry(3, &[503]);
    if let Some(retry) = &mut again {
        retry.attempts_per_priority = 2;
    }
    let group = own(v1::OwnCalls {
        members: vec![cfg::weighted("first", 1), fallback],
        retry: again,
        ..Default::default()
    });
    let mut rule = asking(60_000);
    rule.request_timeout_ms = u64::try_from(Duration::from_mins(1).as_millis()).unwrap();
    let backend = Backend::echo("b").await;
    let (proxy, port) = with_rule(&[("b", &backend), ("first", &first), ("second", &second)], rule).await;
    proxy.apply(cfg::backend_with("auth", &[], group));
    assert_eq!(Http::new(port).get("/").await.status, 200);
    assert_eq!((first.hits(), second.hits()), (2, 1));
}
