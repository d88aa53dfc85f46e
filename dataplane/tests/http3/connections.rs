//! Connections: whose they are, and how they begin and end.

use std::sync::Arc;

use sluice_config::v1;
use tokio::sync::Semaphore;

use super::client::{self, Client, is_friendly, request};
use super::support::backend::{Backend, response};
use super::support::certificate::{Certificate, certificate};
use super::support::{self, Proxy, eventually};
use super::{HOST, Site, cfg, http3, listener, listener_with, serving};

/// A backend that answers `/held` once it is let.
async fn holding() -> (Backend, Arc<Semaphore>) {
    let lets = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&lets);
    let backend = Backend::start(move |request| {
        let held = Arc::clone(&held);
        async move {
            if request.uri().path() == "/held" {
                held.acquire().await.unwrap().forget();
            }
            response(200, "done")
        }
    })
    .await;
    (backend, lets)
}

fn peer_certificate(client: &Client) -> Vec<u8> {
    let identity = client.quic.peer_identity().unwrap();
    let chain = identity
        .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
        .unwrap();
    chain[0].to_vec()
}

/// Two listeners on one port, each with a certificate and a backend of its own.
async fn two_sites(second: v1::ClientSettings) -> (Proxy, u16, [Certificate; 2], [Backend; 2]) {
    let port = support::free_port();
    let certificates = [certificate("a.example"), certificate("b.example")];
    let backends = [Backend::echo("a").await, Backend::echo("b").await];
    let mut resources = Vec::new();
    for (i, (name, client)) in [("a", http3()), ("b", second)].into_iter().enumerate() {
        resources.extend(cfg::backend(name, &[backends[i].address]));
        resources.extend([
            cfg::key_pair(name, &certificates[i].pem, &certificates[i].key_pem),
            listener(name, port, &format!("{name}.example"), client),
            cfg::route(name, name, vec![cfg::rule("/", &[name])]),
        ]);
    }
    (Proxy::start(resources).await, port, certificates, backends)
}

#[tokio::test]
async fn the_name_that_is_asked_for_chooses_listener_and_certificate() {
    let (_proxy, port, [a, b], _backends) = two_sites(http3()).await;
    for (name, own, other) in [("a", &a, &b), ("b", &b, &a)] {
        let host = format!("{name}.example");
        let client = client::connect(port, &host, own).await.unwrap();
        let get = |host: &str| http::Request::get(format!("https://{host}/"));
        let got = client.send(get(&host), "").await.unwrap();
        assert_eq!(got.header("backend"), Some(name));
        assert_eq!(peer_certificate(&client), own.der.to_vec());
        // Another host of the port needs a connection of its own; one that is nowhere is nowhere.
        let wrong = if name == "a" { "b.example" } else { "a.example" };
        assert_eq!(client.send(get(wrong), "").await.unwrap().status, 421);
        assert_eq!(client.send(get("c.example"), "").await.unwrap().status, 404);
        assert!(client::connect(port, &host, other).await.is_err());
    }
    let refused = client::connect(port, "c.example", &a).await.err().unwrap();
    // unrecognized_name (RFC 8446 section 6).
    assert!(
        matches!(&refused, quinn::ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == 0x100 + 112),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_listener_without_it_does_not_serve_it() {
    let (_proxy, port, [a, b], _backends) = two_sites(v1::ClientSettings::default()).await;
    assert!(client::connect(port, "a.example", &a).await.is_ok());
    assert!(client::connect(port, "b.example", &b).await.is_err());
}

#[tokio::test]
async fn a_certificate_is_renewed_while_connections_stand() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let old = site.connect().await;
    assert_eq!(old.get("/").await.status, 200);
    let renewed = certificate(HOST);
    site.proxy
        .apply(vec![cfg::key_pair("l", &renewed.pem, &renewed.key_pem)]);
    let new = client::connect(site.port, HOST, &renewed).await.unwrap();
    assert_eq!(peer_certificate(&new), renewed.der.to_vec());
    assert_eq!(new.get("/").await.status, 200);
    assert_eq!(old.get("/").await.status, 200);
    assert!(client::connect(site.port, HOST, &site.certificate).await.is_err());
}

#[tokio::test]
async fn routes_change_under_connections() {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let site = Site::start(&one).await;
    let client = site.connect().await;
    assert_eq!(client.get("/").await.header("backend"), Some("one"));
    site.proxy.apply(vec![cfg::endpoints("b", &[two.address])]);
    assert_eq!(client.get("/").await.header("backend"), Some("two"));
    site.proxy.remove(&["route/HTTPRoute/test/r"]);
    assert_eq!(client.get("/").await.status, 404);
}

#[tokio::test]
async fn it_can_be_switched_off_and_on_again() {
    let (backend, lets) = holding().await;
    let site = Site::start(&backend).await;
    let client = site.connect().await;
    assert_eq!(client.get("/").await.status, 200);
    let mut held = client.begin(request("GET", "/held")).await.unwrap();
    held.finish().await.unwrap();
    eventually("the backend is asked", || backend.hits() == 2).await;
    let plain = v1::ClientSettings::default();
    site.proxy.apply(vec![listener("l", site.port, HOST, plain)]);
    // Refused at once, or, once the sockets take nobody any more, never answered.
    loop {
        let connecting = client::connect(site.port, HOST, &site.certificate);
        let connecting = tokio::time::timeout(std::time::Duration::from_millis(500), connecting);
        match connecting.await {
            Ok(connected) => assert!(connected.is_err(), "it is served"),
            Err(_) => break,
        }
    }
    // While the old request is still under way, on the same sockets.
    site.proxy.apply(vec![listener("l", site.port, HOST, http3())]);
    for _ in 0..8 {
        assert_eq!(site.connect().await.get("/").await.status, 200);
    }
    lets.add_permits(1);
    assert_eq!(held.recv_response().await.unwrap().status(), 200);
    while held.recv_data().await.unwrap().is_some() {}
}

#[tokio::test]
async fn connections_of_a_removed_listener_end() {
    let backend = Backend::echo("b").await;
    let site = Site::start(&backend).await;
    let client = site.connect().await;
    assert_eq!(client.get("/").await.status, 200);
    site.proxy.remove(&["listener/l"]);
    assert!(is_friendly(&client.closed().await));
}

#[tokio::test]
async fn a_drain_lets_requests_end() {
    let (backend, lets) = holding().await;
    let site = Site::start(&backend).await;
    let (busy, idle) = (site.connect().await, site.connect().await);
    assert_eq!(idle.get("/").await.status, 200);
    let mut held = busy.begin(request("GET", "/held")).await.unwrap();
    held.finish().await.unwrap();
    eventually("the backend is asked", || backend.hits() == 2).await;
    let drain = async {
        site.proxy.dataplane.drain().await;
        busy.quic.close_reason().is_some()
    };
    let request = async {
        assert!(is_friendly(&idle.closed().await));
        lets.add_permits(1);
        let status = held.recv_response().await.unwrap().status();
        while held.recv_data().await.unwrap().is_some() {}
        status
    };
    let (_, status) = tokio::join!(drain, request);
    assert_eq!(status, 200);
    assert!(is_friendly(&busy.closed().await));
}

#[tokio::test]
async fn connections_are_counted() {
    let backend = Backend::echo("b").await;
    let client = v1::ClientSettings {
        connections: Some(v1::ClientConnections {
            max_connections: 1,
            ..Default::default()
        }),
        ..http3()
    };
    let site = Site::with(
        client,
        cfg::backend("b", &[backend.address]),
        cfg::rule("/", &["b"]),
    )
    .await;
    let first = site.connect().await;
    assert_eq!(first.get("/").await.status, 200);
    assert!(client::connect(site.port, HOST, &site.certificate).await.is_err());
    first.quic.close(0x100_u32.into(), b"");
    // Until the proxy has heard of it.
    let mut second = None;
    for _ in 0..100 {
        second = client::connect(site.port, HOST, &site.certificate).await.ok();
        if second.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(second.unwrap().get("/").await.status, 200);
}

#[tokio::test]
async fn connections_end_after_so_many_requests() {
    let backend = Backend::echo("b").await;
    let client = v1::ClientSettings {
        connections: Some(v1::ClientConnections {
            max_requests_per_connection: 2,
            ..Default::default()
        }),
        ..http3()
    };
    let site = Site::with(
        client,
        cfg::backend("b", &[backend.address]),
        cfg::rule("/", &["b"]),
    )
    .await;
    let client = site.connect().await;
    for _ in 0..2 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(is_friendly(&client.closed().await));
}

#[tokio::test]
async fn idle_connections_end() {
    let backend = Backend::echo("b").await;
    let client = v1::ClientSettings {
        timeouts: Some(v1::ClientTimeouts {
            http_idle_ms: Some(300),
            ..Default::default()
        }),
        ..http3()
    };
    let site = Site::with(
        client,
        cfg::backend("b", &[backend.address]),
        cfg::rule("/", &["b"]),
    )
    .await;
    let client = site.connect().await;
    assert_eq!(client.get("/").await.status, 200);
    let end = client.closed().await;
    assert!(
        is_friendly(&end) || end == quinn::ConnectionError::TimedOut,
        "{end}"
    );
}

#[tokio::test]
async fn certificates_of_clients_are_demanded_and_told_of() {
    let backend = Backend::echo("b").await;
    let (server, friend, stranger) = (certificate(HOST), certificate("friend"), certificate("stranger"));
    let port = support::free_port();
    let client = v1::ClientSettings {
        headers: Some(v1::ClientHeaders {
            forwarded_client_cert: v1::client_headers::ForwardedClientCert::SanitizeSet.into(),
            ..Default::default()
        }),
        ..http3()
    };
    let mut resources = cfg::backend("b", &[backend.address]);
    let demanding = listener_with("l", port, HOST, client, |listener| {
        listener.tls.as_mut().unwrap().client_validation = Some(v1::ClientValidation {
            ca_secrets: vec!["secret/ca".into()],
            ..Default::default()
        });
    });
    resources.push(cfg::trust("ca", &friend.pem));
    resources.extend(serving(&server, demanding, cfg::rule("/", &["b"])));
    let _proxy = Proxy::start(resources).await;
    let known = client::connect_with(port, HOST, client::crypto(&server, Some(&friend)));
    let seen = known.await.unwrap().get("/").await.seen();
    let told = seen.header("x-forwarded-client-cert").unwrap();
    assert!(told.contains("Hash="), "{told}");
    for own in [None, Some(&stranger)] {
        // With TLS 1.3 a refusal comes after the handshake.
        if let Ok(client) = client::connect_with(port, HOST, client::crypto(&server, own)).await {
            assert!(client.send(request("GET", "/"), "").await.is_err());
        }
    }
    assert_eq!(backend.hits(), 1);
}

#[tokio::test]
async fn fingerprints_of_clients_are_told() {
    let backend = Backend::echo("b").await;
    let (certificate, port) = (certificate(HOST), support::free_port());
    let client = v1::ClientSettings {
        headers: Some(v1::ClientHeaders {
            early_request: Some(v1::HeaderModifier {
                set: vec![
                    cfg::header("x-ja3", "%TLS_JA3_FINGERPRINT%"),
                    cfg::header("x-ja4", "%TLS_JA4_FINGERPRINT%"),
                ],
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..http3()
    };
    let asking = listener_with("l", port, HOST, client, |listener| {
        listener.tls.as_mut().unwrap().parameters = Some(v1::TlsParameters {
            fingerprints: vec![v1::TlsFingerprint::Ja3.into(), v1::TlsFingerprint::Ja4.into()],
            ..Default::default()
        });
    });
    let mut resources = cfg::backend("b", &[backend.address]);
    resources.extend(serving(&certificate, asking, cfg::rule("/", &["b"])));
    let _proxy = Proxy::start(resources).await;
    let mut told = Vec::new();
    for ciphers in [3, 1] {
        let mut provider = rustls::crypto::ring::default_provider();
        // QUIC always needs this one.
        let needed = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
        provider
            .cipher_suites
            .retain(|suite| suite.suite() == needed || (ciphers > 1 && suite.tls13().is_some()));
        let crypto = client::crypto_with(provider, &certificate, None);
        let client = client::connect_with(port, HOST, crypto).await.unwrap();
        let forged = request("GET", "/")
            .header("x-ja4", "forged")
            .header("x-ja3", "forged");
        let seen = client.send(forged, "").await.unwrap().seen();
        let (ja3, ja4) = (seen.header("x-ja3").unwrap(), seen.header("x-ja4").unwrap());
        assert!(
            ja3.len() == 32 && ja3.chars().all(|c| c.is_ascii_hexdigit()),
            "{ja3}"
        );
        // QUIC, TLS 1.3, a domain, so many cipher suites, the protocol h3.
        assert!(ja4.starts_with(&format!("q13d{ciphers:02}")), "{ja4}");
        assert_eq!((&ja4[8..11], ja4.len()), ("h3_", 36), "{ja4}");
        told.push((ja3.to_owned(), ja4.to_owned()));
    }
    assert_ne!(told[0].0, told[1].0);
    // The same extensions in a hash of their own.
    assert_eq!(told[0].1[24..], told[1].1[24..]);
}
