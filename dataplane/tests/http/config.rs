//! Configuration that changes while requests are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::support::backend::Backend;
use super::support::client::{Http, Raw};
use super::support::{self, Proxy};
use super::{cfg, simple};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_under_load_fail_no_request() {
    let (a, b) = (Backend::echo("a").await, Backend::echo("b").await);
    let port = support::free_port();
    let mut resources = cfg::backend("one", &[a.address]);
    resources.extend(cfg::backend("two", &[b.address]));
    resources.extend([
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["one"])]),
    ]);
    let proxy = Proxy::start(resources).await;
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..6)
        .map(|i| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                let client = if i % 2 == 0 {
                    Http::new(port)
                } else {
                    Http::h2(port)
                };
                while !stop.load(Ordering::Relaxed) {
                    let got = client
                        .try_send(client.request("GET", "/"), "")
                        .await
                        .expect("request failed");
                    assert_eq!(got.status, 200, "{got:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut other = support::free_port();
    for i in 0..40 {
        let target = if i % 2 == 0 { "two" } else { "one" };
        proxy.apply(vec![cfg::route("r", "l", vec![cfg::rule("/", &[target])])]);
        proxy.apply(vec![cfg::endpoints(
            "one",
            &[if i % 3 == 0 { b.address } else { a.address }],
        )]);
        proxy.apply(vec![cfg::http_listener("other", other)]);
        proxy.apply(vec![cfg::http_listener("l", port)]);
        proxy.remove(&["listener/other"]);
        other = support::free_port();
        let target = served.load(Ordering::Relaxed) + 20;
        support::eventually("requests are served", || {
            served.load(Ordering::Relaxed) >= target
                || clients.iter().any(tokio::task::JoinHandle::is_finished)
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(a.hits() > 0 && b.hits() > 0);
}

#[tokio::test]
async fn listeners_come_and_go_while_a_connection_stays() {
    let backend = Backend::echo("b").await;
    let (proxy, port) = simple(&backend).await;
    let mut raw = Raw::connect(port).await;
    let mut request = async |path: &str| {
        raw.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert!(raw.head().await.starts_with("HTTP/1.1 200"), "{path}");
    };
    request("/1").await;
    let second = support::free_port();
    proxy.apply(vec![
        cfg::http_listener("l2", second),
        cfg::route("r2", "l2", vec![cfg::rule("/", &["b"])]),
    ]);
    request("/2").await;
    let client = Http::new(second);
    support::eventually("the second listener is bound", || {
        std::net::TcpStream::connect(("127.0.0.1", second)).is_ok()
    })
    .await;
    assert_eq!(client.get("/").await.status, 200);
    proxy.remove(&["route/HTTPRoute/test/r2", "listener/l2"]);
    request("/3").await;
    support::eventually("the second listener is gone", || {
        std::net::TcpStream::connect(("127.0.0.1", second)).is_err()
    })
    .await;
    request("/4").await;
}

#[tokio::test]
async fn a_removed_route_is_not_found() {
    let backend = Backend::echo("b").await;
    let (proxy, port) = simple(&backend).await;
    let client = Http::new(port);
    assert_eq!(client.get("/").await.status, 200);
    proxy.remove(&["route/HTTPRoute/test/r"]);
    assert_eq!(client.get("/").await.status, 404);
}

#[tokio::test]
async fn draining_says_goodbye() {
    let backend = Backend::echo("b").await;
    let (proxy, port) = simple(&backend).await;
    let mut idle = Raw::connect(port).await;
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(idle.head().await.starts_with("HTTP/1.1 200"));
    let h2 = Http::h2(port);
    assert_eq!(h2.get("/").await.status, 200);
    proxy.dataplane.drain().await;
    // Neither is cut while a request is under way, and both have ended by now.
    idle.rest().await;
    assert!(!proxy.dataplane.is_ready());
    support::eventually("nothing listens any more", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
    })
    .await;
}
