//! Load balancing, circuit breaking and health checks, as a backend asks for them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use sluice_config::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::cfg;
use super::support::backend::{Backend, describe, response};
use super::support::client::Http;
use super::support::{self, Proxy, eventually};

/// A proxy with one backend of these settings.
async fn proxy(addresses: &[SocketAddr], config: v1::Backend) -> (Proxy, u16) {
    with_retry(addresses, config, None).await
}

async fn with_retry(addresses: &[SocketAddr], config: v1::Backend, retry: Option<v1::Retry>) -> (Proxy, u16) {
    let port = support::free_port();
    let mut resources = cfg::backend_with("b", addresses, config);
    let rule = v1::HttpRule {
        retry,
        ..cfg::rule("/", &["b"])
    };
    resources.extend([cfg::http_listener("l", port), cfg::route("r", "l", vec![rule])]);
    (Proxy::start(resources).await, port)
}

fn balanced(policy: v1::load_balancer::Policy) -> v1::Backend {
    v1::Backend {
        load_balancer: Some(v1::LoadBalancer {
            policy: policy.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn hashed(hash: v1::ConsistentHash) -> v1::Backend {
    let mut config = balanced(v1::load_balancer::Policy::ConsistentHash);
    config.load_balancer.as_mut().unwrap().consistent_hash = Some(hash);
    config
}

async fn three() -> (Vec<Backend>, Vec<SocketAddr>) {
    let backends = vec![
        Backend::echo("a").await,
        Backend::echo("b").await,
        Backend::echo("c").await,
    ];
    let addresses = backends.iter().map(|b| b.address).collect();
    (backends, addresses)
}

#[tokio::test]
async fn in_turn() {
    let (backends, addresses) = three().await;
    let (_proxy, port) = proxy(&addresses, balanced(v1::load_balancer::Policy::RoundRobin)).await;
    let client = Http::new(port);
    for _ in 0..12 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(backends.iter().map(Backend::hits).collect::<Vec<_>>(), [4, 4, 4]);
}

#[tokio::test]
async fn by_header_and_query() {
    let (_backends, addresses) = three().await;
    let inputs = [
        (v1::consistent_hash::Input::Headers, "x-user"),
        (v1::consistent_hash::Input::QueryParams, "user"),
    ];
    for (input, name) in inputs {
        let config = hashed(v1::ConsistentHash {
            input: input.into(),
            names: vec![name.into()],
            ..Default::default()
        });
        let (proxy, port) = proxy(&addresses, config).await;
        let client = Http::new(port);
        let ask = async |user: usize| {
            let (path, user) = (format!("/?a=b&user={user}"), user.to_string());
            client.get_with(&path, &[("x-user", &user)]).await.seen().backend
        };
        let mut owners = BTreeMap::new();
        for user in 0..30 {
            let owner = ask(user).await;
            assert_eq!(ask(user).await, owner);
            owners.insert(user, owner);
        }
        assert_eq!(
            owners.values().collect::<std::collections::BTreeSet<_>>().len(),
            3
        );
        // When one goes, only its own users move.
        proxy.apply(vec![cfg::endpoints("b", &addresses[..2])]);
        let mut moved = 0;
        for (user, owner) in &owners {
            moved += usize::from(ask(*user).await != *owner && owner != "c");
        }
        assert!(moved <= 3, "{moved} of {owners:?}");
    }
}

#[tokio::test]
async fn by_source_address_and_cookie() {
    let (backends, addresses) = three().await;
    let (_proxy, port) = proxy(
        &addresses,
        hashed(v1::ConsistentHash {
            input: v1::consistent_hash::Input::SourceIp.into(),
            ..Default::default()
        }),
    )
    .await;
    for _ in 0..10 {
        assert_eq!(Http::new(port).get("/").await.status, 200);
    }
    let mut hits: Vec<_> = backends.iter().map(Backend::hits).collect();
    hits.sort_unstable();
    assert_eq!(hits, [0, 0, 10]);
    let (_proxy, port) = proxy(
        &addresses,
        hashed(v1::ConsistentHash {
            input: v1::consistent_hash::Input::Cookie.into(),
            cookie: Some(v1::HashCookie {
                name: "lb".into(),
                ttl_ms: Some(60_000),
                ..Default::default()
            }),
            ..Default::default()
        }),
    )
    .await;
    let client = Http::new(port);
    for _ in 0..5 {
        let first = client.get("/").await;
        let cookie = first.header("set-cookie").unwrap().to_owned();
        assert!(
            cookie.starts_with("lb=") && cookie.contains("Max-Age=60"),
            "{cookie}"
        );
        let pair = cookie.split(';').next().unwrap();
        let again = client.get_with("/", &[("cookie", pair)]).await;
        assert_eq!(again.header("set-cookie"), None);
        assert_eq!(again.seen().backend, first.seen().backend);
    }
}

/// A backend that answers only when it is told to.
async fn slow() -> (Backend, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let backend = Backend::start(move |request| {
        let wait = Arc::clone(&wait);
        async move {
            if request.uri().path() == "/slow" {
                wait.notified().await;
            }
            describe("slow", request).await
        }
    })
    .await;
    (backend, go)
}

fn breaker(limits: v1::CircuitBreaker) -> v1::Backend {
    v1::Backend {
        circuit_breaker: Some(limits),
        ..Default::default()
    }
}

#[tokio::test]
async fn requests_beyond_the_bound_are_refused() {
    let (backend, go) = slow().await;
    let limits = v1::CircuitBreaker {
        max_parallel_requests: Some(1),
        ..Default::default()
    };
    let (proxy, port) = proxy(&[backend.address], breaker(limits)).await;
    let held = tokio::spawn(async move { Http::new(port).get("/slow").await });
    eventually("the first is under way", || backend.hits() == 1).await;
    let refused = Http::new(port).get("/").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("x-envoy-overloaded"), Some("true"));
    assert_eq!(backend.hits(), 1);
    // An update of the backend does not forget what is under way.
    let mut limits = limits;
    limits.max_parallel_retries = Some(1);
    proxy.apply(cfg::backend_with("b", &[backend.address], breaker(limits)));
    assert_eq!(Http::new(port).get("/").await.status, 503);
    go.notify_one();
    assert_eq!(held.await.unwrap().status, 200);
    assert_eq!(Http::new(port).get("/").await.status, 200);
    let metrics = proxy.dataplane.metrics().encode();
    assert!(
        metrics.contains(r#"sluice_backend_overflows_total{backend="test/b:80"} 2"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn requests_wait_for_a_connection() {
    let (backend, go) = slow().await;
    let limits = v1::CircuitBreaker {
        max_connections: Some(1),
        max_pending_requests: Some(8),
        ..Default::default()
    };
    let (_proxy, port) = proxy(&[backend.address], breaker(limits)).await;
    let waiting: Vec<_> = (0..6)
        .map(|_| tokio::spawn(async move { Http::new(port).get("/slow").await.status }))
        .collect();
    eventually("the first is under way", || backend.hits() >= 1).await;
    for _ in 0..6 {
        go.notify_one();
        tokio::time::sleep(Duration::from_millis(20)).await;
        go.notify_waiters();
    }
    let mut answered = 0;
    for waiting in waiting {
        // Those that come too late for the bell are rung for again.
        let nudge = Arc::clone(&go);
        let bell = tokio::spawn(async move {
            loop {
                nudge.notify_waiters();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert_eq!(waiting.await.unwrap(), 200);
        bell.abort();
        answered += 1;
    }
    assert_eq!(answered, 6);
    // One a worker at most: each may always have one.
    assert!(backend.connections() <= 2, "{}", backend.connections());
}

#[tokio::test]
async fn requests_share_the_only_http2_connection() {
    let backend = Backend::echo("a").await;
    let config = v1::Backend {
        protocol: v1::BackendProtocol::H2c.into(),
        ..breaker(v1::CircuitBreaker {
            max_connections: Some(1),
            ..Default::default()
        })
    };
    let (_proxy, port) = proxy(&[backend.address], config).await;
    let asking: Vec<_> = (0..20)
        .map(|_| tokio::spawn(async move { Http::new(port).get("/").await.status }))
        .collect();
    for asking in asking {
        assert_eq!(asking.await.unwrap(), 200);
    }
    assert!(backend.connections() <= 2, "{}", backend.connections());
}

#[tokio::test]
async fn connections_end_after_their_requests() {
    let backend = Backend::echo("a").await;
    let limits = v1::CircuitBreaker {
        max_requests_per_connection: 1,
        ..Default::default()
    };
    let (_proxy, port) = proxy(&[backend.address], breaker(limits)).await;
    let client = Http::new(port);
    for _ in 0..4 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(backend.connections(), 4);
}

fn checked(check: v1::active_health_check::Check) -> v1::Backend {
    v1::Backend {
        health_check: Some(v1::HealthCheck {
            active: Some(v1::ActiveHealthCheck {
                timeout_ms: 2000,
                interval_ms: 20,
                unhealthy_threshold: 2,
                healthy_threshold: 1,
                check: Some(check),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A backend whose health is what the number says.
async fn ailing(name: &'static str) -> (Backend, Arc<AtomicU16>) {
    let health = Arc::new(AtomicU16::new(200));
    let status = Arc::clone(&health);
    let backend = Backend::start(move |request| {
        let status = status.load(Ordering::SeqCst);
        async move {
            match request.uri().path() {
                "/healthz" => response(status, "all is well"),
                _ => describe(name, request).await,
            }
        }
    })
    .await;
    (backend, health)
}

#[tokio::test]
async fn an_endpoint_that_fails_its_checks_gets_nothing() {
    let ((a, a_health), (b, b_health)) = (ailing("a").await, ailing("b").await);
    let http = v1::active_health_check::Http {
        path: "/healthz".into(),
        expected_statuses: vec![200, 204],
        expected_response: b"is well".to_vec(),
        ..Default::default()
    };
    let config = checked(v1::active_health_check::Check::Http(http));
    let (proxy, port) = proxy(&[a.address, b.address], config).await;
    let healthy = |count: usize| {
        let metrics = proxy.dataplane.metrics().encode();
        metrics.contains(&format!(
            r#"sluice_backend_endpoints_healthy{{backend="test/b:80"}} {count}"#
        ))
    };
    eventually("both are healthy", || healthy(2)).await;
    a_health.store(500, Ordering::SeqCst);
    eventually("one is out", || healthy(1)).await;
    let client = Http::new(port);
    for _ in 0..10 {
        assert_eq!(client.get("/").await.seen().backend, "b");
    }
    b_health.store(503, Ordering::SeqCst);
    eventually("all are out", || healthy(0)).await;
    let refused = client.get("/").await;
    assert_eq!(
        (refused.status, &*refused.body),
        (503, &b"no healthy upstream"[..])
    );
    a_health.store(200, Ordering::SeqCst);
    eventually("one is back", || healthy(1)).await;
    assert_eq!(client.get("/").await.seen().backend, "a");
    // The checks end with the backend.
    proxy.remove(&["backend/b"]);
    let after = a.hits();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let later = a.hits();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(a.hits(), later, "after {after}");
}

#[tokio::test]
async fn checks_over_tcp_and_grpc() {
    let pong = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = pong.local_addr().unwrap();
    let answers = tokio::spawn(async move {
        while let Ok((mut stream, _)) = pong.accept().await {
            let mut ping = [0; 4];
            if stream.read_exact(&mut ping).await.is_ok() && &ping == b"PING" {
                let _ = stream.write_all(b"PONG").await;
            }
        }
    });
    let tcp = |receive: &[u8]| {
        checked(v1::active_health_check::Check::Tcp(
            v1::active_health_check::Tcp {
                send: b"PING".to_vec(),
                receive: receive.to_vec(),
            },
        ))
    };
    let (proxy, _) = proxy(&[address], tcp(b"PONG")).await;
    let healthy = |count: usize| {
        let metrics = proxy.dataplane.metrics().encode();
        metrics.contains(&format!(
            r#"sluice_backend_endpoints_healthy{{backend="test/b:80"}} {count}"#
        ))
    };
    eventually("it answers", || healthy(1)).await;
    proxy.apply(cfg::backend_with("b", &[address], tcp(b"PANG")));
    eventually("it answers something else", || healthy(0)).await;
    answers.abort();
    let serving = Arc::new(AtomicU16::new(1));
    let status = Arc::clone(&serving);
    let grpc = Backend::start(move |request| {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let status = u8::try_from(status.load(Ordering::SeqCst)).unwrap();
        async move {
            let mut answer = response(200, vec![0, 0, 0, 0, 2, 8, status]);
            answer.headers_mut().insert("grpc-status", "0".parse().unwrap());
            answer
        }
    })
    .await;
    let check = v1::active_health_check::Check::Grpc(v1::active_health_check::Grpc {
        service: "shop".into(),
        ..Default::default()
    });
    proxy.apply(cfg::backend_with("b", &[grpc.address], checked(check)));
    eventually("it serves", || healthy(1) && grpc.hits() > 0).await;
    serving.store(2, Ordering::SeqCst);
    eventually("it does not serve", || healthy(0)).await;
}

#[tokio::test]
async fn an_outlier_is_taken_out() {
    let (bad, good) = (Backend::status(500).await, Backend::echo("good").await);
    let mut config = balanced(v1::load_balancer::Policy::RoundRobin);
    config.health_check = Some(v1::HealthCheck {
        passive: Some(v1::OutlierDetection {
            interval_ms: 60_000,
            base_ejection_ms: 3_600_000,
            consecutive_5xx: 3,
            max_ejection_percent: 50,
            ..Default::default()
        }),
        ..Default::default()
    });
    let (_proxy, port) = proxy(&[bad.address, good.address], config).await;
    let client = Http::new(port);
    for _ in 0..40 {
        client.get("/").await;
    }
    assert_eq!(bad.hits(), 3);
    assert_eq!(good.hits(), 37);
}

#[tokio::test]
async fn retries_are_bounded_too() {
    let backend = Backend::status(503).await;
    let retry = v1::Retry {
        codes: vec![503],
        attempts: 3,
        backoff_ms: 1,
        ..Default::default()
    };
    let limits = v1::CircuitBreaker {
        max_parallel_retries: Some(0),
        ..Default::default()
    };
    let (_proxy, port) = with_retry(&[backend.address], breaker(limits), Some(retry)).await;
    let got = Http::new(port).get("/").await;
    // What the backend said is what the client gets.
    assert_eq!((got.status, got.header("x-envoy-overloaded")), (503, None));
    assert_eq!(backend.hits(), 1);
}

#[tokio::test]
async fn requests_fall_back() {
    let ((first, health), spare) = (ailing("first").await, Backend::echo("spare").await);
    let port = support::free_port();
    let http = v1::active_health_check::Http {
        path: "/healthz".into(),
        ..Default::default()
    };
    let config = checked(v1::active_health_check::Check::Http(http));
    let mut resources = cfg::backend_with("first", &[first.address], config);
    resources.extend(cfg::backend("spare", &[spare.address]));
    let mut rule = cfg::rule("/", &["first", "spare"]);
    rule.backends[1].fallback = true;
    resources.extend([cfg::http_listener("l", port), cfg::route("r", "l", vec![rule])]);
    let proxy = Proxy::start(resources).await;
    let healthy = |count: usize| {
        let metrics = proxy.dataplane.metrics().encode();
        metrics.contains(&format!(
            r#"sluice_backend_endpoints_healthy{{backend="test/first:80"}} {count}"#
        ))
    };
    let client = Http::new(port);
    eventually("it is healthy", || healthy(1)).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.seen().backend, "first");
    }
    health.store(500, Ordering::SeqCst);
    eventually("it is not", || healthy(0)).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.seen().backend, "spare");
    }
    // Without anything to fall back to, things are as they are.
    proxy.apply(vec![cfg::endpoints("spare", &[])]);
    assert_eq!(client.get("/").await.status, 503);
    // A backend without endpoints is as bad as one without healthy ones.
    proxy.apply(vec![
        cfg::endpoints("spare", &[spare.address]),
        cfg::endpoints("first", &[]),
    ]);
    assert_eq!(client.get("/").await.seen().backend, "spare");
}
