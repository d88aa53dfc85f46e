//! What a listener says of its clients, compiled.
//!
//! Owns settings only; `listen` and `forward` act on them. A listener that says nothing has none of this.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{ALT_SVC, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Uri};
use ipnet::IpNet;
use sluice_config::v1;

use super::Http3;
use crate::filter::HeaderModifier;
use crate::upstream::tuning::keepalive;

const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Settings of one listener.
#[derive(Debug)]
pub struct Client {
    /// Whose address a client has; `None`: as the proxy's settings say.
    pub detection: Option<Detection>,
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
    /// Set if HTTP/3 is served.
    pub http3: Option<Http3>,
}

/// How the client's address is found.
#[derive(Debug)]
pub enum Detection {
    /// What so many trusted proxies have appended to X-Forwarded-For.
    Hops(u32),
    /// The last of X-Forwarded-For that is not of a trusted network.
    Networks(Vec<IpNet>),
    /// What a header says.
    Header {
        /// The header.
        name: HeaderName,
        /// Without a valid one the request is refused.
        fail_closed: bool,
    },
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
    /// x-envoy-* fields are added.
    pub envoy: bool,
    /// Responses carry no x-ratelimit-* fields, unless a rule says otherwise.
    pub no_rate_limit: bool,
    /// Before anything else is done with a request.
    pub early_request: Option<HeaderModifier>,
    /// After anything else has been done with a response.
    pub late_response: Option<HeaderModifier>,
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
            http3: None,
        })
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

impl Detection {
    fn compile(config: &v1::client_ip_detection::Source) -> Result<Self, String> {
        use v1::client_ip_detection::Source;
        Ok(match config {
            Source::TrustedHops(hops) => Self::Hops(*hops),
            Source::TrustedNetworks(networks) => {
                let nets = networks.cidrs.iter().map(|cidr| network(cidr));
                Self::Networks(nets.collect::<Result<_, _>>()?)
            }
            Source::Header(header) => Self::Header {
                name: HeaderName::from_bytes(header.name.as_bytes())
                    .map_err(|_| format!("header.name: `{}` is not a header name", header.name))?,
                fail_closed: header.fail_closed,
            },
        })
    }

    /// The client's address, and whether the peer is trusted to speak of it. `None`: the request is to be refused.
    pub fn client(&self, headers: &HeaderMap, peer: IpAddr) -> Option<(IpAddr, bool)> {
        match self {
            Self::Hops(0) => Some((peer, false)),
            Self::Hops(hops) => {
                let mut entries = forwarded_for(headers).into_iter().rev();
                let address = entries.nth(*hops as usize - 1).and_then(|entry| address(&entry));
                Some((address.unwrap_or(peer), true))
            }
            Self::Networks(networks) => {
                let trusted = |address: IpAddr| networks.iter().any(|net| net.contains(&address));
                if !trusted(peer) {
                    return Some((peer, false));
                }
                let mut client = peer;
                for entry in forwarded_for(headers).iter().rev() {
                    // Who appended this is trusted, but it says nothing of use.
                    let Some(entry) = address(entry) else { break };
                    client = entry;
                    if !trusted(entry) {
                        break;
                    }
                }
                Some((client, true))
            }
            Self::Header { name, fail_closed } => {
                let mut values = headers.get_all(name).iter();
                let only = values.next().filter(|_| values.next().is_none());
                match only.and_then(|value| value.to_str().ok()).and_then(address) {
                    Some(address) => Some((address, false)),
                    None if *fail_closed => None,
                    None => Some((peer, false)),
                }
            }
        }
    }
}

/// The entries of X-Forwarded-For, over all its fields.
fn forwarded_for(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|entry| String::from_utf8_lossy(entry).trim().to_owned())
        .collect()
}

/// An address as a header has it: bare, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(text)
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<std::net::SocketAddr>().map(|address| address.ip()))
        .ok()
        .map(|address| address.to_canonical())
}

fn network(cidr: &str) -> Result<IpNet, String> {
    cidr.parse::<IpNet>()
        .or_else(|_| cidr.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("trusted_networks.cidrs: `{cidr}` is not a network"))
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
        })
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
        }
    }
}

/// A bound in time that a setting may replace; zero stands for none.
pub fn bound(setting: Option<Duration>, default: Duration) -> Duration {
    match setting {
        None => default,
        // As good as none, and no clock runs over.
        Some(Duration::ZERO) => Duration::from_hours(24 * 365),
        Some(setting) => setting,
    }
}

impl Http1 {
    fn compile(config: &v1::ClientHttp1) -> Result<Self, String> {
        if config.preserve_header_case {
            return Err("preserve_header_case: not known to this version".into());
        }
        let host = config.http10_default_host.as_str();
        Ok(Self {
            http10: config.http10,
            default_host: (!host.is_empty())
                .then(|| HeaderValue::from_str(host))
                .transpose()
                .map_err(|_| format!("http10_default_host: `{host}` is not a host"))?,
            trailers: config.trailers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        headers
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn hops_are_counted_from_the_end() {
        let find = |hops, lines: &[&str]| {
            Detection::Hops(hops)
                .client(&headers(lines), ip("10.0.0.1"))
                .unwrap()
                .0
        };
        assert_eq!(find(0, &["192.0.2.1"]), ip("10.0.0.1"));
        assert_eq!(find(1, &["forged, 192.0.2.1"]), ip("192.0.2.1"));
        assert_eq!(find(2, &["192.0.2.1", "192.0.2.2"]), ip("192.0.2.1"));
        assert_eq!(find(3, &["192.0.2.1", "192.0.2.2"]), ip("10.0.0.1"));
        assert_eq!(find(1, &["nonsense"]), ip("10.0.0.1"));
    }

    #[test]
    fn networks_are_skipped_from_the_end() {
        let networks = Detection::Networks(vec![
            network("10.0.0.0/8").unwrap(),
            network("2001:db8::1").unwrap(),
        ]);
        let find = |peer, lines: &[&str]| networks.client(&headers(lines), ip(peer)).unwrap();
        assert_eq!(find("192.0.2.9", &["1.1.1.1"]), (ip("192.0.2.9"), false));
        assert_eq!(
            find("10.0.0.1", &["forged, 192.0.2.1:4711, [2001:db8::1], 10.1.1.1"]),
            (ip("192.0.2.1"), true)
        );
        assert_eq!(find("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), (ip("10.0.0.3"), true));
        assert_eq!(
            find("10.0.0.1", &["192.0.2.1, nonsense,10.0.0.2"]),
            (ip("10.0.0.2"), true)
        );
        assert_eq!(find("10.0.0.1", &[]), (ip("10.0.0.1"), true));
        assert!(network("10.0.0.0/33").is_err());
    }

    #[test]
    fn a_header_may_be_demanded() {
        let detection = |fail_closed| Detection::Header {
            name: X_FORWARDED_FOR,
            fail_closed,
        };
        let peer = ip("10.0.0.1");
        let one = headers(&["192.0.2.1"]);
        assert_eq!(detection(true).client(&one, peer), Some((ip("192.0.2.1"), false)));
        for bad in [
            headers(&[]),
            headers(&["nonsense"]),
            headers(&["192.0.2.1", "192.0.2.2"]),
        ] {
            assert_eq!(detection(true).client(&bad, peer), None);
            assert_eq!(detection(false).client(&bad, peer), Some((peer, false)));
        }
    }
}
