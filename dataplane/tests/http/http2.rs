//! HTTP/2 on both sides.

use sluice_config::v1;

use super::support::backend::Backend;
use super::support::client::Http;
use super::support::{self, Proxy};
use super::{cfg, simple};

#[tokio::test]
async fn from_clients() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    let client = Http::h2(port);
    let got = client.get("/a?b=c").await;
    assert_eq!(got.version, http::Version::HTTP_2);
    let seen = got.seen();
    assert_eq!((seen.version.as_str(), seen.uri.as_str()), ("HTTP/1.1", "/a?b=c"));
    let requests = (0..200).map(|i| {
        let client = client.clone();
        tokio::spawn(async move { client.get(&format!("/{i}")).await.seen().uri })
    });
    for (i, request) in requests.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(request.await.unwrap(), format!("/{i}"));
    }
}

#[tokio::test]
async fn to_backends() {
    let backend = Backend::echo("b").await;
    let port = support::free_port();
    let mut resources = cfg::h2c("b", &[backend.address]);
    resources.extend([
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ]);
    let _proxy = Proxy::start(resources).await;
    for client in [Http::new(port), Http::h2(port)] {
        for body in [0, 10, 3_000_000] {
            let seen = client
                .send(client.request("POST", "/p?q"), vec![b'x'; body])
                .await
                .seen();
            assert_eq!((seen.version.as_str(), seen.body_len), ("HTTP/2.0", body));
            assert_eq!(seen.uri, format!("http://127.0.0.1:{port}/p?q"));
        }
    }
    // Two workers, two connections at most, unless requests came at once.
    assert!(backend.connections() <= 2, "{}", backend.connections());
}

#[tokio::test]
async fn a_closed_connection_to_a_backend_is_replaced() {
    let backend = Backend::echo("b").await;
    let port = support::free_port();
    let mut resources = cfg::h2c("b", &[backend.address]);
    resources.extend([
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ]);
    let proxy = Proxy::start(resources).await;
    let client = Http::new(port);
    assert_eq!(client.get("/").await.status, 200);
    drop(backend);
    let other = Backend::echo("other").await;
    proxy.apply(vec![cfg::endpoints("b", &[other.address])]);
    assert_eq!(client.get("/").await.seen().backend, "other");
}

#[tokio::test]
async fn timeouts_are_answered() {
    let backend = Backend::start(|_| std::future::pending()).await;
    let port = support::free_port();
    let mut resources = cfg::h2c("b", &[backend.address]);
    let rule = v1::HttpRule {
        request_timeout_ms: 100,
        ..cfg::rule("/", &["b"])
    };
    resources.extend([cfg::http_listener("l", port), cfg::route("r", "l", vec![rule])]);
    let _proxy = Proxy::start(resources).await;
    assert_eq!(Http::h2(port).get("/").await.status, 504);
}

#[tokio::test]
async fn expect_continue() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://127.0.0.1:{port}/")).header("expect", "100-continue");
    let (mut response, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
    let interim = std::future::poll_fn(|cx| response.poll_informational(cx))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(interim.status(), 100);
    body.send_data("hello".into(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
}
