//! TCP and UDP through a running dataplane on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic"
)]

mod ports;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sluice_config::v1;
use sluice_config::v1::resource::Body;
use sluice_dataplane::telemetry::AccessLogTarget;
use sluice_dataplane::{Dataplane, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use ports::free_port;

/// Anything that takes longer never happens.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it never happened")
}

fn start_logging(access_log: AccessLogTarget) -> Dataplane {
    Dataplane::start(Options {
        workers: 2,
        bind: Ipv4Addr::LOCALHOST.into(),
        unready_delay: Duration::ZERO,
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::from_secs(5),
        access_log,
        name_servers: Vec::new(),
        zone: String::new(),
    })
    .unwrap()
}

fn resource(key: &str, version: &str, body: Body) -> v1::Resource {
    v1::Resource {
        key: key.into(),
        version: version.into(),
        body: Some(body),
    }
}

fn endpoints(name: &str, version: &str, addresses: &[SocketAddr]) -> v1::Resource {
    let endpoints = addresses.iter().map(|address| v1::Endpoint {
        address: address.ip().to_string(),
        port: address.port().into(),
        ..Default::default()
    });
    resource(
        &format!("endpoints/{name}"),
        version,
        Body::Endpoints(v1::Endpoints {
            endpoints: endpoints.collect(),
        }),
    )
}

fn backend(name: &str) -> v1::Resource {
    let body = v1::Backend {
        name: format!("default/{name}"),
        endpoints: format!("endpoints/{name}"),
        connect_timeout_ms: 2000,
        ..Default::default()
    };
    resource(&format!("backend/{name}"), "1", Body::Backend(body))
}

fn route(version: &str, backends: &[(&str, u32)]) -> v1::Resource {
    let backends = backends.iter().map(|(name, weight)| v1::WeightedBackend {
        backend: if name.is_empty() {
            String::new()
        } else {
            format!("backend/{name}")
        },
        weight: *weight,
        ..Default::default()
    });
    let body = v1::Route {
        name: "TCPRoute/default/r".into(),
        attachments: vec![v1::Attachment {
            listener: "listener/l".into(),
            ..Default::default()
        }],
        precedence_name: "default/r".into(),
        rules: Some(v1::route::Rules::L4(v1::L4Rules {
            backends: backends.collect(),
            ..Default::default()
        })),
        ..Default::default()
    };
    resource("route/r", version, Body::Route(body))
}

fn listener(protocol: v1::Protocol, port: u16) -> v1::Resource {
    let body = v1::Listener {
        name: "default/gw/l".into(),
        port: port.into(),
        bind_port: port.into(),
        protocol: protocol.into(),
        ..Default::default()
    };
    resource("listener/l", "1", Body::Listener(body))
}

fn apply(dataplane: &Dataplane, upserts: Vec<v1::Resource>) {
    let ack = dataplane.apply(&v1::Update {
        nonce: 1,
        upserts,
        removes: Vec::new(),
        synced: true,
    });
    assert!(ack.rejected.is_empty(), "{ack:?}");
}

/// A dataplane with one listener and one route to `backends`.
fn serve(protocol: v1::Protocol, backends: &[(&str, u32, &[SocketAddr])]) -> (Dataplane, SocketAddr) {
    let dataplane = start_logging(AccessLogTarget::Off);
    let address = configure(&dataplane, protocol, backends);
    (dataplane, address)
}

/// One listener and one route to `backends`.
fn configure(
    dataplane: &Dataplane,
    protocol: v1::Protocol,
    backends: &[(&str, u32, &[SocketAddr])],
) -> SocketAddr {
    let port = free_port();
    let mut upserts: Vec<_> = backends
        .iter()
        .map(|(name, _, addresses)| endpoints(name, "1", addresses))
        .collect();
    upserts.extend(backends.iter().map(|(name, ..)| backend(name)));
    upserts.push(route(
        "1",
        &backends
            .iter()
            .map(|(name, weight, _)| (*name, *weight))
            .collect::<Vec<_>>(),
    ));
    upserts.push(listener(protocol, port));
    apply(dataplane, upserts);
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

async fn connect(address: SocketAddr) -> TcpStream {
    soon(async {
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
}

/// A backend that says its name, then reads to the end and says how much that was.
async fn tcp_backend(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                stream.write_all(name.as_bytes()).await.unwrap();
                let mut all = Vec::new();
                if stream.read_to_end(&mut all).await.is_ok() {
                    stream
                        .write_all(format!(" {}", all.len()).as_bytes())
                        .await
                        .unwrap();
                }
            });
        }
    });
    address
}

/// Sends, ends, and gives the whole answer; the error if the connection was reset.
async fn ask(address: SocketAddr, bytes: usize) -> std::io::Result<String> {
    let mut stream = connect(address).await;
    let (mut read, mut write) = stream.split();
    let sent = async {
        write.write_all(&vec![b'x'; bytes]).await?;
        write.shutdown().await
    };
    let mut answer = String::new();
    let (sent, read) = soon(futures::future::join(sent, read.read_to_string(&mut answer))).await;
    read.and(sent.map(|()| answer))
}

#[tokio::test]
async fn tcp_is_half_closed() {
    let (_dataplane, address) = serve(v1::Protocol::Tcp, &[("a", 1, &[tcp_backend("a").await])]);
    assert_eq!(ask(address, 3_000_000).await.unwrap(), "a 3000000");
    assert_eq!(ask(address, 0).await.unwrap(), "a 0");
}

#[tokio::test]
async fn tcp_is_counted() {
    let (dataplane, address) = serve(v1::Protocol::Tcp, &[("a", 1, &[tcp_backend("a").await])]);
    ask(address, 1000).await.unwrap();
    let wanted = [
        r#"sluice_route_connections_total{route="TCPRoute/default/r"} 1"#,
        r#"sluice_backend_connections_total{backend="default/a"} 1"#,
        r#"sluice_backend_active{backend="default/a"} 0"#,
        r#"sluice_listener_received_bytes_total{listener="default/gw/l"} 1000"#,
        r#"sluice_listener_sent_bytes_total{listener="default/gw/l"} 6"#,
    ];
    soon(async {
        while !wanted
            .iter()
            .all(|line| dataplane.metrics().encode().contains(line))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_leaves_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let dataplane = start_logging(AccessLogTarget::File(path.clone()));
    let backend_address = tcp_backend("a").await;
    let address = configure(&dataplane, v1::Protocol::Tcp, &[("a", 1, &[backend_address])]);
    ask(address, 1000).await.unwrap();
    apply(&dataplane, vec![route("2", &[("", 1)])]);
    ask(address, 1).await.unwrap_err();
    let lines = soon(async {
        loop {
            let text = std::fs::read_to_string(&path).unwrap();
            // A refused client has tried more than once.
            if text.lines().count() >= 2 {
                return text
                    .lines()
                    .map(|l| serde_json::from_str(l).unwrap())
                    .collect::<Vec<serde_json::Value>>();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let line = lines.iter().find(|line| line["response_flags"] == "-").unwrap();
    assert_eq!(
        (&line["bytes_received"], &line["bytes_sent"]),
        (&1000.into(), &6.into())
    );
    assert_eq!(line["upstream_host"], backend_address.to_string());
    assert_eq!(line["upstream_cluster"], "default/a");
    assert_eq!(line["route_name"], "TCPRoute/default/r");
    assert_eq!(line["downstream_local_address"], address.to_string());
    assert!(line["method"].is_null() && line[":authority"].is_null());
    assert!(
        lines.iter().any(|line| line["response_flags"] == "NC"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn weights_and_invalid_references() {
    let (a, b) = (tcp_backend("a").await, tcp_backend("b").await);
    let (dataplane, address) = serve(v1::Protocol::Tcp, &[("a", 1, &[a]), ("b", 0, &[b])]);
    for _ in 0..20 {
        assert_eq!(ask(address, 1).await.unwrap(), "a 1");
    }
    apply(&dataplane, vec![route("2", &[("a", 0), ("", 1)])]);
    for _ in 0..5 {
        let error = ask(address, 1).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    apply(&dataplane, vec![route("3", &[("a", 1), ("b", 1), ("", 1)])]);
    let mut answers = BTreeSet::new();
    for _ in 0..100 {
        answers.insert(
            ask(address, 1)
                .await
                .unwrap_or_else(|error| error.kind().to_string()),
        );
    }
    assert_eq!(answers.len(), 3, "{answers:?}");
}

#[tokio::test]
async fn tcp_endpoints_are_followed() {
    let (a, b) = (tcp_backend("a").await, tcp_backend("b").await);
    let (dataplane, address) = serve(v1::Protocol::Tcp, &[("x", 1, &[a])]);
    let mut early = connect(address).await;
    let mut name = [0; 1];
    soon(early.read_exact(&mut name)).await.unwrap();
    apply(&dataplane, vec![endpoints("x", "2", &[b])]);
    assert_eq!(ask(address, 2).await.unwrap(), "b 2");
    // What is open stays where it is.
    early.write_all(b"xyz").await.unwrap();
    early.shutdown().await.unwrap();
    let mut rest = String::new();
    soon(early.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, " 3");
    apply(&dataplane, vec![endpoints("x", "3", &[])]);
    assert!(ask(address, 2).await.is_err());
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over() {
    let dead = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let (_dataplane, address) = serve(v1::Protocol::Tcp, &[("x", 1, &[dead, tcp_backend("a").await])]);
    for _ in 0..20 {
        assert_eq!(ask(address, 1).await.unwrap(), "a 1");
    }
}

/// Answers every datagram with its name and the datagram; `#` is not answered.
async fn udp_backend(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buf = vec![0; 70_000];
        loop {
            let (n, from) = socket.recv_from(&mut buf).await.unwrap();
            if buf.first() != Some(&b'#') {
                let answer = [
                    name.as_bytes(),
                    b"|",
                    from.port().to_string().as_bytes(),
                    b"|",
                    &buf[..n],
                ]
                .concat();
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    address
}

struct Client(UdpSocket);

impl Client {
    async fn new(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(address).await.unwrap();
        Self(socket)
    }

    /// Sends until there is an answer: the listener may not be there yet.
    async fn ask(&self, text: &str) -> (String, String, String) {
        let mut buf = vec![0; 70_000];
        let n = soon(async {
            loop {
                // Refused at first, maybe.
                let _ = self.0.send(text.as_bytes()).await;
                match tokio::time::timeout(Duration::from_millis(300), self.0.recv(&mut buf)).await {
                    Ok(Ok(n)) => return n,
                    Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                    Err(_) => {}
                }
            }
        })
        .await;
        let answer = String::from_utf8(buf[..n].to_vec()).unwrap();
        let mut parts = answer.splitn(3, '|').map(str::to_owned);
        (
            parts.next().unwrap(),
            parts.next().unwrap(),
            parts.next().unwrap(),
        )
    }
}

#[tokio::test]
async fn udp_sessions_have_their_own_socket() {
    let (_dataplane, address) = serve(v1::Protocol::Udp, &[("u", 1, &[udp_backend("u").await])]);
    let (first, second) = (Client::new(address).await, Client::new(address).await);
    let (_, port, text) = first.ask("hello").await;
    assert_eq!(text, "hello");
    let (_, again, text) = first.ask("more").await;
    assert_eq!((&again, text.as_str()), (&port, "more"));
    let (_, other, _) = second.ask("hello").await;
    assert_ne!(other, port);
    let large = "x".repeat(50_000);
    assert_eq!(first.ask(&large).await.2, large);
}

#[tokio::test]
async fn a_burst_of_datagrams_arrives() {
    let (_dataplane, address) = serve(v1::Protocol::Udp, &[("u", 1, &[udp_backend("u").await])]);
    let client = Client::new(address).await;
    client.ask("ready").await;
    for i in 0..100 {
        client.0.send(format!("b{i}").as_bytes()).await.unwrap();
    }
    let mut seen = BTreeSet::new();
    let mut buf = vec![0; 1000];
    soon(async {
        while seen.len() < 100 {
            let n = client.0.recv(&mut buf).await.unwrap();
            let answer = String::from_utf8_lossy(&buf[..n]).into_owned();
            if let Some(text) = answer.rsplit('|').next().filter(|text| text.starts_with('b')) {
                seen.insert(text.to_owned());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn udp_endpoints_are_followed() {
    let (a, b) = (udp_backend("a").await, udp_backend("b").await);
    let (dataplane, address) = serve(v1::Protocol::Udp, &[("x", 1, &[a])]);
    let client = Client::new(address).await;
    assert_eq!(client.ask("1").await.0, "a");
    apply(&dataplane, vec![endpoints("x", "2", &[a, b])]);
    assert_eq!(client.ask("2").await.0, "a");
    apply(&dataplane, vec![endpoints("x", "3", &[b])]);
    assert_eq!(client.ask("3").await.0, "b");
}

#[tokio::test]
async fn a_dead_udp_endpoint_is_left() {
    let dead = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let (_dataplane, address) = serve(v1::Protocol::Udp, &[("x", 1, &[dead, udp_backend("a").await])]);
    for _ in 0..5 {
        assert_eq!(Client::new(address).await.ask("x").await.0, "a");
    }
}

#[tokio::test]
async fn udp_weights_are_by_session() {
    let (a, b) = (udp_backend("a").await, udp_backend("b").await);
    let (dataplane, address) = serve(v1::Protocol::Udp, &[("a", 1, &[a]), ("b", 0, &[b])]);
    for _ in 0..10 {
        assert_eq!(Client::new(address).await.ask("x").await.0, "a");
    }
    // A session whose backend has no share any more moves.
    let client = Client::new(address).await;
    assert_eq!(client.ask("x").await.0, "a");
    apply(&dataplane, vec![route("2", &[("a", 0), ("b", 1)])]);
    assert_eq!(client.ask("x").await.0, "b");
}

#[tokio::test]
async fn clients_are_authorized_by_address() {
    let restricted = |kind: &str, cidrs: &[&str]| {
        let mut resource = route("2", &[(if kind == "UDP" { "u" } else { "a" }, 1)]);
        if let Some(Body::Route(route)) = &mut resource.body
            && let Some(v1::route::Rules::L4(rules)) = &mut route.rules
        {
            rules.authorization = Some(v1::Authorization {
                rules: vec![
                    // It can never match a connection, so it neither allows nor denies one.
                    v1::AuthorizationRule {
                        allow: true,
                        methods: vec!["GET".into()],
                        ..Default::default()
                    },
                    v1::AuthorizationRule {
                        allow: true,
                        client_cidrs: cidrs.iter().map(ToString::to_string).collect(),
                        ..Default::default()
                    },
                ],
                allow_by_default: false,
            });
        }
        resource
    };
    let (dataplane, address) = serve(v1::Protocol::Tcp, &[("a", 1, &[tcp_backend("a").await])]);
    assert_eq!(ask(address, 1).await.unwrap(), "a 1");
    apply(&dataplane, vec![restricted("TCP", &["10.0.0.0/8"])]);
    let error = ask(address, 1).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let mut again = restricted("TCP", &["10.0.0.0/8", "127.0.0.0/8"]);
    again.version = "3".into();
    apply(&dataplane, vec![again]);
    assert_eq!(ask(address, 1).await.unwrap(), "a 1");

    let (dataplane, address) = serve(v1::Protocol::Udp, &[("u", 1, &[udp_backend("u").await])]);
    assert_eq!(Client::new(address).await.ask("hello").await.2, "hello");
    apply(&dataplane, vec![restricted("UDP", &["10.0.0.0/8"])]);
    // A new client, for sessions go on.
    let refused = Client::new(address).await;
    let mut buf = [0; 16];
    refused.0.send(b"hello").await.unwrap();
    let answer = tokio::time::timeout(Duration::from_millis(300), refused.0.recv(&mut buf)).await;
    assert!(answer.is_err(), "a datagram that may not pass was answered");
}
