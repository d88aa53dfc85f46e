//! The access log line of a client's connection, where connections are logged.
//!
//! Owns what is known of a connection until it has ended, however it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use super::{Fingerprints, TlsSession};
use crate::filter::cel::request::Tls;
use crate::telemetry::access_log::Entry;
use crate::telemetry::access_log::template::{Kind, Subject};
use crate::telemetry::settings::Settings;
use crate::wire::Traffic;
use crate::worker::Worker;

/// One connection's line, written when it is dropped.
pub(super) struct Line {
    worker: Arc<Worker>,
    settings: Arc<Settings>,
    start: Instant,
    wall: SystemTime,
    /// Its own address, and the one that it connected to.
    pub(super) ends: (SocketAddr, SocketAddr),
    traffic: Arc<Traffic>,
    tls: Option<Arc<TlsSession>>,
    /// What has become of it; empty: it was served.
    details: &'static str,
}

impl Line {
    /// For a connection that has just come; `None`: connections are not logged.
    pub(super) fn begin(worker: &Arc<Worker>, ends: (SocketAddr, SocketAddr)) -> Option<Box<Self>> {
        let settings = worker.shared.telemetry.load();
        let settings = settings.as_ref().filter(|settings| settings.logs_connections)?;
        Some(Box::new(Self {
            worker: Arc::clone(worker),
            settings: Arc::clone(settings),
            start: Instant::now(),
            wall: SystemTime::now(),
            ends,
            traffic: Arc::default(),
            tls: None,
            details: "connection_refused",
        }))
    }

    /// What counts its bytes.
    pub(super) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// It is served.
    pub(super) fn served(&mut self, tls: Option<&Arc<TlsSession>>) {
        self.details = "";
        self.tls = tls.cloned();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let (peer, local) = self.ends;
        let tls = self.tls.as_deref();
        let entry = Entry {
            details: self.details,
            received: self.traffic.received.load(Ordering::Relaxed),
            sent: self.traffic.sent.load(Ordering::Relaxed),
            duration: self.start.elapsed(),
            server_name: tls.and_then(|tls| tls.sni.as_deref()),
            fingerprints: tls
                .and_then(|tls| tls.fingerprints.as_deref())
                .map(Fingerprints::texts)
                .unwrap_or_default(),
            ..Entry::began(self.wall, local, peer)
        };
        let subject = Subject {
            kind: Kind::Connection,
            https: tls.is_some(),
            tls: tls.map(|tls| Tls {
                server_name: tls.sni.as_deref(),
                version: tls.version,
                peer: tls.peer(),
            }),
            ..Subject::new(&entry)
        };
        let counts = self.worker.shared.metrics.telemetry();
        self.settings.log(counts, &subject);
    }
}
