//! Heads of requests and responses, as a listener wants them treated.

use sluice_config::v1;
use sluice_config::v1::client_headers::RequestId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::cfg;
use super::support::backend::Backend;
use super::support::client::{Http, Raw};
use super::support::{self, Proxy};

/// A proxy whose listener, for hosts with this name, has these settings.
async fn proxy(backend: std::net::SocketAddr, hostname: &str, client: v1::ClientSettings) -> (Proxy, u16) {
    let port = support::free_port();
    let mut resources = cfg::backend("b", &[backend]);
    let listener = v1::Listener {
        port: u32::from(port),
        bind_port: u32::from(port),
        protocol: v1::Protocol::Http.into(),
        hostname: hostname.into(),
        client: Some(client),
        ..Default::default()
    };
    let rules = vec![cfg::rule("/", &["b"])];
    resources.extend([cfg::listener("l", listener), cfg::route("r", "l", rules)]);
    (Proxy::start(resources).await, port)
}

fn headers(headers: v1::ClientHeaders) -> v1::ClientSettings {
    v1::ClientSettings {
        headers: Some(headers),
        ..Default::default()
    }
}

fn http1(http1: v1::ClientHttp1) -> v1::ClientSettings {
    v1::ClientSettings {
        http1: Some(http1),
        ..Default::default()
    }
}

#[tokio::test]
async fn the_dot_at_the_end_of_a_host_is_removed_where_it_is_asked_for() {
    let backend = Backend::echo("b").await;
    for strips in [true, false] {
        let settings = v1::ClientHeaders {
            strip_trailing_host_dot: strips,
            ..Default::default()
        };
        let (_proxy, port) = proxy(backend.address, "a.example", headers(settings)).await;
        for (host, bare) in [
            ("a.example.", "a.example"),
            ("a.example.:81", "a.example:81"),
            ("a.example:81", "a.example:81"),
        ] {
            let got = Http::new(port).get_with("/", &[("host", host)]).await;
            if strips || host == bare {
                assert_eq!(got.seen().header("host"), Some(bare));
            } else {
                assert_eq!(got.status, 404, "{host}");
            }
        }
    }
}

#[tokio::test]
async fn the_peer_is_not_appended_where_that_is_asked_for() {
    use v1::client_ip_detection::Source;
    let backend = Backend::echo("b").await;
    for (no_forwarded_for_append, given, expected) in [
        (true, "1.2.3.4, 5.6.7.8", Some("1.2.3.4, 5.6.7.8")),
        (true, "", None),
        (false, "1.2.3.4", Some("1.2.3.4,127.0.0.1")),
    ] {
        let settings = v1::ClientSettings {
            ip_detection: Some(v1::ClientIpDetection {
                source: Some(Source::TrustedHops(1)),
                no_forwarded_for_append,
            }),
            ..Default::default()
        };
        let (_proxy, port) = proxy(backend.address, "", settings).await;
        let fields = [("x-forwarded-for", given)];
        let fields = if given.is_empty() { &[] } else { &fields[..] };
        let seen = Http::new(port).get_with("/", fields).await.seen();
        assert_eq!(seen.header("x-forwarded-for"), expected);
    }
}

#[tokio::test]
async fn request_ids_are_kept_made_or_removed() {
    let backend = Backend::echo("b").await;
    for (mode, keeps, makes) in [
        (RequestId::PreserveOrGenerate, true, true),
        (RequestId::Preserve, true, false),
        (RequestId::Generate, false, true),
        (RequestId::Disable, false, false),
    ] {
        let settings = v1::ClientHeaders {
            request_id: mode.into(),
            ..Default::default()
        };
        let (_proxy, port) = proxy(backend.address, "", headers(settings)).await;
        let client = Http::new(port);
        let seen = client.get_with("/", &[("x-request-id", "mine")]).await.seen();
        let id = seen.header("x-request-id");
        assert_eq!(id == Some("mine"), keeps, "{mode:?}");
        assert_eq!(id.is_some(), keeps || makes, "{mode:?}");
        let seen = client.get("/").await.seen();
        assert_eq!(seen.header("x-request-id").is_some(), makes, "{mode:?}");
    }
}

#[tokio::test]
async fn upgrades_may_be_ignored() {
    let backend = Backend::echo("b").await;
    let settings = v1::ClientHttp1 {
        ignored_upgrades: vec![v1::StringMatch {
            kind: v1::string_match::Kind::Prefix.into(),
            value: "TLS/".into(),
        }],
        ..Default::default()
    };
    let (_proxy, port) = proxy(backend.address, "", http1(settings)).await;
    for (asked, expected) in [
        ("TLS/1.2", None),
        ("TLS/1.0, other, TLS/1.2", Some(r#"["upgrade","other"]"#)),
        ("other", Some(r#"["upgrade","other"]"#)),
    ] {
        let mut client = Raw::connect(port).await;
        let head = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\n";
        client.send(format!("{head}upgrade: {asked}\r\n\r\n")).await;
        let got = client.rest().await;
        assert!(got.starts_with("HTTP/1.1 200"), "{got}");
        assert_eq!(got.contains("upgrade\""), expected.is_some(), "{got}");
        assert!(expected.is_none_or(|expected| got.contains(expected)), "{got}");
    }
}

/// A backend that keeps what it is sent, and answers with names in its own spelling.
async fn raw_backend() -> (std::net::SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\nX-Answer: 1\r\nSet-Cookie: a=b\r\nset-COOKIE: c=d\r\nContent-Length: 2\r\n\r\nok";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut read = Vec::new();
                while stream.read_buf(&mut read).await.unwrap_or(0) > 0 {
                    if read.ends_with(b"0\r\n\r\n") {
                        let text = String::from_utf8(std::mem::take(&mut read)).unwrap();
                        sender.send(text).unwrap();
                        let _ = stream.write_all(ANSWER).await;
                    }
                }
            });
        }
    });
    (address, received)
}

#[tokio::test]
async fn names_keep_their_case_where_it_is_asked_for() {
    let (backend, mut received) = raw_backend().await;
    for spelled in [true, false] {
        let settings = v1::ClientHttp1 {
            preserve_header_case: spelled,
            ..Default::default()
        };
        let (_proxy, port) = proxy(backend, "", http1(settings)).await;
        let mut client = Raw::connect(port).await;
        let head = "POST /a HTTP/1.1\r\nHost: h\r\nX-CamelCase: 1\r\nx-Twice: 2\r\nX-TWICE: 3\r\n";
        // A second time on the same connections.
        for _ in 0..2 {
            let body = "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
            client.send(format!("{head}{body}")).await;
            let answer = client.head().await;
            client.exactly(2).await;
            let asked = received.recv().await.unwrap();
            let as_they_came = ["Host: h", "X-CamelCase: 1", "x-Twice: 2", "X-TWICE: 3"];
            let as_they_came = as_they_came.into_iter().chain(["Transfer-Encoding: chunked"]);
            for field in as_they_came {
                let (name, value) = field.split_once(": ").unwrap();
                let expected = if spelled {
                    name.to_owned()
                } else {
                    name.to_ascii_lowercase()
                };
                assert!(asked.contains(&format!("\r\n{expected}: {value}\r\n")), "{asked}");
            }
            // What did not come with the head is in lower case.
            assert!(asked.contains("\r\nx-forwarded-for: "), "{asked}");
            for (field, lower) in [
                ("X-Answer: 1", "x-answer: 1"),
                ("set-COOKIE: c=d", "set-cookie: c=d"),
                ("Content-Length: 2", "content-length: 2"),
            ] {
                let expected = if spelled { field } else { lower };
                assert!(answer.contains(&format!("\r\n{expected}\r\n")), "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn the_case_of_names_is_no_matter_over_http2() {
    let backend = Backend::echo("b").await;
    let settings = v1::ClientHttp1 {
        preserve_header_case: true,
        ..Default::default()
    };
    let (_proxy, port) = proxy(backend.address, "", http1(settings)).await;
    let got = Http::h2(port).get_with("/", &[("x-a", "1")]).await;
    assert_eq!(got.seen().header("x-a"), Some("1"));
}
