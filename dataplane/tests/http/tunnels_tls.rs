//! Tunnels and upgrades to backends that speak TLS: what goes through them is the client's, the TLS is the proxy's.

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use sluice_config::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::Message;

use super::cfg;
use super::support::certificate::{Certificate, acceptor, certificate};
use super::support::client::Raw;
use super::support::{self, Proxy};

/// HTTP/2 would be spoken if it were asked for.
const EITHER: &[&[u8]] = &[b"h2", b"http/1.1"];

/// Does something with each connection that has come to a handshake, for which there are these protocols.
async fn secure<F>(
    certificate: &Certificate,
    protocols: &[&[u8]],
    serve: fn(TlsStream<TcpStream>) -> F,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = acceptor(certificate, protocols);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                if let Ok(stream) = tls.accept(stream).await {
                    serve(stream).await;
                }
            });
        }
    });
    address
}

async fn echo(stream: TlsStream<TcpStream>) {
    let (mut read, mut write) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

/// Agrees to any CONNECT over HTTP/1.1, tells of what it was asked, and then echoes.
async fn next_proxy(mut stream: TlsStream<TcpStream>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let first = head.lines().next().unwrap();
    let agree = format!("HTTP/1.1 200 Yes\r\nasked: {first}\r\n\r\n");
    stream.write_all(agree.as_bytes()).await.unwrap();
    echo(stream).await;
}

async fn websocket(stream: TlsStream<TcpStream>) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else {
        return;
    };
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() {
            let _ = socket.send(message).await;
        }
    }
}

/// A proxy that believes `trusted`; `policy` is that of its rule.
async fn proxy(address: SocketAddr, trusted: &Certificate, policy: Option<v1::Policy>) -> (Proxy, u16) {
    let port = support::free_port();
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = policy;
    let mut resources = cfg::backend_with("b", &[address], cfg::in_tls("backend.example"));
    resources.push(cfg::trust("ca", &trusted.pem));
    resources.extend([cfg::http_listener("l", port), cfg::route("r", "l", vec![rule])]);
    (Proxy::start(resources).await, port)
}

async fn connect(port: u16) -> (Raw, String) {
    let mut raw = Raw::connect(port).await;
    raw.send("CONNECT any.example:443 HTTP/1.1\r\nHost: any.example:443\r\n\r\n")
        .await;
    let head = raw.head().await;
    (raw, head)
}

#[tokio::test]
async fn tunnels_that_end_here() {
    let own = certificate("backend.example");
    let address = secure(&own, EITHER, echo).await;
    let connects = || Some(cfg::connects(true));
    let (_proxy, port) = proxy(address, &own, connects()).await;
    let (mut raw, head) = connect(port).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    raw.send("plain to the client").await;
    assert_eq!(raw.exactly(19).await, b"plain to the client");
    // Whose certificate is not believed is not spoken to.
    let (_proxy, port) = proxy(address, &certificate("backend.example"), connects()).await;
    let (_, head) = connect(port).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
}

#[tokio::test]
async fn tunnels_that_go_on() {
    let own = certificate("backend.example");
    let address = secure(&own, &[b"http/1.1"], next_proxy).await;
    let connects = || Some(cfg::connects(false));
    let (_proxy, port) = proxy(address, &own, connects()).await;
    let (mut raw, head) = connect(port).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.contains("asked: CONNECT any.example:443 HTTP/1.1\r\n"),
        "{head}"
    );
    raw.send("through").await;
    assert_eq!(raw.exactly(7).await, b"through");
    let (_proxy, port) = proxy(address, &certificate("backend.example"), connects()).await;
    let (_, head) = connect(port).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
}

#[tokio::test]
async fn websockets() {
    let own = certificate("backend.example");
    let address = secure(&own, EITHER, websocket).await;
    let (_proxy, port) = proxy(address, &own, None).await;
    let url = format!("ws://127.0.0.1:{port}/chat");
    let (mut socket, response) = tokio_tungstenite::connect_async(&url).await.unwrap();
    assert_eq!(response.status(), 101);
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
    let (_proxy, port) = proxy(address, &certificate("backend.example"), None).await;
    let refused = tokio_tungstenite::connect_async(format!("ws://127.0.0.1:{port}/chat")).await;
    let Err(tokio_tungstenite::tungstenite::Error::Http(response)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(response.status(), 503);
}
