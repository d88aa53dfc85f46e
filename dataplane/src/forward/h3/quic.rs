//! A QUIC connection as the h3 crate wants it.
//!
//! Owns how streams are read and written, and tells of each request's stream what that crate has no word for: that the
//! client has stopped it or has all of it. A stream that is dropped before its end is reset, never ended as if it were
//! whole.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use futures::stream::unfold;
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, ReadError, StoppedError, VarInt, WriteError};

use super::frames::Frames;

/// Bytes that are read at once, first and at most.
const READ: (usize, usize) = (2 * 1024, 16 * 1024);

/// Ready when the client has stopped a response (with the code that it gave), or has all of it.
pub type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send + Sync>>;
type Accepting<T> = Pin<Box<dyn Stream<Item = Result<T, ConnectionError>> + Send>>;
type Opening = Pin<Box<dyn Future<Output = Result<quinn::SendStream, ConnectionError>> + Send>>;

/// What is known of a stream besides what the h3 crate says.
#[derive(Default)]
struct Known {
    serving: AtomicBool,
    /// How often its head has `:protocol`, under another name.
    protocols: AtomicUsize,
}

/// A request's stream that has come in.
pub(super) struct Arrival {
    /// Its number.
    pub(super) id: u64,
    pub(super) stopped: Stopped,
    known: Arc<Known>,
}

impl Arrival {
    /// From now on a response that is dropped is one that was broken off. Says how often the head has `:protocol`.
    pub(super) fn serve(&self) -> usize {
        self.known.serving.store(true, Ordering::Relaxed);
        self.known.protocols.load(Ordering::Relaxed)
    }
}

/// Which streams have come in.
#[derive(Default)]
pub(super) struct Arrivals {
    last: Mutex<Option<Arrival>>,
    /// Set once requests are refused from this stream on; one more than its number.
    refused: AtomicU64,
}

impl Arrivals {
    /// The stream that came in last.
    pub(super) fn take(&self) -> Option<Arrival> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, arrival: Arrival) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(arrival);
    }

    /// Refuses requests from this stream on.
    pub(super) fn refuse_from(&self, id: u64) {
        self.refused.store(id + 1, Ordering::Relaxed);
    }

    fn refuses(&self, id: u64) -> bool {
        let refused = self.refused.load(Ordering::Relaxed);
        refused != 0 && id >= refused - 1
    }
}

/// A connection.
pub struct Connection {
    requests: Accepting<(quinn::SendStream, quinn::RecvStream)>,
    others: Accepting<quinn::RecvStream>,
    opener: Opener,
    arrivals: Arc<Arrivals>,
}

impl Connection {
    pub(super) fn new(quic: quinn::Connection, arrivals: Arc<Arrivals>) -> Self {
        Self {
            requests: Box::pin(unfold(quic.clone(), |quic| async {
                Some((quic.accept_bi().await, quic))
            })),
            others: Box::pin(unfold(quic.clone(), |quic| async {
                Some((quic.accept_uni().await, quic))
            })),
            opener: Opener { quic, opening: None },
            arrivals,
        }
    }
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = Receiving;
    type OpenStreams = Opener;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::RecvStream, ConnectionErrorIncoming>> {
        let stream = ready!(next(&mut self.others, cx))?;
        Poll::Ready(Receiving::new(stream, Frames::unidirectional(), Arc::default()))
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, ConnectionErrorIncoming>> {
        loop {
            let (mut send, mut recv) = ready!(next(&mut self.requests, cx))?;
            let id = u64::from(send.id());
            if self.arrivals.refuses(id) {
                // Fails only for what is over already.
                let _ = send.reset(code(Code::H3_REQUEST_REJECTED.value()));
                let _ = recv.stop(code(Code::H3_REQUEST_REJECTED.value()));
                continue;
            }
            let known = Arc::<Known>::default();
            let arrival = Arrival {
                id,
                stopped: Box::pin(send.stopped()),
                known: Arc::clone(&known),
            };
            self.arrivals.put(arrival);
            return Poll::Ready(Ok(Both {
                send: Sending::new(send, Arc::clone(&known))?,
                recv: Receiving::new(recv, Frames::request(), known)?,
            }));
        }
    }

    fn opener(&self) -> Self::OpenStreams {
        Opener {
            quic: self.opener.quic.clone(),
            opening: None,
        }
    }
}

fn next<T>(streams: &mut Accepting<T>, cx: &mut Context<'_>) -> Poll<Result<T, ConnectionErrorIncoming>> {
    match ready!(streams.as_mut().poll_next(cx)) {
        Some(Ok(stream)) => Poll::Ready(Ok(stream)),
        Some(Err(error)) => Poll::Ready(Err(lost(error))),
        None => Poll::Ready(Err(ConnectionErrorIncoming::InternalError(
            "no more streams".into(),
        ))),
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = Both;
    type SendStream = Sending;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

/// Opens streams of our own: control and QPACK.
pub struct Opener {
    quic: quinn::Connection,
    opening: Option<Opening>,
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Both;
    type SendStream = Sending;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        // Only clients make requests (RFC 9114 section 6.1).
        Poll::Ready(Err(StreamErrorIncoming::Unknown(
            "a server opens no requests".into(),
        )))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending, StreamErrorIncoming>> {
        let quic = &self.quic;
        let opening = self.opening.get_or_insert_with(|| {
            let quic = quic.clone();
            Box::pin(async move { quic.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening = None;
        let stream = opened
            .map_err(lost)
            .and_then(|stream| Sending::new(stream, Arc::default()));
        Poll::Ready(stream.map_err(broken))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.quic.close(self::code(code.value()), reason);
    }
}

/// A request's stream.
pub struct Both {
    send: Sending,
    recv: Receiving,
}

impl quic::BidiStream<Bytes> for Both {
    type SendStream = Sending;
    type RecvStream = Receiving;

    fn split(self) -> (Sending, Receiving) {
        (self.send, self.recv)
    }
}

impl quic::RecvStream for Both {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.recv.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

impl quic::SendStream<Bytes> for Both {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.send.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// The receiving side of a stream.
pub struct Receiving {
    quic: quinn::RecvStream,
    id: StreamId,
    frames: Frames,
    /// What has come and was not asked for yet.
    come: BytesMut,
    /// Bytes to be read at once.
    read: usize,
    known: Arc<Known>,
}

impl Receiving {
    fn new(
        quic: quinn::RecvStream,
        frames: Frames,
        known: Arc<Known>,
    ) -> Result<Self, ConnectionErrorIncoming> {
        Ok(Self {
            id: number(quic.id())?,
            quic,
            frames,
            come: BytesMut::new(),
            read: READ.0,
            known,
        })
    }

    /// Reads what has come; 0 at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        let before = self.come.len();
        self.come.resize(before + self.read, 0);
        let read = self.quic.poll_read(cx, &mut self.come[before..]);
        let length = match &read {
            Poll::Ready(Ok(length)) => *length,
            _ => 0,
        };
        self.come.truncate(before + length);
        if length == self.read {
            self.read = READ.1.min(2 * length);
        }
        read
    }
}

impl quic::RecvStream for Receiving {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            match self.frames.next(&mut self.come) {
                Ok(Some(piece)) => {
                    if self.frames.renamed() != 0 {
                        self.known
                            .protocols
                            .store(self.frames.renamed(), Ordering::Relaxed);
                    }
                    return Poll::Ready(Ok(Some(piece)));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(error)))),
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) => {
                    let end = self.frames.end(&self.come);
                    return Poll::Ready(match end {
                        Ok(()) => Ok(None),
                        Err(error) => Err(StreamErrorIncoming::Unknown(Box::new(error))),
                    });
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(unread(error))),
            }
        }
    }

    fn stop_sending(&mut self, error_code: u64) {
        // Fails only for what is over already.
        let _ = self.quic.stop(code(error_code));
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}

/// The sending side of a stream.
pub struct Sending {
    quic: quinn::SendStream,
    id: StreamId,
    writing: Option<WriteBuf<Bytes>>,
    written: bool,
    ended: bool,
    known: Arc<Known>,
}

impl Sending {
    fn new(quic: quinn::SendStream, known: Arc<Known>) -> Result<Self, ConnectionErrorIncoming> {
        Ok(Self {
            id: number(quic.id())?,
            quic,
            writing: None,
            written: false,
            ended: false,
            known,
        })
    }
}

impl quic::SendStream<Bytes> for Sending {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(writing) = &mut self.writing {
            if !writing.has_remaining() {
                break;
            }
            let written = ready!(Pin::new(&mut self.quic).poll_write(cx, writing.chunk()));
            writing.advance(written.map_err(unwritten)?);
            self.written = true;
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            return Err(StreamErrorIncoming::Unknown("something is being written".into()));
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_ready(cx))?;
        self.ended = true;
        Poll::Ready(
            self.quic
                .finish()
                .map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))),
        )
    }

    fn reset(&mut self, reset_code: u64) {
        self.ended = true;
        // Fails only for what is over already.
        let _ = self.quic.reset(code(reset_code));
    }

    fn send_id(&self) -> StreamId {
        self.id
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // quinn would end the stream as if it were whole. It is only where h3 has answered by itself.
        if self.known.serving.load(Ordering::Relaxed) {
            let _ = self.quic.reset(code(Code::H3_INTERNAL_ERROR.value()));
        } else if !self.written {
            let _ = self.quic.reset(code(Code::H3_REQUEST_INCOMPLETE.value()));
        }
    }
}

fn code(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

fn number(id: quinn::StreamId) -> Result<StreamId, ConnectionErrorIncoming> {
    StreamId::try_from(u64::from(id))
        .map_err(|error| ConnectionErrorIncoming::InternalError(error.to_string()))
}

fn broken(error: ConnectionErrorIncoming) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming {
        connection_error: error,
    }
}

fn lost(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => ConnectionErrorIncoming::ApplicationClose {
            error_code: close.error_code.into(),
        },
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        error => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}

fn unread(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into(),
        },
        ReadError::ConnectionLost(error) => broken(lost(error)),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}

fn unwritten(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into(),
        },
        WriteError::ConnectionLost(error) => broken(lost(error)),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}
