//! Endpoints that are more than an address: Unix sockets, names of their own, and hosts that requests choose themselves.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluice_config::v1;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::cfg;
use super::names::{Answer, NameServer};
use super::support::backend::{Backend, describe};
use super::support::certificate::acceptor;
use super::support::certificate::certificate;
use super::support::client::Http;
use super::support::{self, Proxy, eventually};

fn endpoints(name: &str, endpoints: Vec<v1::Endpoint>) -> v1::Resource {
    let mut resource = cfg::endpoints(name, &[]);
    resource.body = Some(v1::resource::Body::Endpoints(v1::Endpoints { endpoints }));
    resource
}

fn backend(config: v1::Backend, of: Vec<v1::Endpoint>) -> Vec<v1::Resource> {
    let mut resources = cfg::backend_with("b", &[], config);
    let endpoints = endpoints("b", of);
    resources.retain(|resource| resource.key != endpoints.key);
    resources.push(endpoints);
    resources
}

fn serve(mut resources: Vec<v1::Resource>) -> (Vec<v1::Resource>, Http) {
    let port = support::free_port();
    resources.extend([
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ]);
    (resources, Http::new(port))
}

fn dynamic(allow_local: bool, tls: Option<v1::UpstreamTls>) -> Vec<v1::Resource> {
    dynamic_with(allow_local, tls, None)
}

fn dynamic_with(allow_local: bool, tls: Option<v1::UpstreamTls>, dns: Option<v1::Dns>) -> Vec<v1::Resource> {
    let config = v1::Backend {
        dynamic: Some(v1::DynamicResolver { allow_local, dns }),
        tls,
        ..Default::default()
    };
    backend(config, Vec::new())
}

#[tokio::test]
async fn the_host_is_the_destination() {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let names = NameServer::start(Answer::Failure).await;
    let (resources, http) = serve(dynamic(true, None));
    let _proxy = Proxy::with_name_server(resources, names.address).await;
    let host = |backend: &Backend| format!("any.example:{}", backend.address.port());
    let unresolved = http.get_with("/", &[("host", &host(&one))]).await;
    assert_eq!(unresolved.status, 503);
    names.say(Answer::Address(Ipv4Addr::LOCALHOST));
    for (backend, name) in [(&one, "one"), (&two, "two")] {
        let host = host(backend);
        let seen = http.get_with("/", &[("host", &host)]).await.seen();
        assert_eq!((seen.backend.as_str(), seen.header("host")), (name, Some(&*host)));
    }
    // What is an address is not looked up.
    let asked = names.asked();
    let address = one.address.to_string();
    assert_eq!(
        http.get_with("/", &[("host", &address)]).await.seen().backend,
        "one"
    );
    assert_eq!(names.asked(), asked);
    assert_eq!(http.get_with("/", &[("host", "any.example:0")]).await.status, 400);
    assert_eq!(
        (one.connections(), two.connections()),
        (1, 1),
        "by name and by address it is one place"
    );
}

#[tokio::test]
async fn hosts_are_looked_up_as_often_as_the_backend_says() {
    let backend = Backend::echo("b").await;
    let names = NameServer::start(Answer::Address(Ipv4Addr::LOCALHOST)).await;
    names.answers_live_long();
    let dns = v1::Dns {
        refresh_ms: 100,
        ignore_ttl: true,
        family: v1::dns::Family::Ipv4.into(),
    };
    let (resources, http) = serve(dynamic_with(true, None, Some(dns)));
    let _proxy = Proxy::with_name_server(resources, names.address).await;
    let host = format!("any.example:{}", backend.address.port());
    let ask = async || http.get_with("/", &[("host", &host)]).await.status;
    assert_eq!((ask().await, names.asked()), (200, 1), "one family is asked");
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    assert_eq!(
        (ask().await, names.asked()),
        (200, 2),
        "the answer has lived for long enough"
    );
}

#[tokio::test]
async fn no_host_leads_to_the_proxy_itself() {
    let inside = Backend::echo("inside").await;
    let names = NameServer::start(Answer::Address(Ipv4Addr::LOCALHOST)).await;
    let (resources, http) = serve(dynamic(false, None));
    let _proxy = Proxy::with_name_server(resources, names.address).await;
    for host in [
        "rebound.example",
        "127.0.0.1",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
    ] {
        let host = format!("{host}:{}", inside.address.port());
        assert_eq!(http.get_with("/", &[("host", &host)]).await.status, 403, "{host}");
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn the_host_is_what_the_certificate_must_hold() {
    let good = certificate("good.example");
    let tls = acceptor(&good, &[&b"http/1.1"[..]]);
    let backend = Backend::start_tls(Some(tls), |request| describe("b", request)).await;
    let names = NameServer::start(Answer::Address(Ipv4Addr::LOCALHOST)).await;
    let tls = v1::UpstreamTls {
        ca_secrets: vec!["secret/ca".into()],
        ..Default::default()
    };
    let (mut resources, http) = serve(dynamic(true, Some(tls)));
    resources.push(cfg::trust("ca", &good.pem));
    let _proxy = Proxy::with_name_server(resources, names.address).await;
    let port = backend.address.port();
    for (host, status) in [("good.example", 200), ("bad.example", 503), ("good.example", 200)] {
        let host = format!("{host}:{port}");
        assert_eq!(
            http.get_with("/", &[("host", &host)]).await.status,
            status,
            "{host}"
        );
    }
}

#[tokio::test]
async fn endpoints_have_names_of_their_own() {
    let (one, two) = (certificate("one.example"), certificate("two.example"));
    let mut backends = Vec::new();
    let mut endpoints = Vec::new();
    for (name, certificate) in [("one.example", &one), ("two.example", &two)] {
        let tls = acceptor(certificate, &[&b"http/1.1"[..]]);
        let backend = Backend::start_tls(Some(tls), |request| describe("b", request)).await;
        endpoints.push(v1::Endpoint {
            address: backend.address.ip().to_string(),
            port: u32::from(backend.address.port()),
            server_name: name.into(),
            ..Default::default()
        });
        backends.push(backend);
    }
    let config = v1::Backend {
        tls: Some(v1::UpstreamTls {
            ca_secrets: vec!["secret/one".into(), "secret/two".into()],
            ..Default::default()
        }),
        load_balancer: Some(v1::LoadBalancer {
            policy: v1::load_balancer::Policy::RoundRobin.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let (mut resources, http) = serve(backend(config, endpoints.clone()));
    resources.extend([cfg::trust("one", &one.pem), cfg::trust("two", &two.pem)]);
    let proxy = Proxy::start(resources).await;
    for _ in 0..4 {
        assert_eq!(http.get("/").await.status, 200);
    }
    assert!(backends.iter().all(|backend| backend.hits() == 2));
    // The same address under another name is another endpoint, with connections of its own.
    endpoints.truncate(1);
    endpoints[0].server_name = "two.example".into();
    proxy.apply(vec![self::endpoints("b", endpoints)]);
    assert_eq!(http.get("/").await.status, 503);
}

/// A path of its own in the temporary directory; the file goes when this is dropped.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "sluice-test-{}-{}.sock",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Answers requests without a body until the connection ends.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await.is_ok_and(|n| n > 0) {
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            let response = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nunix";
            stream.write_all(response).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_unix_socket() {
    let place = Place::new();
    let listener = UnixListener::bind(&place.0).unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(answer(stream));
        }
    });
    let config = v1::Backend {
        socket_buffer_bytes: 64 * 1024,
        tcp_keepalive: Some(v1::TcpKeepalive {
            probes: 3,
            ..Default::default()
        }),
        ..Default::default()
    };
    let at = |path: &PathBuf| v1::Endpoint {
        path: path.to_str().unwrap().into(),
        ..Default::default()
    };
    let (resources, http) = serve(backend(config, vec![at(&place.0)]));
    let proxy = Proxy::start(resources).await;
    for _ in 0..3 {
        let got = http.get("/").await;
        assert_eq!((got.status, &got.body[..]), (200, &b"unix"[..]));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1, "the connection is kept");
    proxy.apply(vec![endpoints("b", vec![at(&Place::new().0)])]);
    assert_eq!(http.get("/").await.status, 503, "nobody is there");
}

/// Speaks just enough HTTP/2; answers pings or not, and each request with 204.
async fn pinged(answers: bool) -> (std::net::SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (pings, ended) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let counts = (Arc::clone(&pings), Arc::clone(&ended));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            // SETTINGS without a setting; each of theirs is acknowledged.
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            let mut head = [0; 9];
            while stream.read_exact(&mut head).await.is_ok() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; length as usize];
                stream.read_exact(&mut payload).await.unwrap();
                let reply: &[u8] = match (head[3], head[4]) {
                    (4, 0) => &[0, 0, 0, 4, 1, 0, 0, 0, 0],
                    (6, 0) => {
                        counts.0.fetch_add(1, Ordering::SeqCst);
                        if answers {
                            &[0, 0, 8, 6, 1, 0, 0, 0, 0]
                        } else {
                            &[]
                        }
                    }
                    // HEADERS with END_HEADERS and END_STREAM: `:status: 204` is entry 9 of the static table.
                    (1, _) => &[0, 0, 1, 1, 5, 0, 0, 0, head[8], 0x80 | 9],
                    _ => &[],
                };
                if stream.write_all(reply).await.is_err() {
                    break;
                }
                if (head[3], head[4], answers) == (6, 0, true) {
                    stream.write_all(&payload).await.unwrap();
                }
            }
            counts.1.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, pings, ended)
}

fn pinging(http2: v1::Http2Settings) -> v1::Backend {
    v1::Backend {
        protocol: v1::BackendProtocol::H2c.into(),
        http2: Some(http2),
        ..Default::default()
    }
}

#[tokio::test]
async fn backends_are_pinged() {
    let (address, pings, ended) = pinged(true).await;
    let config = pinging(v1::Http2Settings {
        ping_interval_ms: 10,
        ping_jitter_percent: 50,
        ..Default::default()
    });
    let (resources, http) = serve(cfg::backend_with("b", &[address], config));
    let _proxy = Proxy::start(resources).await;
    assert_eq!(http.get("/").await.status, 204);
    eventually("it is pinged again", || pings.load(Ordering::SeqCst) >= 3).await;
    assert_eq!(http.get("/").await.status, 204);
    assert_eq!(ended.load(Ordering::SeqCst), 0, "it has answered");
}

#[tokio::test]
async fn a_backend_that_does_not_answer_pings_is_left() {
    let (address, pings, ended) = pinged(false).await;
    let config = pinging(v1::Http2Settings {
        ping_interval_ms: 10,
        ping_timeout_ms: 10,
        ..Default::default()
    });
    let (resources, http) = serve(cfg::backend_with("b", &[address], config));
    let _proxy = Proxy::start(resources).await;
    assert_eq!(http.get("/").await.status, 204);
    eventually("the connection ends", || ended.load(Ordering::SeqCst) == 1).await;
    assert_eq!(pings.load(Ordering::SeqCst), 1);
    assert_eq!(http.get("/").await.status, 204, "there is another connection");
}

#[tokio::test]
async fn an_unused_connection_is_pinged_when_it_is_used() {
    let (address, pings, _) = pinged(true).await;
    let config = pinging(v1::Http2Settings {
        ping_idle_ms: 1,
        ..Default::default()
    });
    let (resources, http) = serve(cfg::backend_with("b", &[address], config));
    let _proxy = Proxy::start(resources).await;
    assert_eq!(http.get("/").await.status, 204);
    assert_eq!(pings.load(Ordering::SeqCst), 0, "it is new");
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(http.get("/").await.status, 204);
    eventually("it is pinged", || pings.load(Ordering::SeqCst) == 1).await;
}
