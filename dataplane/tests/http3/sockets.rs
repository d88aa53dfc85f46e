//! The UDP sockets: somebody else's, and those that many connections share.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quinn::crypto::rustls::QuicClientConfig;

use super::support::backend::Backend;
use super::support::certificate::certificate;
use super::support::{self, Proxy};
use super::{HOST, Site, alternative, cfg, client, http3, listener};

#[tokio::test]
async fn a_udp_port_of_somebody_elses_holds_up_nothing_but_http3() {
    let backend = Backend::echo("b").await;
    let (port, certificate) = (support::free_port(), certificate(HOST));
    let taken = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let mut resources = cfg::backend("b", &[backend.address]);
    resources.extend([
        cfg::key_pair("l", &certificate.pem, &certificate.key_pem),
        listener("l", port, HOST, http3()),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ]);
    // It is ready, and nothing is refused.
    let _proxy = Proxy::start(resources).await;
    assert_eq!(alternative::status(port, &certificate, "/").await, 200);
    drop(taken);
    // It is tried again.
    let connecting = client::connect(port, HOST, &certificate);
    assert_eq!(connecting.await.unwrap().get("/").await.status, 200);
}

/// Takes datagrams of one client to the proxy and back, and counts the Retry packets among them (RFC 9000 section 17.2.5).
async fn relay(port: u16) -> (SocketAddr, Arc<AtomicUsize>) {
    let [front, back] = [bound().await, bound().await];
    back.connect(("127.0.0.1", port)).await.unwrap();
    let (address, retries) = (front.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&retries);
    tokio::spawn(async move {
        let (mut there, mut here) = (vec![0; 65536], vec![0; 65536]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((length, from)) = front.recv_from(&mut there) => {
                    client = Some(from);
                    let _ = back.send(&there[..length]).await;
                }
                Ok(length) = back.recv(&mut here) => {
                    let is_retry = here[0] & 0xf0 == 0xf0 && here[1..5] == [0, 0, 0, 1];
                    counted.fetch_add(usize::from(is_retry), Ordering::Relaxed);
                    let _ = front.send_to(&here[..length], client.unwrap()).await;
                }
            }
        }
    });
    (address, retries)
}

async fn bound() -> tokio::net::UdpSocket {
    tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

/// Connections of a worker from which on clients have to prove their address.
const UNPROVEN: usize = 1000;

#[tokio::test]
async fn under_load_clients_have_to_prove_their_address() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    // The kernel gives one address to one worker.
    let (address, retries) = relay(site.port).await;
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let crypto = client::crypto(&site.certificate, None);
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto).unwrap()));
    let connect = || endpoint.connect_with(config.clone(), address, HOST).unwrap();
    let mut held = Vec::new();
    while held.len() <= UNPROVEN {
        let more = (0..20).map(|_| async { connect().await.unwrap() });
        held.extend(futures::future::join_all(more).await);
        if held.len() <= UNPROVEN {
            assert_eq!(retries.load(Ordering::Relaxed), 0, "after {}", held.len());
        }
    }
    let proven = client::over(connect().await.unwrap()).await.unwrap();
    assert_ne!(retries.load(Ordering::Relaxed), 0);
    assert_eq!(proven.get("/").await.status, 200);
}
