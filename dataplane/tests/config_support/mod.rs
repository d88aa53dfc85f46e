//! What the tests of configuration share: resources in few words, certificates, clients by SNI, backends that say their
//! names.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::unnecessary_wraps
)]

#[path = "../ports/mod.rs"]
mod ports;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sluice_config::v1::resource::Body;
use sluice_config::v1::{self, Protocol};
use sluice_dataplane::telemetry::AccessLogTarget;
use sluice_dataplane::{Dataplane, Options};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

pub use ports::free_port;

/// Anything that takes longer never happens.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn start() -> Dataplane {
    Dataplane::start(Options {
        workers: 2,
        bind: Ipv4Addr::LOCALHOST.into(),
        unready_delay: Duration::ZERO,
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::from_secs(5),
        access_log: AccessLogTarget::Off,
        name_servers: Vec::new(),
        zone: String::new(),
    })
    .unwrap()
}

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it never happened")
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// --- Resources ---

pub fn resource(key: &str, version: &str, body: Body) -> v1::Resource {
    v1::Resource {
        key: key.into(),
        version: version.into(),
        body: Some(body),
    }
}

pub fn update(upserts: Vec<v1::Resource>, removes: &[&str]) -> v1::Update {
    let removes = removes.iter().map(ToString::to_string).collect();
    v1::Update {
        nonce: 7,
        upserts,
        removes,
        synced: true,
    }
}

/// Applies resources, none of which may be rejected.
pub fn apply(dataplane: &Dataplane, upserts: Vec<v1::Resource>, removes: &[&str]) {
    let ack = dataplane.apply(&update(upserts, removes));
    assert_eq!(ack.rejected, []);
    assert_eq!(ack.nonce, 7);
}

pub fn listener(name: &str, version: &str, port: u16, protocol: Protocol, hostname: &str) -> v1::Resource {
    listener_with(name, version, port, protocol, hostname, None)
}

pub fn listener_with(
    name: &str,
    version: &str,
    port: u16,
    protocol: Protocol,
    hostname: &str,
    tls: Option<v1::TlsTermination>,
) -> v1::Resource {
    let body = v1::Listener {
        name: format!("default/gw/{name}"),
        port: port.into(),
        bind_port: port.into(),
        protocol: protocol.into(),
        hostname: hostname.into(),
        tls,
        ..Default::default()
    };
    resource(&format!("listener/{name}"), version, Body::Listener(body))
}

pub fn terminate(secrets: &[&str]) -> Option<v1::TlsTermination> {
    let certificate_secrets = secrets.iter().map(|name| format!("secret/{name}")).collect();
    Some(v1::TlsTermination {
        certificate_secrets,
        ..Default::default()
    })
}

pub fn backend(name: &str, address: SocketAddr) -> Vec<v1::Resource> {
    let endpoint = v1::Endpoint {
        address: address.ip().to_string(),
        port: address.port().into(),
        ..Default::default()
    };
    let key = format!("endpoints/{name}");
    let body = v1::Backend {
        name: format!("default/{name}"),
        endpoints: key.clone(),
        ..Default::default()
    };
    vec![
        resource(
            &key,
            "1",
            Body::Endpoints(v1::Endpoints {
                endpoints: vec![endpoint],
            }),
        ),
        resource(&format!("backend/{name}"), "1", Body::Backend(body)),
    ]
}

fn attachments(listeners: &[&str], hostnames: &[&str]) -> Vec<v1::Attachment> {
    let hostnames: Vec<_> = hostnames.iter().map(ToString::to_string).collect();
    let attach = |name: &&str| v1::Attachment {
        listener: format!("listener/{name}"),
        hostnames: hostnames.clone(),
        route_hostnames: hostnames.clone(),
    };
    listeners.iter().map(attach).collect()
}

fn weighted(name: &str) -> v1::WeightedBackend {
    v1::WeightedBackend {
        backend: format!("backend/{name}"),
        weight: 1,
        ..Default::default()
    }
}

/// A route of all paths below `prefix` to a backend.
pub fn http_route(name: &str, version: &str, listeners: &[&str], prefix: &str, to: &str) -> v1::Resource {
    let path = v1::PathMatch {
        kind: v1::path_match::Kind::Prefix.into(),
        value: prefix.into(),
    };
    let rule = v1::HttpRule {
        matches: vec![v1::HttpMatch {
            path: Some(path),
            ..Default::default()
        }],
        backends: vec![weighted(to)],
        ..Default::default()
    };
    let body = v1::Route {
        name: format!("HTTPRoute/default/{name}"),
        attachments: attachments(listeners, &[]),
        precedence_name: format!("default/{name}"),
        rules: Some(v1::route::Rules::Http(v1::HttpRules {
            rules: vec![rule],
            grpc: false,
        })),
        ..Default::default()
    };
    resource(
        &format!("route/HTTPRoute/default/{name}"),
        version,
        Body::Route(body),
    )
}

pub fn l4_route(name: &str, version: &str, listeners: &[&str], hostnames: &[&str], to: &str) -> v1::Resource {
    let body = v1::Route {
        name: format!("TLSRoute/default/{name}"),
        attachments: attachments(listeners, hostnames),
        precedence_name: format!("default/{name}"),
        rules: Some(v1::route::Rules::L4(v1::L4Rules {
            backends: vec![weighted(to)],
            ..Default::default()
        })),
        ..Default::default()
    };
    resource(
        &format!("route/TLSRoute/default/{name}"),
        version,
        Body::Route(body),
    )
}

// --- Certificates ---

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![
            rcgen::ExtendedKeyUsagePurpose::ServerAuth,
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued {
            chain: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
        }
    }

    pub fn secret(&self, name: &str, version: &str) -> v1::Resource {
        let body = v1::secret::Body::TrustBundle(self.0.pem().into());
        resource(
            &format!("secret/{name}"),
            version,
            Body::Secret(v1::Secret { body: Some(body) }),
        )
    }

    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

pub struct Issued {
    pub chain: String,
    pub key: String,
    pub der: CertificateDer<'static>,
}

impl Issued {
    pub fn secret(&self, name: &str, version: &str) -> v1::Resource {
        let pair = v1::CertificateKeyPair {
            certificate_chain_pem: self.chain.clone().into(),
            private_key_pem: self.key.clone().into(),
        };
        let body = v1::secret::Body::CertificateKeyPair(pair);
        resource(
            &format!("secret/{name}"),
            version,
            Body::Secret(v1::Secret { body: Some(body) }),
        )
    }

    fn pair(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (
            vec![self.der.clone()],
            PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap(),
        )
    }
}

// --- Clients ---

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Handshakes as a client that asks for `name`, or for none if it is an address.
pub async fn tls(
    port: u16,
    name: &str,
    authority: &Authority,
    certificate: Option<&Issued>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authority.roots());
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let (chain, key) = issued.pair();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    soon(connector.connect(ServerName::try_from(name.to_owned()).unwrap(), tcp)).await
}

pub fn served(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

/// An HTTP/1.1 connection that can be used several times.
pub struct Http(SendRequest<Empty<Bytes>>);

impl Http {
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub async fn connect(port: u16) -> Self {
        Self::over(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap()).await
    }

    /// Status and body.
    pub async fn get(&mut self, host: &str, path: &str) -> (u16, String) {
        self.try_get(host, path).await.unwrap()
    }

    pub async fn try_get(&mut self, host: &str, path: &str) -> hyper::Result<(u16, String)> {
        let request = http::Request::get(path)
            .header("host", host)
            .body(Empty::new())
            .unwrap();
        soon(async {
            self.0.ready().await?;
            let response = self.0.send_request(request).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await?.to_bytes();
            Ok((status, String::from_utf8(body.to_vec()).unwrap()))
        })
        .await
    }
}

/// One request on a connection of its own.
pub async fn get(port: u16, host: &str, path: &str) -> (u16, String) {
    Http::connect(port).await.get(host, path).await
}

/// The first bytes that a byte stream says.
pub async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = vec![0; 64];
    let n = soon(stream.read(&mut text)).await.unwrap_or(0);
    String::from_utf8_lossy(&text[..n]).into_owned()
}

// --- Backends ---

/// An HTTP/1.1 server that answers every request with its name.
pub async fn http_backend(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while let Ok(byte @ 1..) = stream.read_u8().await {
                    head.push(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        let answer =
                            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

/// A server that says its name as soon as a connection stands, within TLS if it has a certificate.
pub async fn stream_backend(name: &'static str, certificate: Option<&Issued>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = certificate.map(|issued| {
        let (chain, key) = issued.pair();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                match acceptor {
                    None => say(stream, name).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            say(stream, name).await;
                        }
                    }
                }
            });
        }
    });
    address
}

async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, name: &str) {
    if stream.write_all(name.as_bytes()).await.is_ok() {
        // Until the client has enough.
        let _ = stream.read_u8().await;
    }
}
