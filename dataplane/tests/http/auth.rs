//! External authorization over HTTP and gRPC.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use prost::Message;
use sluice_config::v1;
use sluice_dataplane::filter::auth::proto;
use v1::context_extension::Source as ContextSource;
use v1::external_auth::Protocol;
use v1::filter::Filter as F;

use super::support::backend::{Backend, response};
use super::support::client::Http;
use super::{cfg, with_rule};

fn rule(config: v1::ExternalAuth) -> v1::HttpRule {
    let mut rule = cfg::rule("/", &["b"]);
    rule.filters = vec![cfg::filter(F::ExternalAuth(config))];
    rule
}

fn config(protocol: Protocol) -> v1::ExternalAuth {
    v1::ExternalAuth {
        protocol: protocol.into(),
        backend: "backend/auth".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn over_http() {
    let authorizer = Backend::start(|request| async move {
        assert_eq!(request.uri(), "/check/a?b=c");
        assert_eq!(request.headers()["content-length"], "0");
        assert!(!request.headers().contains_key("cookie"));
        assert_eq!(request.headers()["x-tenant"], "t");
        match request
            .headers()
            .get("authorization")
            .map(http::HeaderValue::as_bytes)
        {
            Some(b"good") => {
                let mut ok = response(200, "");
                ok.headers_mut().insert("x-user", "alice".parse().unwrap());
                ok
            }
            Some(b"broken") => response(500, "secret"),
            _ => {
                let mut denied = response(401, "who are you?");
                denied
                    .headers_mut()
                    .insert("www-authenticate", "Basic".parse().unwrap());
                denied
            }
        }
    })
    .await;
    let backend = Backend::echo("b").await;
    let config = v1::ExternalAuth {
        path: "/check".into(),
        allowed_request_headers: vec!["x-tenant".into()],
        ..config(Protocol::Http)
    };
    let (_proxy, port) = with_rule(&[("b", &backend), ("auth", &authorizer)], rule(config)).await;
    let client = Http::new(port);
    let ask = |value: &'static str| {
        [
            ("authorization", value),
            ("x-tenant", "t"),
            ("cookie", "c"),
            ("x-user", "forged"),
        ]
    };
    let seen = client.get_with("/a?b=c", &ask("good")).await.seen();
    assert_eq!(seen.header("x-user"), Some("alice"));
    assert_eq!(seen.uri, "/a?b=c");
    let got = client.get_with("/a?b=c", &ask("bad")).await;
    assert_eq!(
        (got.status, &got.body[..], got.header("www-authenticate")),
        (401, &b"who are you?"[..], Some("Basic"))
    );
    let got = client.get_with("/a?b=c", &ask("broken")).await;
    assert_eq!((got.status, got.body.len()), (403, 0));
    assert_eq!(backend.hits(), 1);
}

#[tokio::test]
async fn an_authorizer_that_is_away_denies() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = with_rule(&[("b", &backend)], rule(config(Protocol::Http))).await;
    assert_eq!(Http::new(port).get("/").await.status, 403);
    assert_eq!(backend.hits(), 0);
}

#[tokio::test]
async fn the_body_is_shown_up_to_its_limit() {
    let authorizer = Backend::start(|request| async move {
        let length = request.headers()["content-length"].clone();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(length, body.len().to_string());
        response(if body.ends_with(b"ok") { 200 } else { 403 }, "")
    })
    .await;
    let backend = Backend::echo("b").await;
    let config = v1::ExternalAuth {
        max_body_bytes: 1000,
        ..config(Protocol::Http)
    };
    let (_proxy, port) = with_rule(&[("b", &backend), ("auth", &authorizer)], rule(config)).await;
    for client in [Http::new(port), Http::h2(port)] {
        let post = |body: &str| client.send(client.request("POST", "/"), Bytes::from(body.to_owned()));
        assert_eq!(post("this is ok").await.seen().body_len, 10);
        assert_eq!(post("this is not").await.status, 403);
        assert_eq!(post(&"x".repeat(2000)).await.status, 413);
    }
    assert_eq!(backend.hits(), 2);
}

fn option(key: &str, value: &str) -> proto::HeaderValueOption {
    proto::HeaderValueOption {
        header: Some(proto::HeaderValue {
            key: key.into(),
            value: value.into(),
            raw_value: Vec::new(),
        }),
        append: None,
    }
}

/// What a gRPC call is answered with.
pub fn answered(answer: &impl Message) -> http::Response<super::support::backend::Body> {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(answer.encoded_len()).unwrap());
    answer.encode(&mut framed).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let frames = [Frame::data(framed.freeze()), Frame::trailers(trailers)];
    let body = StreamBody::new(futures::stream::iter(
        frames.map(Ok::<_, std::convert::Infallible>),
    ));
    http::Response::builder()
        .header("content-type", "application/grpc")
        .body(BodyExt::boxed(body))
        .unwrap()
}

#[tokio::test]
async fn over_grpc() {
    let authorizer = Backend::start(|request| async move {
        assert_eq!(request.uri().path(), proto::CHECK);
        assert_eq!(request.version(), http::Version::HTTP_2);
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let check = proto::CheckRequest::decode(&body[5..]).unwrap();
        let http = check.attributes.unwrap().request.unwrap().http.unwrap();
        assert_eq!(
            (http.method.as_str(), http.path.as_str(), http.scheme.as_str()),
            ("GET", "/a?b=c", "http")
        );
        let answer = if http.headers.get("x-token").is_some_and(|token| token == "good") {
            proto::CheckResponse {
                status: Some(proto::Status::default()),
                ok_response: Some(proto::OkHttpResponse {
                    headers: vec![option("x-user", "alice")],
                    headers_to_remove: vec!["x-token".into()],
                    response_headers_to_add: vec![option("x-checked", "1")],
                }),
                ..Default::default()
            }
        } else {
            proto::CheckResponse {
                status: Some(proto::Status {
                    code: 7,
                    message: String::new(),
                }),
                denied_response: Some(proto::DeniedHttpResponse {
                    status: Some(proto::HttpStatus { code: 402 }),
                    headers: vec![option("x-why", "money")],
                    body: "pay".into(),
                }),
                ..Default::default()
            }
        };
        answered(&answer)
    })
    .await;
    let backend = Backend::echo("b").await;
    let (_proxy, port) = with_rule(
        &[("b", &backend), ("auth", &authorizer)],
        rule(config(Protocol::Grpc)),
    )
    .await;
    let client = Http::new(port);
    let got = client.get_with("/a?b=c", &[("x-token", "good")]).await;
    assert_eq!(got.header("x-checked"), Some("1"));
    let seen = got.seen();
    assert_eq!(
        (seen.header("x-user"), seen.header("x-token")),
        (Some("alice"), None)
    );
    let got = client.get_with("/a?b=c", &[("x-token", "bad")]).await;
    assert_eq!(
        (got.status, &got.body[..], got.header("x-why")),
        (402, &b"pay"[..], Some("money"))
    );
    assert_eq!(backend.hits(), 1);
}

#[tokio::test]
async fn a_listener_asks_before_routes_are_chosen() {
    let authorizer = Backend::start(|request| async move {
        if request.headers().get("authorization").is_none() {
            return response(401, "");
        }
        let mut ok = response(200, "");
        ok.headers_mut().insert("x-user", "alice".parse().unwrap());
        ok.headers_mut()
            .insert("host", "elsewhere.example".parse().unwrap());
        ok
    })
    .await;
    let backend = Backend::echo("b").await;
    let port = super::support::free_port();
    let listener = v1::Listener {
        port: port.into(),
        bind_port: port.into(),
        protocol: v1::Protocol::Http.into(),
        filters: vec![cfg::filter(F::ExternalAuth(config(Protocol::Http)))],
        ..Default::default()
    };
    let mut rule = cfg::rule("/", &["b"]);
    rule.matches[0].headers = vec![v1::ValueMatch {
        name: "x-user".into(),
        value: "alice".into(),
        regex: false,
    }];
    let mut resources = vec![cfg::listener("l", listener), cfg::route("r", "l", vec![rule])];
    resources.extend(cfg::backend("b", &[backend.address]));
    resources.extend(cfg::backend("auth", &[authorizer.address]));
    let _proxy = super::Proxy::start(resources).await;
    let client = Http::new(port);
    // Only what the authorizer adds leads to the backend, and the host stays the client's.
    let seen = client.get_with("/", &[("authorization", "good")]).await.seen();
    assert_eq!(seen.header("x-user"), Some("alice"));
    assert_ne!(seen.header("host"), Some("elsewhere.example"));
    assert_eq!(client.get_with("/", &[("x-user", "alice")]).await.status, 401);
    assert_eq!(backend.hits(), 1);
}

#[tokio::test]
async fn an_authorizer_that_fails_may_be_passed() {
    let slow = Backend::start(|_| async {
        std::future::pending::<()>().await;
        response(200, "")
    })
    .await;
    let broken = Backend::status(500).await;
    let denying = Backend::status(401).await;
    let backend = Backend::echo("b").await;
    for (authorizer, fail_open, status_on_error, expected) in [
        (&slow, false, 0, 403),
        (&slow, false, 503, 503),
        (&slow, true, 503, 200),
        (&broken, false, 502, 502),
        (&broken, true, 0, 200),
        (&denying, true, 503, 401),
    ] {
        let config = v1::ExternalAuth {
            timeout_ms: 50,
            fail_open,
            status_on_error,
            ..config(Protocol::Http)
        };
        let mut rule = cfg::rule("/", &["b"]);
        rule.policy = Some(v1::Policy {
            external_auth: Some(config),
            ..Default::default()
        });
        let (_proxy, port) = with_rule(&[("b", &backend), ("auth", authorizer)], rule).await;
        assert_eq!(
            Http::new(port).get("/").await.status,
            expected,
            "{fail_open} {status_on_error}"
        );
    }
}

#[tokio::test]
async fn the_path_may_be_another_and_headers_only_those_that_are_named() {
    let authorizer = Backend::start(|request| async move {
        assert_eq!(request.uri(), "/auth?fixed=1");
        let mut ok = response(200, "");
        ok.headers_mut().insert("x-user", "alice".parse().unwrap());
        ok
    })
    .await;
    let backend = Backend::echo("b").await;
    let config = v1::ExternalAuth {
        path_override: "/auth?fixed=1".into(),
        only_allowed_response_headers: true,
        ..config(Protocol::Http)
    };
    let (_proxy, port) = with_rule(&[("b", &backend), ("auth", &authorizer)], rule(config)).await;
    let seen = Http::new(port)
        .get_with("/a?b=c", &[("x-user", "own")])
        .await
        .seen();
    assert_eq!((&*seen.uri, seen.header("x-user")), ("/a?b=c", Some("own")));
}

#[tokio::test]
async fn the_configuration_tells_the_authorizer_more() {
    let authorizer = Backend::start(|request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let check = proto::CheckRequest::decode(&body[5..]).unwrap();
        let extensions = check.attributes.unwrap().context_extensions;
        let told = extensions.get("env").is_some_and(|v| v == "prod")
            && extensions.get("token").is_some_and(|v| v == "sesame")
            && extensions.len() == 2;
        let answer = proto::CheckResponse {
            status: Some(proto::Status {
                code: if told { 0 } else { 7 },
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(answer.encoded_len()).unwrap());
        answer.encode(&mut framed).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = vec![Ok(Frame::data(framed.freeze())), Ok(Frame::trailers(trailers))];
        let mut response = http::Response::new(StreamBody::new(futures::stream::iter(frames)).boxed());
        response
            .headers_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
        response
    })
    .await;
    let backend = Backend::echo("b").await;
    let extension = |name: &str, source| v1::ContextExtension {
        name: name.into(),
        source: Some(source),
    };
    let config = v1::ExternalAuth {
        context_extensions: vec![
            extension("env", ContextSource::Value("prod".into())),
            extension("token", ContextSource::Secret(cfg::entry("context", "token"))),
            extension("none", ContextSource::Secret(cfg::entry("context", "none"))),
        ],
        ..config(Protocol::Grpc)
    };
    let (proxy, port) = with_rule(&[("b", &backend), ("auth", &authorizer)], rule(config)).await;
    assert_eq!(Http::new(port).get("/").await.status, 403);
    proxy.apply(vec![cfg::data("context", &[("token", "sesame")])]);
    assert_eq!(Http::new(port).get("/").await.status, 200);
}

#[tokio::test]
async fn the_authorizer_chooses_the_route() {
    let authorizer = Backend::start(|_| async {
        let mut ok = response(200, "");
        ok.headers_mut().insert("x-tier", "gold".parse().unwrap());
        ok
    })
    .await;
    let (plain, gold) = (Backend::echo("plain").await, Backend::echo("gold").await);
    let ask = |recompute_route| {
        Some(v1::Policy {
            external_auth: Some(v1::ExternalAuth {
                recompute_route,
                ..config(Protocol::Http)
            }),
            ..Default::default()
        })
    };
    let mut all = cfg::rule("/", &["plain"]);
    all.policy = ask(true);
    let mut chosen = cfg::rule("/", &["gold"]);
    chosen.matches[0].headers = vec![v1::ValueMatch {
        name: "x-tier".into(),
        value: "gold".into(),
        regex: false,
    }];
    // It is not asked twice.
    chosen.policy = ask(true);
    let port = super::support::free_port();
    let mut resources = vec![
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![all, chosen]),
    ];
    for (name, backend) in [("plain", &plain), ("gold", &gold), ("auth", &authorizer)] {
        resources.extend(cfg::backend(name, &[backend.address]));
    }
    let _proxy = super::Proxy::start(resources).await;
    assert_eq!(Http::new(port).get("/").await.seen().backend, "gold");
    assert_eq!((authorizer.hits(), plain.hits()), (1, 0));
}
