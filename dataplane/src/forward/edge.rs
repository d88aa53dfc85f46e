//! What an arriving request's head looks like before it is routed.
//!
//! Owns the removal of hop-by-hop fields and the normal form of host and path; `forwarded` owns the header fields that the
//! proxy answers for. It trusts what the settings say and nothing else.

mod forwarded;

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, Uri, Version, request};
use sluice_config::v1::client_path::EscapedSlashes;
use uuid::Uuid;

pub(super) use forwarded::{X_FORWARDED_FOR, X_REQUEST_ID};

use super::path;
use crate::listen::{Client, Fingerprints};

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
    /// What was computed of the client's ClientHello, if anything.
    pub(super) fingerprints: Option<&'a Fingerprints>,
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
    /// CONNECT that does not say where to.
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
        adopt_destination(head)?;
    }
    if let Some(client) = arrival.client {
        prepare(head, client, arrival.fingerprints)?;
    }
    let host = host(head)?;
    normalise(head, arrival.client)?;
    let upgrade = strip_hop_by_hop(head, arrival.client);
    let client = forwarded::fields(&mut head.headers, arrival).ok_or(Refusal::Unknown)?;
    join_cookies(&mut head.headers);
    Ok(Admitted {
        host,
        client,
        upgrade,
    })
}

/// What a listener asks for before anything else is looked at.
fn prepare(
    head: &mut request::Parts,
    client: &Client,
    fingerprints: Option<&Fingerprints>,
) -> Result<(), Refusal> {
    if client.headers.strip_trailing_host_dot {
        strip_trailing_dot(&mut head.headers);
    }
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
        modifier.apply_with(&mut head.headers, fingerprints);
    }
    Ok(())
}

/// HTTP/2 and HTTP/3 name host and target in pseudo-header fields, and ask for a tunnel with CONNECT (RFC 8441, RFC 9220).
fn adopt_pseudo_headers(head: &mut request::Parts) -> Result<(), Refusal> {
    if let Some(authority) = head.uri.authority() {
        let value =
            HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::Invalid("invalid authority"))?;
        head.headers.insert(HOST, value);
    }
    if head.method == Method::CONNECT {
        let Some(protocol) = head.extensions.remove::<h2::ext::Protocol>() else {
            return Ok(());
        };
        let protocol =
            HeaderValue::from_str(protocol.as_str()).map_err(|_| Refusal::Invalid("invalid protocol"))?;
        // The backend would wait for content that never comes, and take the connection's next request for it.
        if head.headers.contains_key(CONTENT_LENGTH) {
            return Err(Refusal::Invalid("CONNECT has no content"));
        }
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

/// Takes the dot off the end of a host, whether a port follows it or not.
fn strip_trailing_dot(headers: &mut HeaderMap) {
    let Some(host) = headers.get(HOST).map(HeaderValue::as_bytes) else {
        return;
    };
    // Within brackets is an address.
    let after_brackets = host.iter().rposition(|byte| *byte == b']').unwrap_or_default();
    let colon = host[after_brackets..].iter().rposition(|byte| *byte == b':');
    let (name, port) = host.split_at(colon.map_or(host.len(), |at| after_brackets + at));
    let Some(name) = name.strip_suffix(b".") else {
        return;
    };
    if let Ok(stripped) = HeaderValue::from_bytes(&[name, port].concat()) {
        headers.insert(HOST, stripped);
    }
}

/// CONNECT names where the tunnel is to lead (RFC 9110 section 9.3.6), which Host says from now on. It has no path: it is routed
/// as `/` is, and rules say whether they serve it.
fn adopt_destination(head: &mut request::Parts) -> Result<(), Refusal> {
    let authority = head.uri.authority().ok_or(Refusal::Connect)?;
    if authority.port_u16().is_none() || authority.as_str().contains('@') {
        return Err(Refusal::Invalid("CONNECT needs a host and a port"));
    }
    if head.headers.contains_key(CONTENT_LENGTH) || head.headers.contains_key(TRANSFER_ENCODING) {
        return Err(Refusal::Invalid("CONNECT has no content"));
    }
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::Invalid("invalid host"))?;
    // Somebody on the way may have believed the other.
    if head
        .headers
        .get_all(HOST)
        .iter()
        .any(|other| !other.as_bytes().eq_ignore_ascii_case(host.as_bytes()))
    {
        return Err(Refusal::Invalid("target and host differ"));
    }
    head.headers.insert(HOST, host);
    head.uri = Uri::from_static("/");
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
fn strip_hop_by_hop(head: &mut request::Parts, client: Option<&Client>) -> Option<HeaderValue> {
    let headers = &mut head.headers;
    let mut upgrade = headers.remove(UPGRADE);
    if let Some(http1) = client.and_then(|client| client.http1.as_ref())
        && head.version == Version::HTTP_11
    {
        upgrade = upgrade.and_then(|upgrade| http1.heeded(upgrade));
    }
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
