//! Sending copies of requests to mirror backends.
//!
//! A mirror runs on its own and is never waited for: its response is thrown away, and when it is slower than the
//! request itself by more than a bounded number of pieces, it is given up.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::request;
use tokio::sync::mpsc;

use super::downstream::Chunk;
use super::subrequest;
use super::upstream::BodyKind;
use crate::upstream::connect::Version;
use crate::upstream::{Ask, Backend, Slot};
use crate::worker::Worker;

/// Pieces of a body that may wait for a mirror.
const DEPTH: usize = 64;
/// How long a mirrored exchange may take in all.
const TIMEOUT: Duration = Duration::from_mins(1);

enum Item {
    Chunk(Chunk),
    End,
}

/// Where a mirror gets the body from.
pub struct Feed(Option<mpsc::Sender<Item>>);

impl Feed {
    /// Passes a piece on; gives the mirror up if it lags.
    pub fn push(&mut self, chunk: &Chunk) {
        if self
            .0
            .as_ref()
            .is_some_and(|sender| sender.try_send(Item::Chunk(chunk.clone())).is_err())
        {
            self.0 = None;
        }
    }

    /// The body is complete. A feed that is dropped without this aborts the mirrored request.
    pub fn end(self) {
        if let Some(sender) = self.0 {
            let _ = sender.try_send(Item::End);
        }
    }
}

/// Starts mirroring a request with this head, if the backend has an endpoint.
pub fn start(
    worker: &Arc<Worker>,
    slot: &Slot,
    head: request::Parts,
    body: BodyKind,
    http2: bool,
) -> Option<Feed> {
    let backend = slot.load()?;
    let (sender, receiver) = mpsc::channel(DEPTH);
    let worker = Arc::clone(worker);
    tokio::spawn(async move {
        match tokio::time::timeout(TIMEOUT, run(&worker, &backend, head, body, http2, receiver)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(backend = &*backend.name, error, "mirrored request failed"),
            Err(_) => tracing::debug!(backend = &*backend.name, "mirrored request timed out"),
        }
    });
    Some(Feed(Some(sender)))
}

async fn run(
    worker: &Worker,
    backend: &Backend,
    head: request::Parts,
    body: BodyKind,
    http2: bool,
    mut feed: mpsc::Receiver<Item>,
) -> Result<(), String> {
    let active = backend.pick(Ask::default()).ok_or("no endpoint")?;
    let version = if http2 { Version::Http2 } else { Version::Any };
    let mut up = subrequest::mirror(worker, backend, &active, &head, body, version).await?;
    let mut sending = body != BodyKind::Empty;
    let mut headed = false;
    std::future::poll_fn(|cx| {
        while sending && up.poll_room(cx).map_err(|e| e.to_string())?.is_ready() {
            let Poll::Ready(item) = feed.poll_recv(cx) else {
                break;
            };
            match item.ok_or("given up")? {
                Item::Chunk(Chunk::Data(data)) => up.push(data),
                Item::Chunk(Chunk::Trailers(trailers)) => {
                    sending = false;
                    up.finish(Some(trailers))
                }
                Item::End => {
                    sending = false;
                    up.finish(None)
                }
            }
            .map_err(|e| e.to_string())?;
        }
        let _ = up.poll_drain(cx).map_err(|e| e.to_string())?;
        while !headed {
            let Poll::Ready(head) = up.poll_head(cx).map_err(|e| e.to_string())? else {
                return Poll::Pending;
            };
            headed = !head.status.is_informational();
        }
        loop {
            match up.poll_body(cx).map_err(|e| e.to_string())? {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok::<_, String>(())),
                Poll::Ready(Some(_)) => {}
            }
        }
    })
    .await?;
    if !sending {
        up.recycle(&worker.pool, backend.pool_key(active.endpoint(), None));
    }
    Ok(())
}
