//! TCP connections and TLS ones, passed through or terminated: one connection to a backend for each of a client.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::relay::{End, Outcome, relay};
use super::{L4Route, log};
use crate::listen::client::bound;
use crate::route::Listener;
use crate::telemetry::metrics::BackendActive;
use crate::upstream::breaker::Lease;
use crate::upstream::connect::dial;
use crate::upstream::{self, Active, Ask, Backend, Balancer, ConnectError, Endpoint, Ends};
use crate::wire::{Socket, Transport};
use crate::worker::Worker;

/// A connection on which nothing moves for this long is ended; Envoy's default.
const IDLE: Duration = Duration::from_hours(1);
/// Endpoints that are tried for one connection.
const TRIES: usize = 3;

/// Serves a connection until it ends. `stream` is plain, or TLS that ends here; bytes that were read from it already
/// (a ClientHello that is passed through) are its first. `server_name` is the client's SNI, `listener` the listener's
/// name.
pub async fn tcp(
    stream: Transport,
    (peer, downstream_local): Ends,
    server_name: Option<&str>,
    listener: &Listener,
    route: Arc<L4Route>,
    worker: Arc<Worker>,
) {
    let began = SystemTime::now();
    let idle = listener
        .client
        .as_ref()
        .and_then(|client| client.timeouts.tcp_idle);
    route.metrics.connection();
    let mut line = log::Line {
        route: &route,
        began,
        flags: "",
        details: "",
        transport_failure: None,
        from_client: 0,
        from_backend: 0,
        endpoint: None,
        backend: None,
        upstream_local: None,
        downstream_local,
        peer,
        server_name,
    };
    let upstream = match connect(&route, (peer, downstream_local)).await {
        Ok(upstream) => upstream,
        Err(failure) => {
            let reason = failure.to_string();
            (line.flags, line.transport_failure) = (failure.flags(), Some(reason.as_str()));
            reset(&stream);
            log::write(&worker, &line);
            listener.metrics.dropped();
            return;
        }
    };
    line.endpoint = Some(upstream.active.endpoint().address());
    line.backend = Some(&*upstream.backend.name);
    line.upstream_local = upstream.transport.tcp().local_addr().ok();
    let outcome = run(stream, upstream.transport, bound(idle, IDLE)).await;
    (line.from_client, line.from_backend) = (outcome.from_client, outcome.from_backend);
    let reason;
    match &outcome.end {
        End::Closed => {}
        End::Idle => line.flags = "SI",
        End::Client(error) => {
            reason = error.to_string();
            (line.flags, line.details) = ("DC", &reason);
        }
        End::Backend(error) => {
            reason = error.to_string();
            (line.flags, line.transport_failure) = ("UC", Some(reason.as_str()));
        }
    }
    listener.metrics.received(outcome.from_client);
    listener.metrics.sent(outcome.from_backend);
    log::write(&worker, &line);
}

async fn run(client: Transport, backend: Transport, idle: Duration) -> Outcome {
    let (mut client, mut backend) = (client, backend);
    let outcome = match (&mut client, &mut backend) {
        (Transport::Tcp(client), Transport::Tcp(backend)) => relay(client, backend, idle).await,
        (Transport::Tcp(client), Transport::Tls(backend)) => relay(client, backend.as_mut(), idle).await,
        (Transport::Tls(client), Transport::Tcp(backend)) => relay(client.as_mut(), backend, idle).await,
        (Transport::Tls(client), Transport::Tls(backend)) => {
            relay(client.as_mut(), backend.as_mut(), idle).await
        }
    };
    if !matches!(outcome.end, End::Closed) {
        // What one side did not finish must not look finished to the other.
        reset(&client);
        reset(&backend);
    }
    outcome
}

/// Makes the kernel answer with a reset instead of an orderly close when the stream is dropped.
fn reset(stream: &Transport) {
    // A socket that refuses the option is closed in the orderly way.
    let _ = stream.tcp().set_zero_linger();
}

/// A connection to an endpoint.
struct Upstream {
    transport: Transport,
    backend: Arc<Backend>,
    active: Active,
    _counted: BackendActive,
    _lease: Option<Arc<Lease>>,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the client may not connect")]
    Denied,
    #[error("no backend takes this connection")]
    NoBackend,
    #[error("backend {0} has no endpoint")]
    NoEndpoint(Arc<str>),
    #[error("backend has no room for another connection")]
    Overflow,
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl Failure {
    /// Envoy's flag for it.
    fn flags(&self) -> &'static str {
        match self {
            Self::Denied => "UAEX",
            Self::NoBackend => "NC",
            Self::NoEndpoint(_) => "UH",
            Self::Overflow => "UO",
            Self::Connect(_) => "UF",
        }
    }
}

/// Connects to an endpoint of the backend whose turn it is. Nothing has been sent yet, so an endpoint that refuses
/// may be passed over for another.
async fn connect(route: &L4Route, client: Ends) -> Result<Upstream, Failure> {
    if !route.admits(client.0.ip()) {
        return Err(Failure::Denied);
    }
    let backend = route
        .pick()
        .and_then(|slot| slot.load())
        .ok_or(Failure::NoBackend)?;
    let hashing = backend.balancer.as_ref().and_then(Balancer::hashing);
    let hash = hashing.and_then(|hashing| hashing.hash_connection(client.0.ip()));
    let mut tried = Vec::new();
    let mut failure = Failure::NoEndpoint(Arc::clone(&backend.name));
    while tried.len() < TRIES {
        let ask = Ask {
            tried: &tried,
            hash,
            headers: None,
        };
        let Some(active) = backend.pick(ask) else {
            break;
        };
        let address = active.endpoint().address();
        if tried.contains(&address) {
            break;
        }
        let lease = match &backend.breaker {
            None => None,
            Some(breaker) => Some(breaker.try_lease(active.member()).ok_or_else(|| {
                backend.metrics.overflow();
                Failure::Overflow
            })?),
        };
        let counted = backend.metrics.active();
        let opened =
            tokio::time::timeout(backend.connect_timeout, open(&backend, active.endpoint(), client)).await;
        match opened.map_err(|_| ConnectError::Timeout).flatten() {
            Ok(transport) => {
                backend.metrics.connected();
                return Ok(Upstream {
                    transport,
                    backend,
                    active,
                    _counted: counted,
                    _lease: lease,
                });
            }
            Err(error) => {
                backend.metrics.connect_failure();
                backend.report(&active, upstream::Outcome::Failed);
                active.endpoint().eject();
                tried.push(address);
                failure = error.into();
            }
        }
    }
    Err(failure)
}

async fn open(backend: &Backend, endpoint: &Endpoint, client: Ends) -> Result<Transport, ConnectError> {
    let tcp = dial(backend, endpoint, endpoint.address(), Some(client))
        .await
        .map_err(ConnectError::Tcp)?;
    let socket = Socket::new(tcp);
    let Some(tls) = &backend.tls else {
        return Ok(Transport::Tcp(socket));
    };
    let handshake = tls.handshake_raw(socket, endpoint.server_name());
    let stream = handshake.await.map_err(ConnectError::Tls)?;
    Ok(Transport::Tls(Box::new(tokio_rustls::TlsStream::Client(stream))))
}
