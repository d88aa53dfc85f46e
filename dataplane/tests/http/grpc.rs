//! gRPC: HTTP/2 to the backend, trailers, errors as gRPC.

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::cfg;
use super::support::backend::{Backend, Body};
use super::support::client::{Got, Http};
use super::support::{self, Proxy};

fn answer(data: Option<&'static str>, status: &str) -> http::Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    let frames = data
        .map(|data| Frame::data(Bytes::from(data)))
        .into_iter()
        .chain([Frame::trailers(trailers)]);
    let body = StreamBody::new(futures::stream::iter(
        frames.map(Ok::<_, std::convert::Infallible>),
    ));
    http::Response::builder()
        .header("content-type", "application/grpc")
        .body(BodyExt::boxed(body))
        .unwrap()
}

async fn call(client: &Http, path: &str) -> Got {
    client
        .send_with(
            "POST",
            path,
            &[("content-type", "application/grpc"), ("te", "trailers")],
            "message",
        )
        .await
}

#[tokio::test]
async fn calls() {
    let backend = Backend::start(|request| async move {
        assert_eq!(request.version(), http::Version::HTTP_2);
        assert_eq!(request.headers()["te"], "trailers");
        match request.uri().path() {
            "/s.S/Ok" => answer(Some("reply"), "0"),
            _ => answer(None, "5"),
        }
    })
    .await;
    let port = support::free_port();
    let mut resources = cfg::backend("b", &[backend.address]);
    resources.extend(cfg::backend("empty", &[]));
    let rules = vec![
        cfg::rule("/s.S", &["b"]),
        cfg::rule("/e.E", &["empty"]),
        cfg::rule("/i.I", &[""]),
    ];
    resources.extend([cfg::http_listener("l", port), cfg::grpc_route("r", "l", rules)]);
    let _proxy = Proxy::start(resources).await;
    let client = Http::h2(port);
    let got = call(&client, "/s.S/Ok").await;
    assert_eq!((got.status, &got.body[..]), (200, &b"reply"[..]));
    assert_eq!(got.trailers.unwrap()["grpc-status"], "0");
    let got = call(&client, "/s.S/Missing").await;
    assert_eq!(got.trailers.unwrap()["grpc-status"], "5");
    for (path, status) in [("/e.E/M", "14"), ("/i.I/M", "2"), ("/none.N/M", "12")] {
        let got = call(&client, path).await;
        assert_eq!(
            (got.status, got.header("grpc-status")),
            (200, Some(status)),
            "{path}"
        );
        assert_eq!(got.header("content-type"), Some("application/grpc"));
    }
}

#[tokio::test]
async fn bidirectional_streams() {
    let backend = Backend::start(|request| async move {
        let body = request.into_body().map_err(|_| unreachable!()).boxed();
        http::Response::builder()
            .header("content-type", "application/grpc")
            .body(body)
            .unwrap()
    })
    .await;
    let port = support::free_port();
    let mut resources = cfg::backend("b", &[backend.address]);
    resources.extend([
        cfg::http_listener("l", port),
        cfg::grpc_route("r", "l", vec![cfg::rule("/", &["b"])]),
    ]);
    let _proxy = Proxy::start(resources).await;
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://127.0.0.1:{port}/s.S/Echo"))
        .body(())
        .unwrap();
    let (response, mut body) = send.send_request(request, false).unwrap();
    body.send_data(Bytes::from("0"), false).unwrap();
    let mut reading = response.await.unwrap().into_body();
    for i in 1..10u8 {
        assert_eq!(reading.data().await.unwrap().unwrap(), (i - 1).to_string());
        body.send_data(Bytes::from(i.to_string()), false).unwrap();
    }
    assert_eq!(reading.data().await.unwrap().unwrap(), "9");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-end", "1".parse().unwrap());
    body.send_trailers(trailers).unwrap();
    assert!(reading.data().await.is_none());
    assert_eq!(reading.trailers().await.unwrap().unwrap()["x-end"], "1");
}
