//! HTTP/2 connections to endpoints: the handshake as the backend wants it, and pings.
//!
//! Owns the task of a connection that is pinged; one that is not is Pingora's to drive. Opens no transport and sends no
//! request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection};
use h2::{Ping, PingPong};
use pingora_core::connectors::http::v2::{self, ConnectionRef, H2HandshakeSettings};
use pingora_core::protocols::{Digest, UniqueID};
use pingora_core::{Error, ErrorType, OrErr};
use rand::Rng;
use sluice_config::v1;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};

use crate::wire::Wire;

/// Concurrent streams on one HTTP/2 connection before another is opened.
const MAX_STREAMS: u32 = 256;
/// Bytes of one response that a backend may send before they are read.
const STREAM_WINDOW: u32 = 1 << 18;
/// The same for all responses on a connection.
const CONNECTION_WINDOW: u32 = 1 << 22;
/// Bytes of the largest frame that a backend may send.
const MAX_FRAME: u32 = 1 << 16;
/// How long an answer to a ping may take unless the backend says otherwise.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// When a connection is pinged.
#[derive(Debug, Clone, Copy)]
struct Pings {
    interval: Option<Duration>,
    /// Percent of the interval that may be added to it.
    jitter: u32,
    timeout: Duration,
}

/// Asks for a ping when a connection is used again after it was not for long.
#[derive(Debug, Clone)]
pub struct IdlePing {
    after: Duration,
    ask: Arc<Notify>,
}

impl IdlePing {
    /// The connection is used, for the first time since `unused`.
    pub fn used_after(&self, unused: Duration) {
        if unused >= self.after {
            self.ask.notify_one();
        }
    }
}

/// Agrees on HTTP/2 with the endpoint.
///
/// # Errors
/// If the endpoint does not speak it, or takes no stream at all.
pub async fn handshake(
    wire: Wire,
    asked: v1::Http2Settings,
) -> Result<(ConnectionRef, Option<IdlePing>), Box<Error>> {
    let or = |asked: u32, default: u32| match asked {
        0 => default,
        // The largest window that there is (RFC 9113 section 6.9.1).
        asked => asked.min((1 << 31) - 1),
    };
    let max_streams = or(asked.max_concurrent_streams, MAX_STREAMS) as usize;
    let stream_window = or(asked.initial_stream_window, STREAM_WINDOW);
    let connection_window = or(asked.initial_connection_window, CONNECTION_WINDOW);
    let wire = wire.unbuffered();
    if asked.ping_interval_ms == 0 && asked.ping_idle_ms == 0 {
        let mut settings = H2HandshakeSettings::new();
        settings.max_streams = max_streams;
        settings.stream_window_size = Some(stream_window);
        settings.connection_window_size = Some(connection_window);
        return Ok((v2::handshake(Box::new(wire), settings).await?, None));
    }
    let id = wire.id();
    let (send, connection) = Builder::new()
        .enable_push(false)
        .initial_max_send_streams(max_streams)
        .max_frame_size(MAX_FRAME)
        .initial_window_size(stream_window)
        .initial_connection_window_size(connection_window)
        .handshake(wire)
        .await
        .or_err(ErrorType::HandshakeError, "during HTTP/2 handshake")?;
    let max_streams = max_streams.min(connection.max_concurrent_send_streams());
    if max_streams == 0 {
        return Err(Error::explain(
            ErrorType::H2Error,
            "the endpoint takes no streams",
        ));
    }
    let pings = Pings {
        interval: (asked.ping_interval_ms != 0).then(|| Duration::from_millis(asked.ping_interval_ms)),
        jitter: asked.ping_jitter_percent.min(100),
        timeout: match asked.ping_timeout_ms {
            0 => PING_TIMEOUT,
            ms => Duration::from_millis(ms),
        },
    };
    let (closed, is_closed) = watch::channel(false);
    let unanswered = Arc::new(AtomicBool::new(false));
    let ask = Arc::new(Notify::new());
    tokio::spawn(drive(
        connection,
        pings,
        Arc::clone(&ask),
        Arc::clone(&unanswered),
        closed,
    ));
    let idle = (asked.ping_idle_ms != 0).then(|| IdlePing {
        after: Duration::from_millis(asked.ping_idle_ms),
        ask,
    });
    let connection = ConnectionRef::new(send, is_closed, unanswered, id, max_streams, Digest::default());
    Ok((connection, idle))
}

/// Reads and writes until the connection ends, or does not answer a ping.
async fn drive<I>(
    mut connection: Connection<I, Bytes>,
    pings: Pings,
    ask: Arc<Notify>,
    unanswered: Arc<AtomicBool>,
    closed: watch::Sender<bool>,
) where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let ping_pong = connection.ping_pong();
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "HTTP/2 connection");
            }
        }
        () = unanswered_ping(ping_pong, pings, ask) => {
            tracing::debug!("HTTP/2 connection: a ping was not answered in time");
            unanswered.store(true, Ordering::Relaxed);
        }
    }
    // Whoever held the connection may be gone.
    let _ = closed.send(true);
}

/// Pings; ends once there is no answer in time.
async fn unanswered_ping(ping_pong: Option<PingPong>, pings: Pings, ask: Arc<Notify>) {
    let Some(mut ping_pong) = ping_pong else {
        return std::future::pending().await;
    };
    loop {
        match pings.interval {
            None => ask.notified().await,
            Some(interval) => {
                let most = interval * pings.jitter / 100;
                let pause = interval + most.mul_f64(rand::rng().random_range(0.0..=1.0));
                // An early ping does for the next one.
                let _ = tokio::time::timeout(pause, ask.notified()).await;
            }
        }
        match tokio::time::timeout(pings.timeout, ping_pong.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
