//! What an arriving request's head looks like before it is routed.
//!
//! Owns the header fields that the proxy answers for (X-Forwarded-For and -Proto, X-Request-Id, x-envoy-*), the
//! removal of hop-by-hop fields, and the normal form of the path. It trusts what the settings say and nothing else.

use std::borrow::Cow;
use std::io::Write;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, Version, request};
use sluice_config::v1::client_headers::{ForwardedClientCert, RequestId};
use sluice_config::v1::client_path::EscapedSlashes;
use uuid::Uuid;

use super::path;
use crate::listen::Client;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_ENVOY_INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const X_ENVOY_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What is known of the connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival<'a> {
    /// The other end's address.
    pub(super) peer: IpAddr,
    /// True if it spoke TLS.
    pub(super) https: bool,
    /// Proxies in front of us that are trusted to have appended to X-Forwarded-For.
    pub(super) trusted_hops: u32,
    /// What the listener says of clients, if anything.
    pub(super) client: Option<&'a Client>,
    /// What is said of the client's certificate, if it showed one and the listener wants it said.
    pub(super) certificate: Option<&'a HeaderValue>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
struct Origin {
    /// The client's address.
    client: IpAddr,
    /// Nobody in front of us is trusted.
    at_edge: bool,
}

/// A head that may be routed.
#[derive(Debug)]
pub(super) struct Admitted {
    /// The host that was asked for: lower case, without port. Empty if an HTTP/1.0 request named none.
    pub(super) host: Box<str>,
    /// The client's address as far as it can be trusted.
    pub(super) client: IpAddr,
    /// The protocol that the connection is to go on with.
    pub(super) upgrade: Option<HeaderValue>,
}

/// Why a head is not routed.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not valid.
    Invalid(&'static str),
    /// CONNECT without a protocol: this is no tunnel for anyone.
    Connect,
    /// HTTP/1.0, where it is not served.
    Old,
    /// It does not say where it comes from, but must.
    Unknown,
    /// The client is to ask again for this path: its own could be read in two ways.
    Elsewhere(HeaderValue),
}

/// Brings a head into the form in which it is routed and forwarded.
pub(super) fn admit(head: &mut request::Parts, arrival: Arrival) -> Result<Admitted, Refusal> {
    if matches!(head.version, Version::HTTP_2 | Version::HTTP_3) {
        adopt_pseudo_headers(head)?;
    }
    if head.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    if let Some(client) = arrival.client {
        prepare(head, client)?;
    }
    let host = host(head)?;
    normalise(head, arrival.client)?;
    let upgrade = strip_hop_by_hop(head);
    let origin = origin(&head.headers, arrival).ok_or(Refusal::Unknown)?;
    let client = forwarding_fields(&mut head.headers, arrival, origin);
    join_cookies(&mut head.headers);
    Ok(Admitted {
        host,
        client,
        upgrade,
    })
}

/// What a listener asks for before anything else is looked at.
fn prepare(head: &mut request::Parts, client: &Client) -> Result<(), Refusal> {
    if let Some(http1) = client.http1.as_ref().filter(|_| head.version == Version::HTTP_10) {
        if !http1.http10 {
            return Err(Refusal::Old);
        }
        match &http1.default_host {
            _ if head.headers.contains_key(HOST) => {}
            Some(host) => drop(head.headers.insert(HOST, host.clone())),
            None => return Err(Refusal::Invalid("missing host")),
        }
    }
    if !client.headers.accept_underscores(&mut head.headers) {
        return Err(Refusal::Invalid("underscore in a header's name"));
    }
    if let Some(modifier) = &client.headers.early_request {
        modifier.apply(&mut head.headers);
    }
    Ok(())
}

/// HTTP/2 names host and target in pseudo-header fields, and asks for a tunnel with CONNECT (RFC 8441).
fn adopt_pseudo_headers(head: &mut request::Parts) -> Result<(), Refusal> {
    if let Some(authority) = head.uri.authority() {
        let value =
            HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::Invalid("invalid authority"))?;
        head.headers.insert(HOST, value);
    }
    if head.method == Method::CONNECT {
        let Some(protocol) = head.extensions.remove::<h2::ext::Protocol>() else {
            return Err(Refusal::Connect);
        };
        let protocol =
            HeaderValue::from_str(protocol.as_str()).map_err(|_| Refusal::Invalid("invalid protocol"))?;
        head.method = Method::GET;
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, protocol);
        let key = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            Uuid::new_v4().as_bytes(),
        );
        if let Ok(key) = HeaderValue::try_from(key) {
            head.headers.insert("sec-websocket-key", key);
        }
    }
    let target = head
        .uri
        .path_and_query()
        .cloned()
        .ok_or(Refusal::Invalid("no path"))?;
    head.uri = target.into();
    Ok(())
}

/// The host, for routing.
fn host(head: &request::Parts) -> Result<Box<str>, Refusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match hosts.next() {
        None if head.version == Version::HTTP_10 => "",
        None => return Err(Refusal::Invalid("missing host")),
        Some(host) => host.to_str().map_err(|_| Refusal::Invalid("invalid host"))?,
    };
    if hosts.next().is_some() {
        return Err(Refusal::Invalid("several hosts"));
    }
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !bare.contains(':') => bare,
        Some((bare, _)) if bare.ends_with(']') => bare,
        _ => host,
    };
    if bare
        .bytes()
        .any(|b| matches!(b, b'/' | b'?' | b'#' | b'@' | b'\\' | b' ' | b','))
    {
        return Err(Refusal::Invalid("invalid host"));
    }
    Ok(bare.to_ascii_lowercase().into())
}

fn normalise(head: &mut request::Parts, client: Option<&Client>) -> Result<(), Refusal> {
    let current = head.uri.path();
    if !current.starts_with('/') {
        // `OPTIONS *` asks about the server as a whole.
        return if current == "*" && head.method == Method::OPTIONS {
            Ok(())
        } else {
            Err(Refusal::Invalid("invalid path"))
        };
    }
    let slashes = client.map_or(EscapedSlashes::Unspecified, |client| client.escaped_slashes);
    let merge = client.is_none_or(|client| !client.keep_adjacent_slashes);
    match path::normalise(current, slashes == EscapedSlashes::Keep, merge) {
        path::Normal::Same => Ok(()),
        path::Normal::Rewritten(path) => {
            crate::filter::path::set_path(head, &path);
            Ok(())
        }
        path::Normal::Unescaped(_) if slashes == EscapedSlashes::Reject => {
            Err(Refusal::Invalid("escaped slash"))
        }
        path::Normal::Unescaped(path) if slashes == EscapedSlashes::UnescapeAndForward => {
            crate::filter::path::set_path(head, &path);
            Ok(())
        }
        path::Normal::Unescaped(path) => {
            let target = match head.uri.query() {
                Some(query) => Cow::Owned(format!("{path}?{query}")),
                None => Cow::Borrowed(path.as_str()),
            };
            let location = HeaderValue::from_str(&target).map_err(|_| Refusal::Invalid("invalid path"))?;
            Err(Refusal::Elsewhere(location))
        }
    }
}

/// Removes what concerns only the client's connection (RFC 9110 section 7.6.1); returns the protocol that an upgrade
/// asks for.
fn strip_hop_by_hop(head: &mut request::Parts) -> Option<HeaderValue> {
    let headers = &mut head.headers;
    let upgrade = headers.remove(UPGRADE);
    let mut wants_upgrade = false;
    if headers.contains_key(CONNECTION) {
        wants_upgrade = remove_connection(headers);
    }
    for name in [
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &TRANSFER_ENCODING,
        &HTTP2_SETTINGS,
        &EXPECT,
    ] {
        headers.remove(name);
    }
    if let Some(te) = headers.get(TE) {
        let trailers = te
            .to_str()
            .is_ok_and(|te| te.split(',').any(|t| t.trim().eq_ignore_ascii_case("trailers")));
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    // HTTP/2 is not upgraded to (RFC 9113 section 3.1), and HTTP/1.0 cannot be upgraded.
    upgrade.filter(|protocol| {
        wants_upgrade && head.version != Version::HTTP_10 && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c")
    })
}

/// Removes Connection and all that it names; says whether it names `upgrade`.
fn remove_connection(headers: &mut HeaderMap) -> bool {
    let mut upgrade = false;
    let mut named = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"upgrade") {
                upgrade = true;
            } else if !token.eq_ignore_ascii_case(b"keep-alive")
                && !token.eq_ignore_ascii_case(b"close")
                && let Ok(name) = HeaderName::from_bytes(token)
            {
                named.push(name);
            }
        }
    }
    headers.remove(CONNECTION);
    for name in named {
        // What frames or addresses the message is not for a hop to take away.
        if name != HOST && name != CONTENT_LENGTH && name != TE && !name.as_str().starts_with("x-forwarded-")
        {
            headers.remove(name);
        }
    }
    upgrade
}

/// Removes hop-by-hop fields from a backend's response.
pub(super) fn strip_response(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        remove_connection(headers);
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &TRANSFER_ENCODING, &UPGRADE] {
        headers.remove(name);
    }
}

/// The fields by which a backend learns of the client. Returns the client's address.
fn forwarding_fields(headers: &mut HeaderMap, arrival: Arrival, origin: Origin) -> IpAddr {
    let Origin { client, at_edge } = origin;
    forward_certificate(headers, arrival);
    strip_internal(headers, at_edge);
    append_forwarded_for(headers, arrival.peer);
    if at_edge || !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(
            X_FORWARDED_PROTO,
            HeaderValue::from_static(if arrival.https { "https" } else { "http" }),
        );
    }
    if is_private(client) {
        headers.insert(X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
    } else if let Ok(address) = HeaderValue::try_from(client.to_string()) {
        headers.insert(X_ENVOY_EXTERNAL_ADDRESS, address);
    }
    let rule = arrival
        .client
        .map_or(RequestId::Unspecified, |client| client.headers.request_id);
    let make = match rule {
        RequestId::Unspecified => at_edge || !headers.contains_key(X_REQUEST_ID),
        RequestId::PreserveOrGenerate => !headers.contains_key(X_REQUEST_ID),
        RequestId::Generate => true,
        RequestId::Preserve | RequestId::Disable => false,
    };
    if make {
        let mut buffer = Uuid::encode_buffer();
        let id = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(X_REQUEST_ID, id);
        }
    }
    client.to_canonical()
}

/// Removes what only a trusted hop may say.
fn strip_internal(headers: &mut HeaderMap, at_edge: bool) {
    headers.remove(X_ENVOY_INTERNAL);
    headers.remove(X_ENVOY_EXTERNAL_ADDRESS);
    if at_edge && headers.keys().any(|name| name.as_str().starts_with("x-envoy-")) {
        let forged: Vec<_> = headers
            .keys()
            .filter(|name| name.as_str().starts_with("x-envoy-"))
            .cloned()
            .collect();
        for name in forged {
            headers.remove(name);
        }
    }
}

/// Passes on what trusted proxies say of a client's certificate, or says it, as the listener asks for.
fn forward_certificate(headers: &mut HeaderMap, arrival: Arrival) {
    let rule = arrival
        .client
        .map_or(ForwardedClientCert::Sanitize, |client| client.headers.client_cert);
    match (rule, arrival.certificate) {
        (ForwardedClientCert::AlwaysForwardOnly, _) | (ForwardedClientCert::ForwardOnly, Some(_)) => {}
        (ForwardedClientCert::SanitizeSet, Some(element)) => {
            headers.insert(X_FORWARDED_CLIENT_CERT, element.clone());
        }
        (ForwardedClientCert::AppendForward, Some(element)) => {
            let mut elements: Vec<&[u8]> = headers
                .get_all(X_FORWARDED_CLIENT_CERT)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect();
            elements.push(element.as_bytes());
            if let Ok(all) = HeaderValue::from_bytes(&elements.join(&b","[..])) {
                headers.insert(X_FORWARDED_CLIENT_CERT, all);
            }
        }
        _ => drop(headers.remove(X_FORWARDED_CLIENT_CERT)),
    }
}

/// Where a request comes from; `None`: it does not say, but must.
fn origin(headers: &HeaderMap, arrival: Arrival) -> Option<Origin> {
    let Some(detection) = arrival.client.and_then(|client| client.detection.as_ref()) else {
        return Some(Origin {
            client: client_address(headers, arrival),
            at_edge: arrival.trusted_hops == 0,
        });
    };
    let (client, trusted) = detection.client(headers, arrival.peer)?;
    Some(Origin {
        client,
        at_edge: !trusted,
    })
}

/// The client's address as far as it can be trusted: the peer's, or what the last trusted hop has seen.
fn client_address(headers: &HeaderMap, arrival: Arrival) -> IpAddr {
    let Some(skip) = arrival.trusted_hops.checked_sub(1) else {
        return arrival.peer;
    };
    let lines: Vec<_> = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    let entries = lines.iter().rev().flat_map(|line| line.rsplit(','));
    entries
        .map(str::trim)
        .nth(skip as usize)
        .and_then(|entry| entry.parse().ok())
        .unwrap_or(arrival.peer)
}

fn append_forwarded_for(headers: &mut HeaderMap, peer: IpAddr) {
    let mut text = Vec::with_capacity(40);
    for value in headers.get_all(X_FORWARDED_FOR) {
        if value.to_str().is_ok() {
            text.extend_from_slice(value.as_bytes());
            text.push(b',');
        }
    }
    // Writing to memory cannot fail.
    let _ = write!(text, "{}", peer.to_canonical());
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

/// RFC 1918, RFC 4193 and loopback.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

/// HTTP/2 may spread cookies over several fields; HTTP/1.1 may not (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut values = headers.get_all(COOKIE).iter();
    if values.next().is_none() || values.next().is_none() {
        return;
    }
    let parts: Vec<_> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests;
