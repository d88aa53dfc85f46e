//! Everything about the far side: which backends exist, their endpoints, the connections to them.
//!
//! A [`Slot`] is the stable place of a backend: routes hold slots, updates swap what is in them, so that an endpoint
//! change touches no route. Never looks at a request.

pub mod ahead;
pub mod balance;
pub mod breaker;
pub mod budget;
pub mod connect;
pub mod dns;
pub mod dynamic;
pub mod endpoints;
pub mod fallback;
pub mod h2;
pub mod hashing;
pub mod health;
pub mod orca;
pub mod outside;
pub mod pool;
pub mod probe;
pub mod proxy_protocol;
pub mod resolve;
pub mod tuning;
pub mod utilization;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderMap;
use sluice_config::v1;

pub use ahead::Ahead;
pub use balance::{Ask, Balancer};
pub use breaker::Breaker;
pub use budget::RetryBudget;
pub use connect::{ConnectError, Connected};
pub use endpoints::{Active, Endpoint, EndpointSet};
pub use health::{Member, Outcome};
pub use pool::{Key, Pool};
pub use probe::Prober;
pub use resolve::Resolver;
pub use tuning::Tuning;

use crate::own_calls::OwnCalls;
use crate::telemetry::metrics::BackendMetrics;
use crate::tls::client::ClientTls;

/// Connect timeout of a backend that names none; Envoy Gateway's default.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the endpoints of one `endpoints/...` resource live; shared by all backends that name it.
pub type EndpointSlot = ArcSwap<EndpointSet>;

/// Where a backend lives. Empty while no such resource exists.
#[derive(Debug, Default)]
pub struct Slot(ArcSwapOption<Backend>);

impl Slot {
    /// The backend as it is now.
    pub fn load(&self) -> Option<Arc<Backend>> {
        self.0.load_full()
    }

    /// Replaces the backend.
    pub fn store(&self, backend: Option<Arc<Backend>>) {
        self.0.store(backend);
    }
}

/// How HTTP is spoken to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1; over TLS also HTTP/2 if ALPN agrees on it.
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 with prior knowledge.
    H2c,
}

/// One destination.
#[derive(Debug)]
pub struct Backend {
    /// `namespace/name:port`, for logs and metrics.
    pub name: Arc<str>,
    /// How HTTP is spoken to it.
    pub protocol: Protocol,
    /// Its endpoints, which change without it.
    pub endpoints: Arc<EndpointSlot>,
    /// Set: connections are TLS.
    pub tls: Option<Arc<ClientTls>>,
    /// Bound on establishing a connection, TLS included.
    pub connect_timeout: Duration,
    /// Bound on the share of retries, if there is one.
    pub retry_budget: Option<RetryBudget>,
    /// Set if the backend says how endpoints are chosen, or watches their health.
    pub balancer: Option<Balancer>,
    /// Set if what is under way to it, or the life of its connections, is bounded.
    pub breaker: Option<Arc<Breaker>>,
    /// Set if its connections are not as they are by default.
    pub tuning: Option<Box<Tuning>>,
    /// Set if connections are opened before they are needed.
    pub ahead: Option<Arc<Ahead>>,
    /// Set: the destination is the host of the request.
    pub dynamic: Option<Box<dynamic::Dynamic>>,
    /// Set if it says how the proxy's own calls to it are made.
    pub own_calls: Option<Box<OwnCalls>>,
    /// Requests go out with the HTTP version that they came in with.
    pub use_client_protocol: bool,
    /// Counters of this backend.
    pub metrics: Arc<BackendMetrics>,
}

impl Backend {
    /// Builds a backend from its resource and what the resource names. `before` is its last version; what is known of
    /// endpoints and what is under way goes on from there. `zone` is the proxy's own, or empty.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn new(
        config: &v1::Backend,
        endpoints: Arc<EndpointSlot>,
        tls: Option<Arc<ClientTls>>,
        metrics: Arc<BackendMetrics>,
        before: Option<&Self>,
        zone: &str,
    ) -> Result<Self, String> {
        let protocol = match config.protocol() {
            v1::BackendProtocol::H2c => Protocol::H2c,
            v1::BackendProtocol::Http1 | v1::BackendProtocol::Websocket => Protocol::Http1,
            _ => Protocol::Auto,
        };
        let connect_timeout = match config.connect_timeout_ms {
            0 => DEFAULT_CONNECT_TIMEOUT,
            ms => Duration::from_millis(ms),
        };
        let balancer = before.and_then(|before| before.balancer.as_ref());
        let breaker = before.and_then(|before| before.breaker.as_deref());
        Ok(Self {
            name: config.name.as_str().into(),
            protocol,
            endpoints,
            tls,
            connect_timeout,
            retry_budget: config.retry_budget.as_ref().map(RetryBudget::new),
            balancer: Balancer::compile(config, zone, balancer, &metrics)?,
            breaker: Breaker::new(config, breaker),
            tuning: Tuning::new(config),
            ahead: Ahead::new(config),
            dynamic: None,
            own_calls: None,
            use_client_protocol: config.use_client_protocol,
            metrics,
        })
    }

    /// An endpoint for a request. `None`: there is none that may be used.
    pub fn pick(&self, ask: Ask<'_>) -> Option<Active> {
        match &self.balancer {
            None => self.endpoints.load().pick(ask.tried),
            Some(balancer) => balancer.pick(&self.endpoints, ask),
        }
    }

    /// The endpoint with this address, as session persistence asks. `None`: it is gone, or not healthy.
    pub fn claim(&self, address: SocketAddr) -> Option<Active> {
        match &self.balancer {
            None => self
                .endpoints
                .load()
                .find(address)
                .map(|endpoint| EndpointSet::claim(&endpoint)),
            Some(balancer) => balancer.claim(&self.endpoints, address),
        }
    }

    /// How many of its endpoints are healthy, and how many there are.
    pub fn health(&self) -> (usize, usize) {
        if self.dynamic.is_some() {
            return (1, 1);
        }
        if let Some(balancer) = &self.balancer {
            return balancer.health(&self.endpoints);
        }
        let set = self.endpoints.load();
        let all = set.serving().len().max(set.draining().len());
        (all, all)
    }

    /// Takes in how a request went.
    pub fn report(&self, active: &Active, outcome: Outcome) {
        if let (Some(balancer), Some(member)) = (&self.balancer, active.member()) {
            balancer.report(member, outcome);
        }
    }

    /// Takes in what the endpoint reports of its load in headers or trailers.
    pub fn take_load(&self, member: &Member, headers: &mut HeaderMap) {
        if let Some(by_load) = self.balancer.as_ref().and_then(Balancer::by_load) {
            by_load.take(member, headers);
        }
    }

    /// Takes in what the endpoint reports of its load when it is asked.
    pub fn put_load(&self, member: &Member, report: &orca::Report) {
        if let Some(by_load) = self.balancer.as_ref().and_then(Balancer::by_load) {
            by_load.put(member, report);
        }
    }

    /// Key under which connections to `endpoint` are pooled. `client` are both ends of the client's connection.
    pub fn pool_key(&self, endpoint: &Endpoint, client: Option<Ends>) -> Key {
        Key {
            address: endpoint.address(),
            tls: self.tls.as_ref().map_or(0, |tls| tls.identity()),
            settings: self.tuning.as_ref().map_or(0, |tuning| tuning.identity(client)) ^ endpoint.identity(),
        }
    }
}

/// Both ends of a client's connection: its own address, and the one that it connected to.
pub type Ends = (SocketAddr, SocketAddr);
