//! The dataplane by itself, without Kubernetes and without a controller: routes to one backend.
//!
//! ```console
//! cargo run --release -p sluice-dataplane --example one_backend -- --port 8080 --backend 127.0.0.1:9000 --routes 100
//! ```
//!
//! Serves `/r0`, `/r1` and so on over HTTP/1.1 and HTTP/2; with `--certificate` and `--key` (PEM files) over TLS. `--h2c`
//! speaks HTTP/2 to the backend. One worker; the access log goes to standard output unless `--quiet` is given.
//!
//! With `--features heap` it counts allocations: at the end (SIGINT) it says how many there were since it began to serve, and
//! writes to `dhat-heap.json` from where.

use std::net::SocketAddr;

use anyhow::Context;
use sluice_config::v1::{self, resource::Body};
use sluice_dataplane::telemetry::AccessLogTarget;
use sluice_dataplane::{Dataplane, Options};

#[cfg(not(feature = "heap"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "heap")]
#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

struct Arguments {
    port: u16,
    backend: SocketAddr,
    routes: usize,
    pair: Option<v1::CertificateKeyPair>,
    h2c: bool,
    quiet: bool,
}

impl Arguments {
    fn parse() -> anyhow::Result<Self> {
        let mut parsed = Self {
            port: 8080,
            backend: SocketAddr::from(([127, 0, 0, 1], 9000)),
            routes: 1,
            pair: None,
            h2c: false,
            quiet: false,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{name} needs a value"));
            match name.as_str() {
                "--port" => parsed.port = value()?.parse()?,
                "--backend" => parsed.backend = value()?.parse()?,
                "--routes" => parsed.routes = value()?.parse()?,
                "--certificate" => parsed.pair().certificate_chain_pem = std::fs::read(value()?)?,
                "--key" => parsed.pair().private_key_pem = std::fs::read(value()?)?,
                "--h2c" => parsed.h2c = true,
                "--quiet" => parsed.quiet = true,
                _ => anyhow::bail!("unknown argument {name}"),
            }
        }
        Ok(parsed)
    }

    fn pair(&mut self) -> &mut v1::CertificateKeyPair {
        self.pair.get_or_insert_default()
    }

    /// The configuration, in the order in which it is applied.
    fn resources(&self) -> Vec<v1::Resource> {
        let mut resources = Vec::new();
        let mut put = |key: &str, body| {
            resources.push(v1::Resource {
                key: key.into(),
                version: "1".into(),
                body: Some(body),
            });
        };
        if let Some(pair) = &self.pair {
            let body = v1::secret::Body::CertificateKeyPair(pair.clone());
            put("secret/pair", Body::Secret(v1::Secret { body: Some(body) }));
        }
        let endpoint = v1::Endpoint {
            address: self.backend.ip().to_string(),
            port: self.backend.port().into(),
            ..Default::default()
        };
        let endpoints = v1::Endpoints {
            endpoints: vec![endpoint],
        };
        put("endpoints/only", Body::Endpoints(endpoints));
        let mut backend = v1::Backend {
            name: "default/only:80".into(),
            endpoints: "endpoints/only".into(),
            ..Default::default()
        };
        if self.h2c {
            backend.protocol = v1::BackendProtocol::H2c.into();
        }
        put("backend/only", Body::Backend(backend));
        for number in 0..self.routes {
            put(
                &format!("route/HTTPRoute/default/r{number}"),
                Body::Route(route(number)),
            );
        }
        put("listener/only", Body::Listener(self.listener()));
        resources
    }

    fn listener(&self) -> v1::Listener {
        let mut listener = v1::Listener {
            name: "default/gateway/only".into(),
            port: self.port.into(),
            bind_port: self.port.into(),
            protocol: v1::Protocol::Http.into(),
            ..Default::default()
        };
        if self.pair.is_some() {
            listener.protocol = v1::Protocol::Https.into();
            listener.tls = Some(v1::TlsTermination {
                certificate_secrets: vec!["secret/pair".into()],
                ..Default::default()
            });
        }
        listener
    }
}

fn route(number: usize) -> v1::Route {
    let path = v1::PathMatch {
        kind: v1::path_match::Kind::Prefix.into(),
        value: format!("/r{number}"),
    };
    let rule = v1::HttpRule {
        matches: vec![v1::HttpMatch {
            path: Some(path),
            ..Default::default()
        }],
        backends: vec![v1::WeightedBackend {
            backend: "backend/only".into(),
            weight: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    v1::Route {
        name: format!("HTTPRoute/default/r{number}"),
        attachments: vec![v1::Attachment {
            listener: "listener/only".into(),
            ..Default::default()
        }],
        created: 1,
        precedence_name: format!("default/r{number}"),
        rules: Some(v1::route::Rules::Http(v1::HttpRules {
            rules: vec![rule],
            grpc: false,
        })),
        ..Default::default()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse()?;
    let dataplane = Dataplane::start(Options {
        workers: 1,
        access_log: if arguments.quiet {
            AccessLogTarget::Off
        } else {
            AccessLogTarget::Stdout
        },
        ..Options::default()
    })?;
    let ack = dataplane.apply(&v1::Update {
        upserts: arguments.resources(),
        synced: true,
        ..Default::default()
    });
    anyhow::ensure!(ack.rejected.is_empty(), "{:?}", ack.rejected);
    #[cfg(feature = "heap")]
    let _heap = dhat::Profiler::new_heap();
    eprintln!("serving on port {}", arguments.port);
    tokio::signal::ctrl_c().await?;
    dataplane.drain().await;
    Ok(())
}
