//! The admin server: health follows the dataplane, and nothing secret leaves through it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic"
)]

mod config_support;

use config_support::{
    Authority, apply, eventually, free_port, get, http_backend, http_route, listener_with, start,
};
use sluice_config::v1::Protocol;
use sluice_dataplane::admin::Admin;
use tokio::net::TcpListener;

#[tokio::test]
async fn health_metrics_and_dump() {
    let dataplane = start();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = server.local_addr().unwrap().port();
    tokio::spawn(Admin::new(dataplane.clone()).serve(server));
    assert_eq!(get(admin, "admin", "/healthz/live").await.0, 200);
    assert_eq!(get(admin, "admin", "/healthz/ready").await.0, 503);
    assert_eq!(get(admin, "admin", "/other").await.0, 404);

    let (authority, port) = (Authority::new(), free_port());
    let issued = authority.issue("a.test");
    let mut resources = vec![issued.secret("a", "1")];
    resources.extend(config_support::backend("b", http_backend("b").await));
    resources.push(http_route("r", "1", &["l"], "/", "b"));
    resources.push(listener_with(
        "l",
        "1",
        port,
        Protocol::Https,
        "",
        config_support::terminate(&["a"]),
    ));
    apply(&dataplane, resources, &[]);
    eventually("ready", || dataplane.is_ready()).await;
    assert_eq!(get(admin, "admin", "/healthz/ready").await.0, 200);

    let (status, metrics) = get(admin, "admin", "/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("sluice_config_resources 5\n"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));

    let (status, dump) = get(admin, "admin", "/config_dump").await;
    assert_eq!(status, 200);
    let parsed: serde_json::Value = serde_json::from_str(&dump).unwrap();
    assert_eq!(parsed.as_object().unwrap().len(), 5, "{dump}");
    assert!(!parsed["secret/a"].is_null());
    let line = issued.key.lines().nth(1).unwrap();
    let as_numbers = line
        .bytes()
        .take(8)
        .map(|byte| byte.to_string())
        .collect::<Vec<_>>();
    let compact: String = dump.chars().filter(|c| !c.is_whitespace()).collect();
    assert!(!dump.contains(line) && !compact.contains(&as_numbers.join(",")));

    dataplane.drain().await;
    assert_eq!(get(admin, "admin", "/healthz/ready").await.0, 503);
    assert_eq!(get(admin, "admin", "/healthz/live").await.0, 200);
}
