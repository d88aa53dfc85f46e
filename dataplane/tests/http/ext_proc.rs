//! External processing: processors of the test's own between the real proxy and echoing backends.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use sluice_config::v1;
use sluice_dataplane::filter::ext_proc::proto::{self, Answer, Body, Shown};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use v1::external_processor::{BodyMode, Direction};

use super::support::certificate::Certificate;
use super::support::certificate::acceptor;
use super::support::client::Http;
use super::{cfg, with_policy};

/// Long enough for a machine that is busy with other things.
const PATIENCE: u64 = 20_000;

type Script = dyn Fn(&proto::ProcessingRequest, &mut Vec<proto::ProcessingResponse>) + Send + Sync;

/// Answers each message as the script says; the stream ends without an answer to what the script does not answer if
/// `closes`.
pub async fn processor(
    script: impl Fn(&proto::ProcessingRequest, &mut Vec<proto::ProcessingResponse>) + Send + Sync + 'static,
) -> std::net::SocketAddr {
    listen(None, Arc::new(script)).await
}

/// One that speaks TLS.
pub async fn secure_processor(
    certificate: &Certificate,
    script: impl Fn(&proto::ProcessingRequest, &mut Vec<proto::ProcessingResponse>) + Send + Sync + 'static,
) -> std::net::SocketAddr {
    listen(Some(acceptor(certificate, &[b"h2"])), Arc::new(script)).await
}

async fn listen(tls: Option<TlsAcceptor>, script: Arc<Script>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let script = Arc::clone(&script);
            let service = hyper::service::service_fn(move |request| {
                std::future::ready(Ok::<_, Infallible>(serve(request, Arc::clone(&script))))
            });
            let tls = tls.clone();
            tokio::spawn(async move {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = match tls {
                    None => server.serve_connection(TokioIo::new(stream), service).await,
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else {
                            return;
                        };
                        server.serve_connection(TokioIo::new(stream), service).await
                    }
                };
            });
        }
    });
    address
}

type Frames = StreamBody<tokio_stream::wrappers::UnboundedReceiverStream<Result<Frame<Bytes>, Infallible>>>;

fn serve(request: Request<Incoming>, script: Arc<Script>) -> Response<Frames> {
    assert_eq!(request.uri().path(), proto::PROCESS);
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut body = request.into_body();
        let mut inbox = BytesMut::new();
        while let Some(Ok(frame)) = body.frame().await {
            inbox.extend_from_slice(&frame.into_data().unwrap_or_default());
            while let Some(message) = message(&mut inbox) {
                let mut answers = Vec::new();
                script(&message, &mut answers);
                for answer in answers {
                    let _ = sender.send(Ok(Frame::data(framed(&answer))));
                }
            }
        }
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let _ = sender.send(Ok(Frame::trailers(trailers)));
    });
    let stream = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(StreamBody::new(stream)).unwrap()
}

fn message(inbox: &mut BytesMut) -> Option<proto::ProcessingRequest> {
    let length = u32::from_be_bytes(inbox.get(1..5)?.try_into().unwrap()) as usize;
    if inbox.len() < 5 + length {
        return None;
    }
    inbox.advance(5);
    Some(proto::ProcessingRequest::decode(inbox.split_to(length).freeze()).unwrap())
}

fn framed(message: &impl Message) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut out).unwrap();
    out.freeze()
}

pub fn answer(answer: Answer) -> proto::ProcessingResponse {
    proto::ProcessingResponse {
        response: Some(answer),
        ..Default::default()
    }
}

pub fn common(response: proto::CommonResponse) -> proto::CommonAnswer {
    proto::CommonAnswer {
        response: Some(response),
    }
}

pub fn nothing() -> proto::CommonAnswer {
    proto::CommonAnswer::default()
}

#[expect(clippy::unnecessary_wraps, reason = "the message's field is optional")]
pub fn sets(pairs: &[(&str, &str)]) -> Option<proto::HeaderMutation> {
    let option = |(name, value): &(&str, &str)| proto::HeaderValueOption {
        header: Some(proto::HeaderValue {
            key: (*name).to_owned(),
            value: String::new(),
            raw_value: value.as_bytes().to_vec(),
        }),
        ..Default::default()
    };
    Some(proto::HeaderMutation {
        set_headers: pairs.iter().map(option).collect(),
        remove_headers: vec!["x-gone".to_owned()],
    })
}

#[expect(clippy::unnecessary_wraps, reason = "the message's field is optional")]
fn body(bytes: impl Into<Bytes>) -> Option<proto::BodyMutation> {
    Some(proto::BodyMutation {
        mutation: Some(Body::Bytes(bytes.into())),
    })
}

fn shown<'m>(headers: Option<&'m proto::HeaderMap>, name: &str) -> &'m str {
    let fields = &headers.unwrap().headers;
    let field = fields.iter().find(|field| field.key == name).unwrap();
    std::str::from_utf8(&field.raw_value).unwrap()
}

pub fn config(mode: BodyMode) -> v1::ExternalProcessor {
    v1::ExternalProcessor {
        backend: "backend/processor".into(),
        request: Some(Direction {
            body: mode.into(),
            attributes: Vec::new(),
        }),
        message_timeout_ms: PATIENCE,
        ..Default::default()
    }
}

pub fn policy(processors: Vec<v1::ExternalProcessor>) -> v1::Policy {
    v1::Policy {
        external_processors: processors,
        ..Default::default()
    }
}

pub fn both(mode: BodyMode) -> v1::ExternalProcessor {
    let mut both = config(mode);
    both.response = both.request.clone();
    both
}

#[tokio::test]
async fn heads_are_shown_and_changed() {
    let address = processor(|message, answers| {
        answers.push(answer(match message.request.as_ref().unwrap() {
            Shown::RequestHeaders(head) => {
                assert!(head.end_of_stream);
                assert_eq!(shown(head.headers.as_ref(), ":method"), "GET");
                assert_eq!(shown(head.headers.as_ref(), ":path"), "/a?b=c");
                assert_eq!(shown(head.headers.as_ref(), "x-gone"), "1");
                let told = &message.attributes["envoy.filters.http.ext_proc"].fields["request.url_path"];
                let path = prost_types::value::Kind::StringValue("/a".to_owned());
                assert_eq!(told.kind, Some(path));
                Answer::RequestHeaders(common(proto::CommonResponse {
                    header_mutation: sets(&[
                        ("x-added", "by the processor"),
                        (":path", "/z"),
                        ("host", "evil"),
                    ]),
                    ..Default::default()
                }))
            }
            Shown::ResponseHeaders(head) => {
                assert_eq!(shown(head.headers.as_ref(), ":status"), "200");
                Answer::ResponseHeaders(common(proto::CommonResponse {
                    header_mutation: sets(&[("x-seen", "yes"), (":status", "202")]),
                    ..Default::default()
                }))
            }
            other => panic!("{other:?}"),
        }));
    })
    .await;
    let mut config = both(BodyMode::Unspecified);
    config.request.as_mut().unwrap().attributes = vec!["request.url_path".into(), "request.unknown".into()];
    let (_proxy, _backend, port) = with_policy(policy(vec![config]), cfg::h2c("processor", &[address])).await;
    let got = Http::new(port).get_with("/a?b=c", &[("x-gone", "1")]).await;
    assert_eq!((got.status, got.header("x-seen")), (202, Some("yes")));
    let seen: super::support::backend::Seen = serde_json::from_slice(&got.body).unwrap();
    assert_eq!(
        (&seen.uri[..], seen.header("x-added")),
        ("/z", Some("by the processor"))
    );
    assert_eq!(seen.header("x-gone"), None);
    assert_ne!(seen.header("host"), Some("evil"));
}

/// Turns every piece of a body into capitals, in all modes.
fn capitals(message: &proto::ProcessingRequest, answers: &mut Vec<proto::ProcessingResponse>) {
    let upper = |piece: &proto::HttpBody| proto::CommonResponse {
        body_mutation: body(piece.body.to_ascii_uppercase()),
        ..Default::default()
    };
    answers.push(answer(match message.request.as_ref().unwrap() {
        Shown::RequestHeaders(_) => Answer::RequestHeaders(nothing()),
        Shown::ResponseHeaders(_) => Answer::ResponseHeaders(nothing()),
        Shown::RequestBody(piece) => Answer::RequestBody(common(upper(piece))),
        Shown::ResponseBody(piece) => Answer::ResponseBody(common(upper(piece))),
        other => panic!("{other:?}"),
    }));
}

#[tokio::test]
async fn bodies_are_changed_as_a_whole_and_piece_by_piece() {
    for mode in [BodyMode::Streamed, BodyMode::Buffered, BodyMode::BufferedPartial] {
        let address = processor(capitals).await;
        let (_proxy, backend, port) =
            with_policy(policy(vec![config(mode)]), cfg::h2c("processor", &[address])).await;
        for client in [Http::new(port), Http::h2(port)] {
            let length = 300_000;
            let got = client.send(client.request("POST", "/"), vec![b'a'; length]).await;
            let seen = got.seen();
            assert_eq!((got.status, seen.body_len), (200, length), "{mode:?}");
            assert_eq!(
                seen.body_sum,
                super::support::backend::sum(&vec![b'A'; length]),
                "{mode:?}"
            );
            // And a request without a body has none afterwards.
            assert_eq!(client.get("/").await.seen().body_len, 0);
        }
        assert_eq!(backend.hits(), 4);
    }
}

#[tokio::test]
async fn responses_are_changed_as_a_whole_and_piece_by_piece() {
    for mode in [BodyMode::Streamed, BodyMode::Buffered, BodyMode::BufferedPartial] {
        let address = processor(capitals).await;
        let mut config = both(mode);
        config.request = None;
        let (_proxy, _backend, port) =
            with_policy(policy(vec![config]), cfg::h2c("processor", &[address])).await;
        for client in [Http::new(port), Http::h2(port)] {
            let got = client.get("/some/path").await;
            let text = String::from_utf8(got.body.to_vec()).unwrap();
            assert!(
                text.contains("/SOME/PATH") && !text.contains("/some"),
                "{mode:?} {text}"
            );
            let held = mode != BodyMode::Streamed;
            assert_eq!(got.header("content-length").is_some(), held, "{mode:?}");
        }
    }
}

#[tokio::test]
async fn in_full_duplex_the_head_may_wait_for_the_body() {
    let address = processor(|message, answers| {
        // Nothing is answered before the last piece: then the head, and a body of another length in two pieces.
        let Shown::RequestBody(piece) = message.request.as_ref().unwrap() else {
            return;
        };
        if !piece.end_of_stream {
            return;
        }
        answers.push(answer(Answer::RequestHeaders(common(proto::CommonResponse {
            header_mutation: sets(&[("x-late", "1")]),
            ..Default::default()
        }))));
        for (text, end_of_stream) in [("one ", false), ("two", true)] {
            let piece = proto::HttpBody {
                body: Bytes::from_static(text.as_bytes()),
                end_of_stream,
            };
            answers.push(answer(Answer::RequestBody(common(proto::CommonResponse {
                body_mutation: Some(proto::BodyMutation {
                    mutation: Some(Body::Streamed(piece)),
                }),
                ..Default::default()
            }))));
        }
    })
    .await;
    let config = config(BodyMode::FullDuplex);
    let (_proxy, _backend, port) = with_policy(policy(vec![config]), cfg::h2c("processor", &[address])).await;
    let client = Http::new(port);
    let seen = client
        .send(client.request("POST", "/"), vec![b'x'; 40_000])
        .await
        .seen();
    assert_eq!((seen.header("x-late"), seen.body_len), (Some("1"), 7));
    assert_eq!(seen.body_sum, super::support::backend::sum(b"one two"));
}

#[tokio::test]
async fn a_processor_answers_the_client_itself() {
    let address = processor(|_, answers| {
        answers.push(answer(Answer::Immediate(proto::ImmediateResponse {
            status: Some(proto::HttpStatus { code: 429 }),
            headers: sets(&[("x-why", "quota")]),
            body: Bytes::from_static(b"too much"),
            grpc_status: None,
        })));
    })
    .await;
    let config = config(BodyMode::Unspecified);
    let (_proxy, backend, port) = with_policy(policy(vec![config]), cfg::h2c("processor", &[address])).await;
    let got = Http::new(port).get("/").await;
    assert_eq!((got.status, &got.body[..]), (429, &b"too much"[..]));
    assert_eq!(got.header("x-why"), Some("quota"));
    assert_eq!(backend.hits(), 0);
}

#[tokio::test]
async fn a_head_may_be_given_another_body() {
    let address = processor(|_, answers| {
        answers.push(answer(Answer::RequestHeaders(common(proto::CommonResponse {
            status: 1,
            body_mutation: body("in its place"),
            ..Default::default()
        }))));
    })
    .await;
    let config = config(BodyMode::Streamed);
    let (_proxy, _backend, port) = with_policy(policy(vec![config]), cfg::h2c("processor", &[address])).await;
    let client = Http::new(port);
    for length in [0, 50_000] {
        let seen = client
            .send(client.request("POST", "/"), vec![b'x'; length])
            .await
            .seen();
        assert_eq!(
            (seen.body_len, seen.header("content-length")),
            (12, Some("12")),
            "{length}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_asked_about_is_refused_or_passes() {
    let silent = processor(|_, _| {}).await;
    let odd = processor(|_, answers| answers.push(answer(Answer::ResponseBody(nothing())))).await;
    let away = std::net::SocketAddr::from(([127, 0, 0, 1], super::support::free_port()));
    for (address, timeout, status) in [(silent, 50, 504), (odd, PATIENCE, 500), (away, PATIENCE, 500)] {
        for (fail_open, on_error, expected) in [(false, 0, status), (false, 503, 503), (true, 0, 200)] {
            let config = v1::ExternalProcessor {
                fail_open,
                message_timeout_ms: timeout,
                status_on_error: on_error,
                ..config(BodyMode::Buffered)
            };
            let (_proxy, backend, port) =
                with_policy(policy(vec![config]), cfg::h2c("processor", &[address])).await;
            let client = Http::new(port);
            let got = client.send(client.request("POST", "/"), "body").await;
            assert_eq!(got.status, expected);
            assert_eq!(backend.hits(), usize::from(fail_open));
            if fail_open {
                assert_eq!(got.seen().body_len, 4);
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_to_be_held_is_refused_or_passes_in_part() {
    let length = 1024 * 1024 + 100_000;
    for (mode, status) in [(BodyMode::Buffered, 413), (BodyMode::BufferedPartial, 200)] {
        let address = processor(capitals).await;
        let (_proxy, _backend, port) =
            with_policy(policy(vec![config(mode)]), cfg::h2c("processor", &[address])).await;
        let client = Http::h2(port);
        let got = client.send(client.request("POST", "/"), vec![b'a'; length]).await;
        assert_eq!(got.status, status, "{mode:?}");
        if status == 200 {
            assert_eq!(got.seen().body_len, length);
        }
    }
}

#[tokio::test]
async fn who_only_watches_changes_nothing() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let address = processor(move |message, answers| {
        assert!(message.observability_mode);
        counted.fetch_add(1, Ordering::SeqCst);
        answers.push(answer(Answer::Immediate(proto::ImmediateResponse::default())));
    })
    .await;
    let config = v1::ExternalProcessor {
        only_watches: true,
        ..both(BodyMode::Streamed)
    };
    let (_proxy, _backend, port) = with_policy(policy(vec![config]), cfg::h2c("processor", &[address])).await;
    let client = Http::new(port);
    let got = client.send(client.request("POST", "/"), "body").await;
    assert_eq!((got.status, got.seen().body_len), (200, 4));
    super::support::eventually("the processor has seen both heads", || {
        count.load(Ordering::SeqCst) >= 2
    })
    .await;
}

#[tokio::test]
async fn an_answer_may_change_what_is_seen() {
    for allowed in [true, false] {
        let address = processor(|message, answers| match message.request.as_ref().unwrap() {
            Shown::RequestHeaders(_) => answers.push(proto::ProcessingResponse {
                response: Some(Answer::RequestHeaders(nothing())),
                mode_override: Some(proto::ProcessingMode {
                    request_body_mode: 2,
                    response_header_mode: 2,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            Shown::ResponseHeaders(_) => {
                answers.push(answer(Answer::ResponseHeaders(common(proto::CommonResponse {
                    header_mutation: sets(&[("x-response", "seen")]),
                    ..Default::default()
                }))));
            }
            _ => capitals(message, answers),
        })
        .await;
        let config = v1::ExternalProcessor {
            allow_mode_override: allowed,
            ..both(BodyMode::Unspecified)
        };
        let (_proxy, _backend, port) =
            with_policy(policy(vec![config]), cfg::h2c("processor", &[address])).await;
        let client = Http::new(port);
        let got = client.send(client.request("POST", "/"), "body").await;
        let expected: &[u8] = if allowed { b"BODY" } else { b"body" };
        assert_eq!(got.seen().body_sum, super::support::backend::sum(expected));
        assert_eq!(got.header("x-response").is_some(), !allowed);
    }
}

#[tokio::test]
async fn processors_see_requests_in_order_and_responses_in_reverse() {
    let appends = |name: &'static str| {
        move |message: &proto::ProcessingRequest, answers: &mut Vec<proto::ProcessingResponse>| {
            let mutation = |headers: Option<&proto::HeaderMap>| {
                let fields = &headers.unwrap().headers;
                let before = fields.iter().find(|field| field.key == "x-way");
                let before = before.map_or("", |field| std::str::from_utf8(&field.raw_value).unwrap());
                common(proto::CommonResponse {
                    header_mutation: sets(&[("x-way", &format!("{before}{name}"))]),
                    ..Default::default()
                })
            };
            match message.request.as_ref().unwrap() {
                Shown::RequestHeaders(head) => {
                    answers.push(answer(Answer::RequestHeaders(mutation(head.headers.as_ref()))));
                }
                Shown::ResponseHeaders(head) => {
                    answers.push(answer(Answer::ResponseHeaders(mutation(head.headers.as_ref()))));
                }
                Shown::RequestBody(piece) => {
                    let text = [name.as_bytes(), &piece.body].concat();
                    answers.push(answer(Answer::RequestBody(common(proto::CommonResponse {
                        body_mutation: body(text),
                        ..Default::default()
                    }))));
                }
                other => panic!("{other:?}"),
            }
        }
    };
    let (first, second) = (processor(appends("1")).await, processor(appends("2")).await);
    let mut all = Vec::new();
    for name in ["backend/first", "backend/second"] {
        let mut config = config(BodyMode::Buffered);
        config.backend = name.into();
        config.response = Some(Direction::default());
        all.push(config);
    }
    let mut others = cfg::h2c("first", &[first]);
    others.extend(cfg::h2c("second", &[second]));
    let (_proxy, _backend, port) = with_policy(policy(all), others).await;
    let client = Http::new(port);
    let got = tokio::time::timeout(
        Duration::from_millis(PATIENCE),
        client.send(client.request("POST", "/"), "0"),
    );
    let got = got.await.unwrap();
    assert_eq!(got.header("x-way"), Some("21"));
    let seen = got.seen();
    assert_eq!((seen.header("x-way"), seen.body_len), (Some("12"), 3));
    assert_eq!(seen.body_sum, super::support::backend::sum(b"210"));
}
