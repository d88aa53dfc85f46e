//! What must not be believed.

use super::simple;
use super::support::backend::Backend;
use super::support::client::Raw;

async fn answer(port: u16, request: &str) -> String {
    let mut raw = Raw::connect(port).await;
    raw.send(request).await;
    raw.rest().await
}

#[tokio::test]
async fn ambiguous_framing_is_refused() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (fields, expected) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "400"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "400"),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", "400"),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", "400"),
        ("Content-Length: 5, 5\r\n", "400"),
        ("Content-Length: +5\r\n", "400"),
        ("Content-Length: -1\r\n", "400"),
        ("Content-Length: 0x5\r\n", "400"),
        ("Transfer-Encoding: gzip, chunked\r\n", "501"),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "501",
        ),
        ("Transfer-Encoding: identity\r\n", "400"),
        ("Transfer-Encoding : chunked\r\n", "400"),
        ("Content-Length: 5\r\n X: folded\r\n", "400"),
        ("X: a\0b\r\n", "400"),
        ("Host: b\r\n", "400"),
    ] {
        let got = answer(
            port,
            &format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n0\r\n\r\n{smuggled}"),
        )
        .await;
        assert!(
            got.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{fields:?}: {got:?}"
        );
        assert_eq!(got.matches("HTTP/1.1").count(), 1, "{fields:?}: {got:?}");
    }
    assert_eq!(backend.hits(), 0);
}

#[tokio::test]
async fn broken_chunks_end_the_connection() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    for chunks in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        let got = answer(port, &request).await;
        assert!(!got.contains(" 200 "), "{chunks:?}: {got:?}");
    }
}

#[tokio::test]
async fn nonsense_is_refused() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    for request in [
        "\x16\x03\x01\x00\x05hello\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    ] {
        let got = answer(port, request).await;
        assert!(got.starts_with("HTTP/1.1 400 "), "{request:?}: {got:?}");
    }
    let connect = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nConnection: close\r\n\r\n";
    assert!(answer(port, connect).await.starts_with("HTTP/1.1 404 "));
    assert_eq!(backend.hits(), 0);
}

#[tokio::test]
async fn heads_are_bounded() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    let mut raw = Raw::connect(port).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    let line = format!("X-Filler: {}\r\n", "a".repeat(1000));
    for _ in 0..100 {
        use tokio::io::AsyncWriteExt;
        if raw.0.write_all(line.as_bytes()).await.is_err() {
            break;
        }
    }
    let got = raw.rest().await;
    assert!(got.starts_with("HTTP/1.1 431 "), "{got:?}");
}
