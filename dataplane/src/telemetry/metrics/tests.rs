//! What is counted is told.

use sluice_config::v1;
use v1::string_match::Kind;

use super::*;

#[test]
fn series_go_with_the_object() {
    let metrics = Metrics::default();
    let route = metrics.route("HTTPRoute/default/web");
    route.request(204, Duration::from_millis(3));
    assert!(
        metrics
            .encode()
            .contains(r#"sluice_route_requests_total{route="HTTPRoute/default/web",class="2xx"} 1"#)
    );
    drop(route);
    assert!(!metrics.encode().contains("default/web"));
}

#[test]
fn names_choose_what_is_told() {
    let only = |kind: v1::string_match::Kind, value: &str| {
        let config = v1::StringMatch {
            kind: kind.into(),
            value: value.into(),
        };
        vec![TextMatch::compile(&config).unwrap()]
    };
    let metrics = Metrics::default();
    let route = metrics.route("HTTPRoute/default/web");
    route.request(204, Duration::from_millis(3));
    metrics.tell_only(only(Kind::Exact, "sluice_route_requests_total"));
    let text = metrics.encode();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(samples.count(), 1, "{text}");
    assert!(text.ends_with("# EOF\n"));
    metrics.tell_only(only(Kind::Prefix, "sluice_config_"));
    let text = metrics.encode();
    assert!(text.contains("sluice_config_connected 0") && !text.contains("route"));
    metrics.tell_only(Vec::new());
    assert!(metrics.encode().contains("sluice_route_requests_total"));
}

#[test]
fn a_handle_is_shared_while_held() {
    let metrics = Metrics::default();
    let first = metrics.listener("default/gw/http");
    let guard = first.connection();
    drop(first);
    let second = metrics.listener("default/gw/http");
    second.received(7);
    let text = metrics.encode();
    assert!(
        text.contains(r#"sluice_listener_connections_active{listener="default/gw/http"} 1"#),
        "{text}"
    );
    assert!(
        text.contains(r#"sluice_listener_received_bytes_total{listener="default/gw/http"} 7"#),
        "{text}"
    );
    drop(guard);
    assert!(
        metrics
            .encode()
            .contains(r#"sluice_listener_connections_active{listener="default/gw/http"} 0"#)
    );
}

#[test]
fn backends_are_counted() {
    let metrics = Metrics::default();
    let backend = metrics.backend("default/echo:80");
    let active = backend.active();
    backend.connect_failure();
    backend.retry();
    backend.connected();
    backend.request(503, Duration::from_millis(30));
    let text = metrics.encode();
    for line in [
        r#"sluice_backend_active{backend="default/echo:80"} 1"#,
        r#"sluice_backend_connect_failures_total{backend="default/echo:80"} 1"#,
        r#"sluice_backend_retries_total{backend="default/echo:80"} 1"#,
        r#"sluice_backend_connections_total{backend="default/echo:80"} 1"#,
        r#"sluice_backend_requests_total{backend="default/echo:80",class="5xx"} 1"#,
        r#"sluice_backend_request_duration_seconds_bucket{le="0.05",backend="default/echo:80"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    drop(active);
    assert!(text.ends_with("# EOF\n"));
}
