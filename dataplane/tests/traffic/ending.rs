//! The end of service.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use sluice_config::v1;
use sluice_dataplane::telemetry::AccessLogTarget;
use sluice_dataplane::{Dataplane, Options};

use super::cfg;
use super::support::backend::Backend;
use super::support::client::Http;
use super::support::{self, eventually};

#[tokio::test]
async fn readiness_stands_as_long_as_it_is_asked_to() {
    let delay = Duration::from_millis(300);
    let dataplane = Dataplane::start(Options {
        workers: 1,
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        unready_delay: delay,
        drain_delay: Duration::from_hours(1),
        access_log: AccessLogTarget::Off,
        ..Options::default()
    })
    .unwrap();
    let (backend, port) = (Backend::echo("b").await, support::free_port());
    let mut upserts = cfg::backend("b", &[backend.address]);
    upserts.reverse();
    upserts.extend([
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
        cfg::http_listener("l", port),
    ]);
    let ack = dataplane.apply(&v1::Update {
        upserts,
        synced: true,
        ..Default::default()
    });
    assert_eq!(ack.rejected, []);
    eventually("it is ready", || dataplane.is_ready()).await;
    let began = Instant::now();
    let ending = tokio::spawn({
        let dataplane = dataplane.clone();
        async move { dataplane.drain().await }
    });
    eventually("it is not ready any more", || !dataplane.is_ready()).await;
    assert!(began.elapsed() >= delay);
    assert_eq!(Http::new(port).get("/").await.status, 200);
    ending.abort();
}
