//! What policies do to bodies and responses: overrides, compression, buffers, pace, bounds on streams.

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use sluice_config::v1;
use v1::compressor::Kind;
use v1::filter::Filter as F;
use v1::response_override::{Action, Source};

use super::support::backend::{Backend, response};
use super::support::client::{Http, Raw};
use super::{cfg, with_policy, with_rule};

fn range(first: u32, last: u32) -> v1::StatusRange {
    v1::StatusRange { first, last }
}

fn respond(status: u32, content_type: &str, body: Option<&str>) -> Action {
    Action::Response(v1::CustomResponse {
        status,
        content_type: content_type.into(),
        body: body.map(|body| body.as_bytes().into()),
        headers: Some(v1::HeaderModifier {
            set: vec![cfg::header("x-custom", "1")],
            ..Default::default()
        }),
    })
}

fn replace(statuses: &[v1::StatusRange], source: Source, action: Action) -> v1::ResponseOverride {
    v1::ResponseOverride {
        headers: Vec::new(),
        statuses: statuses.to_vec(),
        source: source.into(),
        action: Some(action),
    }
}

#[tokio::test]
async fn responses_are_overridden() {
    let backend = Backend::start(|request| async move {
        let status = request
            .uri()
            .path()
            .trim_start_matches('/')
            .parse()
            .unwrap_or(200);
        let mut answer = response(status, "from the backend");
        answer.headers_mut().insert("x-own", "1".parse().unwrap());
        if request.uri().query() == Some("mark") {
            answer.headers_mut().append("x-mark", "none".parse().unwrap());
            answer
                .headers_mut()
                .append("x-mark", "replace-1".parse().unwrap());
        }
        answer
    })
    .await;
    let mut rule = cfg::rule("/", &["b"]);
    let redirect = Action::Redirect(v1::Redirect {
        hostname: "login.example".into(),
        scheme: "https".into(),
        path: Some(cfg::replace_full("/login")),
        ..Default::default()
    });
    rule.policy = Some(v1::Policy {
        response_overrides: vec![
            replace(&[range(401, 401)], Source::Unspecified, redirect),
            replace(
                &[range(404, 404), range(500, 502)],
                Source::Backend,
                respond(0, "text/html", Some("%RESPONSE_CODE% %REQ(:path)%")),
            ),
            replace(&[range(503, 503)], Source::Local, respond(200, "", Some("sorry"))),
            replace(&[range(418, 418)], Source::Unspecified, respond(204, "", None)),
            v1::ResponseOverride {
                headers: vec![v1::ResponseHeader {
                    name: "x-mark".into(),
                    value: Some(v1::StringMatch {
                        kind: v1::string_match::Kind::Prefix.into(),
                        value: "replace-".into(),
                    }),
                }],
                ..replace(&[], Source::Backend, respond(299, "", Some("marked")))
            },
        ],
        ..Default::default()
    });
    let mut local = cfg::rule("/local", &["none"]);
    local.policy.clone_from(&rule.policy);
    let mut direct = cfg::rule("/direct", &[]);
    direct.policy.clone_from(&rule.policy);
    direct.filters = vec![cfg::filter(F::FixedResponse(v1::FixedResponse { status: 404 }))];
    let port = super::support::free_port();
    let mut resources = vec![
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![rule, local, direct]),
    ];
    resources.extend(cfg::backend("b", &[backend.address]));
    let _proxy = super::Proxy::start(resources).await;
    for client in [Http::new(port), Http::h2(port)] {
        let got = client.get("/404?x=1").await;
        assert_eq!((got.status, &*got.body), (404, &b"404 /404?x=1"[..]));
        assert_eq!(got.header("content-type"), Some("text/html"));
        assert_eq!((got.header("x-custom"), got.header("x-own")), (Some("1"), None));
        assert_eq!(client.get("/502").await.body, "502 /502");
        let got = client.get("/401?x=1").await;
        assert_eq!(
            (got.status, got.header("location")),
            (302, Some("https://login.example/login?x=1"))
        );
        let got = client.get("/418").await;
        assert_eq!((got.status, got.body.len()), (204, 0));
        for (path, status) in [("/200", 200), ("/503", 503), ("/499", 499)] {
            let got = client.get(path).await;
            assert_eq!(
                (got.status, &*got.body),
                (status, &b"from the backend"[..]),
                "{path}"
            );
        }
        let got = client.get("/200?mark").await;
        assert_eq!((got.status, &*got.body), (299, &b"marked"[..]));
        let got = client.get("/local").await;
        assert_eq!(
            (got.status, &*got.body),
            (200, &b"sorry"[..]),
            "made by the proxy itself"
        );
        assert_eq!(
            client.get("/direct").await.header("x-custom"),
            None,
            "only of backends"
        );
        let got = client.send_with("HEAD", "/404", &[], "").await;
        assert_eq!((got.status, got.body.len()), (404, 0));
    }
}

fn compressed(kinds: &[Kind]) -> v1::Policy {
    v1::Policy {
        compressors: kinds
            .iter()
            .map(|kind| v1::Compressor {
                kind: (*kind).into(),
                min_content_length: 100,
            })
            .collect(),
        ..Default::default()
    }
}

fn inflate(coding: Option<&str>, body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        Some("gzip") => flate2::read::GzDecoder::new(body)
            .read_to_end(&mut plain)
            .unwrap(),
        Some("br") => brotli::Decompressor::new(body, 4096)
            .read_to_end(&mut plain)
            .unwrap(),
        Some("zstd") => zstd::stream::read::Decoder::new(body)
            .unwrap()
            .read_to_end(&mut plain)
            .unwrap(),
        other => unreachable!("{other:?}"),
    };
    plain
}

#[tokio::test]
async fn responses_are_compressed() {
    let text = "all work and no play makes sluice a dull proxy\n".repeat(5000);
    let served = Bytes::from(text.clone());
    let backend = Backend::start(move |request| {
        let served = served.clone();
        async move {
            let mut answer = match request.uri().path() {
                "/small" => response(200, "small"),
                "/stream" => {
                    let frames: Vec<_> = served.chunks(1000).map(Bytes::copy_from_slice).collect();
                    let frames = frames.into_iter().map(|data| Ok(Frame::data(data)));
                    http::Response::new(StreamBody::new(futures::stream::iter(frames)).boxed())
                }
                _ => response(200, served),
            };
            let headers = answer.headers_mut();
            headers.insert("content-type", "text/plain; charset=utf-8".parse().unwrap());
            headers.insert("etag", "\"strong\"".parse().unwrap());
            answer
        }
    })
    .await;
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = Some(compressed(&[Kind::Brotli, Kind::Gzip, Kind::Zstd]));
    let (_proxy, port) = with_rule(&[("b", &backend)], rule).await;
    for client in [Http::new(port), Http::h2(port)] {
        for path in ["/", "/stream"] {
            for (accept, coding) in [("gzip", "gzip"), ("gzip, br", "br"), ("zstd, gzip;q=0.5", "zstd")] {
                let got = client.get_with(path, &[("accept-encoding", accept)]).await;
                assert_eq!(got.header("content-encoding"), Some(coding));
                assert_eq!(got.header("vary"), Some("Accept-Encoding"));
                assert_eq!((got.header("etag"), got.header("content-length")), (None, None));
                assert!(got.body.len() < text.len() / 10, "{accept}: {}", got.body.len());
                assert!(
                    inflate(got.header("content-encoding"), &got.body) == text.as_bytes(),
                    "{path} {accept}"
                );
            }
        }
        for (path, accept) in [
            ("/", "identity"),
            ("/", "deflate"),
            ("/small", "gzip"),
            ("/", "gzip;q=0"),
        ] {
            let got = client.get_with(path, &[("accept-encoding", accept)]).await;
            assert_eq!(got.header("content-encoding"), None, "{path} {accept}");
            assert_eq!(got.header("vary"), Some("Accept-Encoding"));
            assert_eq!(got.header("etag"), Some("\"strong\""));
        }
        // HEAD says what GET would, and no more.
        let got = client
            .send_with("HEAD", "/", &[("accept-encoding", "gzip")], "")
            .await;
        assert_eq!(
            (got.header("content-encoding"), got.body.len()),
            (Some("gzip"), 0)
        );
    }
    // The connection goes on.
    let mut raw = Raw::connect(port).await;
    for _ in 0..2 {
        raw.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
            .await;
        assert!(
            raw.head()
                .await
                .to_ascii_lowercase()
                .contains("transfer-encoding: chunked")
        );
        raw.read_until("\r\n0\r\n\r\n").await;
    }
}

#[tokio::test]
async fn a_slow_stream_is_not_held_back() {
    let (more, next) = tokio::sync::mpsc::channel::<()>(1);
    let next = std::sync::Arc::new(tokio::sync::Mutex::new(next));
    let backend = Backend::start(move |_| {
        let next = std::sync::Arc::clone(&next);
        async move {
            let frames = futures::stream::unfold((0, next), |(n, next)| async move {
                if n > 0 {
                    next.lock().await.recv().await?;
                }
                let frame = Ok(Frame::data(Bytes::from(format!("piece {n}\n"))));
                Some((frame, (n + 1, next)))
            });
            let mut answer = http::Response::new(StreamBody::new(Box::pin(frames)).boxed());
            answer
                .headers_mut()
                .insert("content-type", "text/plain".parse().unwrap());
            answer
        }
    })
    .await;
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = Some(compressed(&[Kind::Gzip]));
    let (_proxy, port) = with_rule(&[("b", &backend)], rule).await;
    let mut raw = Raw::connect(port).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
        .await;
    raw.head().await;
    let mut body = Vec::new();
    let mut inflated = flate2::write::GzDecoder::new(Vec::new());
    for n in 0..3 {
        let wanted = format!("piece {n}\n");
        // Chunks come until the piece can be read; the backend says no more before it is.
        while !inflated.get_ref().ends_with(wanted.as_bytes()) {
            let size = raw.read_until("\r\n").await;
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            body = raw.exactly(size + 2).await;
            body.truncate(size);
            std::io::Write::write_all(&mut inflated, &body).unwrap();
            std::io::Write::flush(&mut inflated).unwrap();
        }
        more.send(()).await.unwrap();
    }
    assert!(!body.is_empty());
}

#[tokio::test]
async fn request_bodies_are_buffered_and_bounded() {
    let policy = v1::Policy {
        request_buffer: Some(v1::RequestBuffer { limit: 1000 }),
        ..Default::default()
    };
    let (_proxy, backend, port) = with_policy(policy, vec![]).await;
    for client in [Http::new(port), Http::h2(port)] {
        let post = |length: usize| client.send(client.request("POST", "/"), vec![b'x'; length]);
        assert_eq!(post(1000).await.seen().body_len, 1000);
        assert_eq!(post(1001).await.status, 413);
        assert_eq!(post(500_000).await.status, 413);
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(backend.hits(), 4);
    // Nothing reaches the backend before all is there.
    let hits = backend.hits();
    let mut raw = Raw::connect(port).await;
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(backend.hits(), hits, "half a request has come");
    raw.send("0\r\n\r\n").await;
    assert!(raw.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_pace_of_bodies_is_limited() {
    let policy = |request, response| v1::Policy {
        bandwidth_limit: Some(v1::BandwidthLimit {
            request,
            response,
            trailer_prefix: None,
        }),
        ..Default::default()
    };
    let rate = Some(v1::bandwidth_limit::Rate {
        bytes: 100_000,
        per_ms: 200,
    });
    // A burst of 100 kB, and another 100 kB each 200 ms: the fourth comes after 400 ms at the soonest.
    let soonest = Duration::from_millis(350);
    let (_proxy, _backend, port) = with_policy(policy(rate, None), vec![]).await;
    let client = Http::new(port);
    let began = Instant::now();
    let seen = client
        .send(client.request("POST", "/"), vec![b'x'; 400_000])
        .await
        .seen();
    assert_eq!(seen.body_len, 400_000);
    assert!(began.elapsed() >= soonest, "{:?}", began.elapsed());

    let backend = Backend::start(|_| async { response(200, vec![b'y'; 400_000]) }).await;
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = Some(policy(None, rate));
    let (_proxy, port) = with_rule(&[("b", &backend)], rule).await;
    for client in [Http::new(port), Http::h2(port)] {
        let began = Instant::now();
        assert_eq!(client.get("/").await.body.len(), 400_000);
        assert!(began.elapsed() >= soonest, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn streams_are_bounded() {
    let backend = Backend::start(|request| async move {
        if request.uri().path() == "/silent" {
            std::future::pending::<()>().await;
        }
        let begun = futures::stream::once(async { Ok(Frame::data(Bytes::from_static(b"begun"))) });
        let frames = futures::StreamExt::chain(begun, futures::stream::pending());
        http::Response::new(StreamBody::new(Box::pin(frames)).boxed())
    })
    .await;
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = Some(v1::Policy {
        max_stream_duration_ms: 100,
        ..Default::default()
    });
    let mut idle = cfg::rule("/idle", &["b"]);
    idle.policy = Some(v1::Policy {
        stream_idle_timeout_ms: Some(100),
        ..Default::default()
    });
    let port = super::support::free_port();
    let mut resources = vec![
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![rule, idle]),
    ];
    resources.extend(cfg::backend("b", &[backend.address]));
    let _proxy = super::Proxy::start(resources).await;
    let got = Http::new(port).get("/silent").await;
    assert_eq!(
        (got.status, &*got.body),
        (408, &b"upstream max stream duration reached"[..])
    );
    for path in ["/", "/idle"] {
        let client = Http::new(port);
        let broken = client.try_send(client.request("GET", path), "").await;
        assert!(broken.is_err(), "{path} ended as if it were complete");
    }
}

#[tokio::test]
async fn upgrades_are_listed() {
    let policy = |protocols: &[&str]| v1::Policy {
        upgrades: Some(v1::HttpUpgrades {
            protocols: protocols.iter().map(ToString::to_string).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    for (listed, expected) in [
        (&["websocket"][..], 200),
        (&["spdy/3.1", "WebSocket"], 200),
        (&["spdy/3.1"], 403),
        (&[], 403),
    ] {
        let (_proxy, _backend, port) = with_policy(policy(listed), vec![]).await;
        let headers = [("connection", "upgrade"), ("upgrade", "websocket")];
        let got = Http::new(port).get_with("/", &headers).await;
        assert_eq!(got.status, expected, "{listed:?}");
        assert_eq!(Http::new(port).get("/").await.status, 200);
    }
}
