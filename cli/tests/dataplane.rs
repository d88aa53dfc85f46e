//! `sluice dataplane` as a pod has it: the binary, a controller over TLS, probes, a restart, and SIGTERM.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic"
)]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command};
use std::time::Duration;

use futures::{Stream, StreamExt};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sluice_config::v1;
use sluice_config::v1::config_discovery_server::{ConfigDiscovery, ConfigDiscoveryServer};
use sluice_config::v1::resource::Body;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use support::free_port;

fn until<T>(what: &str, poll: impl FnMut() -> Option<T>) -> T {
    support::until(poll).unwrap_or_else(|| panic!("never: {what}"))
}

/// Status of a GET; `None` if nobody answers.
fn get(port: u16, path: &str) -> Option<u16> {
    support::get(port, path).map(|(status, _)| status)
}

/// Sends one update to every proxy, and then nothing.
struct Controller(v1::Update);

#[tonic::async_trait]
impl ConfigDiscovery for Controller {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<v1::Update, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::ProxyMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        if request
            .metadata()
            .get("authorization")
            .is_none_or(|token| token != "Bearer secret")
        {
            return Err(Status::unauthenticated("who are you?"));
        }
        let update = futures::stream::iter([Ok(self.0.clone())]).chain(futures::stream::pending());
        Ok(Response::new(Box::pin(update)))
    }
}

/// A listener on `port` whose one route answers every request with a redirect.
fn configuration(port: u16) -> v1::Update {
    let listener = v1::Listener {
        name: "ns/gw/http".into(),
        port: port.into(),
        bind_port: port.into(),
        protocol: v1::Protocol::Http.into(),
        ..Default::default()
    };
    let redirect = v1::Redirect {
        hostname: "elsewhere.test".into(),
        status: 302,
        ..Default::default()
    };
    let path = v1::PathMatch {
        kind: v1::path_match::Kind::Prefix.into(),
        value: "/".into(),
    };
    let rule = v1::HttpRule {
        matches: vec![v1::HttpMatch {
            path: Some(path),
            ..Default::default()
        }],
        filters: vec![v1::Filter {
            filter: Some(v1::filter::Filter::Redirect(redirect)),
        }],
        ..Default::default()
    };
    let route = v1::Route {
        name: "HTTPRoute/ns/r".into(),
        attachments: vec![v1::Attachment {
            listener: "listener/l".into(),
            ..Default::default()
        }],
        precedence_name: "ns/r".into(),
        rules: Some(v1::route::Rules::Http(v1::HttpRules {
            rules: vec![rule],
            grpc: false,
        })),
        ..Default::default()
    };
    let resource = |key: &str, body| v1::Resource {
        key: key.into(),
        version: "1".into(),
        body: Some(body),
    };
    v1::Update {
        nonce: 1,
        upserts: vec![
            resource("route/HTTPRoute/ns/r", Body::Route(route)),
            resource("listener/l", Body::Listener(listener)),
        ],
        removes: Vec::new(),
        synced: true,
    }
}

/// Serves a controller on a runtime of its own, which ends with the value.
fn controller(dir: &Path, update: v1::Update) -> (tokio::runtime::Runtime, SocketAddr) {
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(
        dir.join("ca.crt"),
        params.self_signed(&authority_key).unwrap().pem(),
    )
    .unwrap();
    std::fs::write(dir.join("token"), "secret\n").unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = leaf
        .signed_by(&key, &Issuer::new(params, authority_key))
        .unwrap()
        .pem();
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key.serialize_pem()));

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        let service = ConfigDiscoveryServer::new(Controller(update));
        let router = Server::builder().tls_config(tls).unwrap().add_service(service);
        router
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    (runtime, address)
}

/// The running binary; killed when dropped.
struct Proxy {
    child: Child,
    admin: u16,
}

impl Proxy {
    fn start(dir: &Path, controller: SocketAddr) -> Self {
        let admin = free_port();
        let child = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args([
                "--log-level",
                "warn",
                "dataplane",
                "--no-access-log",
                "--bind",
                "127.0.0.1",
                "--workers",
                "1",
            ])
            .args([
                "--namespace",
                "ns",
                "--gateway",
                "gw",
                "--min-drain",
                "2",
                "--drain-timeout",
                "5",
            ])
            .arg("--controller")
            .arg(format!("https://localhost:{}", controller.port()))
            .arg("--admin-address")
            .arg(format!("127.0.0.1:{admin}"))
            .arg("--ca-file")
            .arg(dir.join("ca.crt"))
            .arg("--token-file")
            .arg(dir.join("token"))
            .arg("--cache-dir")
            .arg(dir.join("cache"))
            .spawn()
            .unwrap();
        Self { child, admin }
    }

    fn ready(&self, wanted: u16) {
        until("readiness", || {
            get(self.admin, "/healthz/ready").filter(|status| *status == wanted)
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_pods_life() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let (runtime, address) = controller(dir.path(), configuration(port));
    let proxy = Proxy::start(dir.path(), address);
    proxy.ready(200);
    assert_eq!(get(port, "/"), Some(302));
    // The kind of end that leaves no time to say goodbye.
    drop(proxy);

    // Without the controller, the next one serves what the last one did.
    runtime.shutdown_timeout(Duration::ZERO);
    let mut proxy = Proxy::start(dir.path(), address);
    proxy.ready(200);
    assert_eq!(get(port, "/"), Some(302));

    let pid = proxy.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    proxy.ready(503);
    assert_eq!(
        get(port, "/"),
        Some(302),
        "those who have not heard yet are still served"
    );
    let status = until("the end", || proxy.child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    assert_eq!(get(port, "/"), None);
}

#[test]
fn without_configuration_it_is_alive_and_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let (_runtime, address) = controller(dir.path(), configuration(free_port()));
    std::fs::write(dir.path().join("token"), "wrong").unwrap();
    let proxy = Proxy::start(dir.path(), address);
    until("liveness", || {
        get(proxy.admin, "/healthz/live").filter(|status| *status == 200)
    });
    std::thread::sleep(Duration::from_millis(300));
    proxy.ready(503);
    // A token that is put right is taken without a restart.
    std::fs::write(dir.path().join("token"), "secret").unwrap();
    proxy.ready(200);
}
