//! What in-process tests share: the real dataplane on loopback, configuration in few words, backends and clients.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod backend;
pub mod certificate;
pub mod client;
pub mod config;
pub mod mmdb;
#[path = "../ports/mod.rs"]
mod ports;
pub mod tunnels;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sluice_config::v1;
use sluice_dataplane::telemetry::AccessLogTarget;
use sluice_dataplane::{Dataplane, Options};

pub use ports::free_port;

/// A running dataplane.
pub struct Proxy {
    pub dataplane: Dataplane,
    nonce: AtomicU64,
}

impl Proxy {
    /// Starts a dataplane with this configuration and waits until it is ready.
    pub async fn start(resources: Vec<v1::Resource>) -> Self {
        Self::with_log(resources, AccessLogTarget::Off).await
    }

    pub async fn with_log(resources: Vec<v1::Resource>, access_log: AccessLogTarget) -> Self {
        Self::with(resources, access_log, Vec::new()).await
    }

    /// With a server that knows the hostnames of endpoints.
    pub async fn with_name_server(resources: Vec<v1::Resource>, server: SocketAddr) -> Self {
        Self::with(resources, AccessLogTarget::Off, vec![server]).await
    }

    async fn with(
        resources: Vec<v1::Resource>,
        access_log: AccessLogTarget,
        name_servers: Vec<SocketAddr>,
    ) -> Self {
        let options = Options {
            workers: 2,
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            unready_delay: Duration::ZERO,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(5),
            access_log,
            name_servers,
            zone: String::new(),
        };
        let proxy = Self {
            dataplane: Dataplane::start(options).unwrap(),
            nonce: AtomicU64::new(1),
        };
        proxy.apply(resources);
        eventually("the proxy is ready", || proxy.dataplane.is_ready()).await;
        proxy
    }

    /// Applies resources; none may be rejected.
    pub fn apply(&self, upserts: Vec<v1::Resource>) {
        self.update(upserts, Vec::new());
    }

    /// Removes resources.
    pub fn remove(&self, keys: &[&str]) {
        self.update(Vec::new(), keys.iter().map(ToString::to_string).collect());
    }

    fn update(&self, mut upserts: Vec<v1::Resource>, removes: Vec<String>) {
        let nonce = self.nonce.fetch_add(1, Ordering::Relaxed);
        for resource in &mut upserts {
            resource.version = nonce.to_string();
        }
        upserts.sort_by_key(|resource| rank(&resource.key));
        let ack = self.dataplane.apply(&v1::Update {
            nonce,
            upserts,
            removes,
            synced: true,
        });
        assert_eq!(ack.rejected, [], "rejected");
    }
}

/// Make before break: what is named comes first.
fn rank(key: &str) -> usize {
    ["settings", "secret", "endpoints", "backend", "route", "listener"]
        .iter()
        .position(|kind| key.starts_with(kind))
        .unwrap_or(usize::MAX)
}

/// Waits until something holds; fails after a time that is long even for a busy machine.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
