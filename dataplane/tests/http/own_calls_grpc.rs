//! What backends ask of calls by gRPC: of questions to authorizers, and of what collectors are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_config::v1;
use sluice_dataplane::filter::auth::proto;
use v1::external_auth::Protocol;
use v1::filter::Filter as F;
use v1::retry::Trigger;

use super::auth::answered;
use super::cfg;
use super::own_calls::proxy;
use super::support::backend::{Backend, Body, response};
use super::support::client::Http;
use super::support::{Proxy, eventually};
use super::telemetry::receiver;

/// Anything that takes longer never happens.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long what nothing bounds may take.
const FOREVER: u64 = 3_600_000;

/// What every request is allowed with, and telemetry taken with.
fn well() -> http::Response<Body> {
    answered(&proto::CheckResponse {
        status: Some(proto::Status::default()),
        ..Default::default()
    })
}

/// Status 14 of gRPC, in the head.
fn unavailable() -> http::Response<Body> {
    let mut response = response(200, "");
    let headers = response.headers_mut();
    headers.insert("content-type", "application/grpc".parse().unwrap());
    headers.insert("grpc-status", "14".parse().unwrap());
    response
}

/// A server that gives its answers in turn and the last one from then on; `None`: none ever.
async fn server(answers: &'static [fn() -> Option<http::Response<Body>>]) -> Backend {
    let calls = Arc::new(AtomicUsize::new(0));
    Backend::start(move |_| {
        let nth = calls.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        async move {
            match answers[nth]() {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    })
    .await
}

fn retry(attempts: u32, triggers: &[Trigger]) -> v1::Retry {
    v1::Retry {
        attempts,
        codes: vec![503],
        triggers: triggers.iter().map(|trigger| (*trigger).into()).collect(),
        backoff_ms: 1,
        ..Default::default()
    }
}

fn retrying(retry: v1::Retry) -> v1::Backend {
    v1::Backend {
        own_calls: Some(v1::OwnCalls {
            retry: Some(retry),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn bounded(most: u32) -> v1::Backend {
    v1::Backend {
        circuit_breaker: Some(v1::CircuitBreaker {
            max_parallel_requests: Some(most),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn impatient() -> v1::Backend {
    v1::Backend {
        own_calls: Some(v1::OwnCalls {
            idle_timeout_ms: 50,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// In turn, without those that fail.
fn careful(health: v1::HealthCheck) -> v1::Backend {
    v1::Backend {
        load_balancer: Some(v1::LoadBalancer {
            policy: v1::load_balancer::Policy::RoundRobin.into(),
            ..Default::default()
        }),
        health_check: Some(health),
        ..Default::default()
    }
}

fn ejecting() -> v1::HealthCheck {
    v1::HealthCheck {
        passive: Some(v1::OutlierDetection {
            interval_ms: 1,
            base_ejection_ms: FOREVER,
            consecutive_5xx: 1,
            max_ejection_percent: 100,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Asks of a backend by gRPC what `config` says.
fn grpc(name: &str, servers: &[&Backend], config: v1::Backend) -> Vec<v1::Resource> {
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let config = v1::Backend {
        protocol: v1::BackendProtocol::H2c.into(),
        ..config
    };
    cfg::backend_with(name, &addresses, config)
}

/// A proxy whose requests an authorizer is asked about by gRPC.
async fn asking(servers: &[&Backend], config: v1::Backend) -> (Proxy, Backend, Http) {
    let mut rule = cfg::rule("/", &["b"]);
    rule.filters = vec![cfg::filter(F::ExternalAuth(v1::ExternalAuth {
        protocol: Protocol::Grpc.into(),
        backend: "backend/auth".into(),
        timeout_ms: FOREVER,
        ..Default::default()
    }))];
    proxy(rule, grpc("auth", servers, config)).await
}

#[tokio::test]
async fn authorizers_are_asked_again() {
    let answers: &[fn() -> Option<_>] = &[
        || Some(unavailable()),
        || Some(response(503, "")),
        || Some(well()),
        || Some(unavailable()),
        || Some(unavailable()),
        || Some(well()),
    ];
    let authorizer = server(answers).await;
    let when = [Trigger::GrpcUnavailable];
    let (proxy, _backend, http) = asking(&[&authorizer], retrying(retry(2, &when))).await;
    assert_eq!((http.get("/").await.status, authorizer.hits()), (200, 3));
    proxy.apply(grpc("auth", &[&authorizer], retrying(retry(1, &when))));
    assert_eq!((http.get("/").await.status, authorizer.hits()), (403, 5));
    // What is not named is the last word.
    let again = server(&[|| Some(unavailable()), || Some(well())]).await;
    proxy.apply(grpc(
        "auth",
        &[&again],
        retrying(retry(2, &[Trigger::GrpcCancelled])),
    ));
    assert_eq!((http.get("/").await.status, again.hits()), (403, 1));
}

#[tokio::test]
async fn authorizers_that_say_nothing_are_not_waited_for() {
    let authorizer = server(&[|| None, || Some(well())]).await;
    let mut again = retry(1, &[]);
    again.per_try_timeout_ms = 50;
    let (_proxy, _backend, http) = asking(&[&authorizer], retrying(again)).await;
    assert_eq!((http.get("/").await.status, authorizer.hits()), (200, 2));
    let silent = server(&[|| None]).await;
    let (_proxy, _backend, http) = asking(&[&silent], impatient()).await;
    assert_eq!(http.get("/").await.status, 403);
}

#[tokio::test]
async fn authorizers_are_asked_so_much_at_once() {
    let authorizer = server(&[|| Some(well())]).await;
    let (proxy, _backend, http) = asking(&[&authorizer], bounded(0)).await;
    assert_eq!((http.get("/").await.status, authorizer.hits()), (403, 0));
    proxy.apply(grpc("auth", &[&authorizer], bounded(1)));
    assert_eq!(http.get("/").await.status, 200);
}

#[tokio::test]
async fn authorizers_that_fail_are_left_out() {
    let (good, bad) = (server(&[|| Some(well())]).await, Backend::status(503).await);
    let (_proxy, _backend, http) = asking(&[&good, &bad], careful(ejecting())).await;
    let mut denied = 0;
    for _ in 0..8 {
        denied += usize::from(http.get("/").await.status == 403);
    }
    assert_eq!((denied, bad.hits()), (1, 1));
}

/// Answers what it is asked about its health with this status, and denies everything else if that is an error.
async fn checked(health: u16) -> Backend {
    Backend::start(move |request| async move {
        match (request.uri().path(), health) {
            ("/healthz", _) => response(health, ""),
            (_, 200) => well(),
            _ => unavailable(),
        }
    })
    .await
}

#[tokio::test]
async fn authorizers_are_checked() {
    let (good, bad) = (checked(200).await, checked(503).await);
    let health = v1::HealthCheck {
        active: Some(v1::ActiveHealthCheck {
            timeout_ms: 5_000,
            interval_ms: 20,
            unhealthy_threshold: 1,
            healthy_threshold: 1,
            check: Some(v1::active_health_check::Check::Http(
                v1::active_health_check::Http {
                    path: "/healthz".into(),
                    method: "GET".into(),
                    ..Default::default()
                },
            )),
            ..Default::default()
        }),
        ..Default::default()
    };
    let (_proxy, _backend, http) = asking(&[&good, &bad], careful(health)).await;
    // They have turns: it is the check that leaves one of them out.
    let (begun, mut allowed) = (Instant::now(), 0);
    while allowed < 8 {
        allowed = if http.get("/").await.status == 200 {
            allowed + 1
        } else {
            0
        };
        assert!(begun.elapsed() < PATIENCE, "the check tells nothing");
    }
}

/// What collectors can be told by.
#[derive(Debug, Clone, Copy)]
enum Told {
    Spans,
    OtlpLogs,
    Als,
}

const TOLD: [Told; 3] = [Told::Spans, Told::OtlpLogs, Told::Als];

impl Told {
    fn settings(self) -> v1::Resource {
        let receiver = Some(v1::Receiver {
            timeout_ms: FOREVER,
            ..receiver()
        });
        let log = |sink| {
            Some(v1::AccessLogs {
                logs: vec![v1::AccessLog {
                    sinks: vec![v1::LogSink { sink: Some(sink) }],
                    ..Default::default()
                }],
            })
        };
        let mut telemetry = v1::Telemetry::default();
        match self {
            Self::Spans => {
                telemetry.tracing = Some(v1::Tracing {
                    provider: v1::tracing::Provider::OpenTelemetry.into(),
                    receiver,
                    ..Default::default()
                });
            }
            Self::OtlpLogs => {
                telemetry.access_logs = log(v1::log_sink::Sink::Otlp(v1::OtlpLogs {
                    receiver,
                    ..Default::default()
                }));
            }
            Self::Als => {
                telemetry.access_logs = log(v1::log_sink::Sink::Als(v1::AlsLogs {
                    receiver,
                    ..Default::default()
                }));
            }
        }
        cfg::settings(v1::Settings {
            telemetry: Some(telemetry),
            ..Default::default()
        })
    }

    /// A proxy that tells of its requests.
    async fn proxy(self, servers: &[&Backend], config: v1::Backend) -> (Proxy, Backend, Http) {
        let mut others = grpc("collector", servers, config);
        others.push(self.settings());
        proxy(cfg::rule("/", &["b"]), others).await
    }
}

/// How many entries a collector has taken.
fn taken(proxy: &Proxy) -> String {
    let metrics = proxy.dataplane.metrics().encode();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("sluice_telemetry_sent_total"));
    line.and_then(|line| line.split(' ').nth(1))
        .unwrap_or("0")
        .to_owned()
}

#[tokio::test]
async fn collectors_are_told_again() {
    for told in TOLD {
        let answers: &[fn() -> Option<_>] = &[
            || Some(response(503, "")),
            || Some(unavailable()),
            || Some(well()),
        ];
        let collector = server(answers).await;
        let again = retry(2, &[Trigger::GrpcUnavailable]);
        let (proxy, _backend, http) = told.proxy(&[&collector], retrying(again)).await;
        http.get("/").await;
        eventually("the entry is taken", || taken(&proxy) == "1").await;
        assert_eq!(collector.hits(), 3, "{told:?}");
    }
}

#[tokio::test]
async fn collectors_that_say_nothing_hold_up_nothing() {
    for told in TOLD {
        let collector = server(&[|| None, || Some(well())]).await;
        let (proxy, _backend, http) = told.proxy(&[&collector], impatient()).await;
        http.get("/").await;
        eventually("the first call", || collector.hits() == 1).await;
        http.get("/").await;
        eventually("the second entry is taken", || taken(&proxy) == "1").await;
        assert_eq!(collector.hits(), 2, "{told:?}");
    }
}

#[tokio::test]
async fn collectors_are_told_so_much_at_once() {
    for told in TOLD {
        let collector = server(&[|| Some(well())]).await;
        let (proxy, _backend, http) = told.proxy(&[&collector], bounded(0)).await;
        http.get("/").await;
        let refused = || {
            let metrics = proxy.dataplane.metrics().encode();
            let mut lines = metrics.lines();
            lines.any(|line| {
                line.contains("overflow") && line.contains("test/collector") && !line.ends_with(" 0")
            })
        };
        eventually("a call is refused", refused).await;
        assert_eq!(collector.hits(), 0, "{told:?}");
        proxy.apply(grpc("collector", &[&collector], bounded(1)));
        http.get("/").await;
        eventually("an entry is taken", || taken(&proxy) == "1").await;
    }
}

#[tokio::test]
async fn collectors_that_fail_are_left_out() {
    for told in TOLD {
        let (good, bad) = (server(&[|| Some(well())]).await, Backend::status(503).await);
        let (_proxy, _backend, http) = told.proxy(&[&good, &bad], careful(ejecting())).await;
        for nth in 1..=6 {
            http.get("/").await;
            eventually("the entry is told", || good.hits() + bad.hits() == nth).await;
        }
        assert_eq!(bad.hits(), 1, "{told:?}");
    }
}
