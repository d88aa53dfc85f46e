//! The header fields that the proxy answers for: X-Forwarded-For, -Proto and -Client-Cert, X-Request-Id, x-envoy-*.

use std::io::Write;
use std::net::IpAddr;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use sluice_config::v1::client_headers::{ForwardedClientCert, RequestId};
use uuid::Uuid;

use super::Arrival;
use crate::listen::Client;

pub(in crate::forward) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(in crate::forward) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_ENVOY_INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
pub(super) const X_ENVOY_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
pub(super) const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
struct Origin {
    /// The client's address.
    client: IpAddr,
    /// Nobody in front of us is trusted.
    at_edge: bool,
}

/// Sets the fields by which a backend learns of the client. Returns the client's address; `None`: the request does not say
/// where it comes from, but must.
pub(super) fn fields(headers: &mut HeaderMap, arrival: Arrival) -> Option<IpAddr> {
    let Origin { client, at_edge } = origin(headers, arrival)?;
    forward_certificate(headers, arrival);
    strip_internal(headers, at_edge);
    if arrival
        .client
        .is_none_or(|client| !client.no_forwarded_for_append)
    {
        append_forwarded_for(headers, arrival.peer);
    }
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
    request_id(headers, arrival.client, at_edge);
    Some(client.to_canonical())
}

/// Keeps, makes or removes the request's identifier, as the listener asks for.
fn request_id(headers: &mut HeaderMap, client: Option<&Client>, at_edge: bool) {
    let rule = client.map_or(RequestId::Unspecified, |client| client.headers.request_id);
    let make = match rule {
        RequestId::Unspecified => at_edge || !headers.contains_key(X_REQUEST_ID),
        RequestId::PreserveOrGenerate => !headers.contains_key(X_REQUEST_ID),
        RequestId::Generate => true,
        RequestId::Preserve => false,
        RequestId::Disable => {
            headers.remove(X_REQUEST_ID);
            false
        }
    };
    if make {
        let mut buffer = Uuid::encode_buffer();
        let id = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(X_REQUEST_ID, id);
        }
    }
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
