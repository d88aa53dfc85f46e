//! What no client should send.

use std::net::UdpSocket;

use sluice_dataplane::telemetry::AccessLogTarget;

use super::raw::{DATA, HEADERS, Raw, frame, head, integer, read, request};
use super::support;
use super::support::backend::Backend;
use super::{HOST, Site, cfg, http3};

/// Codes of errors (RFC 9114 section 8.1, RFC 9204 section 6).
const FRAME_UNEXPECTED: u64 = 0x105;
const INTERNAL_ERROR: u64 = 0x102;
const REQUEST_INCOMPLETE: u64 = 0x10d;
const MESSAGE_ERROR: u64 = 0x10e;
const QPACK_FAILED: u64 = 0x200;
/// The static table's `:status: 200` as the first field of a head.
const OK: [u8; 3] = [0, 0, 0xd9];

fn is_ok(answer: &Result<Vec<u8>, u64>) -> bool {
    answer
        .as_ref()
        .is_ok_and(|all| all.get(2..5).is_some_and(|at| at == OK) || all.windows(3).any(|w| w == OK))
}

#[tokio::test]
async fn malformed_requests_are_reset_and_others_go_on() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let raw = Raw::connect(&site).await;
    assert!(is_ok(&raw.ask(&request("GET", &[])).await));
    let whole = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", HOST),
        (":path", "/"),
    ];
    let mut bad: Vec<Vec<u8>> = Vec::new();
    // Something that has to be there is not.
    for missing in [":method", ":authority", ":path", ":scheme"] {
        let rest: Vec<_> = whole
            .iter()
            .copied()
            .filter(|(name, _)| *name != missing)
            .collect();
        bad.push(head(&rest));
    }
    // Fields that may not be there, or not like this.
    for field in [
        ("connection", "close"),
        ("connection", "upgrade"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("te", "gzip"),
        ("content-length", "x"),
        ("content-length", "-1"),
        ("Upper", "case"),
        ("bad name", "x"),
        ("bad-value", "a\nb"),
        (":unknown", "x"),
        ("host", "other.example"),
        ("", "x"),
    ] {
        bad.push(request("GET", &[field]));
    }
    bad.push(request(
        "POST",
        &[("content-length", "3"), ("content-length", "4")],
    ));
    for stream in &bad {
        assert_eq!(
            raw.ask(stream).await,
            Err(MESSAGE_ERROR),
            "{}",
            stream.escape_ascii()
        );
    }
    assert_eq!(backend.hits(), 1);
    assert!(is_ok(&raw.ask(&request("GET", &[("te", "trailers")])).await));
}

#[tokio::test]
async fn what_is_refused_is_in_the_access_log() {
    let backend = Backend::echo("b").await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let log = AccessLogTarget::File(path.clone());
    let resources = cfg::backend("b", &[backend.address]);
    let site = Site::logging(log, http3(), resources, cfg::rule("/", &["b"])).await;
    let raw = Raw::connect(&site).await;
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (stream, method, status, details)) in [
        // By the h3 crate, and by us.
        (
            request("GET", &[("Upper", "case")]),
            "-",
            0,
            "http3.invalid_header_field",
        ),
        (
            request("PUT", &[("connection", "close")]),
            "PUT",
            0,
            "http3.invalid_header_field",
        ),
        (
            request("GET", &[("x", &"a".repeat(100_000))]),
            "-",
            431,
            "http3.headers_too_large",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(!is_ok(&raw.ask(&stream).await));
        support::eventually("a line", || {
            read().lines().count() == number + 1 && read().ends_with('\n')
        })
        .await;
        let line: serde_json::Value = serde_json::from_str(read().lines().last().unwrap()).unwrap();
        assert_eq!(line["response_code"], status, "{line}");
        for (key, value) in [
            ("protocol", "HTTP/3"),
            ("method", method),
            ("response_flags", "DPE"),
            ("response_code_details", details),
            ("requested_server_name", HOST),
        ] {
            assert_eq!(line[key], value, "{key}: {line}");
        }
    }
}

#[tokio::test]
async fn hosts_that_are_none_are_refused() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let raw = Raw::connect(&site).await;
    for authority in ["user@www.example.com", ""] {
        let head = head(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", authority),
            (":path", "/"),
        ]);
        assert!(!is_ok(&raw.ask(&head).await), "{authority}");
    }
    assert_eq!(backend.hits(), 0);
    assert!(is_ok(&raw.ask(&request("GET", &[])).await));
}

#[tokio::test]
async fn bodies_are_as_long_as_they_say() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let raw = Raw::connect(&site).await;
    for (length, body, is_right) in [
        ("5", "hello", true),
        ("5", "hell", false),
        ("5", "hello!", false),
        ("5", "", false),
        ("0", "", true),
        ("0", "x", false),
    ] {
        let mut stream = request("POST", &[("content-length", length)]);
        stream.extend(frame(DATA, body.as_bytes()));
        let answer = raw.ask(&stream).await;
        if is_right {
            assert!(is_ok(&answer), "{length} {body}");
        } else {
            assert_eq!(answer, Err(MESSAGE_ERROR), "{length} {body}");
        }
    }
}

#[tokio::test]
async fn frames_may_be_small_empty_or_unknown() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let raw = Raw::connect(&site).await;
    // Frames of reserved types (RFC 9114 section 7.2.8) and empty ones wherever they may be.
    let unknown = frame(0x21, &[7; 1000]);
    let mut stream = [unknown.clone(), request("POST", &[])].concat();
    for byte in b"hello" {
        stream.extend(frame(DATA, b""));
        stream.extend(&unknown);
        stream.extend(frame(DATA, &[*byte]));
    }
    stream.extend(frame(DATA, b""));
    stream.extend(&unknown);
    let answer = raw.ask(&stream).await.unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.contains(r#""body_len":5"#), "{text}");
    // Very many of them: what is held of them is bounded, and they arrive.
    let mut stream = request("POST", &[]);
    for _ in 0..200_000 {
        stream.extend(frame(DATA, b"x"));
    }
    let answer = raw.ask(&stream).await.unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.contains(r#""body_len":200000"#), "{text}");
    // One that is ignored is not kept, however long it is.
    let mut stream = integer(0x21);
    stream.extend(integer(3_000_000));
    stream.extend(vec![0; 3_000_000]);
    stream.extend(request("GET", &[]));
    assert!(is_ok(&raw.ask(&stream).await));
}

#[tokio::test]
async fn what_is_cut_short_is_not_taken_for_whole() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    for (begun, rest) in [
        // The end comes with the rest, and by itself.
        (
            request("POST", &[]),
            [integer(DATA), integer(100), b"part".to_vec()].concat(),
        ),
        (
            [
                request("POST", &[]),
                integer(DATA),
                integer(100),
                b"part".to_vec(),
            ]
            .concat(),
            Vec::new(),
        ),
        (
            [request("POST", &[]), integer(DATA), integer(100)].concat(),
            Vec::new(),
        ),
    ] {
        let raw = Raw::connect(&site).await;
        let (mut send, mut recv) = raw.quic.open_bi().await.unwrap();
        send.write_all(&begun).await.unwrap();
        // Goes out by itself.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        send.write_all(&rest).await.unwrap();
        send.finish().unwrap();
        assert_eq!(read(&mut recv).await, Err(INTERNAL_ERROR));
        assert!(is_ok(&raw.ask(&request("GET", &[])).await));
    }
    // In the middle of the head.
    let raw = Raw::connect(&site).await;
    let begun = request("POST", &[]);
    assert_eq!(raw.ask(&begun[..begun.len() - 3]).await, Err(REQUEST_INCOMPLETE));
    assert_eq!(raw.ask(&[]).await, Err(REQUEST_INCOMPLETE));
    assert!(is_ok(&raw.ask(&request("GET", &[])).await));
}

#[tokio::test]
async fn heads_have_bounds() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let raw = Raw::connect(&site).await;
    // Larger than a head may be: it is answered.
    let answer = raw.ask(&request("GET", &[("x", &"a".repeat(100_000))])).await;
    assert!(
        answer.as_ref().is_ok_and(|head| head.first() == Some(&1)),
        "{answer:?}"
    );
    assert!(!is_ok(&answer));
    // Larger than anything that is kept: nobody waits for the rest.
    let mut stream = integer(HEADERS);
    stream.extend(integer(1 << 40));
    assert_eq!(raw.ask(&stream).await, Err(REQUEST_INCOMPLETE));
    let mut stream = request("POST", &[]);
    stream.extend(integer(HEADERS));
    stream.extend(integer(1 << 40));
    assert!(raw.ask(&stream).await.is_err());
    assert!(is_ok(&raw.ask(&request("GET", &[])).await));
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_its_connection_alone() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let bystander = Raw::connect(&site).await;
    for (stream, code) in [
        // A body without a head, a frame of HTTP/2, SETTINGS among a request, a head that cannot be decoded.
        (frame(DATA, b"x"), FRAME_UNEXPECTED),
        (frame(0x6, &[0; 8]), FRAME_UNEXPECTED),
        ([request("GET", &[]), frame(0x4, &[])].concat(), FRAME_UNEXPECTED),
        (frame(HEADERS, &[0xff; 30]), QPACK_FAILED),
        (frame(HEADERS, &[]), QPACK_FAILED),
    ] {
        let raw = Raw::connect(&site).await;
        assert!(raw.ask(&stream).await.is_err(), "{}", stream.escape_ascii());
        let quinn::ConnectionError::ApplicationClosed(end) = raw.closed().await else {
            panic!("not closed by the proxy: {}", stream.escape_ascii());
        };
        assert_eq!(u64::from(end.error_code), code, "{}", stream.escape_ascii());
    }
    for control in [
        // Frames before SETTINGS, SETTINGS that never end, SETTINGS of HTTP/2.
        vec![0x0, 0x7, 0x1, 0x0],
        [vec![0x0, 0x4], integer(1 << 30)].concat(),
        vec![0x0, 0x4, 0x2, 0x2, 0x0],
        // A body on the control stream.
        vec![0x0, 0x4, 0x0, 0x0, 0x1, b'x'],
    ] {
        let raw = Raw::with_control(&site, &control).await;
        let end = raw.closed().await;
        assert!(
            matches!(end, quinn::ConnectionError::ApplicationClosed(_)),
            "{control:?}: {end}"
        );
    }
    assert!(is_ok(&bystander.ask(&request("GET", &[])).await));
}

#[tokio::test]
async fn datagrams_that_are_not_quic_are_nothing() {
    let backend = Backend::echo("b").await;
    let site = Site::with(
        http3(),
        cfg::backend("b", &[backend.address]),
        cfg::rule("/", &["b"]),
    )
    .await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for first in 0..=255_u8 {
        for length in [1, 20, 1200] {
            let rest = (0..=255_u8).cycle().map(|i| first.wrapping_add(i));
            let datagram: Vec<u8> = rest.take(length).collect();
            socket.send_to(&datagram, ("127.0.0.1", site.port)).unwrap();
        }
    }
    assert_eq!(site.connect().await.get("/").await.status, 200);
}
