//! The rate limit service: proxies ask it by `envoy.service.ratelimit.v3` whether requests are within their limits, and it
//! counts them in Redis.
//!
//! [`window`] is the arithmetic, [`counter`] talks to Redis, [`service`] to proxies, [`metrics`] to whoever watches. It
//! has no configuration of its own: limits come with the questions. All of its state is in Redis, so any number of
//! replicas may run. It never decides what becomes of a request.

mod counter;
mod metrics;
mod service;
mod window;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use counter::Counter;
use metrics::Metrics;

/// How the service runs.
#[derive(Debug)]
pub struct Options {
    /// Where proxies ask.
    pub address: SocketAddr,
    /// Where metrics and health checks are.
    pub metrics_address: SocketAddr,
    /// Where counts are.
    pub redis: Redis,
}

/// Where Redis is, and who asks it.
pub struct Redis {
    /// `redis://HOST:PORT/DB`, or `rediss://` for TLS.
    pub url: String,
    /// User; Redis' default if absent.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// PEM bundle that its certificate is verified with; the public authorities if absent.
    pub ca: Option<Vec<u8>>,
    /// PEM certificate and key that it is shown.
    pub client_certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// What the names of all keys begin with.
    pub prefix: String,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Nothing else is certain to hold no password.
        f.debug_struct("Redis")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Why the service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// What is said of Redis makes no sense.
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The server ended.
    #[error("server: {0}")]
    Serve(String),
}

/// Runs until `stop`. Redis need not be there yet: questions are answered as soon as it is.
///
/// # Errors
/// If an address is taken, or Redis' address is none.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::default());
    let counter = Counter::new(&options.redis, Arc::clone(&metrics))?;
    let watchers = listen(options.metrics_address).await?;
    let proxies = listen(options.address).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        address = %options.address,
        "rate limit service starts"
    );
    tokio::spawn(metrics::serve(watchers, metrics, counter.clone(), stop.clone()));
    service::serve(proxies, counter, stop).await
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen { address, source })
}
