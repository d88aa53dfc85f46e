//! HTTP/1.1 messages as they arrive, from clients and from backends (RFC 9112).
//!
//! [`head`] reads heads and decides how a body is framed; [`chunked`] takes the chunked coding off. The [`Reader`] of a
//! connection holds only what was read and not used yet: the socket is read into a buffer that all connections of a
//! thread share, so that an idle connection owns none. Whatever two recipients could understand differently is refused.
//! It never decides what becomes of a message.

pub(super) mod chunked;
pub(super) mod head;
pub(super) mod spelling;

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use http::HeaderMap;

use crate::wire::Wire;
use chunked::Chunked;

/// Largest head of a message; Envoy's default is 60 KiB.
const MAX_HEAD: usize = 64 * 1024;

/// Why no head was read.
#[derive(Debug, thiserror::Error)]
pub enum NoHead {
    /// The connection ended before the head began.
    #[error("closed")]
    Closed,
    /// The connection ended or broke within the head.
    #[error("closed within the head")]
    BrokenOff,
    /// It is larger than is allowed.
    #[error("head too large")]
    TooLarge,
    /// It is not valid, or says nothing certain about where the message ends.
    #[error("invalid head: {0}")]
    Invalid(&'static str),
    /// Its body is coded in a way that is not supported.
    #[error("transfer coding not supported")]
    Coding,
}

/// How far a body extends, and how much of it is still to come.
#[derive(Debug)]
pub enum Body {
    /// It has ended, or there is none.
    Done,
    /// This many bytes more.
    Length(u64),
    /// Chunked.
    Chunked(Box<Chunked>),
    /// Until the connection ends.
    UntilClose,
}

impl Body {
    /// Passes the content of `input` on; says how much of it was used.
    fn feed(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) -> io::Result<usize> {
        match self {
            Self::Done => Ok(0),
            Self::UntilClose => {
                sink(input);
                Ok(input.len())
            }
            Self::Length(left) => {
                let used = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                sink(&input[..used]);
                *left -= used as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(used)
            }
            Self::Chunked(chunked) => chunked.feed(input, sink).map_err(io::Error::other),
        }
    }
}

/// Reads messages off one connection, one after the other.
#[derive(Debug)]
pub struct Reader {
    wire: Wire,
    /// Read, but not used yet.
    rest: BytesMut,
    /// True if `rest` has not been looked at since it grew.
    grown: bool,
    body: Body,
    trailers: Option<HeaderMap>,
}

impl Reader {
    /// Reads from this stream.
    pub fn new(wire: Wire) -> Self {
        Self {
            wire,
            rest: BytesMut::new(),
            grown: false,
            body: Body::Done,
            trailers: None,
        }
    }

    /// The stream.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// The stream, without what was read of it.
    pub fn into_wire(self) -> Wire {
        self.wire
    }

    /// True if bytes have come that were not used yet: of a head that is not complete, or of a further message.
    pub fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Reads a head. `parse` gives the head and its length once it is complete.
    pub fn poll_head<T>(
        &mut self,
        cx: &mut Context<'_>,
        parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, NoHead>,
    ) -> Poll<Result<T, NoHead>> {
        let Self {
            wire, rest, grown, ..
        } = self;
        loop {
            if std::mem::take(grown) {
                match parse(rest)? {
                    Some((head, used)) => {
                        use_up(rest, used);
                        *grown = !rest.is_empty();
                        return Poll::Ready(Ok(head));
                    }
                    None if rest.len() > MAX_HEAD => return Poll::Ready(Err(NoHead::TooLarge)),
                    None => {}
                }
            }
            let direct = ready!(wire.poll_input(cx, |bytes| {
                if bytes.is_empty() {
                    return Err(if rest.is_empty() {
                        NoHead::Closed
                    } else {
                        NoHead::BrokenOff
                    });
                }
                let mut used = 0;
                let mut found = None;
                if rest.is_empty()
                    && let Some((head, length)) = parse(bytes)?
                {
                    (found, used) = (Some(head), length);
                }
                rest.extend_from_slice(&bytes[used..]);
                // Only the end of a line can complete a head.
                *grown = bytes[used..].contains(&b'\n') || rest.len() > MAX_HEAD;
                Ok(found)
            }));
            match direct {
                Ok(Ok(Some(head))) => return Poll::Ready(Ok(head)),
                Ok(Ok(None)) => {}
                Ok(Err(no_head)) => return Poll::Ready(Err(no_head)),
                Err(_) if self.rest.is_empty() => return Poll::Ready(Err(NoHead::Closed)),
                Err(_) => return Poll::Ready(Err(NoHead::BrokenOff)),
            }
        }
    }

    /// From here on comes this body.
    pub fn begin_body(&mut self, body: Body) {
        self.body = body;
        self.trailers = None;
    }

    /// True if the body has been read to its end.
    pub fn body_is_done(&self) -> bool {
        matches!(self.body, Body::Done)
    }

    /// Passes on what has come of the body. Ready with `false` once at its end.
    ///
    /// # Errors
    /// If the connection breaks or ends before the body does, or the chunked coding is not valid.
    pub fn poll_body(&mut self, cx: &mut Context<'_>, mut sink: impl FnMut(&[u8])) -> Poll<io::Result<bool>> {
        if !self.rest.is_empty() && !self.body_is_done() {
            let mut passed = false;
            let used = self.body.feed(&self.rest, &mut |data| {
                passed = true;
                sink(data);
            })?;
            use_up(&mut self.rest, used);
            self.settle();
            if passed {
                return Poll::Ready(Ok(true));
            }
        }
        while !self.body_is_done() {
            let Self { wire, rest, body, .. } = self;
            let mut passed = false;
            ready!(wire.poll_input(cx, |bytes| {
                let mut sink = |data: &[u8]| {
                    passed = true;
                    sink(data);
                };
                if bytes.is_empty() {
                    return end_of_input(body);
                }
                if rest.is_empty() {
                    let used = body.feed(bytes, &mut sink)?;
                    rest.extend_from_slice(&bytes[used..]);
                } else {
                    rest.extend_from_slice(bytes);
                    let used = body.feed(rest, &mut sink)?;
                    use_up(rest, used);
                }
                Ok(())
            }))??;
            self.settle();
            if passed {
                return Poll::Ready(Ok(true));
            }
        }
        self.grown = !self.rest.is_empty();
        Poll::Ready(Ok(false))
    }

    /// A chunked body that has ended leaves its trailers.
    fn settle(&mut self) {
        if let Body::Chunked(chunked) = &mut self.body
            && chunked.is_done()
        {
            self.trailers = chunked.take_trailers();
            self.body = Body::Done;
        }
    }

    /// The trailers of a body that has ended.
    pub fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Ready when the other end has gone. What it sends meanwhile is kept for later, up to a bound.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while self.rest.len() <= MAX_HEAD {
            let Self {
                wire, rest, grown, ..
            } = self;
            let open = ready!(wire.poll_input(cx, |bytes| {
                rest.extend_from_slice(bytes);
                *grown = true;
                !bytes.is_empty()
            }));
            match open {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => return Poll::Ready(error),
            }
        }
        Poll::Pending
    }
}

/// Only a body that extends to the end of the connection may end with it.
fn end_of_input(body: &mut Body) -> io::Result<()> {
    if matches!(body, Body::UntilClose) {
        *body = Body::Done;
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Forgets what was used, and the memory with the last of it.
fn use_up(rest: &mut BytesMut, used: usize) {
    if used == rest.len() {
        *rest = BytesMut::new();
    } else {
        rest.advance(used);
    }
}
