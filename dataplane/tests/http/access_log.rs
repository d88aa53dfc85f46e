//! One line a request.

use sluice_dataplane::telemetry::AccessLogTarget;

use super::cfg;
use super::support::backend::Backend;
use super::support::client::{Http, Raw};
use super::support::{self, Proxy};

#[tokio::test]
async fn lines() {
    let backend = Backend::echo("b").await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let port = support::free_port();
    let mut resources = cfg::backend("b", &[backend.address]);
    resources.extend(cfg::backend("empty", &[]));
    let rules = vec![cfg::rule("/ok", &["b"]), cfg::rule("/empty", &["empty"])];
    resources.extend([cfg::http_listener("l", port), cfg::route("r", "l", rules)]);
    let _proxy = Proxy::with_log(resources, AccessLogTarget::File(path.clone())).await;
    let client = Http::new(port);
    let got = client
        .send_with(
            "POST",
            "/ok?q=1",
            &[("host", "h.example"), ("user-agent", "test")],
            "12345",
        )
        .await;
    client.get("/empty").await;
    client.get("/nowhere").await;
    let mut raw = Raw::connect(port).await;
    raw.send("GET /ok HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    raw.rest().await;
    let read = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    support::eventually("four lines", || read().len() == 4).await;
    let lines = read();
    let ok = &lines[0];
    for (key, value) in [
        ("method", "POST"),
        ("x-envoy-origin-path", "/ok?q=1"),
        ("protocol", "HTTP/1.1"),
        ("response_flags", "-"),
        ("response_code_details", "via_upstream"),
        (":authority", "h.example"),
        ("user-agent", "test"),
        ("x-forwarded-for", "127.0.0.1"),
        ("upstream_cluster", "test/b:80"),
        ("route_name", "HTTPRoute/test/r"),
    ] {
        assert_eq!(ok[key], value, "{key}");
    }
    assert_eq!(ok["response_code"], 200);
    assert_eq!(ok["bytes_received"], 5);
    assert_eq!(ok["bytes_sent"], got.body.len());
    assert_eq!(ok["upstream_host"], backend.address.to_string());
    assert_eq!(ok["x-request-id"], got.seen().header("x-request-id").unwrap());
    let told: Vec<_> = lines[1..]
        .iter()
        .map(|l| (l["response_code"].clone(), l["response_flags"].clone()))
        .collect();
    assert_eq!(
        told,
        [
            (503.into(), "UH".into()),
            (404.into(), "NR".into()),
            (400.into(), "DPE".into())
        ]
    );
}
