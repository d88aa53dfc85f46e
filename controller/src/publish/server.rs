//! The TLS and HTTP/2 server under the service.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::server::ResolvesServerCert;
use sluice_config::v1::config_discovery_server::ConfigDiscoveryServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tracing::debug;

use super::Publisher;
use super::identity::Authenticator;
use super::service::Service;

/// What a proxy may send at once: what it knows, key by key.
const MAX_MESSAGE: usize = 64 << 20;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A peer that does not answer a ping is gone.
const PING: Duration = Duration::from_secs(15);

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No TLS.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// No HTTP/2.
    #[error("gRPC: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves proxies until `stop`; then streams end, and proxies go to another replica.
pub async fn serve(
    listener: TcpListener,
    certificate: Arc<dyn ResolvesServerCert>,
    publisher: Arc<Publisher>,
    authenticator: Arc<dyn Authenticator>,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let mut tls =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(certificate);
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let (sender, connections) = mpsc::channel(16);
    tokio::spawn(accept(
        listener,
        TlsAcceptor::from(Arc::new(tls)),
        sender,
        stop.clone(),
    ));
    let service = Service {
        publisher,
        authenticator,
        stop: stop.clone(),
        told: Mutex::default(),
    };
    let service = ConfigDiscoveryServer::new(service).max_decoding_message_size(MAX_MESSAGE);
    Server::builder()
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PING))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(4 << 20)
        .add_service(service)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.cancelled_owned())
        .await?;
    Ok(())
}

type Connection = Result<TlsStream<TcpStream>, std::io::Error>;

/// Accepts connections; handshakes go on side by side, so that a stalled one holds up nobody.
async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    sender: mpsc::Sender<Connection>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors, as a rule; they come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (tls, sender) = (tls.clone(), sender.clone());
        tokio::spawn(async move {
            // Updates are small and must not wait for more to send.
            let _ = stream.set_nodelay(true);
            match timeout(HANDSHAKE, tls.accept(stream)).await {
                // Nobody receives any more only when the server stops.
                Ok(Ok(stream)) => _ = sender.send(Ok(stream)).await,
                Ok(Err(error)) => debug!(%peer, %error, "TLS handshake"),
                Err(_) => debug!(%peer, "TLS handshake takes too long"),
            }
        });
    }
}
