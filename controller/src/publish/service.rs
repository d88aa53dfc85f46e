//! The gRPC service: one session a proxy.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::Stream;
use sluice_config::v1::config_discovery_server::ConfigDiscovery;
use sluice_config::v1::{ProxyMessage, Subscribe, Update, proxy_message};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use super::identity::{AuthError, Authenticator, Identity};
use super::resources::Next;
use super::{Publisher, Resources};
use crate::engine::GatewayRef;

/// How long a caller may take to say what it wants, and how long it waits for a controller that has just started.
const PATIENCE: Duration = Duration::from_secs(20);
/// A stream ends after this, so that its token is verified anew and replicas share the load.
const LIFE: Duration = Duration::from_hours(1);

/// Refusals that are remembered.
const TOLD: usize = 256;

pub(super) struct Service {
    pub publisher: Arc<Publisher>,
    pub authenticator: Arc<dyn Authenticator>,
    pub stop: CancellationToken,
    /// Refusals that are in the log since a stream was last opened: proxies try again and again.
    pub told: Mutex<BTreeSet<String>>,
}

#[tonic::async_trait]
impl ConfigDiscovery for Service {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<ProxyMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let opened = self.open(request).await;
        match &opened {
            Ok(_) => self.told().clear(),
            Err(status) => self.tell(status),
        }
        opened.map(|session| Response::new(Box::pin(updates(session)) as Self::StreamStream))
    }
}

impl Service {
    fn tell(&self, status: &Status) {
        let reason = match status.code() {
            tonic::Code::Unauthenticated => "unauthenticated",
            tonic::Code::PermissionDenied => "permission_denied",
            tonic::Code::Unavailable => "unavailable",
            _ => "invalid",
        };
        self.publisher
            .metrics
            .refused_streams
            .get_or_create(&[("reason", reason)])
            .inc();
        let mut told = self.told();
        if told.len() < TOLD && told.insert(status.message().to_owned()) {
            warn!(reason, message = status.message(), "stream refused");
        }
    }

    fn told(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self, request: Request<Streaming<ProxyMessage>>) -> Result<Session, Status> {
        let identity = self.identify(&request).await?;
        let mut messages = request.into_inner();
        let first = timeout(PATIENCE, messages.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no Subscribe"))??;
        let Some(proxy_message::Message::Subscribe(subscribe)) = first.and_then(|m| m.message) else {
            return Err(Status::invalid_argument("the first message must be Subscribe"));
        };
        let ready = timeout(PATIENCE, self.publisher.wait_until_ready()).await;
        ready.map_err(|_| Status::unavailable("the controller has not read the cluster yet"))?;
        let resources = self.permitted(&identity, &subscribe)?;
        let (id, wake) = resources.open(subscribe.proxy.clone(), &subscribe.known);
        info!(
            gateway = %resources.gateway(), proxy = subscribe.proxy, version = subscribe.software_version,
            known = subscribe.known.len(), "proxy connected"
        );
        self.publisher.metrics.proxies.inc();
        let over = CancellationToken::new();
        let session = Session {
            wake,
            stop: self.stop.clone(),
            over: over.clone(),
            ends: Instant::now() + LIFE,
            _hang_up: over.clone().drop_guard(),
            end: End {
                resources: Arc::clone(&resources),
                id,
                proxy: subscribe.proxy,
                publisher: Arc::clone(&self.publisher),
            },
        };
        tokio::spawn(listen(messages, resources, id, Arc::clone(&self.publisher), over));
        Ok(session)
    }

    async fn identify(&self, request: &Request<Streaming<ProxyMessage>>) -> Result<Identity, Status> {
        let header = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer "));
        let token = token.ok_or_else(|| Status::unauthenticated("no bearer token"))?;
        self.authenticator
            .authenticate(token)
            .await
            .map_err(|error| match error {
                AuthError::Refused(_) => Status::unauthenticated(error.to_string()),
                AuthError::Unavailable(_) => Status::unavailable(error.to_string()),
            })
    }

    fn permitted(&self, identity: &Identity, subscribe: &Subscribe) -> Result<Arc<Resources>, Status> {
        let gateway = GatewayRef::new(subscribe.namespace.as_str(), subscribe.gateway.as_str());
        let own = identity.namespace == subscribe.namespace;
        let found = self
            .publisher
            .find(&gateway)
            .filter(|r| own && r.permits(&identity.service_account));
        // The answer is the same whether the Gateway exists or not.
        found.ok_or_else(|| {
            let Identity {
                namespace,
                service_account,
            } = identity;
            Status::permission_denied(format!(
                "service account {namespace}/{service_account} does not serve Gateway {gateway}"
            ))
        })
    }
}

struct Session {
    wake: Arc<Notify>,
    stop: CancellationToken,
    /// Cancelled when either side has ended.
    over: CancellationToken,
    ends: Instant,
    _hang_up: DropGuard,
    end: End,
}

/// Cleans up when the stream is dropped, whoever ended it.
struct End {
    resources: Arc<Resources>,
    id: u64,
    proxy: String,
    publisher: Arc<Publisher>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.resources.close(self.id);
        self.publisher.report(&self.resources);
        self.publisher.forget_if_unused(self.resources.gateway());
        self.publisher.metrics.proxies.dec();
        info!(gateway = %self.resources.gateway(), proxy = self.proxy, "proxy disconnected");
    }
}

/// What is sent: polled only when the connection can take more, so that a slow proxy holds up nobody.
fn updates(session: Session) -> impl Stream<Item = Result<Update, Status>> {
    futures::stream::unfold(session, |session| async {
        loop {
            match session.end.resources.next(session.end.id) {
                Next::Send(update) => return Some((Ok(update), session)),
                Next::Close => return None,
                Next::Wait => {}
            }
            tokio::select! {
                () = session.wake.notified() => {}
                () = session.over.cancelled() => return None,
                () = session.stop.cancelled() => return None,
                () = sleep_until(session.ends) => return None,
            }
        }
    })
}

/// Takes in acknowledgements until the proxy or the session ends.
async fn listen(
    mut messages: Streaming<ProxyMessage>,
    resources: Arc<Resources>,
    id: u64,
    publisher: Arc<Publisher>,
    over: CancellationToken,
) {
    loop {
        let message = tokio::select! {
            message = messages.message() => message,
            () = over.cancelled() => return,
        };
        match message {
            Ok(Some(ProxyMessage {
                message: Some(proxy_message::Message::Ack(ack)),
            })) => {
                if let Some((time, refused)) = resources.ack(id, ack) {
                    publisher.metrics.ack_seconds.observe(time.as_secs_f64());
                    publisher.metrics.rejections.inc_by(refused as u64);
                    publisher.report(&resources);
                }
            }
            Ok(Some(_)) => debug!(gateway = %resources.gateway(), "message ignored"),
            Ok(None) | Err(_) => {
                over.cancel();
                return;
            }
        }
    }
}
