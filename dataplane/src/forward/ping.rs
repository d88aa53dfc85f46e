//! Pings on HTTP/2 connections of clients, where the listener asks for them.
//!
//! Owns when a ping goes out and when a client counts as gone; `h2` ends the connection then.

use std::pin::pin;
use std::time::Duration;

use h2::{Ping, PingPong};
use rand::Rng;
use sluice_config::v1::Http2Settings;
use tokio::time::{Instant, sleep_until, timeout};

use crate::wire::Wire;

/// How long an answer may take unless the listener says otherwise, as for backends.
const TIMEOUT: Duration = Duration::from_secs(5);
/// As good as never.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// True if connections with these settings are pinged.
pub(super) fn is_wanted(settings: &Http2Settings) -> bool {
    settings.ping_interval_ms != 0 || settings.ping_idle_ms != 0
}

/// Pings; ends once the client counts as gone. An answer may wait behind what is on its way already, so as long as anything
/// comes it is waited for.
pub(super) async fn unanswered(mut ping_pong: PingPong, settings: Http2Settings, wire: Wire) {
    let patience = duration(settings.ping_timeout_ms).unwrap_or(TIMEOUT);
    loop {
        pause(&settings, &wire).await;
        wire.take_heard();
        let mut answer = pin!(ping_pong.ping(Ping::opaque()));
        loop {
            match timeout(patience, &mut answer).await {
                Ok(Ok(_)) => break,
                Err(_) if wire.take_heard() => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}

/// Until the interval has passed, or nothing has come for long.
async fn pause(settings: &Http2Settings, wire: &Wire) {
    let interval = duration(settings.ping_interval_ms).map_or(NEVER, |interval| {
        let jitter = f64::from(settings.ping_jitter_percent.min(100)) / 100.0;
        interval.mul_f64(1.0 + jitter * rand::rng().random_range(0.0..=1.0))
    });
    let due = after(interval);
    let Some(idle) = duration(settings.ping_idle_ms) else {
        return sleep_until(due).await;
    };
    loop {
        wire.take_heard();
        sleep_until(after(idle).min(due)).await;
        if !wire.take_heard() || Instant::now() >= due {
            return;
        }
    }
}

fn duration(ms: u64) -> Option<Duration> {
    (ms != 0).then(|| Duration::from_millis(ms).min(NEVER))
}

fn after(duration: Duration) -> Instant {
    // The clock runs longer than that.
    Instant::now() + duration
}
