//! CONNECT: tunnels that end in the proxy, and those that go on to a backend.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::support::backend::Backend;
use super::support::client::{Http, Raw};
use super::support::{self, Proxy, eventually, tunnels};
use super::{cfg, simple};

/// Sends back what comes.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// A proxy of the backend's own: agrees to CONNECT for `good.example` and then echoes; declines all else.
async fn next_proxy() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                if !head.starts_with("CONNECT good.example:443 HTTP/1.1\r\n") {
                    let decline = "HTTP/1.1 407 No\r\ncontent-length: 3\r\n\r\nno!";
                    return stream.write_all(decline.as_bytes()).await.unwrap();
                }
                // A length that means nothing here.
                let agree = "HTTP/1.1 200 Yes\r\ncontent-length: 7\r\nvia-next: yes\r\n\r\n";
                stream.write_all(agree.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn proxy(address: std::net::SocketAddr, terminate: bool) -> (Proxy, u16) {
    let port = support::free_port();
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = Some(cfg::connects(terminate));
    // Timeouts are for requests; a tunnel outlives them.
    rule.request_timeout_ms = 300;
    let mut resources = cfg::backend("b", &[address]);
    resources.extend([cfg::http_listener("l", port), cfg::route("r", "l", vec![rule])]);
    (Proxy::start(resources).await, port)
}

/// A proxy in front of another one that is spoken to in HTTP/2.
async fn before_http2() -> (Proxy, u16) {
    let port = support::free_port();
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = Some(cfg::connects(false));
    let mut resources = cfg::h2c("b", &[tunnels::next_proxy_h2().await]);
    resources.extend([cfg::http_listener("l", port), cfg::route("r", "l", vec![rule])]);
    (Proxy::start(resources).await, port)
}

async fn connect(port: u16, host: &str) -> (Raw, String) {
    let mut raw = Raw::connect(port).await;
    raw.send(format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n"))
        .await;
    let head = raw.head().await;
    (raw, head)
}

#[tokio::test]
async fn a_tunnel_ends_here() {
    let (_proxy, port) = proxy(echo().await, true).await;
    let (mut raw, head) = connect(port, "any.example").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let lower = head.to_ascii_lowercase();
    assert!(
        !lower.contains("content-length") && !lower.contains("transfer-encoding"),
        "{head}"
    );
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    for bytes in [&b"\x16\x03\x01 not HTTP"[..], b"more"] {
        raw.send(bytes).await;
        assert_eq!(raw.exactly(bytes.len()).await, bytes);
    }
    let large = vec![7u8; 1_000_000];
    let (mut read, mut write) = raw.0.split();
    let sent = large.clone();
    let mut back = vec![0; large.len()];
    let (wrote, got) = tokio::join!(write.write_all(&sent), read.read_exact(&mut back));
    wrote.unwrap();
    got.unwrap();
    assert_eq!(back, large);
    // Both sides close.
    write.shutdown().await.unwrap();
    assert_eq!(raw.rest().await, "");
}

/// CONNECT over HTTP/2.
async fn connect_h2(port: u16, to: &str) -> (http::Response<h2::RecvStream>, h2::SendStream<Bytes>) {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::connect(to).body(()).unwrap();
    let (response, body) = send.send_request(request, false).unwrap();
    (response.await.unwrap(), body)
}

async fn rest(mut reading: h2::RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(data) = reading.data().await {
        all.extend_from_slice(&data.unwrap());
    }
    all
}

#[tokio::test]
async fn a_tunnel_of_http2_ends_here() {
    let (_proxy, port) = proxy(tunnels::echo().await, true).await;
    let (response, mut body) = connect_h2(port, "any.example:443").await;
    assert_eq!(response.status(), 200);
    let mut reading = response.into_body();
    body.send_data(Bytes::from_static(b"ping"), false).unwrap();
    assert_eq!(
        reading.data().await.unwrap().unwrap(),
        Bytes::from_static(b"ping")
    );
    // The backend hears that nothing more comes, and has the last word.
    body.send_data(Bytes::from_static(b"pong"), true).unwrap();
    assert_eq!(rest(reading).await, b"pongbye");
}

#[tokio::test]
async fn a_tunnel_goes_on_to_the_next_proxy_over_http2() {
    let (_proxy, port) = before_http2().await;
    let (mut raw, head) = connect(port, "good.example").await;
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.contains("via-next: yes"),
        "{head}"
    );
    raw.send("hello").await;
    assert_eq!(raw.exactly(5).await, b"hello");
    let (response, mut body) = connect_h2(port, "good.example:443").await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["via-next"]),
        (200, &"yes".parse().unwrap())
    );
    body.send_data(Bytes::from_static(b"hello"), true).unwrap();
    assert_eq!(rest(response.into_body()).await, b"hellobye");
    // It may decline, and its answer is one.
    let (mut raw, head) = connect(port, "bad.example").await;
    assert!(head.starts_with("HTTP/1.1 407 "), "{head}");
    assert!(String::from_utf8_lossy(&raw.exactly(8).await).contains("no!"));
    let (response, _body) = connect_h2(port, "bad.example:443").await;
    assert_eq!(response.status(), 407);
    assert_eq!(rest(response.into_body()).await, b"no!");
}

#[tokio::test]
async fn a_tunnel_goes_on_to_the_next_proxy() {
    let (_proxy, port) = proxy(next_proxy().await, false).await;
    let (mut raw, head) = connect(port, "good.example").await;
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.contains("via-next: yes"),
        "{head}"
    );
    assert!(!head.to_ascii_lowercase().contains("content-length"), "{head}");
    raw.send("hello").await;
    assert_eq!(raw.exactly(5).await, b"hello");
    // It may decline, and its answer is one.
    let (mut raw, head) = connect(port, "bad.example").await;
    assert!(head.starts_with("HTTP/1.1 407 "), "{head}");
    assert_eq!(raw.exactly(3).await, b"no!");
}

#[tokio::test]
async fn nobody_tunnels_where_no_policy_says_so() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    let (_, head) = connect(port, "any.example").await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    assert_eq!(backend.connections(), 0);
    // Where tunnels are served, other upgrades are not unless they are named.
    let (_proxy, port) = proxy(backend.address, true).await;
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    assert_eq!(Http::new(port).get_with("/", &upgrade).await.status, 403);
    assert_eq!(Http::new(port).get("/").await.status, 200);
}

#[tokio::test]
async fn connect_must_be_plain() {
    let (_proxy, port) = proxy(echo().await, true).await;
    for head in [
        "CONNECT a.example HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "CONNECT a.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n",
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nContent-Length: 3\r\n\r\nabc",
        "CONNECT u@a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
    ] {
        let mut raw = Raw::connect(port).await;
        raw.send(head).await;
        let answer = raw.head().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head}: {answer}");
    }
}

#[tokio::test]
async fn a_tunnel_has_a_connection_of_its_own() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = proxy(backend.address, true).await;
    // One connection of HTTP is kept for the next request.
    let http = Http::new(port);
    assert_eq!(http.get("/").await.status, 200);
    assert_eq!(backend.connections(), 1);
    // What the tunnel carries is the backend's own protocol here.
    let (mut raw, _) = connect(port, "any.example").await;
    raw.send("GET /in-tunnel HTTP/1.1\r\nHost: inner\r\nConnection: close\r\n\r\n")
        .await;
    let answer = raw.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("/in-tunnel"),
        "{answer}"
    );
    eventually("it has its own", || backend.connections() == 2).await;
}
