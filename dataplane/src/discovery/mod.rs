//! Follows the controller: asks for one gateway's configuration, applies what comes, keeps the last good one on disk.
//!
//! Owns the stream and its retries, and the cache. It never looks into a resource; what is applied, and what is
//! refused, the [`Target`] decides.

mod cache;
mod client;
mod connector;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use rand::Rng;
use sluice_config::v1;

use cache::Cache;
use client::{Failure, Session};

/// Pause before the first retry.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where configuration comes from, and for whom.
#[derive(Debug, Clone)]
pub struct Source {
    /// `https://host:port` of the controller.
    pub endpoint: String,
    /// The name that the controller's certificate must hold; empty: the endpoint's host.
    pub server_name: String,
    /// PEM bundle with whom to trust. Read anew for each connection.
    pub ca_file: PathBuf,
    /// The token that says who we are. Read anew for each connection.
    pub token_file: PathBuf,
    /// Namespace of the Gateway.
    pub namespace: String,
    /// Name of the Gateway.
    pub gateway: String,
    /// This proxy's own name.
    pub proxy: String,
    /// Where the last good configuration is kept; `None`: nowhere.
    pub cache_dir: Option<PathBuf>,
}

/// What configuration is applied to.
pub trait Target: Clone + Send + Sync + 'static {
    /// Applies an update; may take a while.
    fn apply(&self, update: &v1::Update) -> v1::Ack;

    /// Key and version of each resource held.
    fn known(&self) -> HashMap<String, String>;

    /// The stream to the controller stands, or does not.
    fn set_connected(&self, connected: bool) {
        let _ = connected;
    }
}

impl Target for crate::Dataplane {
    fn apply(&self, update: &v1::Update) -> v1::Ack {
        self.apply(update)
    }

    fn known(&self) -> HashMap<String, String> {
        self.known()
    }

    fn set_connected(&self, connected: bool) {
        self.metrics().config().set_connected(connected);
    }
}

/// Follows the controller until the future is dropped. Starts with what is on disk, so that a controller that is
/// away does not matter to a proxy that has run before.
pub async fn follow<T: Target>(source: Source, target: T) {
    let cache = start_from_disk(&source, &target).await;
    let mut session = Session::new(source, target, cache);
    let mut pause = FIRST_PAUSE;
    let mut lost: Option<String> = None;
    loop {
        let failure = session.run(&mut lost).await;
        session.target().set_connected(false);
        if session.take_progress() {
            pause = FIRST_PAUSE;
        }
        report(&failure, &mut lost);
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Says that the controller is lost; once for each kind of failure, until it is back.
fn report(failure: &Failure, lost: &mut Option<String>) {
    let kind = failure.kind();
    if lost.as_ref() == Some(&kind) {
        tracing::debug!(%failure, "still no configuration from the controller");
    } else {
        tracing::warn!(%failure, "no configuration from the controller; what is held keeps serving");
        *lost = Some(kind);
    }
}

/// Between half the pause and all of it, so that proxies do not come back in step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}

async fn start_from_disk<T: Target>(source: &Source, target: &T) -> Option<Cache> {
    let dir = source.cache_dir.clone()?;
    let owner = format!("{}/{}", source.namespace, source.gateway);
    let target = target.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let (cache, upserts) = Cache::open(&dir, &owner)?;
        if !upserts.is_empty() {
            let count = upserts.len();
            let ack = target.apply(&v1::Update {
                nonce: 0,
                upserts,
                removes: Vec::new(),
                synced: true,
            });
            tracing::info!(
                resources = count,
                "started from the last good configuration on disk"
            );
            client::warn_rejected(&ack);
        }
        Ok::<_, std::io::Error>(cache)
    });
    match opened.await.map_err(std::io::Error::other).flatten() {
        Ok(cache) => Some(cache),
        Err(error) => {
            let dir = source.cache_dir.as_ref().map(|dir| dir.display().to_string());
            tracing::warn!(dir, %error, "configuration cannot be kept on disk");
            None
        }
    }
}
