//! Requests and what becomes of them.

use http::HeaderMap;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use sluice_config::v1;
use sluice_dataplane::telemetry::AccessLogTarget;

use super::client::request;
use super::support;
use super::support::backend::{Backend, response};
use super::{HOST, Site, cfg, http3};

#[tokio::test]
async fn backends_are_asked_as_by_any_client() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let client = site.connect().await;
    let got = client.get("/a?b=c").await;
    assert_eq!(got.header("backend"), Some("b"));
    assert!(got.headers.contains_key("date"));
    let alt_svc = format!("h3=\":{}\"; ma=86400", site.port);
    assert_eq!(got.header("alt-svc"), Some(alt_svc.as_str()));
    let seen = got.seen();
    assert_eq!(
        (seen.method.as_str(), seen.version.as_str(), seen.uri.as_str()),
        ("GET", "HTTP/1.1", "/a?b=c")
    );
    for (name, value) in [
        ("host", HOST),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert!(seen.header("x-request-id").is_some());
    // A request without a body is none of unknown length.
    assert_eq!(seen.header("transfer-encoding"), None);
}

#[tokio::test]
async fn a_connection_serves_many_requests_at_once() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let client = site.connect().await;
    // More than may be under way at once.
    let requests = (0..250).map(|i| {
        let client = &client;
        async move {
            let got = client
                .send(request("POST", &format!("/{i}")), vec![b'x'; i])
                .await;
            let seen = got.unwrap().seen();
            assert_eq!((seen.uri, seen.body_len), (format!("/{i}"), i));
        }
    });
    futures::future::join_all(requests).await;
    assert_eq!(backend.hits(), 250);
}

#[tokio::test]
async fn hosts_and_paths_that_nobody_serves() {
    let backend = Backend::echo("b").await;
    let resources = cfg::backend("b", &[backend.address]);
    let site = Site::with(http3(), resources, cfg::rule("/here", &["b"])).await;
    let client = site.connect().await;
    assert_eq!(client.get("/here/it/is").await.status, 200);
    assert_eq!(client.get("/there").await.status, 404);
    let other = |uri: &str| http::Request::get(uri.to_owned());
    let got = client
        .send(other("https://other.example/here"), "")
        .await
        .unwrap();
    assert_eq!(got.status, 404);
    // A port does not matter; letters' case neither.
    for authority in ["www.example.com:443", "WWW.example.com"] {
        let got = client.send(other(&format!("https://{authority}/here")), "").await;
        assert_eq!(got.unwrap().status, 200, "{authority}");
    }
}

#[tokio::test]
async fn heads_without_bodies() {
    let backend = Backend::start(|request| async move {
        match request.uri().path() {
            "/none" => response(204, ""),
            "/same" => response(304, ""),
            _ => {
                let mut response = response(200, "hello");
                response.headers_mut().insert("content-length", 5.into());
                response
            }
        }
    })
    .await;
    let site = Site::start(&backend).await;
    let client = site.connect().await;
    for (method, path, status) in [("HEAD", "/", 200), ("GET", "/none", 204), ("GET", "/same", 304)] {
        let got = client.send(request(method, path), "").await.unwrap();
        assert_eq!((got.status, got.body.len()), (status, 0), "{method} {path}");
    }
    let got = client.send(request("HEAD", "/"), "").await.unwrap();
    assert_eq!(got.header("content-length"), Some("5"));
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let backend = Backend::start(|request| async move {
        let body = request.into_body().collect().await.unwrap();
        let mut trailers = body.trailers().cloned().unwrap_or_default();
        trailers.insert("grpc-status", 0.into());
        let frames = [Frame::data(body.to_bytes()), Frame::trailers(trailers)];
        let frames = futures::stream::iter(frames.map(Ok::<_, std::convert::Infallible>));
        http::Response::new(BodyExt::boxed(StreamBody::new(frames)))
    })
    .await;
    let resources = cfg::h2c("b", &[backend.address]);
    let site = Site::with(http3(), resources, cfg::rule("/", &["b"])).await;
    let client = site.connect().await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", 42.into());
    let request = request("POST", "/").header("te", "trailers");
    let got = client
        .send_all(request, "body".into(), Some(trailers))
        .await
        .unwrap();
    assert_eq!(&got.body[..], b"body");
    let trailers = got.trailers.unwrap();
    assert_eq!(
        (&trailers["x-sum"], &trailers["grpc-status"]),
        (&42.into(), &0.into())
    );
}

#[tokio::test]
async fn grpc() {
    let backend = Backend::start(|request| async move {
        assert_eq!(request.version(), http::Version::HTTP_2);
        assert_eq!(request.headers()["te"], "trailers");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", 0.into());
        let body =
            Full::new(bytes::Bytes::from("reply")).with_trailers(std::future::ready(Some(Ok(trailers))));
        let mut response = http::Response::new(BodyExt::boxed(body));
        let kind = "application/grpc".parse().unwrap();
        response.headers_mut().insert("content-type", kind);
        response
    })
    .await;
    let resources = cfg::h2c("b", &[backend.address]);
    let site = Site::with(http3(), resources, cfg::rule("/s.S", &["b"])).await;
    let client = site.connect().await;
    let call = |path: &str| {
        request("POST", path)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
    };
    let got = client.send(call("/s.S/M"), "message").await.unwrap();
    assert_eq!((got.status, &got.body[..]), (200, &b"reply"[..]));
    assert_eq!(got.trailers.unwrap()["grpc-status"], "0");
    // Errors are told as gRPC has them.
    let got = client.send(call("/t.T/M"), "message").await.unwrap();
    assert_eq!((got.status, got.header("grpc-status")), (200, Some("12")));
}

#[tokio::test]
async fn the_access_log_names_the_protocol() {
    let backend = Backend::echo("b").await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let log = AccessLogTarget::File(path.clone());
    let resources = cfg::backend("b", &[backend.address]);
    let site = Site::logging(log, http3(), resources, cfg::rule("/", &["b"])).await;
    let client = site.connect().await;
    let got = client.send(request("POST", "/x"), "12345").await.unwrap();
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    support::eventually("a line", || read().ends_with('\n')).await;
    let line: serde_json::Value = serde_json::from_str(&read()).unwrap();
    for (key, value) in [
        ("protocol", "HTTP/3"),
        ("method", "POST"),
        (":authority", HOST),
        ("response_flags", "-"),
        ("requested_server_name", HOST),
    ] {
        assert_eq!(line[key], value, "{key}");
    }
    assert_eq!(line["response_code"], 200);
    assert_eq!(line["bytes_received"], 5);
    assert_eq!(line["bytes_sent"], got.body.len());
    let address = line["downstream_remote_address"].as_str().unwrap();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_alone() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let client = site.connect().await;
    let with = |size: usize| request("GET", "/").header("x-large", "a".repeat(size));
    assert_eq!(client.send(with(40_000), "").await.unwrap().status, 200);
    // The client knows how large a head may be, and does not send one that is larger.
    assert!(client.send(with(70_000), "").await.is_err());
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(backend.hits(), 2);
}

#[tokio::test]
async fn headers_of_policies_are_changed() {
    let backend = Backend::echo("b").await;
    let client = v1::ClientSettings {
        headers: Some(v1::ClientHeaders {
            request_id: v1::client_headers::RequestId::Disable.into(),
            ..Default::default()
        }),
        ip_detection: Some(v1::ClientIpDetection {
            source: Some(v1::client_ip_detection::Source::TrustedHops(1)),
            ..Default::default()
        }),
        ..http3()
    };
    let resources = cfg::backend("b", &[backend.address]);
    let site = Site::with(client, resources, cfg::rule("/", &["b"])).await;
    let client = site.connect().await;
    let request = request("GET", "/").header("x-forwarded-for", "192.0.2.9");
    let seen = client.send(request, "").await.unwrap().seen();
    assert_eq!(seen.header("x-request-id"), None);
    assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.9,127.0.0.1"));
    assert_eq!(seen.header("x-envoy-external-address"), Some("192.0.2.9"));
}
