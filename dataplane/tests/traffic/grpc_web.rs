//! gRPC-Web: clients that know no trailers, and perhaps no bytes, before backends that speak gRPC.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use sluice_config::v1;

use super::cfg;
use super::support::backend::Backend;
use super::support::client::{Got, Http};
use super::support::{self, Proxy};

/// What a backend was asked: content type, `te`, body.
type Asked = Arc<Mutex<Vec<(String, String, Bytes)>>>;

/// A backend that gives messages back, and says that all is well.
async fn backend(asked: &Asked) -> Backend {
    let asked = Arc::clone(asked);
    Backend::start(move |request| {
        let asked = Arc::clone(&asked);
        async move {
            assert_eq!(request.version(), http::Version::HTTP_2);
            let (head, body) = request.into_parts();
            let field = |name: &str| head.headers[name].to_str().unwrap().to_owned();
            let body = body.collect().await.unwrap().to_bytes();
            let told = (field("content-type"), field("te"), body.clone());
            asked.lock().unwrap().push(told);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            trailers.insert("x-more", "of it".parse().unwrap());
            let body = Full::new(body).with_trailers(async move { Some(Ok(trailers)) });
            http::Response::builder()
                .header("content-type", "application/grpc+proto")
                .body(body.boxed())
                .unwrap()
        }
    })
    .await
}

async fn proxy(backend: &Backend, grpc_web: bool) -> (Proxy, u16) {
    let port = support::free_port();
    let mut resources = cfg::h2c("b", &[backend.address]);
    resources.extend(cfg::h2c("empty", &[]));
    let listener = v1::Listener {
        port: u32::from(port),
        bind_port: u32::from(port),
        protocol: v1::Protocol::Http.into(),
        client: Some(v1::ClientSettings {
            grpc_web,
            ..Default::default()
        }),
        ..Default::default()
    };
    let rules = vec![cfg::rule("/s.S", &["b"]), cfg::rule("/e.E", &["empty"])];
    resources.extend([cfg::listener("l", listener), cfg::grpc_route("r", "l", rules)]);
    (Proxy::start(resources).await, port)
}

const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";
const TRAILERS: &[u8] = b"\x80\0\0\0\x1fgrpc-status: 0\r\nx-more: of it\r\n";

async fn call(client: &Http, path: &str, kind: &str, accept: &str, body: impl Into<Bytes>) -> Got {
    let fields = [("content-type", kind), ("accept", accept)];
    client.send_with("POST", path, &fields, body).await
}

/// Base64 of several pieces, each padded.
fn decoded(body: &[u8]) -> Vec<u8> {
    body.chunks(4)
        .flat_map(|group| STANDARD.decode(group).unwrap())
        .collect()
}

#[tokio::test]
async fn calls_reach_backends_as_grpc_and_answers_clients_as_grpc_web() {
    let asked = Asked::default();
    let backend = backend(&asked).await;
    let (_proxy, port) = proxy(&backend, true).await;
    let expected = [MESSAGE, TRAILERS].concat();
    for client in [Http::new(port), Http::h2(port)] {
        let kind = "application/grpc-web+proto";
        let got = call(&client, "/s.S/Call", kind, "*/*", MESSAGE).await;
        assert_eq!(got.header("content-type"), Some(kind));
        assert_eq!(
            (got.status, &got.body[..], got.trailers),
            (200, &expected[..], None)
        );
        let kind = "application/grpc-web-text+proto";
        let body = STANDARD.encode(MESSAGE);
        let got = call(&client, "/s.S/Call", kind, kind, body).await;
        assert_eq!(got.header("content-type"), Some(kind));
        assert_eq!(
            (got.status, decoded(&got.body), got.trailers),
            (200, expected.clone(), None)
        );
    }
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 4);
    for (kind, te, body) in &*asked {
        assert_eq!(
            (kind.as_str(), te.as_str()),
            ("application/grpc+proto", "trailers")
        );
        assert_eq!(body, MESSAGE);
    }
}

#[tokio::test]
async fn errors_are_those_of_grpc() {
    let asked = Asked::default();
    let backend = backend(&asked).await;
    let (_proxy, port) = proxy(&backend, true).await;
    for client in [Http::new(port), Http::h2(port)] {
        let got = call(&client, "/e.E/Call", "application/grpc-web", "*/*", MESSAGE).await;
        assert_eq!(
            (got.status, got.header("grpc-status")),
            (200, Some("14")),
            "{got:?}"
        );
        assert_eq!(got.header("content-type"), Some("application/grpc-web"));
        // A client that sends no Base64 although it says so is cut off, and the next call goes well.
        let request = client
            .request("POST", "/s.S/Call")
            .header("content-type", "application/grpc-web-text");
        let refused = client.try_send(request, "no!base64").await;
        assert!(refused.is_err() || refused.unwrap().status != 200);
        let got = call(&client, "/s.S/Call", "application/grpc-web", "*/*", MESSAGE).await;
        assert_eq!(got.status, 200);
    }
}

#[tokio::test]
async fn it_is_only_where_it_is_asked_for() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = proxy(&backend, false).await;
    let kind = "application/grpc-web-text";
    let got = call(&Http::new(port), "/s.S/Call", kind, kind, "AAAA").await;
    assert_eq!(got.seen().header("content-type"), Some(kind));
    assert_eq!(got.seen().body_len, 4);
}
