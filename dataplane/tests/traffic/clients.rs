//! What a listener says of its clients.

use sluice_config::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::cfg;
use super::support::backend::Backend;
use super::support::client::{Http, Raw};
use super::support::{self, Proxy, eventually};

/// A proxy whose listener has these settings, before this backend.
async fn proxy_with(backend: &Backend, client: v1::ClientSettings, rule: v1::HttpRule) -> (Proxy, u16) {
    let port = support::free_port();
    let mut resources = cfg::backend("b", &[backend.address]);
    let listener = v1::Listener {
        port: u32::from(port),
        bind_port: u32::from(port),
        protocol: v1::Protocol::Http.into(),
        client: Some(client),
        ..Default::default()
    };
    resources.extend([cfg::listener("l", listener), cfg::route("r", "l", vec![rule])]);
    (Proxy::start(resources).await, port)
}

async fn proxy(backend: &Backend, client: v1::ClientSettings) -> (Proxy, u16) {
    proxy_with(backend, client, cfg::rule("/", &["b"])).await
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

fn proxy_protocol(optional: bool) -> v1::ClientSettings {
    v1::ClientSettings {
        proxy_protocol: Some(v1::ClientProxyProtocol { optional }),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_proxy_header_says_the_clients_address() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = proxy(&backend, proxy_protocol(false)).await;
    let v1 = b"PROXY TCP4 192.0.2.7 192.0.2.8 1000 80\r\n".to_vec();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend_from_slice(&[192, 0, 2, 7, 192, 0, 2, 8, 3, 232, 0, 80]);
    for header in [v1, v2] {
        for cut in [0, 5, header.len()] {
            // In one piece with the request, and in two.
            let mut client = Raw::connect(port).await;
            client.send(&header[..cut]).await;
            tokio::task::yield_now().await;
            client.send([&header[cut..], GET.as_bytes()].concat()).await;
            let got = client.rest().await;
            assert!(got.starts_with("HTTP/1.1 200"), "{got}");
            assert!(got.contains(r#"["x-forwarded-for","192.0.2.7"]"#), "{got}");
        }
    }
    // Nothing but the header says who speaks: what has none is not served.
    for bad in [
        GET,
        "PROXY TCP4 nonsense\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.8 1000 99999\r\nGET",
    ] {
        let mut client = Raw::connect(port).await;
        client.send(bad).await;
        assert_eq!(client.rest().await, "", "{bad}");
    }
    assert_eq!(backend.hits(), 6);
}

#[tokio::test]
async fn a_proxy_header_may_be_optional() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = proxy(&backend, proxy_protocol(true)).await;
    for (header, address) in [
        ("PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", "2001:db8::1"),
        ("", "127.0.0.1"),
        ("PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        let mut client = Raw::connect(port).await;
        client.send(format!("{header}{GET}")).await;
        let got = client.rest().await;
        assert!(
            got.contains(&format!(r#"["x-forwarded-for","{address}"]"#)),
            "{got}"
        );
    }
    let mut client = Raw::connect(port).await;
    client.send(format!("PROXY TCP4 1 2 3 4\r\n{GET}")).await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn backends_are_told_with_a_proxy_header() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut heads) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut read = Vec::new();
                while stream.read_buf(&mut read).await.unwrap_or(0) > 0 {
                    if read.ends_with(b"\r\n\r\n") {
                        sender.send(std::mem::take(&mut read)).unwrap();
                        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                    }
                }
            });
        }
    });
    for version in [v1::ProxyProtocolVersion::V1, v1::ProxyProtocolVersion::V2] {
        let port = support::free_port();
        let config = v1::Backend {
            proxy_protocol: version.into(),
            ..Default::default()
        };
        let mut resources = cfg::backend_with("b", &[address], config);
        resources.extend([
            cfg::http_listener("l", port),
            cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
        ]);
        let _proxy = Proxy::start(resources).await;
        for _ in 0..2 {
            let mut client = Raw::connect(port).await;
            let source = client.0.local_addr().unwrap();
            let begin = match version {
                v1::ProxyProtocolVersion::V1 => {
                    format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {port}\r\nGET", source.port()).into_bytes()
                }
                _ => [
                    &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01"[..],
                    &source.port().to_be_bytes(),
                    &port.to_be_bytes(),
                    b"GET",
                ]
                .concat(),
            };
            for first in [true, false] {
                client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
                assert!(client.head().await.starts_with("HTTP/1.1 204"));
                let head = heads.recv().await.unwrap();
                // The next request of the same client goes over the same connection.
                let expected = if first { &begin[..] } else { b"GET" };
                assert!(head.starts_with(expected), "{}", head.escape_ascii());
            }
        }
    }
}

#[tokio::test]
async fn clients_addresses_are_found() {
    use v1::client_ip_detection::{CustomHeader, Networks, Source};
    let backend = Backend::echo("b").await;
    let detect = |source| v1::ClientSettings {
        ip_detection: Some(v1::ClientIpDetection {
            source: Some(source),
            ..Default::default()
        }),
        ..Default::default()
    };
    let ask = async |source, name: &str, value: &str| {
        let (_proxy, port) = proxy(&backend, detect(source)).await;
        Http::new(port).get_with("/", &[(name, value)]).await
    };
    let seen = async |source, name: &str, value: &str| {
        let seen = ask(source, name, value).await.seen();
        seen.header("x-envoy-external-address").map(ToOwned::to_owned)
    };
    let networks = |cidr: &str| {
        Source::TrustedNetworks(Networks {
            cidrs: vec![cidr.into()],
        })
    };
    let header = |fail_closed| {
        Source::Header(CustomHeader {
            name: "x-real".into(),
            fail_closed,
        })
    };
    let list = "192.0.2.3, 192.0.2.1,127.0.0.9";
    assert_eq!(
        seen(Source::TrustedHops(2), "x-forwarded-for", list)
            .await
            .as_deref(),
        Some("192.0.2.1")
    );
    assert_eq!(
        seen(networks("127.0.0.0/8"), "x-forwarded-for", list)
            .await
            .as_deref(),
        Some("192.0.2.1")
    );
    assert_eq!(seen(networks("10.0.0.0/8"), "x-forwarded-for", list).await, None);
    assert_eq!(
        seen(header(true), "x-real", "192.0.2.5").await.as_deref(),
        Some("192.0.2.5")
    );
    assert_eq!(seen(header(false), "x-real", "nonsense").await, None);
    assert_eq!(ask(header(true), "x-real", "nonsense").await.status, 403);
}

#[tokio::test]
async fn headers_are_treated_as_asked() {
    let backend = Backend::echo("b").await;
    let with = |headers: v1::ClientHeaders| v1::ClientSettings {
        headers: Some(headers),
        ..Default::default()
    };
    let modifier = |name: &str| v1::HeaderModifier {
        set: vec![cfg::header(name, "set")],
        remove: vec!["x-gone".into()],
        ..Default::default()
    };
    let headers = v1::ClientHeaders {
        underscores: v1::client_headers::Underscores::Drop.into(),
        request_id: v1::client_headers::RequestId::PreserveOrGenerate.into(),
        envoy_headers: true,
        early_request: Some(modifier("x-early")),
        late_response: Some(modifier("x-late")),
        ..Default::default()
    };
    let rule = v1::HttpRule {
        request_timeout_ms: 15_000,
        ..cfg::rule("/", &["b"])
    };
    let (_proxy, port) = proxy_with(&backend, with(headers), rule).await;
    let client = Http::new(port);
    let got = client
        .get_with("/", &[("a_b", "1"), ("x-request-id", "mine"), ("x-gone", "1")])
        .await;
    let seen = got.seen();
    assert_eq!((seen.header("a_b"), seen.header("x-gone")), (None, None));
    assert_eq!(seen.header("x-request-id"), Some("mine"));
    assert_eq!(seen.header("x-early"), Some("set"));
    assert_eq!(seen.header("x-envoy-expected-rq-timeout-ms"), Some("15000"));
    assert_eq!(got.header("x-late"), Some("set"));
    assert!(
        got.header("x-envoy-upstream-service-time")
            .unwrap()
            .parse::<u64>()
            .is_ok()
    );
    let headers = v1::ClientHeaders {
        underscores: v1::client_headers::Underscores::Reject.into(),
        request_id: v1::client_headers::RequestId::Preserve.into(),
        late_response: Some(modifier("x-late")),
        ..Default::default()
    };
    let (_proxy, port) = proxy(&backend, with(headers)).await;
    let client = Http::new(port);
    let refused = client.get_with("/", &[("a_b", "1")]).await;
    assert_eq!((refused.status, refused.header("x-late")), (400, Some("set")));
    assert_eq!(client.get("/").await.seen().header("x-request-id"), None);
}

#[tokio::test]
async fn paths_are_treated_as_asked() {
    use v1::client_path::EscapedSlashes as E;
    let backend = Backend::echo("b").await;
    let with = |slashes: E, keep_adjacent_slashes| v1::ClientSettings {
        path: Some(v1::ClientPath {
            escaped_slashes: slashes.into(),
            keep_adjacent_slashes,
        }),
        ..Default::default()
    };
    for (settings, status, uri) in [
        (with(E::Keep, false), 200, "/a%2Fb/c?d"),
        (with(E::Reject, false), 400, ""),
        (with(E::UnescapeAndForward, false), 200, "/a/b/c?d"),
        (with(E::UnescapeAndRedirect, false), 307, ""),
        (with(E::Keep, true), 200, "/a%2Fb//c?d"),
    ] {
        let (_proxy, port) = proxy(&backend, settings).await;
        let got = Http::new(port).get("/a%2Fb//c?d").await;
        assert_eq!(got.status, status);
        if status == 200 {
            assert_eq!(got.seen().uri, uri);
        }
    }
}

#[tokio::test]
async fn http10_is_served_where_it_is_asked_for() {
    let backend = Backend::echo("b").await;
    let http1 = |http10, host: &str| v1::ClientSettings {
        http1: Some(v1::ClientHttp1 {
            http10,
            http10_default_host: host.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    for (settings, expected) in [
        (http1(false, ""), "HTTP/1.1 426"),
        (http1(true, ""), "HTTP/1.1 400"),
        (http1(true, "default.example"), "HTTP/1.1 200"),
    ] {
        let (_proxy, port) = proxy(&backend, settings).await;
        let mut client = Raw::connect(port).await;
        client.send("GET / HTTP/1.0\r\n\r\n").await;
        let got = client.rest().await;
        assert!(got.starts_with(expected), "{got}");
        assert_eq!(got.contains("default.example"), expected.ends_with("200"));
    }
}

#[tokio::test]
async fn trailers_are_dropped_unless_asked_for() {
    let backend = Backend::echo("b").await;
    for trailers in [true, false] {
        let settings = v1::ClientSettings {
            http1: Some(v1::ClientHttp1 {
                trailers,
                ..Default::default()
            }),
            ..Default::default()
        };
        let (_proxy, port) = proxy(&backend, settings).await;
        let mut client = Raw::connect(port).await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
        client
            .send(format!("{head}1\r\nx\r\n0\r\nx-sum: 7\r\n\r\n"))
            .await;
        let got = client.rest().await;
        assert_eq!(got.contains(r#"["x-sum","7"]"#), trailers, "{got}");
    }
}

#[tokio::test]
async fn slow_requests_and_idle_connections_end() {
    let backend = Backend::echo("b").await;
    let settings = v1::ClientSettings {
        timeouts: Some(v1::ClientTimeouts {
            request_received_ms: Some(200),
            http_idle_ms: Some(200),
            ..Default::default()
        }),
        ..Default::default()
    };
    let (_proxy, port) = proxy(&backend, settings).await;
    let mut slow_body = Raw::connect(port).await;
    slow_body
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab")
        .await;
    let got = slow_body.rest().await;
    assert!(
        got.starts_with("HTTP/1.1 408") && got.contains("request timeout"),
        "{got}"
    );
    let mut slow_head = Raw::connect(port).await;
    slow_head.send("GET / HTTP/1.1\r\nhos").await;
    let got = slow_head.rest().await;
    assert!(got.starts_with("HTTP/1.1 408"), "{got}");
    let mut idle = Raw::connect(port).await;
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(idle.head().await.starts_with("HTTP/1.1 200"));
    // Nothing but the response, then the end.
    assert!(idle.rest().await.ends_with('}'));
}

#[tokio::test]
async fn connections_are_bounded() {
    let backend = Backend::echo("b").await;
    let settings = v1::ClientSettings {
        connections: Some(v1::ClientConnections {
            max_connections: 2,
            close_delay_ms: 10,
            max_requests_per_connection: 2,
            ..Default::default()
        }),
        ..Default::default()
    };
    let (proxy, port) = proxy(&backend, settings).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let (mut one, mut two) = (Raw::connect(port).await, Raw::connect(port).await);
    for client in [&mut one, &mut two] {
        client.send(request).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(Raw::connect(port).await.rest().await, "");
    // The second request on a connection is its last.
    one.send(request).await;
    let last = one.rest().await;
    assert!(last.contains("connection: close"), "{last}");
    drop(two);
    eventually("there is room again", || {
        let metrics = proxy.dataplane.metrics().encode();
        metrics.contains(r#"sluice_listener_connections_active{listener="test/gateway/l"} 0"#)
    })
    .await;
    assert_eq!(Http::new(port).get("/").await.status, 200);
}

#[tokio::test]
async fn health_is_answered_here() {
    let backend = Backend::status(500).await;
    let settings = v1::ClientSettings {
        health_check_path: "/healthz".into(),
        ..Default::default()
    };
    let (_proxy, port) = proxy(&backend, settings).await;
    assert_eq!(Http::new(port).get("/healthz").await.status, 200);
    assert_eq!(Http::h2(port).get("/healthz").await.status, 200);
    assert_eq!(backend.hits(), 0);
    assert_eq!(Http::new(port).get("/healthz/x").await.status, 500);
}

#[tokio::test]
async fn the_clients_version_is_kept() {
    let backend = Backend::echo("b").await;
    let port = support::free_port();
    let config = v1::Backend {
        use_client_protocol: true,
        protocol: v1::BackendProtocol::Http1.into(),
        ..Default::default()
    };
    let mut resources = cfg::backend_with("b", &[backend.address], config);
    resources.extend([
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ]);
    let _proxy = Proxy::start(resources).await;
    assert_eq!(Http::new(port).get("/").await.seen().version, "HTTP/1.1");
    assert_eq!(Http::h2(port).get("/").await.seen().version, "HTTP/2.0");
}

#[tokio::test]
async fn byte_streams_too() {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = support::free_port();
    let config = v1::Backend {
        proxy_protocol: v1::ProxyProtocolVersion::V1.into(),
        circuit_breaker: Some(v1::CircuitBreaker {
            max_connections: Some(0),
            ..Default::default()
        }),
        ..Default::default()
    };
    let address = backend.local_addr().unwrap();
    let listener = v1::Listener {
        port: u32::from(port),
        bind_port: u32::from(port),
        protocol: v1::Protocol::Tcp.into(),
        client: Some(v1::ClientSettings {
            timeouts: Some(v1::ClientTimeouts {
                tcp_idle_ms: Some(100),
                ..Default::default()
            }),
            ..proxy_protocol(false)
        }),
        ..Default::default()
    };
    let route = v1::Route {
        name: "TCPRoute/test/r".into(),
        attachments: vec![v1::Attachment {
            listener: "listener/l".into(),
            ..Default::default()
        }],
        rules: Some(v1::route::Rules::L4(v1::L4Rules {
            backends: vec![cfg::weighted("b", 1)],
            ..Default::default()
        })),
        ..Default::default()
    };
    let mut resources = cfg::backend_with("b", &[address], config.clone());
    resources.push(cfg::listener("l", listener));
    resources.push(v1::Resource {
        key: "route/TCPRoute/test/r".into(),
        body: Some(v1::resource::Body::Route(route)),
        ..Default::default()
    });
    let proxy = Proxy::start(resources).await;
    let begin = "PROXY TCP4 192.0.2.7 192.0.2.8 1000 80\r\n";
    // No connection may be made at all.
    let mut client = Raw::connect(port).await;
    client.send(begin).await;
    assert_eq!(client.rest().await, "");
    let open = v1::Backend {
        circuit_breaker: None,
        ..config
    };
    proxy.apply(cfg::backend_with("b", &[address], open));
    let mut client = Raw::connect(port).await;
    client.send(format!("{begin}hello")).await;
    let (mut stream, _) = backend.accept().await.unwrap();
    let expected = format!("{begin}hello");
    let mut read = vec![0; expected.len()];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), expected);
    // Then nothing moves, and the connection ends.
    assert_eq!(client.rest().await, "");
}
