//! Everything about the far side: which backends exist, their endpoints, the connections to them.
//!
//! A [`Slot`] is the stable place of a backend: routes hold slots, updates swap what is in them, so that an endpoint
//! change touches no route. Never looks at a request.

pub mod budget;
pub mod connect;
pub mod endpoints;
pub mod pool;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use sluice_config::v1;

pub use budget::RetryBudget;
pub use connect::{ConnectError, Connected};
pub use endpoints::{Active, Endpoint, EndpointSet};
pub use pool::{Key, Pool};

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
    /// Counters of this backend.
    pub metrics: Arc<BackendMetrics>,
}

impl Backend {
    /// Builds a backend from its resource and what the resource names.
    pub fn new(
        config: &v1::Backend,
        endpoints: Arc<EndpointSlot>,
        tls: Option<Arc<ClientTls>>,
        metrics: Arc<BackendMetrics>,
    ) -> Self {
        let protocol = match config.protocol() {
            v1::BackendProtocol::H2c => Protocol::H2c,
            v1::BackendProtocol::Http1 | v1::BackendProtocol::Websocket => Protocol::Http1,
            _ => Protocol::Auto,
        };
        let connect_timeout = match config.connect_timeout_ms {
            0 => DEFAULT_CONNECT_TIMEOUT,
            ms => Duration::from_millis(ms),
        };
        Self {
            name: config.name.as_str().into(),
            protocol,
            endpoints,
            tls,
            connect_timeout,
            retry_budget: config.retry_budget.as_ref().map(RetryBudget::new),
            metrics,
        }
    }

    /// Key under which connections to `endpoint` are pooled.
    pub fn pool_key(&self, endpoint: &Endpoint) -> Key {
        Key {
            address: endpoint.address(),
            tls: self.tls.as_ref().map_or(0, |tls| tls.identity()),
        }
    }
}
