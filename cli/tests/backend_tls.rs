//! TLS to backends as EnvoyProxies ask for it, from their manifests to the handshake.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic"
)]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::ByteString;
use rcgen::CertifiedKey;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, ServerConnection, Stream, SupportedProtocolVersion};
use support::{CLASS, Sluice, free_port, get, until};

/// A certificate that trusts itself alone.
struct Certificate(CertifiedKey<rcgen::KeyPair>);

impl Certificate {
    fn new(name: &str) -> Self {
        Self(rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap())
    }

    fn der(&self) -> CertificateDer<'static> {
        self.0.cert.der().clone()
    }

    /// A Secret that holds it.
    fn secret(&self, name: &str) -> String {
        let base64 = |text: String| serde_json::to_string(&ByteString(text.into_bytes())).unwrap();
        format!(
            "---
apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
type: kubernetes.io/tls
data: {{tls.crt: {}, tls.key: {}}}
",
            base64(self.0.cert.pem()),
            base64(self.0.signing_key.serialize_pem())
        )
    }
}

/// A server that clients have to show one of these certificates; it answers with what came of the handshake.
struct Server {
    port: u16,
}

impl Server {
    fn start(
        own: &Certificate,
        clients: &[&Certificate],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        let known: Vec<_> = clients.iter().map(|client| client.der()).collect();
        for client in &known {
            roots.add(client.clone()).unwrap();
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let key = PrivateKeyDer::try_from(own.0.signing_key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![own.der()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
        let port = listener.local_addr().unwrap().port();
        // It ends with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = serve(&config, &known, stream);
            }
        });
        Self { port }
    }
}

fn serve(
    config: &Arc<ServerConfig>,
    known: &[CertificateDer<'static>],
    mut tcp: TcpStream,
) -> std::io::Result<()> {
    tcp.set_read_timeout(Some(support::PATIENCE))?;
    let mut tls = ServerConnection::new(Arc::clone(config)).unwrap();
    let mut stream = Stream::new(&mut tls, &mut tcp);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let shown = stream.conn.peer_certificates().and_then(|chain| chain.first());
    let nth = known.iter().position(|client| Some(client) == shown);
    let seen = format!(
        "{:?} {:?} {} client {nth:?}",
        stream.conn.protocol_version().unwrap(),
        stream.conn.negotiated_cipher_suite().unwrap().suite(),
        String::from_utf8_lossy(stream.conn.alpn_protocol().unwrap_or_default()),
    );
    let length = seen.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{seen}"
    )?;
    stream.flush()
}

/// A Gateway with parameters, and a route to a server whose certificate is `server`.
fn manifests(port: u16, server: &Certificate, at: u16) -> String {
    format!(
        "{CLASS}---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw}}
spec:
  gatewayClassName: sluice
  infrastructure: {{parametersRef: {{group: gateway.envoyproxy.io, kind: EnvoyProxy, name: proxies}}}}
  listeners: [{{name: http, port: {port}, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web}}
spec:
  parentRefs: [{{name: gw}}]
  rules: [{{backendRefs: [{{name: app, port: 443}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: app}}
spec: {{ports: [{{name: https, port: 443}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: app-1, labels: {{kubernetes.io/service-name: app}}}}
addressType: IPv4
ports: [{{name: https, port: {at}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: ca}}
data: {{ca.crt: {:?}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: app}}
spec:
  targetRefs: [{{group: '', kind: Service, name: app}}]
  validation: {{hostname: app.example, caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]}}
",
        server.0.cert.pem()
    )
}

fn parameters(dir: &Path, backend_tls: &str) {
    let text = format!(
        "apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {{name: proxies}}
spec: {{backendTLS: {{{backend_tls}}}}}
"
    );
    std::fs::write(dir.join("parameters.yaml"), text).unwrap();
}

/// Waits for an answer; fails with the last one.
fn expect(port: u16, status: u16, body: &str) {
    let mut last = None;
    let came = until(|| {
        last = get(port, "/");
        last.as_ref()
            .filter(|(code, text)| *code == status && text.contains(body))
            .map(|_| ())
    });
    assert!(came.is_some(), "not {status} {body:?} but {last:?}");
}

#[test]
fn parameters_reach_the_handshake() {
    let server = Certificate::new("app.example");
    let (one, other) = (Certificate::new("one.example"), Certificate::new("other.example"));
    let at = Server::start(&server, &[&one, &other], &[&TLS12, &TLS13]).port;
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let all = manifests(port, &server, at) + &one.secret("one") + &other.secret("other");
    std::fs::write(dir.path().join("all.yaml"), all).unwrap();
    // A server that wants a certificate is of no use without one.
    parameters(dir.path(), "");
    let sluice = Sluice::standalone(dir.path());
    expect(port, 503, "");
    parameters(
        dir.path(),
        "clientCertificateRef: {name: one}, maxVersion: '1.2', alpnProtocols: [http/1.1], \
         ciphers: [ECDHE-ECDSA-CHACHA20-POLY1305]",
    );
    expect(
        port,
        200,
        "TLSv1_2 TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 http/1.1 client Some(0)",
    );
    parameters(
        dir.path(),
        "clientCertificateRef: {name: other}, maxVersion: '1.2', alpnProtocols: [http/1.1], \
         ciphers: [ECDHE-ECDSA-AES128-GCM-SHA256]",
    );
    expect(
        port,
        200,
        "TLSv1_2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 http/1.1 client Some(1)",
    );
    parameters(
        dir.path(),
        "clientCertificateRef: {name: one}, minVersion: '1.3', alpnProtocols: [http/1.1]",
    );
    expect(port, 200, "TLSv1_3");
    // A certificate that is gone is not done without.
    parameters(
        dir.path(),
        "clientCertificateRef: {name: gone}, alpnProtocols: [http/1.1]",
    );
    sluice.expect(&["Gateway default/gw", "Accepted=False", "InvalidParameters"]);
    assert!(sluice.stop().success());
}

#[test]
fn a_version_that_is_too_old_is_not_spoken() {
    let (server, own) = (
        Certificate::new("app.example"),
        Certificate::new("proxies.example"),
    );
    let at = Server::start(&server, &[&own], &[&TLS12]).port;
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let all = manifests(port, &server, at) + &own.secret("own");
    std::fs::write(dir.path().join("all.yaml"), all).unwrap();
    parameters(
        dir.path(),
        "clientCertificateRef: {name: own}, alpnProtocols: [http/1.1]",
    );
    let sluice = Sluice::standalone(dir.path());
    expect(port, 200, "TLSv1_2");
    parameters(
        dir.path(),
        "clientCertificateRef: {name: own}, alpnProtocols: [http/1.1], minVersion: '1.3'",
    );
    expect(port, 503, "");
    assert!(sluice.stop().success());
}
