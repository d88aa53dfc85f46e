//! The access log line of a connection or of a UDP session.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::L4Route;
use crate::telemetry::access_log::Entry;
use crate::telemetry::access_log::template::Subject;
use crate::worker::Worker;

/// What is told of a connection.
pub(super) struct Line<'a> {
    pub(super) route: &'a L4Route,
    pub(super) began: SystemTime,
    /// Envoy's flags of what went wrong; empty: nothing.
    pub(super) flags: &'static str,
    pub(super) details: &'a str,
    /// Why the connection to the backend failed.
    pub(super) transport_failure: Option<&'a str>,
    pub(super) from_client: u64,
    pub(super) from_backend: u64,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) backend: Option<&'a str>,
    pub(super) upstream_local: Option<SocketAddr>,
    pub(super) downstream_local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) server_name: Option<&'a str>,
}

/// An IPv4 address as such, which a socket for both families shows as an IPv6 one.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Writes the line, if there is a log.
pub(super) fn write(worker: &Worker, line: &Line<'_>) {
    let log = &worker.shared.access_log;
    let telemetry = worker.shared.telemetry.load();
    let told = telemetry.as_ref().filter(|told| told.logs.is_some());
    if !log.is_on() && told.is_none() {
        return;
    }
    let endpoint = line.endpoint.map(|address| address.to_string());
    let entry = Entry {
        flags: line.flags,
        details: line.details,
        transport_failure: line.transport_failure,
        received: line.from_client,
        sent: line.from_backend,
        duration: SystemTime::now()
            .duration_since(line.began)
            .unwrap_or(Duration::ZERO),
        upstream_host: endpoint.as_deref(),
        upstream_cluster: line.backend,
        upstream_local: line.upstream_local,
        server_name: line.server_name,
        route: Some(&line.route.name),
        ..Entry::began(line.began, plain(line.downstream_local), plain(line.peer))
    };
    let Some(told) = told else {
        return log.write(&entry);
    };
    told.log(worker.shared.metrics.telemetry(), &Subject::new(&entry));
}
