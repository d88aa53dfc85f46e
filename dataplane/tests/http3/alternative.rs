//! What clients of HTTP/1.1 and HTTP/2 are told of HTTP/3.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use sluice_config::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::backend::Backend;
use super::support::certificate::Certificate;
use super::{HOST, Site, cfg, client, http3};

async fn tls(port: u16, certificate: &Certificate, alpn: &str) -> TlsStream<tokio::net::TcpStream> {
    let mut config = client::crypto(certificate, None);
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

/// The status of a response over HTTP/2.
pub async fn status(port: u16, certificate: &Certificate, path: &str) -> u16 {
    over_http2(port, certificate, path).await.status.as_u16()
}

async fn over_http2(port: u16, certificate: &Certificate, path: &str) -> http::response::Parts {
    let stream = tls(port, certificate, "h2").await;
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("https://{HOST}{path}"));
    let (response, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
    response.await.unwrap().into_parts().0
}

/// What is said of HTTP/3, over HTTP/1.1 and HTTP/2.
async fn told(port: u16, certificate: &Certificate, path: &str) -> [Option<String>; 2] {
    let mut stream = tls(port, certificate, "http/1.1").await;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = String::new();
    let _ = stream.read_to_string(&mut all).await;
    let old = all.lines().find_map(|line| line.strip_prefix("alt-svc: "));
    let new = over_http2(port, certificate, path)
        .await
        .headers
        .get("alt-svc")
        .map(|value| value.to_str().unwrap().to_owned());
    [old.map(ToOwned::to_owned), new]
}

#[tokio::test]
async fn it_is_announced_where_it_is_served() {
    let backend = Backend::echo("b").await;
    let resources = || cfg::backend("b", &[backend.address]);
    let site = Site::with(http3(), resources(), cfg::rule("/here", &["b"])).await;
    let expected = Some(format!("h3=\":{}\"; ma=86400", site.port));
    // Answers of the proxy's own say it too.
    for path in ["/here", "/there"] {
        let told = told(site.port, &site.certificate, path).await;
        assert_eq!(told, [expected.clone(), expected.clone()], "{path}");
    }
    let site = Site::with(v1::ClientSettings::default(), resources(), cfg::rule("/", &["b"])).await;
    assert_eq!(told(site.port, &site.certificate, "/").await, [None, None]);
}

#[tokio::test]
async fn it_is_at_the_port_that_clients_know() {
    let backend = Backend::echo("b").await;
    let certificate = super::certificate(HOST);
    let (port, bind_port) = (443, super::support::free_port());
    let listener = super::listener_with("l", bind_port, HOST, http3(), |listener| listener.port = port);
    let mut resources = cfg::backend("b", &[backend.address]);
    resources.extend(super::serving(&certificate, listener, cfg::rule("/", &["b"])));
    let _proxy = super::Proxy::start(resources).await;
    let expected = Some("h3=\":443\"; ma=86400".to_owned());
    assert_eq!(
        told(bind_port, &certificate, "/").await,
        [expected.clone(), expected]
    );
    let client = client::connect(bind_port, HOST, &certificate).await.unwrap();
    assert_eq!(client.get("/").await.status, 200);
}
