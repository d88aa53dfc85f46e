//! The answer of the echo backend.
//!
//! Field names and the meaning of `/status/CODE`, `?delay=`, `/health` and `X-Echo-Set-Header` are those of the
//! conformance tests' echo server.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use serde::Serialize;

/// Longest `?delay=`.
const LONGEST_DELAY: Duration = Duration::from_mins(5);

/// Where the backend runs, as the answers say it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    http_port: String,
    namespace: String,
    ingress: String,
    service: String,
    pod: String,
}

impl Identity {
    pub(super) fn from_environment(port: u16) -> Self {
        let variable = |name| std::env::var(name).unwrap_or_default();
        Self {
            http_port: port.to_string(),
            namespace: variable("NAMESPACE"),
            ingress: variable("INGRESS_NAME"),
            service: variable("SERVICE_NAME"),
            pod: variable("POD_NAME"),
        }
    }
}

/// The request as the backend saw it.
#[derive(Debug, Serialize)]
struct Seen<'a> {
    path: &'a str,
    host: &'a str,
    method: &'a str,
    proto: &'static str,
    headers: BTreeMap<String, Vec<String>>,
    #[serde(flatten)]
    identity: &'a Identity,
}

/// Answers one request.
pub(super) async fn answer(request: Request<Incoming>, identity: &Identity) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    // Read to its end, so that the connection can go on.
    let _ = body.collect().await;
    let path = head.uri.path();
    if path == "/health" {
        return plain(StatusCode::OK, "OK");
    }
    if let Some(code) = path.strip_prefix("/status/") {
        let status = code.parse().ok().filter(|code| (200..600).contains(code));
        let status = status.and_then(|code: u16| StatusCode::from_u16(code).ok());
        return plain(status.unwrap_or(StatusCode::BAD_REQUEST), "");
    }
    match delay(head.uri.query().unwrap_or_default()) {
        Err(value) => {
            return plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("delay: `{value}` is no duration\n"),
            );
        }
        Ok(Some(delay)) => tokio::time::sleep(delay.min(LONGEST_DELAY)).await,
        Ok(None) => {}
    }
    let target = head
        .uri
        .path_and_query()
        .map_or(path, http::uri::PathAndQuery::as_str);
    let host = match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => head
            .headers
            .get(HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default(),
    };
    let seen = Seen {
        path: target,
        host,
        method: head.method.as_str(),
        proto: protocol(head.version),
        headers: headers(&head.headers),
        identity,
    };
    let json = serde_json::to_string_pretty(&seen).unwrap_or_default();
    let mut response = plain(StatusCode::OK, json + "\n");
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    set_headers(&head.headers, response.headers_mut());
    response
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// Headers with the words of their names capitalised, without Host.
fn headers(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut seen = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in headers.iter().filter(|(name, _)| *name != HOST) {
        seen.entry(capitalise(name.as_str()))
            .or_default()
            .push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    seen
}

fn capitalise(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| {
            first.to_ascii_uppercase().to_string() + letters.as_str()
        })
    });
    words.collect::<Vec<_>>().join("-")
}

/// `X-Echo-Set-Header: name:value, name:value` asks for headers of the response.
fn set_headers(request: &HeaderMap, response: &mut HeaderMap) {
    let wanted = request
        .get_all("x-echo-set-header")
        .iter()
        .filter_map(|value| value.to_str().ok());
    for pair in wanted.flat_map(|value| value.split(',')) {
        let (name, value) = pair.trim().split_once(':').unwrap_or((pair.trim(), ""));
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.trim().parse::<HeaderValue>()) {
            response.append(name, value);
        }
    }
}

/// The `delay` of a query: `500ms`, `2s`, `1m`.
fn delay(query: &str) -> Result<Option<Duration>, &str> {
    let Some(value) = query.split('&').find_map(|pair| pair.strip_prefix("delay=")) else {
        return Ok(None);
    };
    let split = value
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(value.len());
    let (number, unit) = value.split_at(split);
    let scale = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(value),
    };
    let seconds = number.parse::<f64>().map_err(|_| value)? * scale;
    Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays() {
        assert_eq!(delay("a=b&delay=500ms"), Ok(Some(Duration::from_millis(500))));
        assert_eq!(delay("delay=1.5s"), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(delay("a=delay"), Ok(None));
        for wrong in ["delay=5", "delay=-1s", "delay=xs", "delay=1h"] {
            assert!(delay(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_capitalised() {
        assert_eq!(capitalise("x-request-id"), "X-Request-Id");
        assert_eq!(capitalise("-a--b"), "-A--B");
    }

    #[test]
    fn asked_for_headers() {
        let mut request = HeaderMap::new();
        request.append("x-echo-set-header", "X-A:1, x-b : 2,bad name:3".parse().unwrap());
        request.append("x-echo-set-header", "x-a:4".parse().unwrap());
        let mut response = HeaderMap::new();
        set_headers(&request, &mut response);
        assert_eq!(response.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "4"]);
        assert_eq!(response.len(), 2);
    }
}
