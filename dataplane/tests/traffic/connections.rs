//! Connections that are opened before they are needed.

use std::net::SocketAddr;
use std::sync::Arc;

use sluice_config::v1;
use tokio::sync::Notify;

use super::cfg;
use super::support::backend::{Backend, describe};
use super::support::client::Http;
use super::support::{self, Proxy, eventually};

/// Backends that answer `/slow` only when they are told to.
async fn backends() -> (Vec<Backend>, Vec<SocketAddr>, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let mut backends = Vec::new();
    for name in ["a", "b"] {
        let wait = Arc::clone(&go);
        let backend = Backend::start(move |request| {
            let wait = Arc::clone(&wait);
            async move {
                if request.uri().path() == "/slow" {
                    wait.notified().await;
                }
                describe(name, request).await
            }
        });
        backends.push(backend.await);
    }
    let addresses = backends.iter().map(|backend| backend.address).collect();
    (backends, addresses, go)
}

async fn proxy(addresses: &[SocketAddr], preconnect: v1::Preconnect, config: v1::Backend) -> (Proxy, u16) {
    let port = support::free_port();
    let config = v1::Backend {
        preconnect: Some(preconnect),
        ..config
    };
    let mut resources = cfg::backend_with("b", addresses, config);
    resources.extend([
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ]);
    (Proxy::start(resources).await, port)
}

#[tokio::test]
async fn to_the_endpoint_itself() {
    let (backends, addresses, go) = backends().await;
    let twice = v1::Preconnect {
        per_endpoint_percent: 200,
        ..Default::default()
    };
    let (_proxy, port) = proxy(&addresses[..1], twice, v1::Backend::default()).await;
    let client = Http::h2(port);
    let held = tokio::spawn({
        let client = client.clone();
        async move { client.get("/slow").await.status }
    });
    eventually("one request, two connections", || {
        (backends[0].hits(), backends[0].connections()) == (1, 2)
    })
    .await;
    // The next request finds a connection; more are opened for those after it.
    assert_eq!(client.get("/").await.seen().backend, "a");
    eventually("there are some ahead of two", || backends[0].connections() >= 3).await;
    go.notify_one();
    assert_eq!(held.await.unwrap(), 200);
}

#[tokio::test]
async fn within_the_bounds_of_the_backend() {
    let (backends, addresses, go) = backends().await;
    let config = v1::Backend {
        circuit_breaker: Some(v1::CircuitBreaker {
            max_connections_per_endpoint: Some(1),
            ..Default::default()
        }),
        ..Default::default()
    };
    let thrice = v1::Preconnect {
        per_endpoint_percent: 300,
        ..Default::default()
    };
    let (_proxy, port) = proxy(&addresses[..1], thrice, config).await;
    let held = tokio::spawn(async move { Http::new(port).get("/slow").await.status });
    eventually("it is under way", || backends[0].hits() == 1).await;
    assert_eq!(backends[0].connections(), 1);
    go.notify_one();
    assert_eq!(held.await.unwrap(), 200);
}

#[tokio::test]
async fn to_the_endpoint_that_comes_next() {
    for policy in [
        v1::load_balancer::Policy::RoundRobin,
        v1::load_balancer::Policy::Random,
    ] {
        let (backends, addresses, go) = backends().await;
        let twice = v1::Preconnect {
            predictive_percent: 200,
            ..Default::default()
        };
        let config = v1::Backend {
            load_balancer: Some(v1::LoadBalancer {
                policy: policy.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let (_proxy, port) = proxy(&addresses, twice, config).await;
        let client = Http::h2(port);
        let held = tokio::spawn({
            let client = client.clone();
            async move { client.get("/slow").await.status }
        });
        let connections = || backends.iter().map(Backend::connections).sum::<usize>();
        let hits = || backends.iter().map(Backend::hits).sum::<usize>();
        eventually("one request, two connections", || {
            (hits(), connections()) == (1, 2)
        })
        .await;
        let spare = backends
            .iter()
            .position(|backend| backend.connections() > backend.hits())
            .unwrap();
        let next = client.get("/").await.seen().backend;
        assert_eq!(next, ["a", "b"][spare], "the connection is of use");
        go.notify_one();
        assert_eq!(held.await.unwrap(), 200);
    }
}
