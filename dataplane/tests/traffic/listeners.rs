//! Connections of clients, as a listener wants them: pings, how long their beginning may take, their end, their buffers.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use sluice_config::v1;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::cfg;
use super::support::backend::Backend;
use super::support::certificate::certificate;
use super::support::client::Raw;
use super::support::{self, Proxy};

/// A proxy with one listener for each of these settings, before this backend; their ports.
async fn proxy<const N: usize>(
    backend: v1::Backend,
    address: std::net::SocketAddr,
    protocol: v1::Protocol,
    settings: [v1::ClientSettings; N],
) -> (Proxy, [u16; N]) {
    let server = certificate("www.example.com");
    let mut resources = cfg::backend_with("b", &[address], backend);
    resources.push(cfg::key_pair("c", &server.pem, &server.key_pem));
    let ports = settings.map(|client| {
        let port = support::free_port();
        let name = format!("l{port}");
        let tls = v1::TlsTermination {
            certificate_secrets: vec!["secret/c".into()],
            ..Default::default()
        };
        let listener = v1::Listener {
            port: u32::from(port),
            bind_port: u32::from(port),
            protocol: protocol.into(),
            tls: (protocol == v1::Protocol::Https).then_some(tls),
            client: Some(client),
            ..Default::default()
        };
        let rules = vec![cfg::rule("/", &["b"])];
        resources.extend([cfg::listener(&name, listener), cfg::route(&name, &name, rules)]);
        port
    });
    (Proxy::start(resources).await, ports)
}

fn timeouts(timeouts: v1::ClientTimeouts) -> v1::ClientSettings {
    v1::ClientSettings {
        timeouts: Some(timeouts),
        ..Default::default()
    }
}

/// The first of them ends while the other stands.
async fn ends_before(mut one: Raw, mut other: Raw) {
    let in_order = tokio::select! {
        biased;
        _ = other.rest() => false,
        _ = one.rest() => true,
    };
    assert!(in_order, "the other one has ended");
}

#[tokio::test]
async fn what_is_looked_at_first_must_come_in_time() {
    let backend = Backend::echo("b").await;
    let short = v1::ClientTimeouts {
        inspection_ms: Some(100),
        ..Default::default()
    };
    let own = || v1::Backend::default();
    // A ClientHello.
    let settings = [timeouts(short), v1::ClientSettings::default()];
    let (_proxy, [quick, patient]) = proxy(own(), backend.address, v1::Protocol::Https, settings).await;
    ends_before(Raw::connect(quick).await, Raw::connect(patient).await).await;
    // A PROXY protocol header.
    let proxied = |settings| v1::ClientSettings {
        proxy_protocol: Some(v1::ClientProxyProtocol::default()),
        ..settings
    };
    let settings = [timeouts(short), v1::ClientSettings::default()].map(proxied);
    let (_proxy, [quick, patient]) = proxy(own(), backend.address, v1::Protocol::Http, settings).await;
    ends_before(Raw::connect(quick).await, Raw::connect(patient).await).await;
}

/// A client that has sent its ClientHello, and says nothing more.
async fn begun(port: u16) -> Raw {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("www.example.com").unwrap();
    let mut hello = Vec::new();
    rustls::ClientConnection::new(Arc::new(config), name)
        .unwrap()
        .write_tls(&mut hello)
        .unwrap();
    let mut client = Raw::connect(port).await;
    client.send(hello).await;
    client
}

#[tokio::test]
async fn a_handshake_must_end_in_time() {
    let backend = Backend::echo("b").await;
    let short = timeouts(v1::ClientTimeouts {
        tls_handshake_ms: Some(100),
        ..Default::default()
    });
    let settings = [short, v1::ClientSettings::default()];
    let own = v1::Backend::default();
    let (_proxy, [quick, patient]) = proxy(own, backend.address, v1::Protocol::Https, settings).await;
    ends_before(begun(quick).await, begun(patient).await).await;
    // What has been read of it is another matter.
    ends_before(begun(quick).await, Raw::connect(quick).await).await;
}

#[tokio::test]
async fn old_connections_end_at_once_where_it_is_asked_for() {
    let backend = Backend::echo("b").await;
    let aged = |close_when_aged| v1::ClientSettings {
        connections: Some(v1::ClientConnections {
            max_connection_duration_ms: 100,
            ..Default::default()
        }),
        http1: Some(v1::ClientHttp1 {
            close_when_aged,
            ..Default::default()
        }),
        ..Default::default()
    };
    let own = v1::Backend::default();
    let settings = [aged(true), aged(false)];
    let (_proxy, ports) = proxy(own, backend.address, v1::Protocol::Http, settings).await;
    let mut clients = Vec::new();
    for port in ports {
        let mut client = Raw::connect(port).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        clients.push(client);
    }
    let (patient, quick) = (clients.pop().unwrap(), clients.pop().unwrap());
    ends_before(quick, patient).await;
}

/// Length, type, flags and stream of a frame (RFC 9113 section 4.1).
const FRAME_HEAD: usize = 9;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;

/// Type and content of the next frame that says something; acknowledges nothing. `None`: the connection has ended.
async fn next_frame(client: &mut Raw) -> Option<(u8, u8, Vec<u8>)> {
    use tokio::io::AsyncReadExt;
    let mut head = [0; FRAME_HEAD];
    client.0.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut content = vec![0; usize::try_from(length).unwrap()];
    client.0.read_exact(&mut content).await.ok()?;
    Some((head[3], head[4], content))
}

async fn answered_pings(settings: v1::Http2Settings, answers: usize) -> usize {
    let backend = Backend::echo("b").await;
    let client = v1::ClientSettings {
        http2: Some(settings),
        ..Default::default()
    };
    let own = v1::Backend::default();
    let (_proxy, [port]) = proxy(own, backend.address, v1::Protocol::Http, [client]).await;
    let mut client = Raw::connect(port).await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    client.send([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await;
    let mut pings = 0;
    let reading = async {
        while let Some((kind, flags, content)) = next_frame(&mut client).await {
            if kind == PING && flags & ACK == 0 {
                pings += 1;
                if pings <= answers {
                    let head = [0, 0, 8, PING, ACK, 0, 0, 0, 0];
                    client.send([&head[..], &content].concat()).await;
                }
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), reading).await;
    assert!(ended.is_ok(), "the connection stands, after {pings} pings");
    pings
}

#[tokio::test]
async fn clients_are_pinged_and_let_go_of_if_they_do_not_answer() {
    for settings in [
        v1::Http2Settings {
            ping_interval_ms: 30,
            ping_jitter_percent: 50,
            ping_timeout_ms: 200,
            ..Default::default()
        },
        v1::Http2Settings {
            ping_idle_ms: 30,
            ping_timeout_ms: 200,
            ..Default::default()
        },
    ] {
        for answers in [0, 3] {
            assert_eq!(answered_pings(settings, answers).await, answers + 1);
        }
    }
}

/// Bytes that a socket takes before nothing moves any more.
async fn stuffed(stream: &mut TcpStream) -> usize {
    let piece = [b'x'; 1024];
    let mut total = 0;
    while let Ok(Ok(written)) = tokio::time::timeout(Duration::from_secs(1), stream.write(&piece)).await {
        total += written;
        assert!(total < 64 << 20, "nothing holds it back");
    }
    total
}

fn buffers(bytes: u64) -> v1::ClientSettings {
    v1::ClientSettings {
        connections: Some(v1::ClientConnections {
            socket_buffer_bytes: bytes,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// What a client can send that nobody reads.
#[tokio::test]
async fn buffers_of_clients_sockets_are_as_asked() {
    let backend = Backend::echo("b").await;
    let settings = [buffers(4096), buffers(1 << 20)];
    let (proxy, ports) = proxy(
        v1::Backend::default(),
        backend.address,
        v1::Protocol::Http,
        settings,
    )
    .await;
    let mut taken = Vec::new();
    for port in ports {
        let wait = v1::FaultInjection {
            delay: Some(v1::fault_injection::Delay {
                duration_ms: 60_000,
                share: 1_000_000,
            }),
            abort: None,
        };
        let name = format!("l{port}");
        let rule = v1::HttpRule {
            policy: Some(v1::Policy {
                fault: Some(wait),
                ..Default::default()
            }),
            ..cfg::rule("/", &["b"])
        };
        proxy.apply(vec![cfg::route(&name, &name, vec![rule])]);
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        SockRef::from(&stream).set_send_buffer_size(4096).unwrap();
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        taken.push(stuffed(&mut stream).await);
    }
    assert!(taken[0] * 4 < taken[1], "{taken:?}");
}

/// What a backend can send that nobody reads.
#[tokio::test]
async fn buffers_of_sockets_to_backends_are_as_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut taken = Vec::new();
    for socket_buffer_bytes in [4096, 1 << 20] {
        let own = v1::Backend {
            socket_buffer_bytes,
            ..Default::default()
        };
        let (_proxy, [port]) = proxy(own, address, v1::Protocol::Http, [buffers(4096)]).await;
        let mut client = Raw::connect(port).await;
        SockRef::from(&client.0).set_recv_buffer_size(4096).unwrap();
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let (mut stream, _) = listener.accept().await.unwrap();
        SockRef::from(&stream).set_send_buffer_size(4096).unwrap();
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        taken.push(stuffed(&mut stream).await);
    }
    assert!(taken[0] + (256 << 10) < taken[1], "{taken:?}");
}
