//! Sending a body and reading the answer to its end.

use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, response};
use tokio::time::Instant;

use super::super::downstream::Chunk;
use super::super::upstream::{Failure, Upstream};
use super::{Begun, Failed};
use crate::worker::Worker;

/// Largest response that is read.
const MAX_RESPONSE: usize = 256 * 1024;

/// A response, read to its end.
pub(in crate::forward) struct Answer {
    pub(in crate::forward) head: response::Parts,
    pub(in crate::forward) body: Bytes,
    pub(in crate::forward) trailers: HeaderMap,
}

/// Sends the body and reads the answer.
pub(super) async fn finish(
    worker: &Worker,
    mut begun: Begun,
    body: &Bytes,
    until: Instant,
) -> Result<Answer, Failed> {
    let exchange = exchange(&mut begun.up, body, begun.idle);
    let answered = tokio::time::timeout_at(until, exchange).await;
    let mut answered = answered.unwrap_or(Err(Failed::Timeout));
    if let (Ok(answer), Some(member)) = (&mut answered, begun.active.member()) {
        begun.backend.take_load(member, &mut answer.head.headers);
        begun.backend.take_load(member, &mut answer.trailers);
    }
    begun.report(answered.as_ref().ok().map(|answer| answer.head.status.as_u16()));
    if answered.is_ok() {
        let key = begun.backend.pool_key(begun.active.endpoint(), None);
        begun.up.recycle(&worker.pool, key);
    }
    answered
}

async fn exchange(up: &mut Upstream, body: &Bytes, idle: Option<Duration>) -> Result<Answer, Failed> {
    if !body.is_empty() {
        up.push(body.clone()).and_then(|()| up.finish(None))?;
    }
    let head = soon(
        idle,
        std::future::poll_fn(|cx| {
            loop {
                let _ = up.poll_drain(cx)?;
                match up.poll_head(cx)? {
                    Poll::Ready(head) if head.status.is_informational() => {}
                    Poll::Ready(head) => return Poll::Ready(Ok(head)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        }),
    )
    .await?;
    let mut answer = BytesMut::new();
    let mut trailers = HeaderMap::new();
    while let Some(chunk) = soon(idle, std::future::poll_fn(|cx| up.poll_body(cx))).await? {
        match chunk {
            Chunk::Data(data) => answer.extend_from_slice(&data),
            Chunk::Trailers(fields) => trailers = fields,
        }
        if answer.len() > MAX_RESPONSE {
            return Err(Failed::TooLarge);
        }
    }
    Ok(Answer {
        head,
        body: answer.freeze(),
        trailers,
    })
}

async fn soon<T>(
    bound: Option<Duration>,
    comes: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failed> {
    match bound {
        None => Ok(comes.await?),
        Some(bound) => Ok(tokio::time::timeout(bound, comes)
            .await
            .map_err(|_| Failed::Timeout)??),
    }
}
