//! Logs of tries: a line of each, beside those of requests.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluice_config::v1;
use sluice_dataplane::telemetry::AccessLogTarget;

use super::cfg;
use super::support::backend::{Backend, describe, response};
use super::support::client::Http;
use super::support::{self, Proxy, eventually};

fn log(path: &Path, tries: bool) -> v1::AccessLog {
    let operators = [
        "ACCESS_LOG_TYPE",
        "RESPONSE_CODE",
        "RESPONSE_FLAGS",
        "UPSTREAM_HOST",
        "UPSTREAM_REQUEST_ATTEMPT_COUNT",
        "PROTOCOL",
        "REQ(:PATH)",
        "BYTES_SENT",
        "BYTES_RECEIVED",
        "RESP(x-why)",
        "ROUTE_NAME",
    ];
    let text = operators.map(|operator| format!("%{operator}%")).join(" ");
    v1::AccessLog {
        format: Some(v1::LogFormat {
            text: Some(text),
            ..Default::default()
        }),
        sinks: vec![v1::LogSink {
            sink: Some(v1::log_sink::Sink::File(path.to_string_lossy().into_owned())),
        }],
        tries,
        ..Default::default()
    }
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn each_try_has_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let (tries, requests) = (dir.path().join("tries"), dir.path().join("requests"));
    let count = Arc::new(AtomicUsize::new(0));
    let backend = Backend::start(move |request| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                let mut answer = response(503, "failed");
                answer.headers_mut().insert("x-why", "first".parse().unwrap());
                answer
            } else {
                describe("b", request).await
            }
        }
    })
    .await;
    let dead = format!("127.0.0.1:{}", support::free_port()).parse().unwrap();
    let port = support::free_port();
    let rewritten = v1::HttpRule {
        retry: Some(v1::Retry {
            codes: vec![503],
            attempts: 2,
            backoff_ms: 1,
            ..Default::default()
        }),
        filters: vec![cfg::filter(v1::filter::Filter::UrlRewrite(v1::UrlRewrite {
            path: Some(cfg::replace_full("/new")),
            ..Default::default()
        }))],
        ..cfg::rule("/", &["b"])
    };
    let settings = v1::Settings {
        telemetry: Some(v1::Telemetry {
            access_logs: Some(v1::AccessLogs {
                logs: vec![log(&tries, true), log(&requests, false)],
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut resources = vec![
        cfg::settings(settings),
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/dead", &["dead"]), rewritten]),
    ];
    resources.extend(cfg::backend("b", &[backend.address]));
    resources.extend(cfg::backend("dead", &[dead]));
    let _proxy = Proxy::with_log(resources, AccessLogTarget::Off).await;
    let client = Http::new(port);
    let got = client.send(client.request("POST", "/old"), "body").await;
    assert_eq!(got.status, 200);
    assert_eq!(client.get("/dead").await.status, 503);
    eventually("three tries", || lines(&tries).len() >= 3).await;
    eventually("two requests", || lines(&requests).len() >= 2).await;
    let (address, length) = (backend.address, got.body.len());
    let name = "HTTPRoute/test/r";
    assert_eq!(
        lines(&tries),
        [
            format!("UpstreamEnd 503 - {address} 1 HTTP/1.1 /new 4 0 first {name}"),
            format!("UpstreamEnd 200 - {address} 2 HTTP/1.1 /new 4 {length} - {name}"),
            format!("UpstreamEnd 0 UF {dead} 1 - /dead 0 0 - {name}"),
        ]
    );
    let requests = lines(&requests);
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert!(
        requests[0].starts_with(&format!("DownstreamEnd 200 - {address} 2 HTTP/1.1 /old ")),
        "{requests:?}"
    );
}
