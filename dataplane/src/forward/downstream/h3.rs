//! One stream of an HTTP/3 connection.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::server::RequestStream;
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, Method, request, response};
use pingora_core::protocols::http::date::get_cached_date;
use tokio::sync::Notify;

use super::{Chunk, Gone};
use crate::forward::encode;

/// Bytes of one response that may wait to be sent.
const SEND_BUFFER: usize = 64 * 1024;

/// A stream as the connection gives it.
pub type Incoming = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;
type Receiving = RequestStream<h3_quinn::RecvStream, Bytes>;
type Sending = RequestStream<h3_quinn::SendStream<Bytes>, Bytes>;

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

    /// Sends until the end.
    async fn send(&self, stream: &mut Sending) -> Result<(), Gone> {
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
async fn send(queue: Arc<Queue>, mut stream: Sending) -> Result<(), Gone> {
    tokio::select! {
        biased;
        () = queue.abort.notified() => {}
        sent = queue.send(&mut stream) => return sent,
    }
    stream.stop_stream(Code::H3_INTERNAL_ERROR);
    Ok(())
}

/// What sends a response, to its end.
type Sender = Pin<Box<dyn Future<Output = Result<(), Gone>> + Send>>;

/// The client's side of one stream.
pub struct H3 {
    recv: Receiving,
    /// `None` once all is sent.
    sender: Option<Sender>,
    failed: Option<String>,
    queue: Arc<Queue>,
    /// The beginning of the body, if it came with the head.
    first: Option<Bytes>,
    data_done: bool,
    request_done: bool,
    /// What the head says of the body's length, less what has come.
    left: Option<u64>,
    is_head: bool,
    pub(super) responded: bool,
    ended: bool,
    pub(super) sent: u64,
}

impl H3 {
    /// A stream as the connection gave it. `None`: its head lies about the body, or cannot be understood.
    pub fn new(stream: Incoming, head: &request::Parts) -> Option<Self> {
        let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
        let left = match lengths.next() {
            None => None,
            Some(length) => Some(length.to_str().ok()?.parse::<u64>().ok()?),
        };
        if lengths.next().is_some() {
            return None;
        }
        let queue = Arc::new(Queue::default());
        let (sending, recv) = stream.split();
        let mut this = Self {
            recv,
            sender: Some(Box::pin(send(Arc::clone(&queue), sending))),
            failed: None,
            queue,
            first: None,
            data_done: false,
            request_done: false,
            left,
            is_head: head.method == Method::HEAD,
            responded: false,
            ended: false,
            sent: 0,
        };
        // Most requests have no body, and their end comes with the head.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match this.poll_body(&mut cx) {
            Poll::Ready(Ok(Some(Chunk::Data(data)))) => this.first = Some(data),
            Poll::Ready(Err(_)) => return None,
            // Trailers without a body say nothing that a backend could be told.
            Poll::Ready(Ok(_)) | Poll::Pending => {}
        }
        Some(this)
    }

    pub(super) fn body_is_empty(&self) -> bool {
        self.request_done && self.first.is_none()
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Gone>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Ok(Some(Chunk::Data(first))));
        }
        if self.request_done {
            return Poll::Ready(Ok(None));
        }
        while !self.data_done {
            let data = ready!(self.recv.poll_recv_data(cx)).map_err(|e| Gone(e.to_string()))?;
            let Some(mut data) = data else {
                self.data_done = true;
                if self.left.is_some_and(|left| left != 0) {
                    return Poll::Ready(Err(Gone("body is shorter than it should be".to_owned())));
                }
                break;
            };
            let data = data.copy_to_bytes(data.remaining());
            if let Some(left) = &mut self.left {
                let Some(rest) = left.checked_sub(data.len() as u64) else {
                    return Poll::Ready(Err(Gone("body is longer than it should be".to_owned())));
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

    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        match self.poll_send(cx) {
            Err(gone) => Poll::Ready(gone),
            Ok(()) => Poll::Pending,
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
        self.queue.abort.notify_one();
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

    /// Sends what is left, and asks the client for no more of its request.
    pub async fn end(mut self) {
        if !self.request_done {
            self.recv.stop_sending(Code::H3_NO_ERROR);
        }
        if !self.ended {
            self.abort();
        }
        if let Some(sender) = self.sender.take()
            && let Err(gone) = sender.await
        {
            tracing::debug!(%gone, "response not sent");
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
