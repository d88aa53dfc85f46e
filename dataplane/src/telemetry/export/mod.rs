//! Telling collectors: what waits to be sent, and the one task that sends it.
//!
//! A request only puts what is told of it into a bounded queue; what finds no room is dropped and counted. The task looks
//! at the queues a few times a second. A collector that is slow or gone costs what is told to it, never a request.

pub mod als;
pub mod metrics;
pub mod otlp;
pub mod spans;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, TE};
use http::{Method, Request, Uri};
use prost::Message;
use sluice_config::v1;

use super::settings::Settings;
use crate::filter::Lookup;
use crate::forward;
use crate::upstream::Slot;
use crate::upstream::connect::Version;
use crate::worker::WorkerHandle;

/// How often queues are looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long a collector may take if the configuration does not say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What may wait for a collector.
const CAPACITY: usize = 8192;
/// What is sent in one message.
const BATCH: usize = 512;

/// What waits to be sent.
#[derive(Debug)]
pub struct Queue<T>(Mutex<Vec<T>>);

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Queue<T> {
    /// Adds something, unless there is too much.
    pub fn push(&self, counts: &Counts, item: T) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < CAPACITY {
            waiting.push(item);
        } else {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the oldest.
    fn take(&self) -> Vec<T> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.len().min(BATCH);
        waiting.drain(..count).collect()
    }

    /// Sends what waits, batch by batch.
    pub async fn flush<F>(&self, counts: &Counts, send: impl Fn(Vec<T>) -> F)
    where
        F: Future<Output = Result<(), String>>,
    {
        loop {
            let batch = self.take();
            if batch.is_empty() {
                return;
            }
            let count = batch.len();
            // Somebody who is not there is not asked again at once.
            if !counts.note(count, send(batch).await) {
                return;
            }
        }
    }
}

/// Counts what has been told, and what could not be.
#[derive(Debug, Default)]
pub struct Counts {
    /// Log records, spans and sets of metrics that a collector has taken.
    pub sent: AtomicU64,
    /// Those that were lost.
    pub dropped: AtomicU64,
}

impl Counts {
    /// Counts what has become of a batch. True if it was taken.
    pub fn note(&self, count: usize, outcome: Result<(), String>) -> bool {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let is_taken = outcome.is_ok();
        match outcome {
            Ok(()) => self.sent.fetch_add(count, Ordering::Relaxed),
            Err(reason) => {
                tracing::debug!(reason, count, "telemetry could not be sent");
                self.dropped.fetch_add(count, Ordering::Relaxed)
            }
        };
        is_taken
    }
}

/// Somebody who is told.
#[derive(Debug)]
pub struct Receiver {
    slot: Arc<Slot>,
    host: HeaderValue,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
}

impl Receiver {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names what is missing or no header.
    pub fn compile(config: Option<&v1::Receiver>, lookup: &mut dyn Lookup) -> Result<Self, String> {
        let config = config.ok_or("receiver: not set")?;
        let host = match config.host.as_str() {
            "" => "telemetry",
            host => host,
        };
        let header = |entry: &v1::MetadataEntry| {
            let name = HeaderName::from_bytes(entry.name.as_bytes());
            let mut value = HeaderValue::from_str(&entry.value)
                .map_err(|_| format!("receiver.headers: the value of {} is none", entry.name))?;
            value.set_sensitive(true);
            Ok((name.map_err(|e| format!("receiver.headers: {e}"))?, value))
        };
        Ok(Self {
            slot: lookup.backend(&config.backend),
            host: HeaderValue::from_str(host).map_err(|_| format!("receiver.host: {host:?} is no host"))?,
            headers: config.headers.iter().map(header).collect::<Result<_, String>>()?,
            timeout: match config.timeout_ms {
                0 => TIMEOUT,
                ms => Duration::from_millis(ms),
            },
        })
    }

    /// Makes a gRPC call with these messages.
    pub(super) async fn grpc<M: Message>(
        &self,
        worker: &WorkerHandle,
        method: &'static str,
        messages: &[M],
    ) -> Result<(), String> {
        let mut body = BytesMut::new();
        for message in messages {
            body.put_u8(0);
            body.put_u32(u32::try_from(message.encoded_len()).map_err(|e| e.to_string())?);
            message.encode(&mut body).map_err(|e| e.to_string())?;
        }
        let mut request = Request::new(body.freeze());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(method);
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        self.send(worker, request, Version::Http2).await
    }

    /// Posts JSON.
    pub(super) async fn json(
        &self,
        worker: &WorkerHandle,
        method: Method,
        path: &'static str,
        body: &serde_json::Value,
    ) -> Result<(), String> {
        let body = serde_json::to_vec(body).map_err(|e| e.to_string())?;
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_static(path);
        let length = request.body().len().into();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(http::header::CONTENT_LENGTH, length);
        self.send(worker, request, Version::Any).await
    }

    async fn send(
        &self,
        worker: &WorkerHandle,
        mut request: Request<Bytes>,
        version: Version,
    ) -> Result<(), String> {
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        let how = forward::Call {
            version,
            timeout: self.timeout,
            client: None,
        };
        forward::tell(&worker.worker, &self.slot, request, how).await
    }
}

/// Sends all that waits at the end of service, for as long as a collector may take for one message.
pub async fn last(worker: WorkerHandle) {
    let now = worker.worker.shared.telemetry.load_full();
    if let Some(now) = now
        && tokio::time::timeout(TIMEOUT, now.finish(&worker)).await.is_err()
    {
        tracing::warn!("telemetry: collectors are too slow to take what is left");
    }
}

/// Sends what waits, until the workers end.
pub async fn run(worker: WorkerHandle) {
    let shared = Arc::clone(&worker.worker.shared);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // What the settings were before: requests that began under them may end after them.
    let mut before: Option<Arc<Settings>> = None;
    loop {
        ticks.tick().await;
        let now = shared.telemetry.load_full();
        if let Some(old) = &before
            && now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, old))
        {
            old.flush(&worker).await;
        }
        if let Some(now) = &now {
            now.flush(&worker).await;
        }
        before = now;
    }
}
