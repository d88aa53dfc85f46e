//! HTTP/3, end to end: the real dataplane on loopback between QUIC clients and real backends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod alternative;
mod bodies;
mod client;
mod connections;
mod grpc_web;
mod malformed;
mod raw;
mod requests;
mod sockets;
mod tunnels;

use sluice_config::v1;
use sluice_dataplane::telemetry::AccessLogTarget;

use support::backend::Backend;
use support::certificate::{Certificate, certificate};
use support::{Proxy, config as cfg};

/// The host that [`site`] serves.
const HOST: &str = "www.example.com";

/// An HTTPS listener with HTTP/3 for a host, whose certificate is `secret/NAME`.
fn listener(name: &str, port: u16, hostname: &str, client: v1::ClientSettings) -> v1::Resource {
    listener_with(name, port, hostname, client, |_| ())
}

/// The same, changed.
fn listener_with(
    name: &str,
    port: u16,
    hostname: &str,
    client: v1::ClientSettings,
    change: impl FnOnce(&mut v1::Listener),
) -> v1::Resource {
    let mut listener = v1::Listener {
        port: u32::from(port),
        bind_port: u32::from(port),
        protocol: v1::Protocol::Https.into(),
        hostname: hostname.into(),
        tls: Some(v1::TlsTermination {
            certificate_secrets: vec![format!("secret/{name}")],
            ..Default::default()
        }),
        client: Some(client),
        ..Default::default()
    };
    change(&mut listener);
    cfg::listener(name, listener)
}

/// The listener `l` with its certificate and its one rule.
fn serving(certificate: &Certificate, listener: v1::Resource, rule: v1::HttpRule) -> [v1::Resource; 3] {
    [
        cfg::key_pair("l", &certificate.pem, &certificate.key_pem),
        listener,
        cfg::route("r", "l", vec![rule]),
    ]
}

fn http3() -> v1::ClientSettings {
    v1::ClientSettings {
        http3: true,
        ..Default::default()
    }
}

/// A proxy with one listener that serves [`HOST`].
struct Site {
    proxy: Proxy,
    port: u16,
    certificate: Certificate,
}

impl Site {
    /// With a rule of all paths to this backend.
    async fn start(backend: &Backend) -> Self {
        Self::with(
            http3(),
            cfg::backend("b", &[backend.address]),
            cfg::rule("/", &["b"]),
        )
        .await
    }

    async fn with(client: v1::ClientSettings, resources: Vec<v1::Resource>, rule: v1::HttpRule) -> Self {
        Self::logging(AccessLogTarget::Off, client, resources, rule).await
    }

    /// The same with an access log.
    async fn logging(
        log: AccessLogTarget,
        client: v1::ClientSettings,
        mut resources: Vec<v1::Resource>,
        rule: v1::HttpRule,
    ) -> Self {
        let (port, certificate) = (support::free_port(), certificate(HOST));
        resources.extend(serving(&certificate, listener("l", port, HOST, client), rule));
        Self {
            proxy: Proxy::with_log(resources, log).await,
            port,
            certificate,
        }
    }

    async fn connect(&self) -> client::Client {
        client::connect(self.port, HOST, &self.certificate).await.unwrap()
    }
}
