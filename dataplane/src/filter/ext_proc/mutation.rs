//! Heads as a processor sees them, and what its answers change of them.
//!
//! What frames or addresses a message is not a processor's to change: Host, the method, the scheme, the length, what is
//! between two hops, and Envoy's own headers. The path is.

use bytes::Bytes;
use http::header::HeaderName;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use super::proto;

/// Headers as a processor sees them.
pub fn headers(headers: &HeaderMap) -> proto::HeaderMap {
    let fields = headers
        .iter()
        .map(|(name, value)| field(name.as_str(), value.as_bytes()));
    proto::HeaderMap {
        headers: fields.collect(),
    }
}

/// Adds pseudo-header fields, in front.
pub fn pseudo(fields: &[(&str, &[u8])], to: &mut proto::HeaderMap) {
    let fields = fields.iter().map(|(name, value)| field(name, value));
    to.headers.splice(0..0, fields);
}

fn field(name: &str, value: &[u8]) -> proto::HeaderValue {
    proto::HeaderValue {
        key: name.to_owned(),
        value: String::new(),
        raw_value: value.to_vec(),
    }
}

/// What of a head besides its headers a processor may change.
pub enum Start<'a> {
    /// A request's target.
    Request(&'a mut Uri),
    /// A response's status.
    Response(&'a mut StatusCode),
    /// Nothing: these are trailers.
    Trailers,
}

/// Changes a head.
pub fn apply(mutation: &proto::HeaderMutation, headers: &mut HeaderMap, mut start: Start<'_>) {
    for name in &mutation.remove_headers {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes())
            && may_change(&name)
        {
            headers.remove(name);
        }
    }
    for option in &mutation.set_headers {
        let Some(header) = &option.header else { continue };
        let value = if header.raw_value.is_empty() {
            header.value.as_bytes()
        } else {
            &header.raw_value
        };
        if header.key.starts_with(':') {
            set_start(&header.key, value, &mut start);
            continue;
        }
        let name = HeaderName::from_bytes(header.key.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) else {
            continue;
        };
        if may_change(&name) {
            set(headers, name, value, option);
        }
    }
}

/// `append` goes before the action; without either, the value takes the place of others, as it does in Envoy.
fn set(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue, option: &proto::HeaderValueOption) {
    let appends = option.append.as_ref().map(|append| append.value);
    let is_there = headers.contains_key(&name);
    match (appends, option.append_action) {
        (Some(true), _) => drop(headers.append(name, value)),
        (None, 1) if is_there => {}
        (None, 3) if !is_there => {}
        _ => drop(headers.insert(name, value)),
    }
}

fn set_start(name: &str, value: &[u8], start: &mut Start<'_>) {
    match start {
        Start::Request(target) if name == ":path" => {
            if let Ok(path) = PathAndQuery::try_from(value)
                && path.as_str().starts_with('/')
            {
                **target = path.into();
            }
        }
        Start::Response(status) if name == ":status" => {
            if let Ok(other) = StatusCode::from_bytes(value)
                && !other.is_informational()
            {
                **status = other;
            }
        }
        _ => {}
    }
}

fn may_change(name: &HeaderName) -> bool {
    const FIXED: [&str; 8] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "keep-alive",
    ];
    let name = name.as_str();
    !FIXED.contains(&name) && !name.starts_with("x-envoy-")
}

/// The response that a processor asks for: status, headers, body.
pub fn immediate(from: proto::ImmediateResponse) -> (StatusCode, HeaderMap, Bytes) {
    let status = from
        .status
        .and_then(|status| u16::try_from(status.code).ok())
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(|status| !status.is_informational())
        .unwrap_or(StatusCode::OK);
    let mut headers = HeaderMap::new();
    if let Some(mutation) = &from.headers {
        apply(mutation, &mut headers, Start::Trailers);
    }
    (status, headers, from.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &str, value: &str, append: Option<bool>, action: i32) -> proto::HeaderValueOption {
        proto::HeaderValueOption {
            header: Some(proto::HeaderValue {
                key: name.to_owned(),
                value: String::new(),
                raw_value: value.as_bytes().to_vec(),
            }),
            append: append.map(|value| crate::filter::auth::proto::BoolValue { value }),
            append_action: action,
        }
    }

    #[test]
    fn headers_are_set_as_the_options_say() {
        let mut headers = HeaderMap::new();
        headers.insert("a", "1".parse().unwrap());
        headers.insert("b", "1".parse().unwrap());
        headers.insert("c", "1".parse().unwrap());
        headers.insert("gone", "1".parse().unwrap());
        let mutation = proto::HeaderMutation {
            set_headers: vec![
                option("a", "2", Some(true), 0),
                option("b", "2", None, 0),
                option("c", "2", None, 1),
                option("d", "2", None, 3),
                option("e", "2", None, 1),
            ],
            remove_headers: vec!["GONE".to_owned()],
        };
        apply(&mutation, &mut headers, Start::Trailers);
        let values = |name: &str| {
            headers
                .get_all(name)
                .iter()
                .map(|v| v.to_str().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(values("a"), ["1", "2"]);
        assert_eq!(values("b"), ["2"]);
        assert_eq!(values("c"), ["1"]);
        assert!(values("d").is_empty() && values("gone").is_empty());
        assert_eq!(values("e"), ["2"]);
    }

    #[test]
    fn what_frames_and_addresses_a_message_stays() {
        let mut headers = HeaderMap::new();
        headers.insert("host", "h".parse().unwrap());
        headers.insert("content-length", "3".parse().unwrap());
        let mut target = Uri::from_static("/a");
        let mutation = proto::HeaderMutation {
            set_headers: vec![
                option("host", "x", None, 0),
                option("Content-Length", "9", None, 0),
                option("transfer-encoding", "chunked", None, 0),
                option("x-envoy-internal", "true", None, 0),
                option(":method", "DELETE", None, 0),
                option(":path", "no path", None, 0),
                option("bad name", "x", None, 0),
                option("x", "a\nb", None, 0),
            ],
            remove_headers: vec!["host".to_owned(), ":path".to_owned(), "content-length".to_owned()],
        };
        apply(&mutation, &mut headers, Start::Request(&mut target));
        assert_eq!(headers.len(), 2);
        assert_eq!(
            (&headers["host"], &headers["content-length"]),
            (&"h".parse().unwrap(), &"3".parse().unwrap())
        );
        assert_eq!(target, "/a");
        let path = proto::HeaderMutation {
            set_headers: vec![option(":path", "/b?c", None, 0)],
            remove_headers: Vec::new(),
        };
        apply(&path, &mut headers, Start::Request(&mut target));
        assert_eq!(target, "/b?c");
    }
}
