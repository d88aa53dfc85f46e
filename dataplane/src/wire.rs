//! The byte stream below every HTTP/1.1 session, downstream and upstream.
//!
//! Owns one socket (plain or TLS) and a bounded output buffer. Writes never wait: they go into the buffer, and
//! whoever drives the connection sends it with [`Wire::poll_drain`] when there is nothing else to do. Header and body
//! therefore leave in one `send`, and both directions of a session run on one task without one blocking the other.
//! It never decides what is written; framing is HTTP's business.

mod socket;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub use self::socket::{Socket, Traffic};
use crate::upstream::breaker::Lease;

/// Bytes that may wait in the output buffer before the writer is told to hold back.
const HIGH_WATER: usize = 64 * 1024;
/// Bytes that are read at once.
const INPUT: usize = 128 * 1024;
/// An output buffer that has grown beyond this is given back once it is empty.
const KEEP_CAPACITY: usize = 2 * 1024;

thread_local! {
    /// What is being read, on whatever connection of this thread.
    static SHARED_INPUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What carries the bytes.
#[derive(Debug)]
pub enum Transport {
    /// Plain TCP.
    Tcp(Socket),
    /// TLS, either side of it.
    Tls(Box<tokio_rustls::TlsStream<Socket>>),
}

impl Transport {
    /// The bare socket, for its addresses and options.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(socket) => socket.tcp(),
            Self::Tls(tls) => tls.get_ref().0.tcp(),
        }
    }
}

macro_rules! each {
    ($transport:expr, $io:ident => $call:expr) => {
        match $transport {
            Transport::Tcp($io) => $call,
            Transport::Tls($io) => {
                let $io = $io.as_mut();
                $call
            }
        }
    };
}

#[derive(Debug)]
struct Inner {
    transport: Transport,
    out: BytesMut,
    /// Most that has waited in `out` since it was last empty: what it tells of its own capacity shrinks while it is sent.
    peak: usize,
    /// False: writes go straight through, as HTTP/2 with its own buffering wants it.
    buffered: bool,
    /// Something has come, for whoever asks next.
    heard: bool,
}

/// A handle on one connection; clones share it. The session reads and writes through one clone while the
/// forwarding loop drains through another.
#[derive(Debug, Clone)]
pub struct Wire {
    inner: Arc<Mutex<Inner>>,
    fd: RawFd,
    peer: SocketAddr,
    local: SocketAddr,
    /// Bounds on the connection's life, if there are any.
    lease: Option<Arc<Lease>>,
    high_water: usize,
}

impl Wire {
    /// A buffered stream over `transport`. The addresses are kept, so that no request asks the kernel for them.
    pub fn new(transport: Transport, peer: SocketAddr, local: SocketAddr) -> Self {
        let fd = match &transport {
            Transport::Tcp(socket) => socket.tcp().as_raw_fd(),
            Transport::Tls(tls) => tls.get_ref().0.tcp().as_raw_fd(),
        };
        Self {
            inner: Arc::new(Mutex::new(Inner {
                transport,
                out: BytesMut::new(),
                peak: 0,
                buffered: true,
                heard: false,
            })),
            fd,
            peer,
            local,
            lease: None,
            high_water: HIGH_WATER,
        }
    }

    /// Holds a lease for as long as the connection lives.
    #[must_use]
    pub fn with_lease(mut self, lease: Option<Arc<Lease>>) -> Self {
        self.lease = lease;
        self
    }

    /// The lease that it holds.
    pub fn lease(&self) -> Option<&Arc<Lease>> {
        self.lease.as_ref()
    }

    /// Lets so many bytes wait in the output buffer before the writer is told to hold back; 0: the default.
    #[must_use]
    pub fn with_buffer_limit(mut self, bytes: usize) -> Self {
        if bytes != 0 {
            self.high_water = bytes;
        }
        self
    }

    /// The other end's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// This end's address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// From now on writes go straight to the socket.
    #[must_use]
    pub fn unbuffered(self) -> Self {
        self.lock().buffered = false;
        self
    }

    /// True if something has come by way of [`AsyncRead`] since this was asked last.
    pub fn take_heard(&self) -> bool {
        std::mem::take(&mut self.lock().heard)
    }

    /// Puts bytes that were read already back in front of the input. Only sensible on a plain socket.
    pub fn unread(&self, bytes: BytesMut) {
        if let Transport::Tcp(socket) = &mut self.lock().transport {
            socket.unread(bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A poisoned lock only says that some task panicked; the bytes are still in order.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `encode` append to the output buffer.
    pub fn put<R>(&self, encode: impl FnOnce(&mut BytesMut) -> R) -> R {
        let inner = &mut *self.lock();
        let result = encode(&mut inner.out);
        inner.note_peak();
        result
    }

    /// Appends `data` and `after` to what is buffered. On a plain socket all of it is offered to the kernel first, and only
    /// what that does not take is copied.
    pub fn put_large(&self, data: &[u8], after: &[u8]) {
        let inner = &mut *self.lock();
        let mut taken = match &inner.transport {
            // An error is met again by whoever sends the rest.
            Transport::Tcp(socket) if inner.buffered => {
                let parts = [&inner.out[..], data, after].map(io::IoSlice::new);
                socket.tcp().try_write_vectored(&parts).unwrap_or_default()
            }
            _ => 0,
        };
        let from_out = taken.min(inner.out.len());
        inner.out.advance(from_out);
        taken -= from_out;
        for part in [data, after] {
            let from_part = taken.min(part.len());
            inner.out.extend_from_slice(&part[from_part..]);
            taken -= from_part;
        }
        inner.note_peak();
    }

    /// Reads once into a buffer that all connections of the thread share, and gives `take` what came; nothing at the end
    /// of the input.
    pub fn poll_input<R>(&self, cx: &mut Context<'_>, take: impl FnOnce(&[u8]) -> R) -> Poll<io::Result<R>> {
        // Out of its place while it is in use: were `take` to read as well, it would get another one.
        let mut buffer = SHARED_INPUT.take();
        if buffer.is_empty() {
            buffer = vec![0; INPUT];
        }
        let mut input = ReadBuf::new(&mut buffer);
        let read = each!(&mut self.lock().transport, io => Pin::new(io).poll_read(cx, &mut input));
        let read = read.map_ok(|()| take(input.filled()));
        SHARED_INPUT.set(buffer);
        read
    }

    /// Sends what is buffered; ready when all of it is with the kernel.
    pub fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_drain(cx)
    }

    /// Ready when more may be written. Sends only if the buffer is full.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        if inner.out.len() < self.high_water {
            return Poll::Ready(Ok(()));
        }
        match inner.poll_drain(cx) {
            Poll::Pending if inner.out.len() < self.high_water => Poll::Ready(Ok(())),
            other => other,
        }
    }

    /// Sends what is buffered.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn drain(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_drain(cx)).await
    }

    /// Reads without waiting and says whether the connection is still as an idle one should be: open and silent.
    /// Costs no system call unless the kernel has signalled something.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0; 1];
        let mut buf = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let inner = &mut *self.lock();
        each!(&mut inner.transport, io => Pin::new(io).poll_read(&mut cx, &mut buf)).is_pending()
    }
}

impl Inner {
    fn note_peak(&mut self) {
        self.peak = self.peak.max(self.out.len());
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let n = ready!(each!(&mut self.transport, io => Pin::new(io).poll_write(cx, &self.out)))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(n);
        }
        if std::mem::take(&mut self.peak) > KEEP_CAPACITY {
            self.out = BytesMut::new();
        } else {
            self.out.clear();
        }
        match &mut self.transport {
            // TCP has nothing of its own to flush.
            Transport::Tcp(_) => Poll::Ready(Ok(())),
            Transport::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.lock();
        let read = each!(&mut inner.transport, io => Pin::new(io).poll_read(cx, buf));
        inner.heard |= read.is_ready();
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        if inner.buffered {
            inner.out.extend_from_slice(buf);
            inner.note_peak();
            return Poll::Ready(Ok(buf.len()));
        }
        each!(&mut inner.transport, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        if inner.buffered {
            for buf in bufs {
                inner.out.extend_from_slice(buf);
            }
            inner.note_peak();
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        each!(&mut inner.transport, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        if inner.buffered {
            // The driver of the connection decides when bytes leave.
            return Poll::Ready(Ok(()));
        }
        each!(&mut inner.transport, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        ready!(inner.poll_drain(cx))?;
        each!(&mut inner.transport, io => Pin::new(io).poll_shutdown(cx))
    }
}

#[async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        // Nobody is left to tell that the goodbye did not arrive.
        let _ = tokio::io::AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        self.fd
    }
}

impl Ssl for Wire {}

impl GetTimingDigest for Wire {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Peek for Wire {}

#[cfg(test)]
mod tests;
