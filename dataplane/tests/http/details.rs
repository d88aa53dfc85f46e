//! Metrics that there are only where the configuration asks for them.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use sluice_config::v1;
use sluice_dataplane::telemetry::AccessLogTarget;

use super::cfg;
use super::support::backend::{Backend, response};
use super::support::client::Http;
use super::support::{self, Proxy, eventually};

fn settings(metrics: v1::Metrics) -> v1::Resource {
    cfg::settings(v1::Settings {
        telemetry: Some(v1::Telemetry {
            metrics: Some(metrics),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// A route of one host to a backend, and one of all others.
async fn proxy(metrics: v1::Metrics, backend: &Backend, others: Vec<v1::Resource>) -> (Proxy, u16) {
    let port = support::free_port();
    let mut named = cfg::route("named", "l", vec![cfg::rule("/", &["b"])]);
    if let Some(v1::resource::Body::Route(route)) = &mut named.body {
        let names = vec!["*.example.com".to_owned()];
        route.attachments[0].hostnames.clone_from(&names);
        route.attachments[0].route_hostnames = names;
    }
    let mut resources = vec![
        settings(metrics),
        cfg::http_listener("l", port),
        named,
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ];
    resources.extend(cfg::h2c("b", &[backend.address]));
    resources.extend(others);
    (Proxy::with_log(resources, AccessLogTarget::Off).await, port)
}

/// Lines that begin so.
fn lines(proxy: &Proxy, begin: &str) -> Vec<String> {
    let text = proxy.dataplane.metrics().encode();
    let lines = text.lines().filter(|line| line.starts_with(begin));
    lines.map(str::to_owned).collect()
}

async fn grpc_backend() -> Backend {
    Backend::start(|request| async move {
        let unknown = request.uri().path().ends_with("Nothing");
        let _ = request.into_body().collect().await;
        let mut trailers = http::HeaderMap::new();
        let status = if unknown { "12" } else { "5" };
        trailers.insert("grpc-status", status.parse().unwrap());
        let body = Full::new(Bytes::from_static(b"12345678"));
        let body = body.with_trailers(async move { Some(Ok(trailers)) }).boxed();
        let mut answer = response(200, "").map(|_| body);
        answer.headers_mut().remove("content-length");
        answer
    })
    .await
}

#[tokio::test]
async fn hosts_endpoints_sizes_and_methods_are_counted_if_asked_for() {
    let backend = grpc_backend().await;
    let dead: std::net::SocketAddr = format!("127.0.0.1:{}", support::free_port()).parse().unwrap();
    let mut others = cfg::backend("dead", &[dead]);
    others.push(cfg::route("dead", "l", vec![cfg::rule("/dead", &["dead"])]));
    let all = v1::Metrics {
        hosts: true,
        endpoints: true,
        sizes: true,
        grpc: true,
        ..Default::default()
    };
    let (proxy, port) = proxy(all, &backend, others).await;
    let client = Http::h2(port);
    let grpc = [("content-type", "application/grpc+proto"), ("te", "trailers")];
    for path in ["/a.B/Get", "/a.B/Get", "/a.B/Nothing"] {
        let got = client.send_with("POST", path, &grpc, "body").await;
        assert_eq!(got.status, 200);
    }
    let got = Http::new(port)
        .get_with("/", &[("host", "shop.example.com")])
        .await;
    assert_eq!(got.status, 200);
    assert_eq!(Http::new(port).get("/dead").await.status, 503);
    eventually("all is counted", || {
        lines(&proxy, "sluice_host_requests_total").len() == 3
    })
    .await;
    let host = |host: &str, class: &str, count: u32| {
        format!(
            r#"sluice_host_requests_total{{listener="test/gateway/l",host="{host}",class="{class}"}} {count}"#
        )
    };
    assert_eq!(
        lines(&proxy, "sluice_host_requests_total"),
        [
            host("*", "2xx", 3),
            host("*", "5xx", 1),
            host("*.example.com", "2xx", 1)
        ]
    );
    let address = backend.address;
    assert_eq!(
        lines(&proxy, "sluice_endpoint_"),
        [
            format!(
                r#"sluice_endpoint_requests_total{{backend="test/b:80",endpoint="{address}",class="2xx"}} 4"#
            ),
            format!(
                r#"sluice_endpoint_requests_total{{backend="test/dead:80",endpoint="{dead}",class="none"}} 1"#
            ),
            format!(
                r#"sluice_endpoint_connect_failures_total{{backend="test/dead:80",endpoint="{dead}"}} 1"#
            ),
        ]
    );
    for (name, count, sum) in [("request_body", 4, 12), ("response_body", 4, 32)] {
        let begin = format!("sluice_backend_{name}_bytes_");
        assert_eq!(
            lines(&proxy, &format!("{begin}sum{{backend=\"test/b")),
            [format!(r#"{begin}sum{{backend="test/b:80"}} {sum}.0"#)]
        );
        assert_eq!(
            lines(&proxy, &format!("{begin}count{{backend=\"test/b")),
            [format!(r#"{begin}count{{backend="test/b:80"}} {count}"#)]
        );
    }
    for name in ["request_headers", "response_headers"] {
        let begin = format!("sluice_backend_{name}_bytes_count{{backend=\"test/b");
        let counted = lines(&proxy, &begin);
        assert!(counted.len() == 1 && counted[0].ends_with(" 4"), "{counted:?}");
    }
    let grpc = |method: &str, status: u32, count: u32| {
        let (service, method) = method.split_once('/').unwrap();
        format!(
            r#"sluice_grpc_requests_total{{backend="test/b:80",service="{service}",method="{method}",status="{status}"}} {count}"#
        )
    };
    assert_eq!(
        lines(&proxy, "sluice_grpc_requests_total"),
        [grpc("a.B/Get", 5, 2), grpc("other/other", 12, 1)]
    );
    // An endpoint that goes takes its metrics along.
    proxy.apply(vec![cfg::endpoints("dead", &[])]);
    eventually("the endpoint is gone", || {
        lines(&proxy, "sluice_endpoint_connect_failures_total").is_empty()
    })
    .await;
}

#[tokio::test]
async fn requests_to_backends_are_counted_under_the_name_of_their_rule() {
    let backend = grpc_backend().await;
    let port = support::free_port();
    let named = v1::HttpRule {
        backend_stat_name: "httproute/test/r/rule/0".into(),
        ..cfg::rule("/named", &["b"])
    };
    let mut resources = vec![
        settings(v1::Metrics {
            endpoints: true,
            ..Default::default()
        }),
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![named, cfg::rule("/", &["b"])]),
    ];
    resources.extend(cfg::h2c("b", &[backend.address]));
    let proxy = Proxy::with_log(resources, AccessLogTarget::Off).await;
    let client = Http::new(port);
    for path in ["/named", "/named", "/"] {
        assert_eq!(client.get(path).await.status, 200);
    }
    let of = |backend: &str, count: u32| {
        format!(r#"sluice_backend_requests_total{{backend="{backend}",class="2xx"}} {count}"#)
    };
    let expected = [of("httproute/test/r/rule/0", 2), of("test/b:80", 1)];
    eventually("all are counted", || {
        lines(&proxy, "sluice_backend_requests_total") == expected
    })
    .await;
    let endpoints = lines(&proxy, "sluice_endpoint_requests_total");
    assert!(
        endpoints[0].contains(r#"backend="httproute/test/r/rule/0""#) && endpoints[0].ends_with(" 2"),
        "{endpoints:?}"
    );
}

#[tokio::test]
async fn nothing_is_counted_that_is_not_asked_for_and_names_choose() {
    let backend = grpc_backend().await;
    let only = v1::Metrics {
        names: vec![v1::StringMatch {
            kind: v1::string_match::Kind::Regex.into(),
            value: "sluice_(route|host)_requests_total".into(),
        }],
        ..Default::default()
    };
    let (proxy, port) = proxy(v1::Metrics::default(), &backend, Vec::new()).await;
    let client = Http::h2(port);
    let grpc = [("content-type", "application/grpc")];
    client.send_with("POST", "/a.B/Get", &grpc, "body").await;
    eventually("it is counted", || {
        lines(&proxy, "sluice_route_requests_total").len() == 1
    })
    .await;
    for begin in [
        "sluice_host_",
        "sluice_endpoint_",
        "sluice_grpc_",
        "sluice_backend_request_body",
    ] {
        assert_eq!(lines(&proxy, begin), [""; 0], "{begin}");
    }
    proxy.apply(vec![settings(only)]);
    let text = proxy.dataplane.metrics().encode();
    let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(samples.len(), 1, "{samples:?}");
    assert!(samples[0].starts_with("sluice_route_requests_total{"));
}
