//! A client that speaks HTTP/3.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h3::error::StreamError;
use http::{HeaderMap, Request};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;

use super::HOST;
use super::support::certificate::Certificate;
use super::support::client::Got;

pub type Stream = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;
type SendRequest = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection.
pub struct Client {
    pub quic: quinn::Connection,
    send: SendRequest,
}

/// Settings of a handshake: who is trusted, and with what the client shows who it is.
pub fn crypto(trusted: &Certificate, own: Option<&Certificate>) -> rustls::ClientConfig {
    crypto_with(rustls::crypto::ring::default_provider(), trusted, own)
}

pub fn crypto_with(
    provider: CryptoProvider,
    trusted: &Certificate,
    own: Option<&Certificate>,
) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.der.clone()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::try_from(own.key_der.clone()).unwrap();
            builder.with_client_auth_cert(vec![own.der.clone()], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h3".to_vec()];
    config
}

/// A QUIC connection, without anything on it.
pub async fn quic(
    port: u16,
    name: &str,
    crypto: rustls::ClientConfig,
) -> Result<quinn::Connection, quinn::ConnectionError> {
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let crypto = QuicClientConfig::try_from(crypto).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let connecting = endpoint
        .connect_with(config, (Ipv4Addr::LOCALHOST, port).into(), name)
        .unwrap();
    tokio::time::timeout(PATIENCE, connecting)
        .await
        .expect("no handshake")
}

pub async fn connect(port: u16, name: &str, trusted: &Certificate) -> Result<Client, quinn::ConnectionError> {
    connect_with(port, name, crypto(trusted, None)).await
}

pub async fn connect_with(
    port: u16,
    name: &str,
    crypto: rustls::ClientConfig,
) -> Result<Client, quinn::ConnectionError> {
    over(quic(port, name, crypto).await?).await
}

/// HTTP/3 over a connection.
pub async fn over(quic: quinn::Connection) -> Result<Client, quinn::ConnectionError> {
    let Ok((mut driver, send)) = h3::client::new(h3_quinn::Connection::new(quic.clone())).await else {
        return Err(quic.closed().await);
    };
    tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
    Ok(Client { quic, send })
}

/// What is asked for.
pub fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("https://{HOST}{path}"))
}

impl Client {
    /// Begins a request.
    pub async fn begin(&self, request: http::request::Builder) -> Result<Stream, StreamError> {
        self.send.clone().send_request(request.body(()).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Got {
        self.send(request("GET", path), "").await.unwrap()
    }

    /// Sends a request and reads the response, both at once.
    pub async fn send(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Result<Got, StreamError> {
        self.send_all(request, body.into(), None).await
    }

    pub async fn send_all(
        &self,
        request: http::request::Builder,
        body: Bytes,
        trailers: Option<HeaderMap>,
    ) -> Result<Got, StreamError> {
        let (mut send, mut recv) = self.begin(request).await?.split();
        let sending = async {
            if !body.is_empty() {
                send.send_data(body).await?;
            }
            if let Some(trailers) = trailers {
                send.send_trailers(trailers).await?;
            }
            send.finish().await
        };
        let receiving = async {
            let head = recv.recv_response().await?.into_parts().0;
            let mut body = BytesMut::new();
            while let Some(mut data) = recv.recv_data().await? {
                body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
            }
            let trailers = recv.recv_trailers().await?;
            Ok(Got {
                status: head.status.as_u16(),
                version: head.version,
                headers: head.headers,
                body: body.freeze(),
                trailers,
            })
        };
        let both = async { tokio::join!(sending, receiving) };
        let (_, got) = tokio::time::timeout(PATIENCE, both).await.expect("no end");
        // A server that has answered may take no more of the request.
        got
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> quinn::ConnectionError {
        tokio::time::timeout(PATIENCE, self.quic.closed())
            .await
            .expect("not closed")
    }
}

/// True if a connection was closed with H3_NO_ERROR (RFC 9114 section 8.1).
pub fn is_friendly(end: &quinn::ConnectionError) -> bool {
    matches!(end, quinn::ConnectionError::ApplicationClosed(close) if u64::from(close.error_code) == 0x100)
}
