//! A TCP socket whose input can be recorded and read again, and whose bytes can be counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that a socket has carried.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the peer.
    pub received: AtomicU64,
    /// To it.
    pub sent: AtomicU64,
}

/// A TCP socket whose input can be recorded, so that a TLS ClientHello can be read and still be passed on.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    /// Bytes to be read before the socket's own.
    prefix: BytesMut,
    /// What has been read so far, if it is recorded.
    tap: Option<BytesMut>,
    /// Counts what it carries, if anybody wants to know.
    traffic: Option<Arc<Traffic>>,
}

impl Socket {
    /// A socket that is read as it is.
    pub fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            prefix: BytesMut::new(),
            tap: None,
            traffic: None,
        }
    }

    /// Keeps a copy of all that is read until [`Socket::stop_recording`].
    #[must_use]
    pub fn recording(self) -> Self {
        Self {
            tap: Some(BytesMut::new()),
            ..self
        }
    }

    /// A socket of which these bytes have been read already: they are read again first.
    pub fn replaying(tcp: TcpStream, read: BytesMut) -> Self {
        Self {
            tcp,
            prefix: read,
            tap: None,
            traffic: None,
        }
    }

    /// Has these bytes read before all that comes.
    pub(super) fn unread(&mut self, bytes: BytesMut) {
        self.prefix = bytes;
    }

    /// Counts what it carries.
    #[must_use]
    pub fn counted(self, traffic: Option<Arc<Traffic>>) -> Self {
        Self { traffic, ..self }
    }

    /// What counts its bytes.
    pub fn traffic(&self) -> Option<Arc<Traffic>> {
        self.traffic.clone()
    }

    fn note_sent(&self, written: &Poll<io::Result<usize>>) {
        if let (Some(traffic), Poll::Ready(Ok(n))) = (&self.traffic, written) {
            traffic.sent.fetch_add(*n as u64, Ordering::Relaxed);
        }
    }

    /// The bare socket, for its addresses and options.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// What has been recorded.
    pub fn recorded(&self) -> &[u8] {
        self.tap.as_deref().unwrap_or_default()
    }

    /// Ends the recording and forgets it.
    pub fn stop_recording(&mut self) {
        self.tap = None;
    }

    /// The bare socket and what was recorded of its input.
    pub fn into_recorded(self) -> (TcpStream, BytesMut) {
        let mut recorded = self.tap.unwrap_or_default();
        recorded.extend_from_slice(&self.prefix);
        (self.tcp, recorded)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let n = self.prefix.len().min(buf.remaining());
            let again = self.prefix.split_to(n);
            buf.put_slice(&again);
            if let Some(tap) = self.tap.as_mut() {
                tap.extend_from_slice(&again);
            }
            if self.prefix.is_empty() {
                self.prefix = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        if let Some(tap) = self.tap.as_mut() {
            tap.extend_from_slice(&buf.filled()[before..]);
        }
        if let Some(traffic) = &self.traffic {
            let n = buf.filled().len() - before;
            traffic.received.fetch_add(n as u64, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.note_sent(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.note_sent(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
