//! gRPC-Web over HTTP/3: clients that know no trailers before backends that speak gRPC.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use sluice_config::v1;

use super::client::request;
use super::support::backend::Backend;
use super::{Site, cfg, http3};

const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";
const TRAILERS: &[u8] = b"\x80\0\0\0\x10grpc-status: 0\r\n";

/// Gives messages back, and says that all is well.
async fn backend() -> Backend {
    Backend::start(|request| async move {
        assert_eq!(request.version(), http::Version::HTTP_2);
        assert_eq!(request.headers()["content-type"], "application/grpc+proto");
        assert_eq!(request.headers()["te"], "trailers");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, MESSAGE);
        let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), 0.into())]);
        let body = Full::new(body).with_trailers(std::future::ready(Some(Ok(trailers))));
        http::Response::builder()
            .header("content-type", "application/grpc+proto")
            .body(body.boxed())
            .unwrap()
    })
    .await
}

#[tokio::test]
async fn calls_are_translated() {
    let backend = backend().await;
    let client = v1::ClientSettings {
        grpc_web: true,
        ..http3()
    };
    let resources = cfg::h2c("b", &[backend.address]);
    let site = Site::with(client, resources, cfg::rule("/s.S", &["b"])).await;
    let client = site.connect().await;
    let call = |path: &str, kind: &str| request("POST", path).header("content-type", kind);
    let kind = "application/grpc-web+proto";
    let got = client.send(call("/s.S/Call", kind), MESSAGE).await.unwrap();
    assert_eq!((got.status, got.header("content-type")), (200, Some(kind)));
    assert_eq!(
        (&got.body[..], got.trailers),
        (&[MESSAGE, TRAILERS].concat()[..], None)
    );
    let kind = "application/grpc-web-text+proto";
    let body = Bytes::from(STANDARD.encode(MESSAGE));
    let got = client.send(call("/s.S/Call", kind), body).await.unwrap();
    assert_eq!((got.status, got.header("content-type")), (200, Some(kind)));
    let decoded: Vec<u8> = got
        .body
        .chunks(4)
        .flat_map(|group| STANDARD.decode(group).unwrap())
        .collect();
    assert_eq!((decoded, got.trailers), ([MESSAGE, TRAILERS].concat(), None));
    assert_eq!(backend.hits(), 2);
    // Errors are those of gRPC.
    let got = client
        .send(call("/t.T/Call", "application/grpc-web"), MESSAGE)
        .await
        .unwrap();
    assert_eq!((got.status, got.header("grpc-status")), (200, Some("12")));
}
