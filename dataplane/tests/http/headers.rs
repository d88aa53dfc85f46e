//! What a backend learns of the client, and what it does not.

use sluice_config::v1;

use super::support::backend::{Backend, response};
use super::support::client::{Http, Raw};
use super::{cfg, simple};

#[tokio::test]
async fn forwarding_headers_at_the_edge() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    for client in [Http::new(port), Http::h2(port)] {
        let forged = [
            ("host", "www.example.com"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-request-id", "forged"),
            ("x-envoy-external-address", "1.1.1.1"),
            ("x-envoy-retry-on", "5xx"),
            ("x-envoy-original-path", "/forged"),
        ];
        let forged = if client.get("/").await.version == http::Version::HTTP_2 {
            &forged[1..]
        } else {
            &forged[..]
        };
        let seen = client.get_with("/a?b=c", forged).await.seen();
        assert_eq!(seen.uri, "/a?b=c");
        if forged.len() == 7 {
            assert_eq!(seen.header("host"), Some("www.example.com"));
        } else {
            assert_eq!(seen.header("host"), Some(&*format!("127.0.0.1:{port}")));
        }
        assert_eq!(seen.header("x-forwarded-for"), Some("1.2.3.4,127.0.0.1"));
        assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
        assert_eq!(seen.header("x-envoy-internal"), Some("true"));
        for absent in [
            "x-envoy-external-address",
            "x-envoy-retry-on",
            "x-envoy-original-path",
        ] {
            assert_eq!(seen.header(absent), None, "{absent}");
        }
        let id = seen.header("x-request-id").unwrap();
        assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 4);
    }
}

#[tokio::test]
async fn trusted_hops_are_configuration() {
    let backend = Backend::echo("b").await;
    let (proxy, port) = simple(&backend).await;
    proxy.apply(vec![cfg::settings(v1::Settings {
        xff_trusted_hops: 1,
        ..Default::default()
    })]);
    let client = Http::new(port);
    let headers = [
        ("x-forwarded-for", "9.9.9.9, 8.8.8.8"),
        ("x-request-id", "kept"),
        ("x-forwarded-proto", "https"),
    ];
    let seen = client.get_with("/", &headers).await.seen();
    assert_eq!(seen.header("x-envoy-external-address"), Some("8.8.8.8"));
    assert_eq!(seen.header("x-envoy-internal"), None);
    assert_eq!(seen.header("x-request-id"), Some("kept"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-for"), Some("9.9.9.9, 8.8.8.8,127.0.0.1"));
}

#[tokio::test]
async fn hop_by_hop_fields_stay_on_their_hop() {
    let backend = Backend::start(|request| async move {
        for absent in ["connection", "x-mine", "keep-alive", "proxy-connection"] {
            assert!(!request.headers().contains_key(absent), "{absent}");
        }
        assert_eq!(request.headers()["x-other"], "2");
        let mut response = response(200, "ok");
        let headers = response.headers_mut();
        headers.insert("keep-alive", "timeout=5".parse().unwrap());
        headers.insert("x-kept", "1".parse().unwrap());
        headers.insert("server", "backend".parse().unwrap());
        response
    })
    .await;
    let (_proxy, port) = simple(&backend).await;
    let mut raw = Raw::connect(port).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nX-Other: 2\r\n")
        .await;
    raw.send("Keep-Alive: timeout=1\r\nProxy-Connection: keep-alive\r\n\r\n")
        .await;
    let head = raw.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(!head.contains("timeout=5"), "{head}");
    assert!(
        head.contains("x-kept: 1") && head.contains("server: backend"),
        "{head}"
    );
    assert!(head.contains("date: "), "{head}");
}

#[tokio::test]
async fn a_host_is_required_and_kept() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    let mut raw = Raw::connect(port).await;
    raw.send("GET / HTTP/1.1\r\n\r\n").await;
    assert!(raw.head().await.starts_with("HTTP/1.1 400"));
    let mut raw = Raw::connect(port).await;
    raw.send("GET http://Abs.Example:81/x HTTP/1.1\r\nHost: Abs.Example:81\r\nConnection: close\r\n\r\n")
        .await;
    let all = raw.rest().await;
    assert!(all.contains(r#"["host","Abs.Example:81"]"#), "{all}");
    assert!(all.contains(r#""uri":"/x""#), "{all}");
}

#[tokio::test]
async fn paths_are_normalised() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    for (path, expected) in [
        ("/a//b", "/a/b"),
        ("/a/../b?q=//", "/b?q=//"),
        ("/a/%2e%2e/b", "/b"),
        ("/%61", "/%61"),
    ] {
        let mut raw = Raw::connect(port).await;
        raw.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ))
        .await;
        let all = raw.rest().await;
        assert!(all.contains(&format!(r#""uri":"{expected}""#)), "{path}: {all}");
    }
    let got = Http::new(port).get("/a%2Fb?c=%2F").await;
    assert_eq!((got.status, got.header("location")), (307, Some("/a/b?c=%2F")));
}
