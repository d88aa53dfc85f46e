//! Bodies: how much of them is on its way, and what becomes of them when somebody gives up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes};
use h3::error::{Code, StreamError};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::client::request;
use super::support::backend::{Backend, response, sum};
use super::support::eventually;
use super::{Site, cfg, http3};

/// Larger than any window.
const LARGE: usize = 3_000_000;

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from((i * 7 + i / 251) % 256).unwrap())
        .collect()
}

/// The reset that a client meets.
fn reset(error: &StreamError) -> Option<Code> {
    match error {
        StreamError::RemoteTerminate { code, .. } => Some(*code),
        _ => None,
    }
}

#[tokio::test]
async fn large_bodies_go_both_ways_at_once() {
    let backend = Backend::start(|request| async move {
        let body = request.into_body().map_frame(|frame| frame);
        let body = body.map_err(|_| -> std::convert::Infallible { panic!("cut") });
        http::Response::new(BodyExt::boxed(body))
    })
    .await;
    let site = Site::start(&backend).await;
    let client = site.connect().await;
    let body = pattern(LARGE);
    for length in [None, Some(LARGE)] {
        let mut request = request("POST", "/");
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let got = client.send(request, body.clone()).await.unwrap();
        assert_eq!((got.status, got.body.len()), (200, LARGE));
        assert_eq!(sum(&got.body), sum(&body));
    }
}

#[tokio::test]
async fn backends_learn_of_a_bodys_length() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let client = site.connect().await;
    let body = pattern(100_000);
    let with = request("PUT", "/").header("content-length", body.len());
    let seen = client.send(with, body.clone()).await.unwrap().seen();
    assert_eq!(seen.header("content-length"), Some("100000"));
    assert_eq!((seen.body_len, seen.body_sum), (body.len(), sum(&body)));
    let seen = client
        .send(request("PUT", "/"), body.clone())
        .await
        .unwrap()
        .seen();
    assert_eq!(seen.header("transfer-encoding"), Some("chunked"));
    assert_eq!((seen.body_len, seen.body_sum), (body.len(), sum(&body)));
}

#[tokio::test]
async fn who_reads_slowly_holds_the_backend_back() {
    const PIECES: usize = 400;
    let produced = Arc::<std::sync::atomic::AtomicUsize>::default();
    let counted = Arc::clone(&produced);
    let backend = Backend::start(move |_| {
        let counted = Arc::clone(&counted);
        async move {
            let pieces = futures::stream::unfold(0, move |n| {
                counted.fetch_add(1, Ordering::Relaxed);
                let piece = Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![b'x'; 100_000])));
                async move { (n < PIECES).then_some((piece, n + 1)) }
            });
            http::Response::new(BodyExt::boxed(StreamBody::new(pieces)))
        }
    })
    .await;
    let site = Site::start(&backend).await;
    let client = site.connect().await;
    let mut stream = client.begin(request("GET", "/")).await.unwrap();
    stream.finish().await.unwrap();
    stream.recv_response().await.unwrap();
    // Until nothing moves any more: the buffers of the client, the proxy and the system are full.
    let mut before = 0;
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let now = produced.load(Ordering::Relaxed);
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before < 250, "{before} of {PIECES} pieces are somewhere");
    let mut length = 0;
    while let Some(data) = stream.recv_data().await.unwrap() {
        length += data.remaining();
    }
    assert_eq!(length, PIECES * 100_000);
}

#[tokio::test]
async fn a_backend_may_answer_before_it_has_read_all() {
    let backend = Backend::start(|_| async { response(413, "too much") }).await;
    let site = Site::start(&backend).await;
    let client = site.connect().await;
    // While the client has more to send, and while the proxy waits for it.
    for rest in [true, false] {
        let mut stream = client.begin(request("POST", "/")).await.unwrap();
        stream.send_data(Bytes::from(pattern(1000))).await.unwrap();
        assert_eq!(stream.recv_response().await.unwrap().status(), 413);
        let data = stream.recv_data().await.unwrap().unwrap();
        assert_eq!(data.chunk(), b"too much");
        assert!(stream.recv_data().await.unwrap().is_none());
        if rest {
            // The proxy takes no more of it, at the latest when the windows are full.
            let mut sent = Ok(());
            while sent.is_ok() {
                sent = stream.send_data(Bytes::from(pattern(100_000))).await;
            }
            assert_eq!(reset(&sent.unwrap_err()), Some(Code::H3_NO_ERROR));
        }
    }
    assert_eq!(client.send(request("POST", "/"), "x").await.unwrap().status, 413);
}

#[tokio::test]
async fn a_timeout_answers_a_client_that_does_not_go_on() {
    let backend = Backend::echo("b").await;
    let mut rule = cfg::rule("/", &["b"]);
    rule.request_timeout_ms = 200;
    let site = Site::with(http3(), cfg::backend("b", &[backend.address]), rule).await;
    let client = site.connect().await;
    let mut stream = client.begin(request("POST", "/")).await.unwrap();
    stream.send_data(Bytes::from("begins")).await.unwrap();
    assert_eq!(stream.recv_response().await.unwrap().status(), 504);
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_client_is_told_to_continue() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let client = site.connect().await;
    let mut stream = client
        .begin(request("POST", "/").header("expect", "100-continue"))
        .await
        .unwrap();
    assert_eq!(stream.recv_response().await.unwrap().status(), 100);
    stream.send_data(Bytes::from("body")).await.unwrap();
    stream.finish().await.unwrap();
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_response_that_is_broken_off_does_not_look_complete() {
    let backend = Backend::start(|_| async {
        let (sender, mut receiver) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
        tokio::spawn(async move {
            sender.send(Ok(Frame::data(Bytes::from("begins")))).await.unwrap();
            // Not before that has been written.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            let _ = sender.send(Err(std::io::Error::other("broken"))).await;
        });
        let pieces = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        // An error of the body ends the connection.
        let body = StreamBody::new(pieces).map_err(|error| -> std::convert::Infallible { panic!("{error}") });
        http::Response::new(BodyExt::boxed(body))
    })
    .await;
    let site = Site::start(&backend).await;
    let client = site.connect().await;
    let mut stream = client.begin(request("GET", "/")).await.unwrap();
    stream.finish().await.unwrap();
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
    assert_eq!(stream.recv_data().await.unwrap().unwrap().chunk(), b"begins");
    let Err(error) = stream.recv_data().await.map(|data| data.is_some()) else {
        panic!("it looks complete");
    };
    assert_eq!(reset(&error), Some(Code::H3_INTERNAL_ERROR));
}

/// Says when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A backend that never answers, and whether it has been left.
async fn silent() -> (Backend, Arc<AtomicBool>) {
    let left = Arc::<AtomicBool>::default();
    let told = Arc::clone(&left);
    let backend = Backend::start(move |request| {
        let dropped = Dropped(Arc::clone(&told));
        async move {
            // Reads what comes, and does not answer when that ends well.
            if request.into_body().collect().await.is_ok() {
                std::future::pending::<()>().await;
            }
            drop(dropped);
            response(200, "")
        }
    })
    .await;
    (backend, left)
}

#[tokio::test]
async fn a_client_that_cancels_takes_its_request_to_the_backend_with_it() {
    // In the middle of the request, and when it has nothing more to send.
    for ends in [false, true] {
        let (backend, left) = silent().await;
        let site = Site::start(&backend).await;
        let client = site.connect().await;
        let mut stream = client.begin(request("POST", "/")).await.unwrap();
        stream.send_data(Bytes::from(pattern(10_000))).await.unwrap();
        if ends {
            stream.finish().await.unwrap();
        }
        eventually("the backend is asked", || backend.hits() == 1).await;
        assert!(!left.load(Ordering::SeqCst));
        stream.stop_sending(Code::H3_REQUEST_CANCELLED);
        stream.stop_stream(Code::H3_REQUEST_CANCELLED);
        eventually("the backend is left", || left.load(Ordering::SeqCst)).await;
        drop(stream);
        // The connection goes on.
        assert!(client.quic.close_reason().is_none());
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_requests_with_it() {
    let (backend, left) = silent().await;
    let site = Site::start(&backend).await;
    let client = site.connect().await;
    let mut stream = client.begin(request("GET", "/")).await.unwrap();
    stream.finish().await.unwrap();
    eventually("the backend is asked", || backend.hits() == 1).await;
    client.quic.close(0x100_u32.into(), b"");
    eventually("the backend is left", || left.load(Ordering::SeqCst)).await;
}
