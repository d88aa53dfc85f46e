//! External processing: trailers, routes that are chosen anew, processors that speak TLS.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use sluice_config::v1;
use sluice_dataplane::filter::ext_proc::proto::{self, Answer, Body, Shown};
use v1::external_processor::BodyMode;

use super::cfg;
use super::ext_proc::{answer, common, config, nothing, policy, processor, secure_processor, sets};
use super::support::backend::{Backend, response};
use super::support::certificate::certificate;
use super::support::client::Http;
use super::support::{self, Proxy};

#[tokio::test]
async fn trailers_are_shown_and_changed() {
    let address = processor(|message, answers| {
        answers.push(answer(match message.request.as_ref().unwrap() {
            Shown::ResponseHeaders(_) => Answer::ResponseHeaders(nothing()),
            Shown::ResponseBody(piece) => {
                let piece = proto::HttpBody {
                    body: piece.body.to_ascii_uppercase().into(),
                    end_of_stream: false,
                };
                Answer::ResponseBody(common(proto::CommonResponse {
                    body_mutation: Some(proto::BodyMutation {
                        mutation: Some(Body::Streamed(piece)),
                    }),
                    ..Default::default()
                }))
            }
            Shown::ResponseTrailers(shown) => {
                let fields = &shown.trailers.as_ref().unwrap().headers;
                assert!(fields.iter().any(|field| field.key == "x-gone"));
                Answer::ResponseTrailers(proto::TrailersResponse {
                    header_mutation: sets(&[("x-more", "1")]),
                })
            }
            other => panic!("{other:?}"),
        }));
    })
    .await;
    let backend = Backend::start(|_| async {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "abc".parse().unwrap());
        trailers.insert("x-gone", "1".parse().unwrap());
        let body = Full::new(Bytes::from_static(b"body"));
        let body = body.with_trailers(async move { Some(Ok(trailers)) }).boxed();
        response(200, "").map(|_| body)
    })
    .await;
    let mut config = config(BodyMode::FullDuplex);
    config.response = config.request.take();
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = Some(policy(vec![config]));
    let port = support::free_port();
    let mut resources = vec![cfg::http_listener("l", port), cfg::route("r", "l", vec![rule])];
    resources.extend(cfg::h2c("b", &[backend.address]));
    resources.extend(cfg::h2c("processor", &[address]));
    let _proxy = Proxy::start(resources).await;
    let got = Http::h2(port).get_with("/", &[("te", "trailers")]).await;
    assert_eq!((got.status, &got.body[..]), (200, &b"BODY"[..]));
    let trailers = got.trailers.unwrap();
    assert_eq!(
        (&trailers["x-sum"], &trailers["x-more"]),
        (&"abc".parse().unwrap(), &"1".parse().unwrap())
    );
    assert!(!trailers.contains_key("x-gone"));
}

#[tokio::test]
async fn a_route_may_be_chosen_anew() {
    for clears in [true, false] {
        let address = processor(move |_, answers| {
            answers.push(answer(Answer::RequestHeaders(common(proto::CommonResponse {
                header_mutation: sets(&[("x-team", "blue")]),
                clear_route_cache: clears,
                ..Default::default()
            }))));
        })
        .await;
        let (usual, blue) = (Backend::echo("usual").await, Backend::echo("blue").await);
        let mut first = cfg::rule("/", &["usual"]);
        first.policy = Some(policy(vec![config(BodyMode::Unspecified)]));
        let mut second = cfg::rule("/", &["blue"]);
        second.matches[0].headers = vec![v1::ValueMatch {
            name: "x-team".into(),
            value: "blue".into(),
            regex: false,
        }];
        let port = support::free_port();
        let mut resources = vec![
            cfg::http_listener("l", port),
            cfg::route("r", "l", vec![first, second]),
        ];
        resources.extend(cfg::backend("usual", &[usual.address]));
        resources.extend(cfg::backend("blue", &[blue.address]));
        resources.extend(cfg::h2c("processor", &[address]));
        let _proxy = Proxy::start(resources).await;
        let seen = Http::new(port).get("/").await.seen();
        assert_eq!(seen.backend, if clears { "blue" } else { "usual" });
        assert_eq!(seen.header("x-team"), Some("blue"));
    }
}

#[tokio::test]
async fn processors_speak_tls_as_their_backends_say() {
    let certificate = certificate("processor.example");
    let address = secure_processor(&certificate, |_, answers| {
        answers.push(answer(Answer::RequestHeaders(common(proto::CommonResponse {
            header_mutation: sets(&[("x-secure", "1")]),
            ..Default::default()
        }))));
    })
    .await;
    for (name, expected) in [("processor.example", 200), ("other.example", 500)] {
        let backend = v1::Backend {
            protocol: v1::BackendProtocol::H2c.into(),
            ..cfg::in_tls(name)
        };
        let mut others = cfg::backend_with("processor", &[address], backend);
        others.push(cfg::trust("ca", &certificate.pem));
        let policy = policy(vec![config(BodyMode::Unspecified)]);
        let (_proxy, _backend, port) = super::with_policy(policy, others).await;
        let got = Http::new(port).get("/").await;
        assert_eq!(got.status, expected, "{name}");
        if expected == 200 {
            assert_eq!(got.seen().header("x-secure"), Some("1"));
        }
    }
}

/// A processor that passes everything on piece by piece, and keeps the last piece for itself.
async fn withholding() -> std::net::SocketAddr {
    processor(|message, answers| match message.request.as_ref().unwrap() {
        Shown::RequestHeaders(_) => answers.push(answer(Answer::RequestHeaders(nothing()))),
        Shown::RequestBody(piece) if !piece.end_of_stream => {
            let piece = proto::HttpBody {
                body: piece.body.clone(),
                end_of_stream: false,
            };
            answers.push(answer(Answer::RequestBody(common(proto::CommonResponse {
                body_mutation: Some(proto::BodyMutation {
                    mutation: Some(Body::Streamed(piece)),
                }),
                ..Default::default()
            }))));
        }
        _ => {}
    })
    .await
}

/// Who answers in his own time is bounded by what is asked of his backend.
#[tokio::test]
async fn calls_have_an_end() {
    let silence = v1::Backend {
        own_calls: Some(v1::OwnCalls {
            idle_timeout_ms: 100,
            ..Default::default()
        }),
        ..Default::default()
    };
    for (max_duration_ms, settings) in [(100, v1::Backend::default()), (0, silence)] {
        let mut config = config(BodyMode::FullDuplex);
        config.max_duration_ms = max_duration_ms;
        let settings = v1::Backend {
            protocol: v1::BackendProtocol::H2c.into(),
            ..settings
        };
        let to = cfg::backend_with("processor", &[withholding().await], settings);
        let (_proxy, backend, port) = super::with_policy(policy(vec![config]), to).await;
        // Without the bound this would never end.
        let got = Http::new(port).send_with("POST", "/", &[], "body").await;
        assert_eq!(
            (got.status, backend.hits() <= 1),
            (500, true),
            "{max_duration_ms}"
        );
    }
}

/// A call that is well within its bounds is left alone.
#[tokio::test]
async fn bounds_are_of_calls_and_not_of_messages() {
    let address = processor(|message, answers| {
        answers.push(answer(match message.request.as_ref().unwrap() {
            Shown::RequestHeaders(_) => Answer::RequestHeaders(nothing()),
            other => panic!("{other:?}"),
        }));
    })
    .await;
    let mut config = config(BodyMode::Unspecified);
    config.max_duration_ms = 3_600_000;
    let settings = v1::Backend {
        protocol: v1::BackendProtocol::H2c.into(),
        own_calls: Some(v1::OwnCalls {
            idle_timeout_ms: 3_600_000,
            ..Default::default()
        }),
        ..Default::default()
    };
    let to = cfg::backend_with("processor", &[address], settings);
    let (_proxy, _backend, port) = super::with_policy(policy(vec![config]), to).await;
    assert_eq!(Http::new(port).get("/").await.status, 200);
}
