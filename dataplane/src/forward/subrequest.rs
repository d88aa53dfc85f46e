//! Requests of the proxy's own: small ones, to authorizers, and the beginning of mirrored ones.

use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, request, response};

use super::downstream::Chunk;
use super::upstream::{BodyKind, Upstream};
use crate::upstream::connect::{Version, Wants, connect};
use crate::upstream::{Active, Ask, Backend};
use crate::worker::Worker;

/// Largest response that is read.
const MAX_RESPONSE: usize = 256 * 1024;

/// A response, read to its end.
pub(super) struct Answer {
    pub(super) head: response::Parts,
    pub(super) body: Bytes,
    pub(super) trailers: HeaderMap,
}

/// Connects and begins a request that nobody waits for as a client does: no upgrade, no retry.
pub(super) async fn open(
    worker: &Worker,
    backend: &Backend,
    active: &Active,
    head: request::Parts,
    body: BodyKind,
    version: Version,
) -> Result<Upstream, String> {
    let wants = Wants {
        fresh: false,
        version,
        client: None,
    };
    let connected = connect(&worker.pool, backend, active, wants)
        .await
        .map_err(|e| e.to_string())?;
    Upstream::start(
        connected,
        &head,
        body,
        None::<&HeaderValue>,
        backend.tls.is_some(),
    )
    .map_err(|e| e.to_string())
}

/// Sends a request and reads the response.
pub(super) async fn call(
    worker: &Worker,
    backend: &Backend,
    request: http::Request<Bytes>,
    version: Version,
) -> Result<Answer, String> {
    let active = backend.pick(Ask::default()).ok_or("no healthy upstream")?;
    let (head, body) = request.into_parts();
    let kind = if body.is_empty() {
        BodyKind::Empty
    } else {
        BodyKind::Length
    };
    let mut up = open(worker, backend, &active, head, kind, version).await?;
    if !body.is_empty() {
        up.push(body)
            .and_then(|()| up.finish(None))
            .map_err(|e| e.to_string())?;
    }
    let head = std::future::poll_fn(|cx| {
        loop {
            let _ = up.poll_drain(cx).map_err(|e| e.to_string())?;
            match up.poll_head(cx).map_err(|e| e.to_string())? {
                Poll::Ready(head) if head.status.is_informational() => {}
                Poll::Ready(head) => return Poll::Ready(Ok::<_, String>(head)),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await?;
    let mut answer = BytesMut::new();
    let mut trailers = HeaderMap::new();
    while let Some(chunk) = std::future::poll_fn(|cx| up.poll_body(cx))
        .await
        .map_err(|e| e.to_string())?
    {
        match chunk {
            Chunk::Data(data) => answer.extend_from_slice(&data),
            Chunk::Trailers(fields) => trailers = fields,
        }
        if answer.len() > MAX_RESPONSE {
            return Err("the response is too large".into());
        }
    }
    up.recycle(&worker.pool, backend.pool_key(active.endpoint(), None));
    Ok(Answer {
        head,
        body: answer.freeze(),
        trailers,
    })
}

/// Tells a collector something; it has to say that it has taken it.
pub(crate) async fn tell(
    worker: &Worker,
    backend: &Backend,
    request: http::Request<Bytes>,
    version: Version,
) -> Result<(), String> {
    let grpc = version == Version::Http2;
    let answer = call(worker, backend, request, version).await?;
    if !answer.head.status.is_success() {
        return Err(format!("status {}", answer.head.status));
    }
    let status = answer
        .trailers
        .get("grpc-status")
        .or_else(|| answer.head.headers.get("grpc-status"));
    match status {
        Some(status) if status != "0" => Err(format!("grpc-status {status:?}")),
        None if grpc => Err("no grpc-status".into()),
        _ => Ok(()),
    }
}
