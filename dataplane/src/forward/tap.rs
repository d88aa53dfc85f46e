//! The stream that Pingora's HTTP/1.1 sessions read from: the wire, with an eye on what passes.
//!
//! The sessions parse trailers but do not hand them out, and bound a message's head only loosely. The tap keeps the
//! last bytes that were read, from which the trailers of a chunked message can be told once its end is known, and
//! refuses heads that are too large. It changes no byte.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::Wire;

/// Largest head of a message; Envoy's default is 60 KiB.
const MAX_HEAD: usize = 64 * 1024;
/// Largest trailer section that is passed on.
const MAX_TRAILERS: usize = 8 * 1024;

/// What the tap knows of the message being read.
#[derive(Debug, Default)]
struct Seen {
    /// The last bytes, at most twice [`MAX_TRAILERS`].
    tail: Vec<u8>,
    /// Bytes since the message began.
    total: usize,
    /// False once the head has been parsed.
    in_head: bool,
    /// True while `tail` is kept.
    keeps: bool,
    too_large: bool,
}

/// Talks to the tap of a session that holds the stream.
#[derive(Debug, Clone, Default)]
pub struct Tap(Arc<Mutex<Seen>>);

impl Tap {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new message begins; `already` holds what was read of it before.
    pub fn begin(&self, already: &[u8]) {
        let seen = &mut *self.lock();
        seen.tail.clear();
        seen.total = 0;
        seen.in_head = true;
        seen.keeps = true;
        seen.too_large = false;
        seen.note(already);
    }

    /// The head has been parsed; `chunked` says whether trailers may follow.
    pub fn head_done(&self, chunked: bool) {
        let seen = &mut *self.lock();
        seen.in_head = false;
        seen.keeps = chunked;
    }

    /// True if some of the message has been read.
    pub fn has_begun(&self) -> bool {
        self.lock().total != 0
    }

    /// True if the head was refused for its size.
    pub fn too_large(&self) -> bool {
        self.lock().too_large
    }

    /// The trailers of the chunked message that has just ended.
    pub fn trailers(&self) -> Option<HeaderMap> {
        let seen = self.lock();
        if seen.keeps {
            parse_trailers(&seen.tail)
        } else {
            None
        }
    }
}

impl Seen {
    fn note(&mut self, bytes: &[u8]) {
        self.total += bytes.len();
        if !self.keeps {
            return;
        }
        if self.tail.len() + bytes.len() > 2 * MAX_TRAILERS {
            let keep = MAX_TRAILERS.saturating_sub(bytes.len()).min(self.tail.len());
            self.tail.drain(..self.tail.len() - keep);
        }
        self.tail
            .extend_from_slice(&bytes[bytes.len().saturating_sub(MAX_TRAILERS)..]);
    }
}

/// Reads the trailer section off the end of a chunked message, from the back: lines that are fields, up to the line
/// of the last chunk. Anything else means that there is none that could be told for certain.
fn parse_trailers(tail: &[u8]) -> Option<HeaderMap> {
    let mut rest = tail.strip_suffix(b"\r\n")?;
    let mut fields = Vec::new();
    loop {
        let line_end = rest.strip_suffix(b"\r\n")?;
        let start = line_end
            .windows(2)
            .rposition(|pair| pair == b"\r\n")
            .map_or(0, |at| at + 2);
        let line = &line_end[start..];
        if is_last_chunk(line) {
            break;
        }
        fields.push(parse_field(line)?);
        rest = &line_end[..start];
    }
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields.into_iter().rev() {
        if !is_forbidden(&name) {
            trailers.append(name, value);
        }
    }
    (!trailers.is_empty()).then_some(trailers)
}

fn is_last_chunk(line: &[u8]) -> bool {
    let size = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    !size.is_empty() && size.iter().all(|b| *b == b'0')
}

fn parse_field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|b| *b == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((name, value))
}

/// Fields that must not come after the content (RFC 9110 section 6.5.1).
fn is_forbidden(name: &HeaderName) -> bool {
    const FORBIDDEN: &[&str] = &[
        "transfer-encoding",
        "content-length",
        "host",
        "connection",
        "keep-alive",
        "upgrade",
        "te",
        "trailer",
        "cookie",
        "set-cookie",
        "authorization",
        "content-encoding",
        "content-type",
        "content-range",
        "expect",
        "max-forwards",
    ];
    FORBIDDEN.contains(&name.as_str())
}

/// A wire with its tap, as sessions take it.
#[derive(Debug)]
pub struct Tapped {
    /// The wire.
    pub wire: Wire,
    /// The tap.
    pub tap: Tap,
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.wire).poll_read(cx, buf))?;
        let seen = &mut *self.tap.lock();
        seen.note(&buf.filled()[before..]);
        if seen.in_head && seen.total > MAX_HEAD {
            seen.too_large = true;
            return Poll::Ready(Err(io::Error::other("head too large")));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Tapped {
    async fn shutdown(&mut self) {
        self.wire.shutdown().await;
    }
}

impl UniqueID for Tapped {
    fn id(&self) -> UniqueIDType {
        self.wire.id()
    }
}

impl Ssl for Tapped {}

impl GetTimingDigest for Tapped {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Tapped {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Tapped {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Peek for Tapped {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_are_found_at_the_end_only() {
        for (tail, expected) in [
            (
                &b"5\r\nhello\r\n0\r\nx-sum: 1\r\nx-b:2\r\n\r\n"[..],
                vec![("x-sum", "1"), ("x-b", "2")],
            ),
            (b"0;a=\"b:c\"\r\nx-sum: 1\r\n\r\n", vec![("x-sum", "1")]),
            (b"5\r\nhello\r\n0\r\n\r\n", vec![]),
            // What looks like trailers is the content of a chunk.
            (b"10\r\n0\r\nevil: 12345678\r\n0\r\n\r\n", vec![]),
            // The next request has been read already.
            (b"0\r\nx-sum: 1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", vec![]),
            (b"0\r\ncontent-length: 5\r\n\r\n", vec![]),
            (b"", vec![]),
            (b"\r\n\r\n", vec![]),
        ] {
            let found = parse_trailers(tail).unwrap_or_default();
            let found: Vec<_> = found
                .iter()
                .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
                .collect();
            assert_eq!(found, expected, "{}", tail.escape_ascii());
        }
    }

    #[test]
    fn only_the_tail_is_kept() {
        let tap = Tap::default();
        tap.begin(&[]);
        (0..100).for_each(|_| tap.lock().note(&[b'a'; 1000]));
        assert!(tap.lock().tail.len() <= 2 * MAX_TRAILERS);
        tap.lock().note(b"\r\n0\r\na: b\r\n\r\n");
        assert_eq!(tap.trailers().unwrap()["a"], "b");
        tap.head_done(false);
        assert!(tap.trailers().is_none());
    }
}
