//! The attributes of a request that has not been answered yet.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::SystemTime;

use http::header::{HOST, HeaderName, REFERER, USER_AGENT};
use http::request::Parts;
use serde_json::{Map, Value};

use super::{Attribute, Attributes};
use crate::filter::Facts;
use crate::filter::tokens::Tokens;

/// All that there may be of it.
pub const NAMES: &[&str] = &[
    "request.path",
    "request.url_path",
    "request.host",
    "request.scheme",
    "request.method",
    "request.headers",
    "request.referer",
    "request.useragent",
    "request.time",
    "request.id",
    "request.protocol",
    "request.query",
    "source.address",
    "source.port",
    "destination.address",
    "destination.port",
    "connection.mtls",
    "connection.requested_server_name",
    "connection.tls_version",
    "connection.subject_peer_certificate",
    "connection.dns_san_peer_certificate",
    "connection.uri_san_peer_certificate",
    "connection.sha256_peer_certificate_digest",
    "metadata.filter_metadata",
    "xds.route_name",
];

/// Where Envoy's JWT filter leaves the claims.
const JWT_NAMESPACE: &str = "envoy.filters.http.jwt_authn";
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a connection is known by.
#[derive(Debug, Clone, Copy)]
pub struct Wire<'a> {
    /// The peer's address.
    pub peer: SocketAddr,
    /// Our own.
    pub local: SocketAddr,
    /// `None`: it is not TLS.
    pub tls: Option<Tls<'a>>,
}

/// What a TLS connection is known by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tls<'a> {
    /// The name that the client asked for.
    pub server_name: Option<&'a str>,
    /// Such as `TLSv1.3`.
    pub version: Option<&'static str>,
    /// Of the client's certificate.
    pub peer: Option<&'a Peer>,
}

/// What a client's certificate says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// In the form of RFC 2253.
    pub subject: String,
    /// The first name for the DNS.
    pub dns_san: Option<String>,
    /// The first URI.
    pub uri_san: Option<String>,
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub sha256: String,
}

/// A request among filters.
pub struct OfRequest<'a> {
    /// Its head, as filters have left it.
    pub head: &'a Parts,
    /// What else is known of it.
    pub facts: &'a Facts<'a>,
    /// What its tokens say.
    pub tokens: &'a Tokens,
    /// Its connection.
    pub wire: Wire<'a>,
}

impl Attributes for OfRequest<'_> {
    fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        let (root, rest) = name.split_once('.')?;
        match root {
            "request" => of_head(self.head, self.facts.https, rest),
            "source" | "destination" => self.of_address(root, rest),
            "connection" => of_connection(&self.wire, rest),
            "metadata" if rest == "filter_metadata" => Some(Attribute::Json(metadata(self.tokens))),
            "xds" if rest == "route_name" && !self.facts.route.is_empty() => {
                Some(Attribute::text(self.facts.route))
            }
            _ => None,
        }
    }

    fn names(&self) -> &'static [&'static str] {
        NAMES
    }
}

impl OfRequest<'_> {
    fn of_address(&self, whose: &str, what: &str) -> Option<Attribute<'_>> {
        let address = match whose {
            // Of a client behind others the port is not known.
            "source" if self.facts.client != self.wire.peer.ip().to_canonical() => {
                SocketAddr::new(self.facts.client, 0)
            }
            "source" => self.wire.peer,
            _ => self.wire.local,
        };
        match what {
            "address" => Some(Attribute::text(
                SocketAddr::new(address.ip().to_canonical(), address.port()).to_string(),
            )),
            "port" => Some(Attribute::Int(address.port().into())),
            _ => None,
        }
    }
}

/// What a request's head says, by the name after `request.`.
pub fn of_head<'a>(head: &'a Parts, https: bool, name: &str) -> Option<Attribute<'a>> {
    let text = |text: &'a str| Some(Attribute::text(text));
    let field = |name| {
        head.headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
    };
    let path = || head.uri.path_and_query().map_or("/", |path| path.as_str());
    let host = || field(HOST).or_else(|| head.uri.authority().map(|host| Cow::Borrowed(host.as_str())));
    let scheme = if https { "https" } else { "http" };
    match name {
        "path" => text(path()),
        "url_path" => text(head.uri.path()),
        "query" => text(head.uri.query().unwrap_or_default()),
        "host" => host().map(Attribute::Text),
        "scheme" => text(scheme),
        "method" => text(head.method.as_str()),
        "headers" => {
            let mut more = vec![
                (":path", Cow::Borrowed(path())),
                (":method", Cow::Borrowed(head.method.as_str())),
                (":scheme", Cow::Borrowed(scheme)),
            ];
            more.extend(host().map(|host| (":authority", host)));
            Some(Attribute::Fields {
                headers: &head.headers,
                more,
            })
        }
        "referer" => field(REFERER).map(Attribute::Text),
        "useragent" => field(USER_AGENT).map(Attribute::Text),
        "id" => field(X_REQUEST_ID).map(Attribute::Text),
        "time" => Some(Attribute::Time(SystemTime::now())),
        "protocol" => text(match head.version {
            http::Version::HTTP_3 => "HTTP/3",
            http::Version::HTTP_2 => "HTTP/2",
            http::Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        }),
        _ => None,
    }
}

/// What is known of a connection, by the name after `connection.`.
pub fn of_connection<'a>(wire: &Wire<'a>, name: &str) -> Option<Attribute<'a>> {
    let peer = wire.tls.and_then(|tls| tls.peer);
    match name {
        "mtls" => Some(Attribute::Bool(peer.is_some())),
        "requested_server_name" => wire.tls?.server_name.map(Attribute::text),
        "tls_version" => wire.tls?.version.map(Attribute::text),
        "subject_peer_certificate" => Some(Attribute::text(peer?.subject.as_str())),
        "dns_san_peer_certificate" => peer?.dns_san.as_deref().map(Attribute::text),
        "uri_san_peer_certificate" => peer?.uri_san.as_deref().map(Attribute::text),
        "sha256_peer_certificate_digest" => Some(Attribute::text(peer?.sha256.as_str())),
        _ => None,
    }
}

/// The claims of verified tokens, by their providers.
pub fn metadata(tokens: &Tokens) -> Value {
    let mut providers = Map::new();
    for (provider, claims) in tokens.all() {
        providers.insert(provider.to_owned(), Value::Object(claims.clone()));
    }
    let mut all = Map::new();
    if !providers.is_empty() {
        all.insert(JWT_NAMESPACE.to_owned(), Value::Object(providers));
    }
    Value::Object(all)
}
