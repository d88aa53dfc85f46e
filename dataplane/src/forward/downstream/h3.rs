//! One stream of an HTTP/3 connection.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h2::ext::Protocol;
use h3::error::Code;
use h3::server::RequestStream;
use http::header::{DATE, EXPECT};
use http::{HeaderMap, Method, StatusCode, request, response};
use pingora_core::protocols::http::date::get_cached_date;
use tokio::sync::Notify;

use super::{Chunk, Gone};
use crate::forward::encode;
use crate::forward::h3::{Both, Receiving, Sending, Stopped};

/// Bytes of one response that may wait to be sent.
const SEND_BUFFER: usize = 64 * 1024;

/// A stream as the connection gives it.
pub type Incoming = RequestStream<Both, Bytes>;
type Request = RequestStream<Receiving, Bytes>;
type Response = RequestStream<Sending, Bytes>;

enum Item {
    Head(http::Response<()>),
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// What waits to be sent.
#[derive(Default)]
struct Queue {
    items: Mutex<VecDeque<Item>>,
    /// Bytes of bodies among it, and on their way out.
    bytes: AtomicUsize,
    more: Notify,
    abort: Notify,
    /// Why it was broken off.
    code: OnceLock<Code>,
}

impl Queue {
    fn push(&self, item: Item) {
        self.lock().push_back(item);
        self.more.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Item>> {
        // A poisoned lock only says that some task panicked; the items are still in order.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Breaks the response off.
    fn abort(&self, code: Code) {
        // The first reason stands.
        let _ = self.code.set(code);
        self.abort.notify_one();
    }

    /// Sends until the end.
    async fn send(&self, stream: &mut Response) -> Result<(), Gone> {
        loop {
            let item = self.lock().pop_front();
            let sent = match item {
                None => {
                    self.more.notified().await;
                    continue;
                }
                Some(Item::Head(head)) => stream.send_response(head).await,
                Some(Item::Data(data)) => {
                    let length = data.len();
                    let sent = stream.send_data(data).await;
                    self.bytes.fetch_sub(length, Ordering::Relaxed);
                    sent
                }
                Some(Item::Trailers(trailers)) => stream.send_trailers(trailers).await,
                Some(Item::End) => return stream.finish().await.map_err(|e| Gone(e.to_string())),
            };
            sent.map_err(|e| Gone(e.to_string()))?;
        }
    }
}

/// Sends what is queued; a response that is broken off is reset, so that it does not look complete.
async fn send(queue: Arc<Queue>, mut stream: Response) -> Result<(), Gone> {
    tokio::select! {
        biased;
        () = queue.abort.notified() => {}
        sent = queue.send(&mut stream) => return sent,
    }
    stream.stop_stream(queue.code.get().copied().unwrap_or(Code::H3_INTERNAL_ERROR));
    Ok(())
}

/// What sends a response, to its end.
type Sender = Pin<Box<dyn Future<Output = Result<(), Gone>> + Send>>;

/// The client's side of one stream.
pub struct H3 {
    recv: Request,
    /// `None` once all is sent.
    sender: Option<Sender>,
    /// Until the client has stopped the response or has all of it.
    stopped: Option<Stopped>,
    failed: Option<String>,
    queue: Arc<Queue>,
    /// The beginning of the body, if it came with the head.
    first: Option<Result<Bytes, Gone>>,
    data_done: bool,
    request_done: bool,
    /// What the head says of the body's length, less what has come.
    left: Option<u64>,
    expects_continue: bool,
    is_head: bool,
    /// CONNECT: the stream carries no body before a tunnel is agreed on. What one that breaks is reset with (RFC 9114
    /// section 4.4, RFC 9220 section 3).
    tunnel: Option<Code>,
    /// What a response that is broken off is reset with.
    broken_off: Code,
    pub(super) responded: bool,
    ended: bool,
    pub(super) sent: u64,
}

impl H3 {
    /// A stream as the connection gave it, whose head says that its body has this length.
    pub fn new(stream: Incoming, head: &request::Parts, length: Option<u64>, stopped: Stopped) -> Self {
        let queue = Arc::new(Queue::default());
        let (response, recv) = stream.split();
        let expects = head.headers.get(EXPECT);
        let mut this = Self {
            recv,
            sender: Some(Box::pin(send(Arc::clone(&queue), response))),
            stopped: Some(stopped),
            failed: None,
            queue,
            first: None,
            data_done: false,
            request_done: false,
            left: length,
            expects_continue: false,
            is_head: head.method == Method::HEAD,
            tunnel: (head.method == Method::CONNECT).then(|| match head.extensions.get::<Protocol>() {
                None => Code::H3_CONNECT_ERROR,
                Some(_) => Code::H3_REQUEST_CANCELLED,
            }),
            broken_off: Code::H3_INTERNAL_ERROR,
            responded: false,
            ended: false,
            sent: 0,
        };
        // Most requests have no body, and their end comes with the head.
        this.first = match this.poll_body(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(Some(Chunk::Data(data)))) => Some(Ok(data)),
            Poll::Ready(Err(gone)) => Some(Err(gone)),
            // Trailers without a body say nothing that a backend could be told.
            Poll::Ready(Ok(_)) | Poll::Pending => None,
        };
        this.expects_continue =
            expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        this
    }

    pub(super) fn body_is_empty(&self) -> bool {
        self.tunnel.is_some() || (self.request_done && self.first.is_none())
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Gone>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(first.map(|data| Some(Chunk::Data(data))));
        }
        if self.request_done {
            return Poll::Ready(Ok(None));
        }
        if std::mem::take(&mut self.expects_continue) {
            let mut head = http::Response::new(()).into_parts().0;
            head.status = StatusCode::CONTINUE;
            self.inform(head);
        }
        while !self.data_done {
            let data = ready!(self.recv.poll_recv_data(cx)).map_err(|e| Gone(e.to_string()))?;
            let Some(mut data) = data else {
                self.data_done = true;
                if self.left.is_some_and(|left| left != 0) {
                    return Poll::Ready(Err(self.lied("body is shorter than it should be")));
                }
                break;
            };
            let data = data.copy_to_bytes(data.remaining());
            if let Some(left) = &mut self.left {
                let Some(rest) = left.checked_sub(data.len() as u64) else {
                    return Poll::Ready(Err(self.lied("body is longer than it should be")));
                };
                *left = rest;
            }
            if !data.is_empty() {
                return Poll::Ready(Ok(Some(Chunk::Data(data))));
            }
        }
        let trailers = ready!(self.recv.poll_recv_trailers(cx)).map_err(|e| Gone(e.to_string()))?;
        self.request_done = true;
        Poll::Ready(Ok(trailers.map(Chunk::Trailers)))
    }

    /// The request is not what its head says (RFC 9114 section 4.1.2).
    fn lied(&mut self, how: &str) -> Gone {
        self.ended = true;
        self.queue.abort(Code::H3_MESSAGE_ERROR);
        Gone(how.to_owned())
    }

    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        if let Err(gone) = self.poll_send(cx) {
            return Poll::Ready(gone);
        }
        let Some(stopped) = &mut self.stopped else {
            return Poll::Pending;
        };
        let stopped = ready!(stopped.as_mut().poll(cx));
        self.stopped = None;
        match stopped {
            Ok(Some(code)) => Poll::Ready(Gone(format!("stream stopped: {code}"))),
            // It has all of it.
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Gone(error.to_string())),
        }
    }

    pub(super) fn inform(&mut self, mut head: response::Parts) {
        if !self.responded {
            head.version = http::Version::HTTP_3;
            self.queue.push(Item::Head(http::Response::from_parts(head, ())));
        }
    }

    pub(super) fn respond(&mut self, mut head: response::Parts, end: bool) -> Result<(), Gone> {
        head.version = http::Version::HTTP_3;
        if !head.headers.contains_key(DATE) {
            head.headers.insert(DATE, get_cached_date());
        }
        let end = end || self.is_head || encode::is_bodiless(head.status);
        self.responded = true;
        self.queue.push(Item::Head(http::Response::from_parts(head, ())));
        if end { self.finish(None) } else { Ok(()) }
    }

    pub(super) fn switch_protocols(&mut self, head: response::Parts) -> Result<(), Gone> {
        self.broken_off = self.tunnel.take().unwrap_or(self.broken_off);
        self.respond(super::agreement(head), false)
    }

    pub(super) fn push(&mut self, data: Bytes) -> Result<(), Gone> {
        if data.is_empty() || self.ended {
            return Ok(());
        }
        self.check()?;
        self.sent += data.len() as u64;
        self.queue.bytes.fetch_add(data.len(), Ordering::Relaxed);
        self.queue.push(Item::Data(data));
        Ok(())
    }

    pub(super) fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), Gone> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        self.check()?;
        if let Some(trailers) = trailers {
            self.queue.push(Item::Trailers(trailers));
        }
        self.queue.push(Item::End);
        Ok(())
    }

    pub(super) fn abort(&mut self) {
        self.ended = true;
        self.queue.abort(self.broken_off);
        self.recv.stop_sending(Code::H3_REQUEST_CANCELLED);
    }

    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.poll_send(cx)?;
        if self.ended || self.queue.bytes.load(Ordering::Relaxed) < SEND_BUFFER {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.poll_send(cx)?;
        if self.sender.is_none() || (self.queue.bytes.load(Ordering::Relaxed) == 0 && !self.ended) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Sends what is left, and asks the client for no more of its request. Ready once the client has all of it.
    pub async fn end(mut self) {
        if !self.ended {
            self.abort();
        }
        if !self.request_done {
            self.recv.stop_sending(Code::H3_NO_ERROR);
        }
        if let Some(sender) = self.sender.take()
            && let Err(gone) = sender.await
        {
            return tracing::debug!(%gone, "response not sent");
        }
        // What was broken off is not waited for: nobody says when the client knows.
        if self.queue.code.get().is_none()
            && let Some(stopped) = self.stopped.take()
        {
            // Whatever it says, nothing is left to be done.
            let _ = stopped.await;
        }
    }

    fn check(&self) -> Result<(), Gone> {
        match &self.failed {
            Some(failed) => Err(Gone(failed.clone())),
            None => Ok(()),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Gone> {
        self.check()?;
        let Some(sender) = &mut self.sender else {
            return Ok(());
        };
        match sender.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(sent) => {
                self.sender = None;
                if let Err(gone) = &sent {
                    self.failed = Some(gone.0.clone());
                }
                sent
            }
        }
    }
}
