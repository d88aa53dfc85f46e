//! What active health checks send, and what is written of them.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use sluice_config::v1;
use sluice_config::v1::active_health_check::{Check, Http as HttpCheck};

use super::cfg;
use super::support::backend::{Backend, response};
use super::support::{self, Proxy, eventually};

async fn proxy(backend: &Backend, active: v1::ActiveHealthCheck) -> Proxy {
    let port = support::free_port();
    let config = v1::Backend {
        health_check: Some(v1::HealthCheck {
            active: Some(v1::ActiveHealthCheck {
                timeout_ms: 5_000,
                interval_ms: 20,
                unhealthy_threshold: 2,
                healthy_threshold: 2,
                ..active
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut resources = cfg::backend_with("b", &[backend.address], config);
    resources.extend([
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ]);
    Proxy::start(resources).await
}

#[tokio::test]
async fn the_body_of_a_check_is_on_the_wire() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let backend = Backend::start(move |request| {
        let kept = Arc::clone(&kept);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let length = head.headers.get("content-length").cloned();
            kept.lock()
                .unwrap()
                .push((head.method, head.uri.to_string(), length, body));
            response(200, "")
        }
    })
    .await;
    let check = Check::Http(HttpCheck {
        path: "/healthz".into(),
        method: "POST".into(),
        request_body: br#"{"ask":1}"#.to_vec(),
        ..Default::default()
    });
    let _proxy = proxy(
        &backend,
        v1::ActiveHealthCheck {
            check: Some(check),
            ..Default::default()
        },
    )
    .await;
    eventually("it is checked twice", || seen.lock().unwrap().len() >= 2).await;
    for (method, uri, length, body) in seen.lock().unwrap().iter().take(2) {
        assert_eq!((method.as_str(), uri.as_str()), ("POST", "/healthz"));
        assert_eq!(
            (length.as_ref().unwrap(), &body[..]),
            (&http::HeaderValue::from(9), &br#"{"ask":1}"#[..])
        );
    }
}

#[tokio::test]
async fn outcomes_are_written_to_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checks");
    let status = Arc::new(AtomicU16::new(200));
    let answers = Arc::clone(&status);
    let backend = Backend::start(move |_| {
        let status = answers.load(Ordering::SeqCst);
        async move { response(status, "") }
    })
    .await;
    let check = Check::Http(HttpCheck {
        retriable_statuses: vec![500],
        ..Default::default()
    });
    let log = v1::HealthCheckLog {
        path: path.to_str().unwrap().into(),
        failure_starts: true,
        recoveries: true,
        ..Default::default()
    };
    let _proxy = proxy(
        &backend,
        v1::ActiveHealthCheck {
            check: Some(check),
            log: Some(log),
            ..Default::default()
        },
    )
    .await;
    let lines = || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.collect::<Vec<_>>()
    };
    let until = async |count: usize| {
        eventually("there is a line", || lines().len() >= count).await;
        // There is no further one before something changes.
        let hits = backend.hits();
        eventually("it is checked again", || backend.hits() >= hits + 3).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(lines().len(), count, "{:?}", lines());
    };
    until(1).await;
    status.store(500, Ordering::SeqCst);
    until(3).await;
    status.store(200, Ordering::SeqCst);
    until(5).await;
    let lines = lines();
    let first = &lines[0];
    assert_eq!(first["health_checker_type"], "HTTP");
    assert_eq!(first["cluster_name"], "test/b:80");
    assert_eq!(
        first["host"]["socket_address"]["port_value"],
        backend.address.port()
    );
    let events = [
        "successful_health_check_event",
        "health_check_failure_event",
        "eject_unhealthy_event",
        "successful_health_check_event",
        "add_healthy_event",
    ];
    for (line, event) in lines.iter().zip(events) {
        assert!(line[event].is_object(), "{event}: {line}");
    }
    assert_eq!(lines[1]["health_check_failure_event"]["failure_type"], "ACTIVE");
}

#[tokio::test]
async fn checks_without_a_log_are_written_where_the_proxy_says() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let log = |name: &str| v1::HealthCheckLog {
        path: path(name).to_str().unwrap().into(),
        ..Default::default()
    };
    let settings = |log| {
        cfg::settings(v1::Settings {
            telemetry: Some(v1::Telemetry {
                health_check_log: log,
                ..Default::default()
            }),
            ..Default::default()
        })
    };
    let text = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
    let backends = [Backend::status(200).await, Backend::status(200).await];
    let check = |log| v1::ActiveHealthCheck {
        check: Some(Check::Http(HttpCheck::default())),
        log,
        ..Default::default()
    };
    let usual = proxy(&backends[0], check(None)).await;
    let own = proxy(&backends[1], check(Some(log("own")))).await;
    own.apply(vec![settings(Some(log("other")))]);
    usual.apply(vec![settings(Some(log("usual")))]);
    eventually("lines in the usual place", || {
        text("usual").contains(r#""cluster_name":"test/b:80""#)
    })
    .await;
    eventually("lines in its own place", || !text("own").is_empty()).await;
    assert_eq!(text("other"), "", "checks with a log of their own");
    usual.apply(vec![settings(Some(log("moved")))]);
    eventually("lines in the new place", || !text("moved").is_empty()).await;
}
