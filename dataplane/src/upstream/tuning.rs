//! What a backend says of its connections: keepalive, HTTP/2 windows, buffers, the PROXY protocol.
//!
//! Owns settings only. A backend that says nothing has none of this.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use prost::Message;
use sluice_config::v1;

use super::Ends;
use super::proxy_protocol::Version;

/// Settings of connections to one backend.
#[derive(Debug)]
pub struct Tuning {
    /// Set if probes are sent.
    pub keepalive: Option<socket2::TcpKeepalive>,
    /// Windows and streams; 0: the default.
    pub http2: v1::Http2Settings,
    /// Bytes that may wait in the output buffer; 0: the default.
    pub buffer_limit: usize,
    /// Bytes of the socket's own buffers; 0: the system's default.
    pub socket_buffers: usize,
    /// Set if connections begin with a header that says the client's address.
    pub proxy_protocol: Option<Version>,
    identity: u64,
}

impl Tuning {
    /// Reads what a backend asks for; `None` if nothing.
    pub fn new(config: &v1::Backend) -> Option<Box<Self>> {
        let settings = v1::Backend {
            // Counts and their bounds are this backend's alone.
            name: config.name.clone(),
            circuit_breaker: config.circuit_breaker,
            timeouts: config.timeouts,
            tcp_keepalive: config.tcp_keepalive,
            http2: config.http2,
            buffer_limit_bytes: config.buffer_limit_bytes,
            proxy_protocol: config.proxy_protocol,
            socket_buffer_bytes: config.socket_buffer_bytes,
            ..v1::Backend::default()
        };
        let nothing = v1::Backend {
            name: config.name.clone(),
            ..v1::Backend::default()
        };
        if settings == nothing {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        settings.encode_to_vec().hash(&mut hasher);
        Some(Box::new(Self {
            keepalive: config.tcp_keepalive.as_ref().map(keepalive),
            http2: config.http2.unwrap_or_default(),
            buffer_limit: usize::try_from(config.buffer_limit_bytes).unwrap_or(usize::MAX),
            // What the kernel takes is an i32, and it doubles that.
            socket_buffers: usize::try_from(config.socket_buffer_bytes.min(1 << 30)).unwrap_or_default(),
            proxy_protocol: match config.proxy_protocol() {
                v1::ProxyProtocolVersion::Unspecified => None,
                v1::ProxyProtocolVersion::V1 => Some(Version::V1),
                v1::ProxyProtocolVersion::V2 => Some(Version::V2),
            },
            identity: hasher.finish().max(1),
        }))
    }

    /// Differs between settings that make connections differ, and between clients if connections say whose they are.
    pub fn identity(&self, client: Option<Ends>) -> u64 {
        if self.proxy_protocol.is_none() {
            return self.identity;
        }
        let mut hasher = DefaultHasher::new();
        (self.identity, client).hash(&mut hasher);
        hasher.finish().max(1)
    }
}

/// Keepalive probes as a resource asks for them.
pub fn keepalive(config: &v1::TcpKeepalive) -> socket2::TcpKeepalive {
    let mut keepalive = socket2::TcpKeepalive::new();
    // The kernel counts in seconds, and takes no zero.
    let seconds = |ms: u64| Duration::from_secs(ms.div_ceil(1000).clamp(1, 32_767));
    if config.idle_ms != 0 {
        keepalive = keepalive.with_time(seconds(config.idle_ms));
    }
    if config.interval_ms != 0 {
        keepalive = keepalive.with_interval(seconds(config.interval_ms));
    }
    if config.probes != 0 {
        keepalive = keepalive.with_retries(config.probes.min(127));
    }
    keepalive
}
