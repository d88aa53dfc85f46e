//! What a listener says of its clients, compiled.
//!
//! Owns settings only; `listen` and `forward` act on them. A listener that says nothing has none of this.

mod detection;

use std::sync::Arc;
use std::time::Duration;

use http::header::{ALT_SVC, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Uri};
use rustls::pki_types::CertificateDer;
use sluice_config::v1;

pub use detection::Detection;

use super::{Http3, forwarded_cert};
use crate::filter::HeaderModifier;
use crate::filter::text::TextMatch;
use crate::tls::material::KeyPair;
use crate::tls::server;
use crate::upstream::tuning::keepalive;

const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

/// As good as no bound, and no clock runs over.
const ENDLESS: Duration = Duration::from_hours(24 * 365);

/// Settings of one listener.
#[derive(Debug)]
pub struct Client {
    /// Whose address a client has; `None`: as the proxy's settings say.
    pub detection: Option<Detection>,
    /// The peer is not appended to X-Forwarded-For.
    pub no_forwarded_for_append: bool,
    /// What becomes of header fields.
    pub headers: Headers,
    /// What becomes of escaped slashes in a path.
    pub escaped_slashes: v1::client_path::EscapedSlashes,
    /// Adjacent slashes are left as they are.
    pub keep_adjacent_slashes: bool,
    /// Bounds in time.
    pub timeouts: Timeouts,
    /// Bounds on connections; 0: none.
    pub connections: v1::ClientConnections,
    /// Set if HTTP/1 is not as by default.
    pub http1: Option<Http1>,
    /// Windows and streams; 0: the default.
    pub http2: v1::Http2Settings,
    /// Set if connections begin with a PROXY protocol header; true: those without are served as well.
    pub proxy_protocol: Option<bool>,
    /// Set if probes are sent.
    pub keepalive: Option<socket2::TcpKeepalive>,
    /// Requests for this path ask for the proxy's own health.
    pub health_path: Option<Box<str>>,
    /// Requests to backends say the scheme of the backend's connection.
    pub scheme_matches_backend: bool,
    /// Requests of gRPC-Web are served.
    pub grpc_web: bool,
    /// Set if HTTP/3 is served.
    pub http3: Option<Http3>,
}

/// What becomes of header fields.
#[derive(Debug, Default)]
pub struct Headers {
    /// Of those with underscores in their names.
    pub underscores: v1::client_headers::Underscores,
    /// Of X-Request-Id.
    pub request_id: v1::client_headers::RequestId,
    /// Of X-Forwarded-Client-Cert.
    pub client_cert: v1::client_headers::ForwardedClientCert,
    /// What it says of the client's certificate.
    pub cert_details: Vec<v1::client_headers::CertDetail>,
    /// What it says of the certificates that the listener serves, if anything.
    pub own: Vec<(Arc<KeyPair>, Box<str>)>,
    /// x-envoy-* fields are added.
    pub envoy: bool,
    /// Responses carry no x-ratelimit-* fields, unless a rule says otherwise.
    pub no_rate_limit: bool,
    /// Before anything else is done with a request.
    pub early_request: Option<HeaderModifier>,
    /// After anything else has been done with a response.
    pub late_response: Option<HeaderModifier>,
    /// The dot at the end of a host is removed.
    pub strip_trailing_host_dot: bool,
}

/// Bounds in time. `None`: the default. Zero: none.
#[derive(Debug, Default)]
pub struct Timeouts {
    /// Nothing moves on a TCP connection.
    pub tcp_idle: Option<Duration>,
    /// No request is under way on a connection.
    pub http_idle: Option<Duration>,
    /// From a request's first byte to its last.
    pub request_received: Option<Duration>,
    /// Nothing moves on a request.
    pub stream_idle: Option<Duration>,
    /// From a request's first byte to the end of its head.
    pub headers_received: Option<Duration>,
    /// From the end of the ClientHello to the end of the handshake.
    pub tls_handshake: Option<Duration>,
    /// From a connection's beginning until PROXY protocol header and ClientHello have been read.
    pub inspection: Option<Duration>,
}

/// What HTTP/1 is like.
#[derive(Debug)]
pub struct Http1 {
    /// HTTP/1.0 is served.
    pub http10: bool,
    /// Host of a request of HTTP/1.0 that names none.
    pub default_host: Option<HeaderValue>,
    /// Trailers are passed on.
    pub trailers: bool,
    /// Names of header fields keep the case in which they came.
    pub spelled: bool,
    /// A connection that is old enough ends as soon as nothing is under way on it.
    pub close_when_aged: bool,
    /// Protocols that nobody goes on with.
    ignored_upgrades: Vec<TextMatch>,
}

impl Client {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::ClientSettings) -> Result<Self, String> {
        let path = config.path.unwrap_or_default();
        let detection = config.ip_detection.as_ref().and_then(|d| d.source.as_ref());
        if !config.health_check_path.is_empty() && !config.health_check_path.starts_with('/') {
            return Err(format!(
                "health_check_path: `{}` is not a path",
                config.health_check_path
            ));
        }
        Ok(Self {
            no_forwarded_for_append: config
                .ip_detection
                .as_ref()
                .is_some_and(|detection| detection.no_forwarded_for_append),
            detection: detection
                .map(Detection::compile)
                .transpose()
                .map_err(|e| format!("ip_detection.{e}"))?,
            headers: match &config.headers {
                None => Headers::default(),
                Some(headers) => Headers::compile(headers).map_err(|e| format!("headers.{e}"))?,
            },
            escaped_slashes: path.escaped_slashes(),
            keep_adjacent_slashes: path.keep_adjacent_slashes,
            timeouts: config.timeouts.as_ref().map(Timeouts::new).unwrap_or_default(),
            connections: config.connections.unwrap_or_default(),
            http1: config
                .http1
                .as_ref()
                .map(Http1::compile)
                .transpose()
                .map_err(|e| format!("http1.{e}"))?,
            http2: config.http2.unwrap_or_default(),
            proxy_protocol: config.proxy_protocol.map(|proxy| proxy.optional),
            keepalive: config.tcp_keepalive.as_ref().map(keepalive),
            health_path: Some(config.health_check_path.as_str())
                .filter(|path| !path.is_empty())
                .map(Into::into),
            scheme_matches_backend: config.scheme_matches_backend,
            grpc_web: config.grpc_web,
            http3: None,
        })
    }

    /// Has X-Forwarded-Client-Cert say which of these certificates was served, if it is to say anything.
    pub fn serve_certificates(&mut self, pairs: &[Arc<KeyPair>]) {
        use v1::client_headers::ForwardedClientCert as Forwarded;
        if !matches!(
            self.headers.client_cert,
            Forwarded::AppendForward | Forwarded::SanitizeSet
        ) {
            return;
        }
        let own = |pair: &Arc<KeyPair>| (Arc::clone(pair), forwarded_cert::by(pair.chain()).into());
        self.headers.own = pairs.iter().map(own).collect();
    }

    /// Bytes that the system's buffers of a connection are asked to have; 0: as many as it likes.
    pub fn socket_buffers(&self) -> usize {
        // What the kernel takes is an i32, and it doubles that.
        usize::try_from(self.connections.socket_buffer_bytes.min(1 << 30)).unwrap_or_default()
    }

    /// Bytes that may wait in a connection's output buffer; 0: the default.
    pub fn buffer_limit(&self) -> usize {
        usize::try_from(self.connections.buffer_limit_bytes).unwrap_or(usize::MAX)
    }

    /// True if a request asks for the proxy's own health.
    pub fn asks_for_health(&self, head: &Parts) -> bool {
        self.health_path
            .as_deref()
            .is_some_and(|path| path == head.uri.path())
    }

    /// Tells the backend how long the client waits, if it is to be told.
    pub fn announce(&self, headers: &mut HeaderMap, timeout: Option<Duration>) {
        if let Some(timeout) = timeout.filter(|_| self.headers.envoy) {
            let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(ms));
        }
    }

    /// Tells the backend the path that the client asked for, if it is to be told and has been rewritten.
    pub fn mention(&self, headers: &mut HeaderMap, asked: &Uri, sent: &Uri) {
        if self.headers.envoy && asked != sent {
            let path = asked.path_and_query().map_or("/", |path| path.as_str());
            if let Ok(path) = HeaderValue::from_str(path) {
                headers.insert(ORIGINAL_PATH, path);
            }
        }
    }

    /// Tells the client how long the backend took, if it is to be told.
    pub fn account(&self, headers: &mut HeaderMap, took: Option<Duration>) {
        if let Some(took) = took.filter(|_| self.headers.envoy) {
            let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            headers.insert(SERVICE_TIME, HeaderValue::from(ms));
        }
    }

    /// Changes a response's head as its last change.
    pub fn finish_response(&self, headers: &mut HeaderMap) {
        if let Some(http3) = &self.http3 {
            headers.insert(ALT_SVC, http3.alt_svc.clone());
        }
        if let Some(modifier) = &self.headers.late_response {
            modifier.apply(headers);
        }
    }
}

impl Headers {
    fn compile(config: &v1::ClientHeaders) -> Result<Self, String> {
        let modifier = |field: &str, modifier: Option<&v1::HeaderModifier>| {
            modifier
                .map(HeaderModifier::compile)
                .transpose()
                .map_err(|e| format!("{field}: {e}"))
        };
        Ok(Self {
            underscores: config.underscores(),
            request_id: config.request_id(),
            client_cert: config.forwarded_client_cert(),
            cert_details: config.cert_details().collect(),
            envoy: config.envoy_headers,
            no_rate_limit: config.no_rate_limit_headers,
            early_request: modifier("early_request", config.early_request.as_ref())?,
            late_response: modifier("late_response", config.late_response.as_ref())?,
            strip_trailing_host_dot: config.strip_trailing_host_dot,
            own: Vec::new(),
        })
    }

    /// What X-Forwarded-Client-Cert says of a client that asked for `name` and showed this chain, if anything is to be said.
    pub fn describe(&self, chain: Option<&[CertificateDer<'_>]>, name: Option<&str>) -> Option<HeaderValue> {
        use v1::client_headers::ForwardedClientCert as Forwarded;
        if matches!(self.client_cert, Forwarded::Unspecified | Forwarded::Sanitize) {
            return None;
        }
        let own = server::served(&self.own, |(pair, _)| pair, name);
        forwarded_cert::element(chain?, &self.cert_details, own.map_or("", |(_, by)| by))
    }

    /// Deals with fields that have underscores in their names; false if the request is to be refused.
    pub fn accept_underscores(&self, headers: &mut HeaderMap) -> bool {
        use v1::client_headers::Underscores;
        let odd = |name: &HeaderName| name.as_str().contains('_');
        match self.underscores {
            Underscores::Unspecified | Underscores::Allow => true,
            Underscores::Reject => !headers.keys().any(odd),
            Underscores::Drop => {
                let named: Vec<_> = headers.keys().filter(|name| odd(name)).cloned().collect();
                for name in named {
                    headers.remove(name);
                }
                true
            }
        }
    }
}

impl Timeouts {
    fn new(config: &v1::ClientTimeouts) -> Self {
        let duration = |ms: Option<u64>| ms.map(Duration::from_millis);
        Self {
            tcp_idle: duration(config.tcp_idle_ms),
            http_idle: duration(config.http_idle_ms),
            request_received: duration(config.request_received_ms),
            stream_idle: duration(config.stream_idle_ms),
            headers_received: duration(config.request_headers_received_ms),
            tls_handshake: duration(config.tls_handshake_ms),
            inspection: duration(config.inspection_ms),
        }
    }
}

/// A bound in time that a setting may replace; zero stands for none.
pub fn bound(setting: Option<Duration>, default: Duration) -> Duration {
    match setting {
        None => default,
        Some(Duration::ZERO) => ENDLESS,
        Some(setting) => setting.min(ENDLESS),
    }
}

impl Http1 {
    fn compile(config: &v1::ClientHttp1) -> Result<Self, String> {
        let host = config.http10_default_host.as_str();
        Ok(Self {
            http10: config.http10,
            default_host: (!host.is_empty())
                .then(|| HeaderValue::from_str(host))
                .transpose()
                .map_err(|_| format!("http10_default_host: `{host}` is not a host"))?,
            trailers: config.trailers,
            spelled: config.preserve_header_case,
            close_when_aged: config.close_when_aged,
            ignored_upgrades: config
                .ignored_upgrades
                .iter()
                .enumerate()
                .map(|(i, name)| TextMatch::compile(name).map_err(|e| format!("ignored_upgrades[{i}].{e}")))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The protocols of an Upgrade field that are not ignored; `None`: none is left.
    pub fn heeded(&self, upgrade: HeaderValue) -> Option<HeaderValue> {
        if self.ignored_upgrades.is_empty() {
            return Some(upgrade);
        }
        let Ok(protocols) = upgrade.to_str() else {
            return Some(upgrade);
        };
        let ignored = |protocol: &&str| self.ignored_upgrades.iter().any(|one| one.accepts(protocol));
        let all = protocols.split(',').map(str::trim);
        let left: Vec<&str> = all.filter(|protocol| !ignored(protocol)).collect();
        if left.is_empty() {
            return None;
        }
        HeaderValue::from_str(&left.join(", ")).ok()
    }
}
