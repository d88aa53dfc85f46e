//! HTTP over TLS, both sides.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use sluice_config::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::cfg;
use super::support::backend::{Backend, describe};
use super::support::certificate::{Certificate, acceptor, certificate};
use super::support::client::Http;
use super::support::{self, Proxy};

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn connector(trusted: &Certificate, alpn: &[&[u8]]) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.der.clone()).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Arc::new(config).into()
}

#[tokio::test]
async fn terminated() {
    let certificate = certificate("www.example.com");
    let backend = Backend::echo("b").await;
    let port = support::free_port();
    let listener = v1::Listener {
        port: u32::from(port),
        bind_port: u32::from(port),
        protocol: v1::Protocol::Https.into(),
        tls: Some(v1::TlsTermination {
            certificate_secrets: vec!["secret/c".into()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut resources = cfg::backend("b", &[backend.address]);
    resources.push(cfg::key_pair("c", &certificate.pem, &certificate.key_pem));
    resources.extend([
        cfg::listener("l", listener),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ]);
    let _proxy = Proxy::start(resources).await;
    let name = ServerName::try_from("www.example.com").unwrap();
    // HTTP/1.1.
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut stream = connector(&certificate, &[b"http/1.1"])
        .connect(name.clone(), stream)
        .await
        .unwrap();
    stream
        .write_all(b"GET /a HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut all = String::new();
    let _ = stream.read_to_string(&mut all).await;
    assert!(all.starts_with("HTTP/1.1 200"), "{all}");
    assert!(all.contains(r#"["x-forwarded-proto","https"]"#), "{all}");
    // HTTP/2, by ALPN.
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let stream = connector(&certificate, &[b"h2", b"http/1.1"])
        .connect(name, stream)
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://www.example.com/b").body(()).unwrap();
    let (response, _) = send.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test]
async fn towards_backends() {
    let good = certificate("inner.example");
    let other = certificate("inner.example");
    let port = support::free_port();
    let mut resources = vec![cfg::http_listener("l", port), cfg::trust("ca", &good.pem)];
    let mut rules = Vec::new();
    let mut backends = Vec::new();
    for (name, certificate, alpn) in [
        ("h1", &good, &[&b"http/1.1"[..]][..]),
        ("h2", &good, &[&b"h2"[..], b"http/1.1"][..]),
        ("none", &good, &[][..]),
        ("bad", &other, &[&b"http/1.1"[..]][..]),
    ] {
        let tls = acceptor(certificate, alpn);
        let backend = Backend::start_tls(Some(tls), |request| describe("b", request)).await;
        let config = cfg::in_tls("inner.example");
        resources.extend(cfg::backend_with(name, &[backend.address], config));
        rules.push(cfg::rule(&format!("/{name}"), &[name]));
        backends.push(backend);
    }
    resources.push(cfg::route("r", "l", rules));
    let _proxy = Proxy::start(resources).await;
    let client = Http::new(port);
    for _ in 0..3 {
        assert_eq!(client.get("/h1").await.seen().version, "HTTP/1.1");
        assert_eq!(client.get("/h2").await.seen().version, "HTTP/2.0");
        assert_eq!(client.get("/none").await.seen().version, "HTTP/1.1");
        assert_eq!(client.get("/bad").await.status, 503);
    }
    let body = vec![b'x'; 1_000_000];
    for path in ["/h1", "/h2"] {
        let seen = client
            .send(client.request("POST", path), body.clone())
            .await
            .seen();
        assert_eq!(seen.body_len, body.len());
    }
}

#[tokio::test]
async fn backends_sign_as_they_may() {
    let server = certificate("inner.example");
    let tls = acceptor(&server, &[b"http/1.1"]);
    let backend = Backend::start_tls(Some(tls), |request| describe("b", request)).await;
    let port = support::free_port();
    let mut resources = vec![cfg::http_listener("l", port), cfg::trust("ca", &server.pem)];
    let mut rules = Vec::new();
    // The backend's key is of P-256.
    for (name, algorithm) in [("good", "ecdsa_secp256r1_sha256"), ("bad", "rsa_pss_rsae_sha256")] {
        let config = v1::Backend {
            tls: Some(v1::UpstreamTls {
                hostname: "inner.example".into(),
                ca_secrets: vec!["secret/ca".into()],
                parameters: Some(v1::TlsParameters {
                    signature_algorithms: vec![algorithm.into()],
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        resources.extend(cfg::backend_with(name, &[backend.address], config));
        rules.push(cfg::rule(&format!("/{name}"), &[name]));
    }
    resources.push(cfg::route("r", "l", rules));
    let _proxy = Proxy::start(resources).await;
    let client = Http::new(port);
    assert_eq!(client.get("/good").await.status, 200);
    assert_eq!(client.get("/bad").await.status, 503);
}
