//! Texts with Envoy's command operators in them, such as `%REQ(:path)%`.
//!
//! Operators that are not known, and a percent sign that begins none, stay as they are.

use bytes::Bytes;
use http::header::{HOST, HeaderName};
use http::request::Parts;
use http::{Method, StatusCode, Uri, Version};

use super::Facts;

/// A compiled text.
#[derive(Debug)]
pub struct Format(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(Bytes),
    /// A request's header, another one if it is not there, and the most bytes of it.
    Request(Name, Option<Name>, Option<usize>),
    ResponseCode,
    Protocol,
    ClientAddress,
    Route,
}

#[derive(Debug, PartialEq, Eq)]
enum Name {
    Path,
    Method,
    Authority,
    Scheme,
    Header(HeaderName),
}

/// What a text may speak of.
#[derive(Debug, Clone)]
pub struct Subject {
    method: Method,
    uri: Uri,
    version: Version,
    headers: http::HeaderMap,
    https: bool,
    client: std::net::IpAddr,
}

impl Subject {
    /// A request as it is now.
    pub fn new(head: &Parts, facts: &Facts<'_>) -> Self {
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            headers: head.headers.clone(),
            https: facts.https,
            client: facts.client,
        }
    }

    fn get(&self, name: &Name) -> Option<&[u8]> {
        Some(match name {
            Name::Path => self.uri.path_and_query()?.as_str().as_bytes(),
            Name::Method => self.method.as_str().as_bytes(),
            Name::Authority => self.headers.get(HOST)?.as_bytes(),
            Name::Scheme if self.https => b"https",
            Name::Scheme => b"http",
            Name::Header(name) => self.headers.get(name)?.as_bytes(),
        })
    }
}

impl Format {
    /// Reads a text.
    pub fn compile(text: &[u8]) -> Self {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
            plain.extend_from_slice(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(b"%") {
                plain.push(b'%');
                rest = after;
            } else if let Some((piece, after)) = operator(rest) {
                flush(&mut plain, &mut pieces);
                pieces.push(piece);
                rest = after;
            } else {
                plain.push(b'%');
            }
        }
        plain.extend_from_slice(rest);
        flush(&mut plain, &mut pieces);
        Self(pieces)
    }

    /// True if the text is the same for all requests.
    pub fn is_plain(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// The text for a request and the status of its response; `subject` may be left out of a plain text.
    pub fn render(&self, subject: Option<&Subject>, route: &str, status: StatusCode) -> Bytes {
        if let [Piece::Text(text)] = self.0.as_slice() {
            return text.clone();
        }
        let mut out = Vec::new();
        for piece in &self.0 {
            match (piece, subject) {
                (Piece::Text(text), _) => out.extend_from_slice(text),
                (Piece::ResponseCode, _) => out.extend_from_slice(status.as_str().as_bytes()),
                (Piece::Route, _) => out.extend_from_slice(route.as_bytes()),
                (_, None) => out.push(b'-'),
                (Piece::Request(name, other, most), Some(subject)) => {
                    let value = subject
                        .get(name)
                        .or_else(|| other.as_ref().and_then(|name| subject.get(name)))
                        .unwrap_or(b"-");
                    out.extend_from_slice(&value[..most.unwrap_or(usize::MAX).min(value.len())]);
                }
                (Piece::Protocol, Some(subject)) => out.extend_from_slice(match subject.version {
                    Version::HTTP_3 => b"HTTP/3",
                    Version::HTTP_2 => b"HTTP/2",
                    Version::HTTP_10 => b"HTTP/1.0",
                    _ => b"HTTP/1.1",
                }),
                (Piece::ClientAddress, Some(subject)) => {
                    out.extend_from_slice(subject.client.to_string().as_bytes());
                }
            }
        }
        out.into()
    }
}

fn flush(plain: &mut Vec<u8>, pieces: &mut Vec<Piece>) {
    if !plain.is_empty() {
        pieces.push(Piece::Text(std::mem::take(plain).into()));
    }
}

/// Reads what comes after a percent sign as an operator; returns what follows it.
fn operator(text: &[u8]) -> Option<(Piece, &[u8])> {
    let end = text.iter().position(|byte| *byte == b'%')?;
    let operator = std::str::from_utf8(&text[..end]).ok()?;
    let piece = match operator {
        "RESPONSE_CODE" => Piece::ResponseCode,
        "PROTOCOL" => Piece::Protocol,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Piece::ClientAddress,
        "ROUTE_NAME" => Piece::Route,
        _ => {
            let (names, most) = operator.strip_prefix("REQ(")?.split_once(')')?;
            let most = match most {
                "" => None,
                most => Some(most.strip_prefix(':')?.parse().ok()?),
            };
            let (name, other) = match names.split_once('?') {
                Some((name, other)) => (name, Some(self::name(other)?)),
                None => (names, None),
            };
            Piece::Request(self::name(name)?, other, most)
        }
    };
    Some((piece, &text[end + 1..]))
}

fn name(name: &str) -> Option<Name> {
    let lower = name.to_ascii_lowercase();
    Some(match lower.as_str() {
        ":path" => Name::Path,
        ":method" => Name::Method,
        ":authority" | "host" => Name::Authority,
        ":scheme" => Name::Scheme,
        name => Name::Header(name.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str) -> String {
        let (head, ()) = http::Request::post("/a?b=c")
            .header("host", "h.example")
            .header("x-id", "12345")
            .body(())
            .unwrap()
            .into_parts();
        let facts = Facts {
            host: "h.example",
            client: std::net::Ipv4Addr::LOCALHOST.into(),
            route: "",
            shows_limits: true,
            path: "/a",
            https: true,
            listener_port: 443,
            prefix: None,
        };
        let subject = Subject::new(&head, &facts);
        let text =
            Format::compile(text.as_bytes()).render(Some(&subject), "HTTPRoute/n/r", StatusCode::IM_A_TEAPOT);
        String::from_utf8(text.to_vec()).unwrap()
    }

    #[test]
    fn operators() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            (
                "%REQ(:method)% %REQ(:SCHEME)%://%REQ(:authority)%%REQ(:path)%",
                "POST https://h.example/a?b=c",
            ),
            ("%REQ(x-id):3%|%REQ(none?x-id)%|%REQ(none)%", "123|12345|-"),
            (
                "%RESPONSE_CODE% %PROTOCOL% %ROUTE_NAME%",
                "418 HTTP/1.1 HTTPRoute/n/r",
            ),
            ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "127.0.0.1"),
        ] {
            assert_eq!(render(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_operator_stays() {
        for (text, expected) in [
            ("100%", "100%"),
            ("100%%", "100%"),
            ("%UNKNOWN%", "%UNKNOWN%"),
            ("5% off %REQ(x-id)%", "5% off 12345"),
            ("%REQ(%", "%REQ(%"),
            ("%REQ(a b)%", "%REQ(a b)%"),
            ("%REQ(x-id):x%", "%REQ(x-id):x%"),
        ] {
            assert_eq!(render(text), expected, "{text}");
        }
        assert!(Format::compile(b"100%").is_plain());
        assert!(!Format::compile(b"%PROTOCOL%").is_plain());
    }
}
