//! Retries and timeouts, by what the client and the backend see of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sluice_config::v1;

use super::support::backend::{Backend, describe, response};
use super::support::client::Http;
use super::support::{self, Proxy};
use super::{cfg, with_rule};

/// Fails so many times, then echoes.
async fn failing(times: usize, status: u16) -> Backend {
    let failures = Arc::new(AtomicUsize::new(0));
    Backend::start(move |request| {
        let fails = failures.fetch_add(1, Ordering::SeqCst) < times;
        async move {
            if fails {
                response(status, "failed")
            } else {
                describe("b", request).await
            }
        }
    })
    .await
}

fn retrying(attempts: u32, codes: &[u32]) -> v1::HttpRule {
    v1::HttpRule {
        retry: Some(v1::Retry {
            codes: codes.to_vec(),
            attempts,
            backoff_ms: 1,
            ..Default::default()
        }),
        ..cfg::rule("/", &["b"])
    }
}

#[tokio::test]
async fn statuses_are_retried() {
    let backend = failing(2, 503).await;
    let (_proxy, port) = with_rule(&[("b", &backend)], retrying(2, &[500, 503])).await;
    assert_eq!(Http::new(port).get("/").await.status, 200);
    assert_eq!(backend.hits(), 3);
}

#[tokio::test]
async fn attempts_are_bounded_and_the_last_answer_counts() {
    let backend = failing(usize::MAX, 503).await;
    let (_proxy, port) = with_rule(&[("b", &backend)], retrying(2, &[503])).await;
    let got = Http::new(port).get("/").await;
    assert_eq!((got.status, &got.body[..]), (503, &b"failed"[..]));
    assert_eq!(backend.hits(), 3);
}

#[tokio::test]
async fn other_statuses_are_not_retried() {
    let backend = failing(1, 502).await;
    let (_proxy, port) = with_rule(&[("b", &backend)], retrying(2, &[503])).await;
    assert_eq!(Http::new(port).get("/").await.status, 502);
    assert_eq!(backend.hits(), 1);
}

#[tokio::test]
async fn bodies_are_replayed_if_they_are_small() {
    let backend = Backend::start({
        let failures = Arc::new(AtomicUsize::new(0));
        move |request| {
            let fails = failures.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
            async move {
                let described = describe("b", request).await;
                if fails { response(503, "") } else { described }
            }
        }
    })
    .await;
    let (_proxy, port) = with_rule(&[("b", &backend)], retrying(1, &[503])).await;
    for client in [Http::new(port), Http::h2(port)] {
        let seen = client
            .send(client.request("POST", "/"), vec![b'x'; 30_000])
            .await
            .seen();
        assert_eq!(seen.body_len, 30_000);
    }
    assert_eq!(backend.hits(), 4);
    // Too large to be kept.
    let client = Http::new(port);
    assert_eq!(
        client
            .send(client.request("POST", "/"), vec![b'x'; 1_000_000])
            .await
            .status,
        503
    );
    assert_eq!(backend.hits(), 5);
}

/// An address that refuses connections.
fn refusing() -> std::net::SocketAddr {
    format!("127.0.0.1:{}", support::free_port()).parse().unwrap()
}

#[tokio::test]
async fn connection_errors() {
    let backend = Backend::echo("b").await;
    let port = support::free_port();
    let mut never = cfg::rule("/never", &["mixed"]);
    never.retry = Some(v1::Retry {
        attempts: 0,
        ..Default::default()
    });
    let mut often = cfg::rule("/often", &["mixed"]);
    often.retry = Some(v1::Retry {
        attempts: 5,
        backoff_ms: 1,
        ..Default::default()
    });
    let rules = vec![
        never,
        often,
        cfg::rule("/unsaid", &["mixed"]),
        cfg::rule("/dead", &["dead"]),
    ];
    let mut resources = cfg::backend("mixed", &[refusing(), backend.address]);
    resources.extend(cfg::backend("dead", &[refusing()]));
    resources.extend([cfg::http_listener("l", port), cfg::route("r", "l", rules)]);
    let _proxy = Proxy::start(resources).await;
    let client = Http::new(port);
    for _ in 0..30 {
        assert_eq!(client.get("/often").await.status, 200);
        assert_eq!(client.get("/unsaid").await.status, 200);
    }
    let got = client.get("/dead").await;
    assert_eq!(got.status, 503);
    assert!(got.body.ends_with(b"reset reason: connection failure"), "{got:?}");
}

#[tokio::test]
async fn request_timeouts() {
    let backend = Backend::start(|request| async move {
        if request.uri().path() == "/slow" {
            std::future::pending::<()>().await;
        }
        describe("b", request).await
    })
    .await;
    let rule = v1::HttpRule {
        request_timeout_ms: 200,
        ..cfg::rule("/", &["b"])
    };
    let (_proxy, port) = with_rule(&[("b", &backend)], rule).await;
    for client in [Http::new(port), Http::h2(port)] {
        assert_eq!(client.get("/fast").await.status, 200);
        let got = client.get("/slow").await;
        assert_eq!(
            (got.status, &got.body[..]),
            (504, &b"upstream request timeout"[..])
        );
    }
}

#[tokio::test]
async fn a_try_that_times_out_is_retried() {
    let tries = Arc::new(AtomicUsize::new(0));
    let backend = Backend::start({
        let tries = Arc::clone(&tries);
        move |request| {
            let hangs = tries.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                describe("b", request).await
            }
        }
    })
    .await;
    let rule = v1::HttpRule {
        backend_request_timeout_ms: 200,
        ..retrying(1, &[503])
    };
    let (_proxy, port) = with_rule(&[("b", &backend)], rule).await;
    assert_eq!(Http::new(port).get("/").await.status, 200);
    assert_eq!(backend.hits(), 2);
}

#[tokio::test]
async fn backend_request_timeouts() {
    let backend = Backend::start(|_| std::future::pending()).await;
    let rule = v1::HttpRule {
        backend_request_timeout_ms: 100,
        ..cfg::rule("/", &["b"])
    };
    let (_proxy, port) = with_rule(&[("b", &backend)], rule).await;
    assert_eq!(Http::new(port).get("/").await.status, 504);
    assert_eq!(backend.hits(), 1);
}

#[tokio::test]
async fn the_request_timeout_covers_all_tries() {
    let backend = Backend::start(|_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        response(503, "")
    })
    .await;
    let rule = v1::HttpRule {
        request_timeout_ms: 400,
        ..retrying(1000, &[503])
    };
    let (_proxy, port) = with_rule(&[("b", &backend)], rule).await;
    assert_eq!(Http::new(port).get("/").await.status, 504);
}

#[tokio::test]
async fn the_budget_bounds_retries() {
    let backend = failing(usize::MAX, 500).await;
    let port = support::free_port();
    let budget = v1::RetryBudget {
        percent: 0,
        interval_ms: 3_600_000,
        min_retries: 3,
        min_retries_interval_ms: 3_600_000,
    };
    let config = v1::Backend {
        retry_budget: Some(budget),
        ..Default::default()
    };
    let mut resources = cfg::backend_with("b", &[backend.address], config);
    resources.extend([
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![retrying(1, &[500])]),
    ]);
    let _proxy = Proxy::start(resources).await;
    let client = Http::new(port);
    // A retry's answer reaches the client as it is; that there is no retry is our own answer.
    for status in [500, 500, 500, 503, 503, 503, 503] {
        assert_eq!(client.get("/").await.status, status);
    }
    assert_eq!(backend.hits(), 10);
}

#[tokio::test]
async fn a_pooled_connection_that_the_backend_closed_is_replaced() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        // One response a connection, and then it is closed without a word.
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
        }
    });
    let port = support::free_port();
    let mut resources = cfg::backend("b", &[address]);
    resources.extend([
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ]);
    let _proxy = Proxy::start(resources).await;
    let client = Http::new(port);
    for _ in 0..200 {
        assert_eq!(client.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn a_backend_that_breaks_off_before_its_response() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::AsyncReadExt;
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
        }
    });
    let port = support::free_port();
    let mut resources = cfg::backend("b", &[address]);
    resources.extend([
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ]);
    let _proxy = Proxy::start(resources).await;
    let got = Http::new(port).get("/").await;
    assert_eq!(got.status, 503);
    assert!(
        got.body.ends_with(b"reset reason: connection termination"),
        "{got:?}"
    );
}

#[tokio::test]
async fn a_backend_that_speaks_something_else() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::AsyncWriteExt;
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n\r\n").await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    });
    let port = support::free_port();
    let mut resources = cfg::backend("b", &[address]);
    resources.extend([
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ]);
    let _proxy = Proxy::start(resources).await;
    assert_eq!(Http::new(port).get("/").await.status, 502);
}

/// Closes so many connections on which it has read a request, then answers.
async fn resetting(times: usize) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            if counted.fetch_add(1, Ordering::SeqCst) >= times {
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    .await;
                let _ = stream.read(&mut buffer).await;
            }
        }
    });
    (address, seen)
}

#[tokio::test]
async fn triggers_say_what_is_retried() {
    use v1::retry::Trigger;
    let rule = |triggers: &[Trigger], codes: &[u32]| {
        let mut rule = retrying(2, codes);
        rule.retry.as_mut().unwrap().triggers = triggers.iter().map(|trigger| *trigger as i32).collect();
        rule
    };
    for (status, triggers, codes, expected) in [
        (500, &[Trigger::Trigger5xx][..], &[][..], 200),
        (500, &[Trigger::GatewayError], &[], 500),
        (502, &[Trigger::GatewayError], &[], 200),
        (409, &[Trigger::Retriable4xx], &[], 200),
        (429, &[Trigger::Retriable4xx], &[], 429),
        (429, &[Trigger::ConnectFailure], &[429], 200),
    ] {
        let backend = failing(1, status).await;
        let (_proxy, port) = with_rule(&[("b", &backend)], rule(triggers, codes)).await;
        assert_eq!(
            Http::new(port).get("/").await.status,
            expected,
            "{status} {triggers:?}"
        );
    }
    // A request that is no more to be repeated than the rule says: POST.
    for (triggers, expected, tries) in [
        (&[Trigger::Reset][..], 200, 3),
        (&[Trigger::Trigger5xx], 200, 3),
        (&[Trigger::ConnectFailure, Trigger::ResetBeforeRequest], 503, 1),
    ] {
        let (address, seen) = resetting(2).await;
        let port = support::free_port();
        let mut resources = vec![
            cfg::http_listener("l", port),
            cfg::route("r", "l", vec![rule(triggers, &[])]),
        ];
        resources.extend(cfg::backend("b", &[address]));
        let _proxy = Proxy::start(resources).await;
        let got = Http::new(port).send_with("POST", "/", &[], "body").await;
        assert_eq!(
            (got.status, seen.load(Ordering::SeqCst)),
            (expected, tries),
            "{triggers:?}"
        );
    }
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_retried_if_the_rule_says_so() {
    use v1::retry::Trigger;
    for (triggers, expected, tries) in [
        (&[Trigger::Reset][..], 200, 2),
        (&[Trigger::ConnectFailure], 504, 1),
    ] {
        let slow = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&slow);
        let backend = Backend::start(move |request| {
            let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if first {
                    std::future::pending::<()>().await;
                }
                describe("b", request).await
            }
        })
        .await;
        let mut rule = retrying(2, &[]);
        let retry = rule.retry.as_mut().unwrap();
        retry.triggers = triggers.iter().map(|trigger| *trigger as i32).collect();
        retry.per_try_timeout_ms = 200;
        let (_proxy, port) = with_rule(&[("b", &backend)], rule).await;
        assert_eq!(Http::new(port).get("/").await.status, expected, "{triggers:?}");
        assert_eq!(slow.load(Ordering::SeqCst), tries);
    }
}

#[tokio::test]
async fn after_some_tries_the_fallback_is_turned_to() {
    let (first, second) = (failing(usize::MAX, 503).await, Backend::echo("second").await);
    let rule = |per_priority| {
        let mut rule = retrying(3, &[503]);
        rule.backends = vec![
            cfg::weighted("first", 1),
            v1::WeightedBackend {
                fallback: true,
                ..cfg::weighted("second", 1)
            },
        ];
        rule.retry.as_mut().unwrap().attempts_per_priority = per_priority;
        rule
    };
    let backends = [("first", &first), ("second", &second)];
    let (_proxy, port) = with_rule(&backends, rule(2)).await;
    assert_eq!(Http::new(port).get("/").await.seen().backend, "second");
    assert_eq!((first.hits(), second.hits()), (2, 1));
    // Without the bound, retries stay with the backends that are meant first.
    let (_proxy, port) = with_rule(&backends, rule(0)).await;
    assert_eq!(Http::new(port).get("/").await.status, 503);
    assert_eq!((first.hits(), second.hits()), (6, 1));
    // One that other filters would have to prepare the request for is not turned to.
    let naming = |value: &str| {
        let modifier = v1::HeaderModifier {
            set: vec![cfg::header("x-for", value)],
            ..Default::default()
        };
        vec![cfg::filter(v1::filter::Filter::RequestHeaders(modifier))]
    };
    let mut filtered = rule(2);
    filtered.backends[1].filters = naming("second");
    let (_proxy, port) = with_rule(&backends, filtered.clone()).await;
    assert_eq!(Http::new(port).get("/").await.status, 503);
    assert_eq!((first.hits(), second.hits()), (10, 1));
    // One that is prepared for in the same way is.
    filtered.backends[0].filters = naming("second");
    let (_proxy, port) = with_rule(&backends, filtered).await;
    let seen = Http::new(port).get("/").await.seen();
    assert_eq!((&*seen.backend, seen.header("x-for")), ("second", Some("second")));
    assert_eq!((first.hits(), second.hits()), (12, 2));
}
