//! One stream to the controller, from connecting to its end.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_config::v1;
use sluice_config::v1::config_discovery_client::ConfigDiscoveryClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};

use super::cache::Cache;
use super::connector::Connector;
use super::{Source, Target};

/// Bound on connecting, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent controller is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long it may take to answer that.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest update. The first one holds everything.
const MAX_UPDATE: usize = 1 << 30;

/// Why a stream did not come about, or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{}: holds no token that could be sent", .0.display())]
    Token(PathBuf),
    #[error("cannot connect: {}", chain(.0))]
    Connect(#[from] tonic::transport::Error),
    #[error("{}: {}", .0.code(), .0.message())]
    Refused(Box<Status>),
    #[error("the controller ended the stream")]
    Ended,
    #[error("an update could not be applied: {0}")]
    Apply(tokio::task::JoinError),
}

impl Failure {
    /// Failures of one kind are reported once.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::File { path, .. } | Self::Token(path) => format!("file {}", path.display()),
            // Whether it refuses connections or streams: it is not there.
            Self::Connect(_) | Self::Ended => "away".into(),
            Self::Refused(status) if status.code() == tonic::Code::Unavailable => "away".into(),
            Self::Refused(status) => format!("{:?}", status.code()),
            Self::Apply(_) => "apply".into(),
        }
    }
}

/// An error with its causes: tonic's own text says little.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Logs what was refused.
pub(super) fn warn_rejected(ack: &v1::Ack) {
    for rejection in &ack.rejected {
        tracing::warn!(
            key = rejection.key,
            version = rejection.version,
            reason = rejection.reason,
            "resource refused"
        );
    }
}

/// What streams, one after the other, have in common.
pub(super) struct Session<T> {
    source: Source,
    target: T,
    cache: Option<Cache>,
    progress: bool,
}

impl<T: Target> Session<T> {
    pub(super) fn new(source: Source, target: T, cache: Option<Cache>) -> Self {
        Self {
            source,
            target,
            cache,
            progress: false,
        }
    }

    pub(super) fn target(&self) -> &T {
        &self.target
    }

    /// True if an update has come since it was last asked.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    /// Runs one stream until it ends. `lost` is set while the controller is reported as away.
    pub(super) async fn run(&mut self, lost: &mut Option<String>) -> Failure {
        match self.stream(lost).await {
            Ok(()) => Failure::Ended,
            Err(failure) => failure,
        }
    }

    async fn stream(&mut self, lost: &mut Option<String>) -> Result<(), Failure> {
        let token = self.token()?;
        let channel = self.connect().await?;
        let mut client = ConfigDiscoveryClient::new(channel).max_decoding_message_size(MAX_UPDATE);
        let (acks, outgoing) = mpsc::channel(16);
        let subscribe = v1::proxy_message::Message::Subscribe(v1::Subscribe {
            namespace: self.source.namespace.clone(),
            gateway: self.source.gateway.clone(),
            proxy: self.source.proxy.clone(),
            software_version: env!("CARGO_PKG_VERSION").into(),
            known: self.target.known(),
        });
        // The receiver is held below: there is room, and it is not closed.
        let _ = acks.try_send(v1::ProxyMessage {
            message: Some(subscribe),
        });
        let mut request = Request::new(ReceiverStream::new(outgoing));
        request.metadata_mut().insert("authorization", token);
        let mut updates = client.stream(request).await.map_err(refused)?.into_inner();
        while let Some(update) = next(&mut updates).await? {
            if !std::mem::replace(&mut self.progress, true) {
                self.target.set_connected(true);
                tracing::info!(endpoint = self.source.endpoint, "connected to the controller");
                *lost = None;
            }
            let ack = self.apply(update).await?;
            warn_rejected(&ack);
            let message = v1::proxy_message::Message::Ack(ack);
            if acks
                .send(v1::ProxyMessage {
                    message: Some(message),
                })
                .await
                .is_err()
            {
                break;
            }
        }
        Ok(())
    }

    fn token(&self) -> Result<MetadataValue<Ascii>, Failure> {
        let path = &self.source.token_file;
        let token = String::from_utf8(read(path)?).map_err(|_| Failure::Token(path.clone()))?;
        let mut value = MetadataValue::try_from(format!("Bearer {}", token.trim()))
            .map_err(|_| Failure::Token(path.clone()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn connect(&self) -> Result<Channel, Failure> {
        let endpoint = Endpoint::from_shared(self.source.endpoint.clone())?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 20);
        let mut tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&self.source.ca_file)?));
        if !self.source.server_name.is_empty() {
            tls = tls.domain_name(&self.source.server_name);
        }
        Ok(endpoint
            .tls_config(tls)?
            .connect_with_connector(Connector)
            .await?)
    }

    /// Applies an update and keeps it on disk, away from the runtime: a large one takes a while.
    async fn apply(&mut self, update: v1::Update) -> Result<v1::Ack, Failure> {
        let target = self.target.clone();
        let mut cache = self.cache.take();
        let applied = tokio::task::spawn_blocking(move || {
            let ack = target.apply(&update);
            if let Some(kept) = &mut cache
                && let Err(error) = kept.store(update, &ack)
            {
                tracing::warn!(%error, "configuration is no longer kept on disk");
                cache = None;
            }
            (ack, cache)
        });
        let (ack, cache) = applied.await.map_err(Failure::Apply)?;
        self.cache = cache;
        Ok(ack)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::File {
        path: path.to_owned(),
        error,
    })
}

fn refused(status: Status) -> Failure {
    Failure::Refused(Box::new(status))
}

async fn next(updates: &mut Streaming<v1::Update>) -> Result<Option<v1::Update>, Failure> {
    updates.message().await.map_err(refused)
}
