//! Framing, streaming and the life of a connection.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::simple;
use super::support::backend::{Backend, describe, response, sum};
use super::support::client::{Http, Raw};

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from((i * 7 + i / 251) % 256).unwrap())
        .collect()
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    let mut raw = Raw::connect(port).await;
    for i in 0..5 {
        raw.send(format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let head = raw.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let length: usize = field(&head, "content-length").unwrap().parse().unwrap();
        let body = raw.exactly(length).await;
        assert!(
            String::from_utf8(body)
                .unwrap()
                .contains(&format!("\"uri\":\"/{i}\""))
        );
    }
    assert_eq!(backend.connections(), 1);
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, v)| v)
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    let mut raw = Raw::connect(port).await;
    raw.send(
        "GET /one HTTP/1.1\r\nHost: a\r\n\r\nPOST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    )
    .await;
    raw.send("GET /three HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let all = raw.rest().await;
    let places: Vec<_> = ["/one", "/two", "/three"]
        .iter()
        .map(|path| all.find(path).unwrap())
        .collect();
    assert!(places.is_sorted(), "{all}");
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 3);
}

#[tokio::test]
async fn connection_close_is_honoured() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    let mut raw = Raw::connect(port).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let all = raw.rest().await;
    assert_eq!(field(&all, "connection"), Some("close"));
}

#[tokio::test]
async fn http_1_0() {
    let backend =
        Backend::start(|_| async { unsized_response(vec![Bytes::from("abc"), Bytes::from("def")], None) })
            .await;
    let (_proxy, port) = simple(&backend).await;
    let mut raw = Raw::connect(port).await;
    raw.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let all = raw.rest().await;
    assert_eq!(field(&all, "transfer-encoding"), None);
    assert!(all.ends_with("\r\n\r\nabcdef"), "{all}");
}

fn unsized_response(
    chunks: Vec<Bytes>,
    trailers: Option<http::HeaderMap>,
) -> http::Response<super::support::backend::Body> {
    let frames = chunks
        .into_iter()
        .map(Frame::data)
        .chain(trailers.map(Frame::trailers));
    let body = StreamBody::new(futures::stream::iter(
        frames.map(Ok::<_, std::convert::Infallible>),
    ));
    http::Response::builder()
        .header("trailer", "x-sum")
        .body(BodyExt::boxed(body))
        .unwrap()
}

#[tokio::test]
async fn a_head_request_keeps_the_length_and_has_no_body() {
    let backend = Backend::start(|_| async { response(200, "twelve bytes") }).await;
    let (_proxy, port) = simple(&backend).await;
    let mut raw = Raw::connect(port).await;
    for _ in 0..2 {
        raw.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = raw.head().await;
        assert_eq!(field(&head, "content-length"), Some("12"), "{head}");
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn bodiless_statuses() {
    let backend = Backend::start(|r| async move { response(r.uri().path()[1..].parse().unwrap(), "") }).await;
    let (_proxy, port) = simple(&backend).await;
    let mut raw = Raw::connect(port).await;
    for status in [204, 304, 200, 204] {
        raw.send(format!("GET /{status} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        let head = raw.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(field(&head, "transfer-encoding"), None, "{head}");
    }
}

#[tokio::test]
async fn large_bodies_both_ways() {
    let backend = Backend::start(|request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        response(200, body)
    })
    .await;
    let (_proxy, port) = simple(&backend).await;
    let body = pattern(5_000_000);
    for client in [Http::new(port), Http::h2(port)] {
        let got = client.send(client.request("POST", "/"), body.clone()).await;
        assert_eq!(got.status, 200);
        assert_eq!((got.body.len(), sum(&got.body)), (body.len(), sum(&body)));
    }
}

#[tokio::test]
async fn chunked_requests_with_trailers() {
    let backend = Backend::echo("b").await;
    let (_proxy, port) = simple(&backend).await;
    let mut raw = Raw::connect(port).await;
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n")
        .await;
    raw.send("5\r\nhello\r\n").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    raw.send("7;ext=1\r\n, world\r\n0\r\nX-Sum: 42\r\n\r\n").await;
    let head = raw.head().await;
    let length: usize = field(&head, "content-length").unwrap().parse().unwrap();
    let seen: super::support::backend::Seen = serde_json::from_slice(&raw.exactly(length).await).unwrap();
    assert_eq!((seen.body_len, seen.body_sum), (12, sum(b"hello, world")));
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "42".to_owned())]);
    // The connection goes on.
    raw.send("GET /again HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(raw.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn chunked_responses_with_trailers() {
    let backend = Backend::start(|request| async move {
        assert_eq!(request.headers()["te"], "trailers");
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "42".parse().unwrap());
        unsized_response(vec![Bytes::from("abc"), Bytes::from("def")], Some(trailers))
    })
    .await;
    let (_proxy, port) = simple(&backend).await;
    let client = Http::new(port);
    let got = client.get_with("/", &[("te", "trailers")]).await;
    assert_eq!(got.body, "abcdef");
    assert_eq!(got.trailers.unwrap()["x-sum"], "42");
    let got = Http::h2(port).get_with("/", &[("te", "trailers")]).await;
    assert_eq!(got.body, "abcdef");
    assert_eq!(got.trailers.unwrap()["x-sum"], "42");
}

#[tokio::test]
async fn expect_continue() {
    let backend = Backend::start(|request| async move {
        assert!(!request.headers().contains_key("expect"));
        describe("b", request).await
    })
    .await;
    let (_proxy, port) = simple(&backend).await;
    let mut raw = Raw::connect(port).await;
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(raw.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    raw.send("hello").await;
    assert!(raw.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_response_streams_while_the_request_does() {
    let backend = Backend::start(|request| async move {
        let body = request.into_body().map_err(|_| unreachable!()).boxed();
        http::Response::new(body)
    })
    .await;
    let (_proxy, port) = simple(&backend).await;
    let mut raw = Raw::connect(port).await;
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    for i in 0..3 {
        raw.send(format!("4\r\nabc{i}\r\n")).await;
        let end = format!("abc{i}\r\n");
        assert!(raw.read_until(&end).await.ends_with(&end));
    }
    raw.send("0\r\n\r\n").await;
    assert!(raw.read_until("0\r\n\r\n").await.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn a_slow_reader_holds_the_backend_back_and_nobody_else() {
    let backend = Backend::start(|request| async move {
        if request.uri().path() == "/small" {
            return response(200, "small");
        }
        let chunks = (0..512).map(|_| Bytes::from(vec![b'a'; 64 * 1024])).collect();
        unsized_response(chunks, None)
    })
    .await;
    let (_proxy, port) = simple(&backend).await;
    let mut slow = Raw::connect(port).await;
    slow.send("GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    slow.head().await;
    for _ in 0..8 {
        assert_eq!(Http::new(port).get("/small").await.body, "small");
    }
    let rest = slow.rest().await;
    assert!(rest.len() > 32 << 20, "{}", rest.len());
    assert!(rest.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_along() {
    struct Alive(std::sync::Arc<std::sync::atomic::AtomicUsize>);
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let ended = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let counter = std::sync::Arc::clone(&ended);
    let backend = Backend::start(move |_| {
        let alive = Alive(std::sync::Arc::clone(&counter));
        async move {
            let _alive = alive;
            std::future::pending().await
        }
    })
    .await;
    let (_proxy, port) = simple(&backend).await;
    let mut raw = Raw::connect(port).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    super::support::eventually("the request arrives", || backend.hits() == 1).await;
    drop(raw);
    super::support::eventually("the request ends", || {
        ended.load(std::sync::atomic::Ordering::SeqCst) == 1
    })
    .await;
    // The same with HTTP/2.
    let client = Http::h2(port);
    let request = tokio::spawn(async move { client.get("/").await });
    super::support::eventually("the request arrives", || backend.hits() == 2).await;
    request.abort();
    super::support::eventually("the request ends", || {
        ended.load(std::sync::atomic::Ordering::SeqCst) == 2
    })
    .await;
}

#[tokio::test]
async fn a_response_that_breaks_off_does_not_look_complete() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
                .await;
        }
    });
    let port = super::support::free_port();
    let mut resources = super::cfg::backend("b", &[address]);
    resources.push(super::cfg::http_listener("l", port));
    resources.push(super::cfg::route("r", "l", vec![super::cfg::rule("/", &["b"])]));
    let _proxy = super::Proxy::start(resources).await;
    let mut raw = Raw::connect(port).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let all = raw.rest().await;
    assert!(all.contains("hello"), "{all}");
    assert!(!all.contains("0\r\n\r\n"), "{all}");
    let client = Http::h2(port);
    assert!(client.try_send(client.request("GET", "/"), "").await.is_err());
}

#[tokio::test]
async fn informational_responses_pass() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let early = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
            let _ = stream.write_all(early.as_bytes()).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
        }
    });
    let port = super::support::free_port();
    let mut resources = super::cfg::backend("b", &[address]);
    resources.push(super::cfg::http_listener("l", port));
    resources.push(super::cfg::route("r", "l", vec![super::cfg::rule("/", &["b"])]));
    let _proxy = super::Proxy::start(resources).await;
    let mut raw = Raw::connect(port).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let early = raw.head().await;
    assert!(early.starts_with("HTTP/1.1 103 Early Hints\r\n"), "{early}");
    assert!(early.contains("link: </a.css>; rel=preload"));
    assert!(raw.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(raw.exactly(2).await, b"ok");
}
