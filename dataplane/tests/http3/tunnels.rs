//! Tunnels: upgrades by extended CONNECT (RFC 9220), and CONNECT itself (RFC 9114 section 4.4).

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes};
use sluice_config::v1;

use super::raw::{DATA, Raw, Stream, frame, head};
use super::support::backend::Backend;
use super::support::{eventually, tunnels};
use super::{HOST, Site, cfg, client, http3};

/// Codes of errors (RFC 9114 section 8.1).
const REQUEST_CANCELLED: u64 = 0x10c;
const MESSAGE_ERROR: u64 = 0x10e;
const CONNECT_ERROR: u64 = 0x10f;

/// Asks for an upgrade, and then has these fields.
fn upgrade(protocol: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        (":method", "CONNECT"),
        (":scheme", "https"),
        (":authority", HOST),
        (":path", "/chat?a=b"),
        (":protocol", protocol),
    ];
    all.extend_from_slice(fields);
    head(&all)
}

fn connect(to: &str) -> Vec<u8> {
    head(&[(":method", "CONNECT"), (":authority", to)])
}

/// Serves upgrades to these protocols, and CONNECT as it is said. Timeouts are for requests: tunnels outlive them.
async fn site(resources: Vec<v1::Resource>, protocols: &[&str], terminate: Option<bool>) -> Site {
    let upgrades = v1::HttpUpgrades {
        protocols: protocols.iter().map(ToString::to_string).collect(),
        connect: terminate.map(|terminate| v1::http_upgrades::Connect { terminate }),
    };
    let rule = v1::HttpRule {
        policy: Some(v1::Policy {
            upgrades: Some(upgrades),
            ..Default::default()
        }),
        request_timeout_ms: 300,
        ..cfg::rule("/", &["b"])
    };
    Site::with(http3(), resources, rule).await
}

async fn terminating(address: SocketAddr) -> Site {
    site(cfg::backend("b", &[address]), &["websocket"], Some(true)).await
}

#[tokio::test]
async fn upgrades_are_offered() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let raw = Raw::connect(&site).await;
    // The control stream is not the only one of the proxy's own.
    for _ in 0..3 {
        let mut recv = raw.quic.accept_uni().await.unwrap();
        let mut begins = [0; 2];
        recv.read_exact(&mut begins[..1]).await.unwrap();
        if begins[0] != 0 {
            continue;
        }
        // SETTINGS, its length, and in it SETTINGS_ENABLE_CONNECT_PROTOCOL = 1.
        recv.read_exact(&mut begins).await.unwrap();
        assert_eq!(begins[0], 4);
        let mut settings = vec![0; begins[1].into()];
        recv.read_exact(&mut settings).await.unwrap();
        assert!(settings.windows(2).any(|pair| pair == [8, 1]), "{settings:?}");
        return;
    }
    panic!("no control stream");
}

#[tokio::test]
async fn websocket() {
    let site = terminating(tunnels::upgrading().await).await;
    let raw = Raw::connect(&site).await;
    let begin = upgrade(
        "websocket",
        &[("sec-websocket-version", "13"), ("zprotocol", "mine")],
    );
    // A field that has the stand-in's name makes it unclear which is which.
    assert_eq!(raw.ask(&begin).await, Err(MESSAGE_ERROR));
    let begin = upgrade("websocket", &[("sec-websocket-version", "13")]);
    let mut stream = Stream::open(&raw, &begin).await;
    // Before there is an answer.
    stream.push(b"early").await;
    assert_eq!(stream.recv.status().await, Ok(200));
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\nearly") {
        seen.extend(stream.recv.exactly(1).await);
    }
    let seen = String::from_utf8(seen).unwrap().to_ascii_lowercase();
    assert!(seen.starts_with("get /chat?a=b http/1.1\r\n"), "{seen}");
    for expected in [
        "host: www.example.com\r\n",
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-version: 13\r\n",
        "sec-websocket-key: ",
        "x-forwarded-proto: https\r\n",
    ] {
        assert!(seen.contains(expected), "{expected}: {seen}");
    }
    assert!(!seen.contains("protocol:"), "{seen}");
    tokio::time::sleep(Duration::from_millis(400)).await;
    let large = vec![7; 1_000_000];
    let data = frame(DATA, &large);
    let Stream { mut send, mut recv } = stream;
    let writing = async {
        send.write_all(&data).await.unwrap();
        // The backend hears of it, and has the last word.
        send.finish().unwrap();
    };
    let ((), got) = tokio::join!(writing, recv.rest());
    let got = got.unwrap();
    assert_eq!(got.len(), large.len() + 3);
    assert!(got.ends_with(b"bye"));
}

#[tokio::test]
async fn protocols_need_not_be_known() {
    let site = site(
        cfg::backend("b", &[tunnels::upgrading().await]),
        &["connect-udp", "spdy/3.1"],
        None,
    )
    .await;
    // One that the client's library knows.
    let client = site.connect().await;
    let request = http::Request::builder()
        .method("CONNECT")
        .uri(format!("https://{HOST}/udp"))
        .extension(h3::ext::Protocol::CONNECT_UDP);
    let mut stream = client.begin(request).await.unwrap();
    let response = stream.recv_response().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-more"], "of it");
    for name in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    let mut data = stream.recv_data().await.unwrap().unwrap();
    assert!(
        data.copy_to_bytes(data.remaining())
            .starts_with(b"GET /udp HTTP/1.1\r\n")
    );
    stream.send_data(Bytes::from("ping")).await.unwrap();
    let mut data = stream.recv_data().await.unwrap().unwrap();
    assert_eq!(data.copy_to_bytes(data.remaining()), "ping");
    // One that nobody knows, and one that the policy does not name.
    let raw = Raw::connect(&site).await;
    for (protocol, status) in [("spdy/3.1", 200), ("websocket", 403)] {
        let mut stream = Stream::open(&raw, &upgrade(protocol, &[])).await;
        assert_eq!(stream.recv.status().await, Ok(status), "{protocol}");
    }
}

#[tokio::test]
async fn a_backend_may_decline() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let raw = Raw::connect(&site).await;
    let mut stream = Stream::open(&raw, &upgrade("websocket", &[])).await;
    assert_eq!(stream.recv.status().await, Ok(200));
    // An answer like any other; its connection goes on to the next request.
    let body = String::from_utf8(stream.recv.rest().await.unwrap()).unwrap();
    assert!(body.contains(r#"["upgrade","websocket"]"#), "{body}");
    assert_eq!(site.connect().await.get("/").await.status, 200);
}

#[tokio::test]
async fn connect_ends_here() {
    let site = terminating(tunnels::echo().await).await;
    let raw = Raw::connect(&site).await;
    let mut stream = Stream::open(&raw, &connect("any.example:443")).await;
    assert_eq!(stream.recv.status().await, Ok(404), "another host's");
    let mut stream = Stream::open(&raw, &connect(&format!("{HOST}:443"))).await;
    assert_eq!(stream.recv.status().await, Ok(200));
    tokio::time::sleep(Duration::from_millis(400)).await;
    for bytes in [&b"\x16\x03\x01 not HTTP"[..], b"more"] {
        stream.push(bytes).await;
        assert_eq!(stream.recv.exactly(bytes.len()).await, bytes);
    }
    stream.send.finish().unwrap();
    assert_eq!(stream.recv.rest().await.unwrap(), b"bye");
    // The connection goes on.
    let mut stream = Stream::open(&raw, &connect(&format!("{HOST}:443"))).await;
    assert_eq!(stream.recv.status().await, Ok(200));
}

#[tokio::test]
async fn connect_goes_on_to_the_next_proxy() {
    let address = tunnels::next_proxy_h2().await;
    let (port, certificate) = (super::support::free_port(), super::certificate("www.example"));
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = Some(cfg::connects(false));
    let mut resources = cfg::h2c("b", &[address]);
    let listener = super::listener("l", port, "", http3());
    resources.extend(super::serving(&certificate, listener, rule));
    let site = Site {
        proxy: super::Proxy::start(resources).await,
        port,
        certificate,
    };
    let crypto = client::crypto(&site.certificate, None);
    let quic = client::quic(port, "www.example", crypto).await.unwrap();
    let raw = Raw::over(quic, &[0x0, 0x4, 0x0]).await;
    let mut stream = Stream::open(&raw, &connect("good.example:443")).await;
    assert_eq!(stream.recv.status().await, Ok(200));
    stream.push(b"hello").await;
    assert_eq!(stream.recv.exactly(5).await, b"hello");
    stream.send.finish().unwrap();
    assert_eq!(stream.recv.rest().await.unwrap(), b"bye");
    // It may decline, and its answer is one.
    let mut stream = Stream::open(&raw, &connect("bad.example:443")).await;
    stream.recv.status().await.unwrap();
    assert_eq!(stream.recv.rest().await.unwrap(), b"no!");
}

#[tokio::test]
async fn nobody_tunnels_where_no_policy_says_so() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let raw = Raw::connect(&site).await;
    let mut stream = Stream::open(&raw, &connect(&format!("{HOST}:443"))).await;
    assert_eq!(stream.recv.status().await, Ok(404));
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn connect_must_be_as_it_should() {
    let backend = Backend::echo("b").await;
    let site = terminating(backend.address).await;
    let raw = Raw::connect(&site).await;
    let method = (":method", "CONNECT");
    let (scheme, host, path) = ((":scheme", "https"), (":authority", HOST), (":path", "/"));
    let to = (":authority", "www.example.com:443");
    let protocol = (":protocol", "websocket");
    for fields in [
        &[method, to, path][..],
        &[method, to, scheme],
        &[method, to, scheme, path],
        &[method],
        &[method, to, protocol],
        &[method, scheme, host, protocol],
        &[method, path, host, protocol],
        &[method, scheme, path, protocol],
        &[method, scheme, path, host, protocol, protocol],
        &[method, scheme, path, host, (":protocol", "")],
        &[method, scheme, path, host, protocol, ("connection", "upgrade")],
        &[(":method", "GET"), scheme, path, host, protocol],
    ] {
        let answer = raw.ask(&head(fields)).await;
        assert_eq!(answer, Err(MESSAGE_ERROR), "{fields:?}");
    }
    for fields in [
        &[method, host][..],
        &[method, to, ("content-length", "0")],
        &[method, scheme, path, host, protocol, ("content-length", "5")],
    ] {
        let mut stream = Stream::open(&raw, &head(fields)).await;
        assert_eq!(stream.recv.status().await, Ok(400), "{fields:?}");
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn a_tunnel_that_breaks_does_not_look_ended() {
    const AGREE: &str = "HTTP/1.1 101 Yes\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    for (agreement, begin, code) in [
        (AGREE, upgrade("websocket", &[]), REQUEST_CANCELLED),
        ("", connect(&format!("{HOST}:443")), CONNECT_ERROR),
    ] {
        let site = terminating(tunnels::breaking(agreement).await).await;
        let raw = Raw::connect(&site).await;
        let mut stream = Stream::open(&raw, &begin).await;
        assert_eq!(stream.recv.status().await, Ok(200));
        stream.push(b"x").await;
        assert_eq!(stream.recv.rest().await, Err(code));
    }
}

#[tokio::test]
async fn a_client_that_gives_up_takes_its_tunnel_with_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = terminating(listener.local_addr().unwrap()).await;
    let raw = Raw::connect(&site).await;
    let mut stream = Stream::open(&raw, &connect(&format!("{HOST}:443"))).await;
    let (backend, _) = listener.accept().await.unwrap();
    assert_eq!(stream.recv.status().await, Ok(200));
    let mut byte = [0];
    assert!(backend.try_read(&mut byte).is_err(), "it is left too early");
    stream.send.reset(0x10c_u32.into()).unwrap();
    // The end, or a reset.
    eventually("the backend is left", || match backend.try_read(&mut byte) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    })
    .await;
    assert!(raw.quic.close_reason().is_none());
}
