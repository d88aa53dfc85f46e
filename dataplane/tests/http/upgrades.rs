//! Upgrades: WebSocket from HTTP/1.1 and from HTTP/2.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use sluice_config::v1;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use super::support::backend::Backend;
use super::support::client::{Http, Raw};
use super::support::{self, Proxy};
use super::{cfg, simple};

/// Echoes WebSocket messages.
async fn websocket_backend() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else {
                    return;
                };
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() || message.is_binary() {
                        let _ = socket.send(message).await;
                    }
                }
            });
        }
    });
    address
}

async fn proxy() -> (Proxy, u16) {
    let address = websocket_backend().await;
    let port = support::free_port();
    let config = v1::Backend {
        protocol: v1::BackendProtocol::Websocket.into(),
        ..Default::default()
    };
    let mut resources = cfg::backend_with("b", &[address], config);
    // Timeouts are for requests; a tunnel outlives them.
    let rule = v1::HttpRule {
        request_timeout_ms: 300,
        ..cfg::rule("/", &["b"])
    };
    resources.extend([cfg::http_listener("l", port), cfg::route("r", "l", vec![rule])]);
    (Proxy::start(resources).await, port)
}

#[tokio::test]
async fn websocket() {
    let (_proxy, port) = proxy().await;
    let (mut socket, response) = tokio_tungstenite::connect_async(format!("ws://127.0.0.1:{port}/chat"))
        .await
        .unwrap();
    assert_eq!(response.status(), 101);
    for i in 0..5 {
        socket.send(Message::text(format!("hello {i}"))).await.unwrap();
        assert_eq!(
            socket.next().await.unwrap().unwrap(),
            Message::text(format!("hello {i}"))
        );
    }
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    let large = vec![7u8; 2_000_000];
    socket.send(Message::binary(large.clone())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(large));
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
}

#[tokio::test]
async fn bytes_sent_before_the_answer_are_not_lost() {
    let (_proxy, port) = proxy().await;
    let mut raw = Raw::connect(port).await;
    raw.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    // A masked text frame, `hi`, with a mask of zeros.
    raw.send(b"\x81\x82\0\0\0\0hi").await;
    let head = raw.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.to_lowercase()
            .contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{head}"
    );
    assert_eq!(raw.exactly(4).await, b"\x81\x02hi");
}

#[tokio::test]
async fn a_backend_may_decline() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    let got = Http::new(port)
        .get_with("/", &[("connection", "upgrade"), ("upgrade", "websocket")])
        .await;
    assert_eq!(got.seen().header("upgrade"), Some("websocket"));
    let got = Http::new(port)
        .get_with("/", &[("connection", "upgrade"), ("upgrade", "h2c")])
        .await;
    assert_eq!(got.seen().header("upgrade"), None);
}

#[tokio::test]
async fn websocket_over_http2() {
    let (_proxy, port) = proxy().await;
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::connect(format!("http://127.0.0.1:{port}/chat"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    request
        .extensions_mut()
        .insert(h2::ext::Protocol::from_static("websocket"));
    support::eventually("extended CONNECT is offered", || {
        send.is_extended_connect_protocol_enabled()
    })
    .await;
    let (response, mut body) = send.send_request(request, false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let mut reading = response.into_body();
    body.send_data(Bytes::from_static(b"\x81\x82\0\0\0\0hi"), false)
        .unwrap();
    assert_eq!(
        reading.data().await.unwrap().unwrap(),
        Bytes::from_static(b"\x81\x02hi")
    );
}

#[tokio::test]
async fn an_upgrade_over_http2_has_no_content() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    support::eventually("extended CONNECT is offered", || {
        send.is_extended_connect_protocol_enabled()
    })
    .await;
    let mut request = http::Request::connect(format!("http://127.0.0.1:{port}/"))
        .header("content-length", 40)
        .body(())
        .unwrap();
    request
        .extensions_mut()
        .insert(h2::ext::Protocol::from_static("websocket"));
    // What a backend that declines would wait for, and take out of the next request.
    let (response, _body) = send.send_request(request, false).unwrap();
    assert_eq!(response.await.unwrap().status(), 400);
    assert_eq!(backend.hits(), 0);
}
