//! A response's body that is compressed on its way, piece by piece.
//!
//! Owns the end of a body whose last bytes the coder still holds; never decides what is compressed.

use std::task::{Context, Poll};

use http::HeaderMap;

use super::downstream::Chunk;
use super::ext_proc::Raw;
use super::limits::Stop;
use super::upstream::Failure;
use crate::filter::compress::Encoder;

/// A body being compressed.
pub(super) struct Coder {
    /// `None`: the body has ended.
    encoder: Option<Box<Encoder>>,
    /// Follow what the coder has held back.
    trailers: Option<HeaderMap>,
}

impl Coder {
    /// For a body of which nothing has been read.
    pub(super) fn new(encoder: Box<Encoder>) -> Self {
        Self {
            encoder: Some(encoder),
            trailers: None,
        }
    }

    /// The next piece. What the coder holds back is given when there is no more to be had for now.
    fn poll(&mut self, cx: &mut Context<'_>, raw: Raw<'_>) -> Poll<Result<Option<Chunk>, Stop>> {
        let failed =
            |error: std::io::Error| Stop::Upstream(Failure::Protocol(format!("not compressed: {error}")));
        loop {
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(Ok(self.trailers.take().map(Chunk::Trailers)));
            };
            let polled = raw(cx)?;
            let waits = polled.is_pending();
            let out = match polled {
                Poll::Pending => encoder.flush(),
                Poll::Ready(Some(Chunk::Data(data))) => encoder.push(&data),
                Poll::Ready(end) => {
                    if let Some(Chunk::Trailers(trailers)) = end {
                        self.trailers = Some(trailers);
                    }
                    match self.encoder.take() {
                        Some(encoder) => encoder.finish(),
                        None => continue,
                    }
                }
            };
            let out = out.map_err(failed)?;
            if !out.is_empty() {
                return Poll::Ready(Ok(Some(Chunk::Data(out))));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }
}

/// The next piece of what `raw` gives, compressed if there is a coder.
pub(super) fn poll_coder(
    coder: &mut Option<Box<Coder>>,
    cx: &mut Context<'_>,
    raw: Raw<'_>,
) -> Poll<Result<Option<Chunk>, Stop>> {
    match coder {
        None => raw(cx),
        Some(coder) => coder.poll(cx, raw),
    }
}
