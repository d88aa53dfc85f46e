//! Heads of requests and responses, and what they say about the body that follows.
//!
//! A parser is given all bytes so far and answers with the head and its length once it is complete. Field values share
//! one copy of the head.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Uri, Version, request, response};
use percent_encoding::{AsciiSet, CONTROLS};
use std::mem::MaybeUninit;

use super::spelling::Spelling;
use super::{Body, NoHead};
use crate::forward::encode::is_bodiless;

/// Most fields of one head.
const MAX_FIELDS: usize = 256;
/// Room for fields that the proxy adds on the way.
const SPARE_FIELDS: usize = 6;
/// What a target may not hold as it is, although clients send it.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'<')
    .add(b'>')
    .add(b'^')
    .add(b'`')
    .add(b'\\')
    .add(b'|');

/// A request's head.
#[derive(Debug)]
pub struct Request {
    /// The head; an absolute target has become origin form and Host.
    pub parts: request::Parts,
    /// The body that follows.
    pub body: Body,
    /// True if the client wants to go on using the connection.
    pub keepalive: bool,
}

/// A response's head.
#[derive(Debug)]
pub struct Response {
    /// The head.
    pub parts: response::Parts,
    /// The body that follows.
    pub body: Body,
    /// True if the backend lets the connection be used again.
    pub keepalive: bool,
}

/// Parses a request's head; `spelled` says that the case of names is kept, in an extension.
///
/// # Errors
/// [`NoHead::Invalid`] or [`NoHead::Coding`].
pub fn request(bytes: &[u8], spelled: bool) -> Result<Option<(Request, usize)>, NoHead> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match httparse::ParserConfig::default().parse_request_with_uninit_headers(
        &mut parsed,
        bytes,
        &mut fields,
    ) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(invalid(error)),
    };
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(NoHead::Invalid("no request line"));
    };
    let copy = Bytes::copy_from_slice(&bytes[..length]);
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| NoHead::Invalid("method"))?;
    parts.version = version(parsed.version);
    parts.headers = headers(parsed.headers, bytes, &copy, SPARE_FIELDS)?;
    if spelled {
        parts.extensions.insert(spelling(parsed.headers, bytes, &copy)?);
    }
    parts.uri = uri(target, shared(&copy, bytes, target.as_bytes()))?;
    adopt_authority(&mut parts)?;
    // Everyone on the way may take another one.
    if parts.headers.get_all(HOST).iter().nth(1).is_some() {
        return Err(NoHead::Invalid("several hosts"));
    }
    let body = request_body(&parts)?;
    let keepalive = keepalive(parts.version, &parts.headers);
    let request = Request {
        parts,
        body,
        keepalive,
    };
    Ok(Some((request, length)))
}

/// Parses a response's head; `to_head` says that it answers a HEAD request, `spelled` that the case of names is kept, in an
/// extension.
///
/// # Errors
/// [`NoHead::Invalid`] or [`NoHead::Coding`].
pub fn response(bytes: &[u8], to_head: bool, spelled: bool) -> Result<Option<(Response, usize)>, NoHead> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    let length = match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(invalid(error)),
    };
    let copy = Bytes::copy_from_slice(&bytes[..length]);
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status =
        StatusCode::from_u16(parsed.code.unwrap_or_default()).map_err(|_| NoHead::Invalid("status"))?;
    parts.version = version(parsed.version);
    parts.headers = headers(parsed.headers, bytes, &copy, SPARE_FIELDS)?;
    if spelled {
        parts.extensions.insert(spelling(parsed.headers, bytes, &copy)?);
    }
    let mut keepalive = keepalive(parts.version, &parts.headers);
    let body = response_body(&mut parts, to_head, &mut keepalive)?;
    let response = Response {
        parts,
        body,
        keepalive,
    };
    Ok(Some((response, length)))
}

fn invalid(error: httparse::Error) -> NoHead {
    match error {
        httparse::Error::TooManyHeaders => NoHead::TooLarge,
        httparse::Error::HeaderName => NoHead::Invalid("field name"),
        httparse::Error::HeaderValue => NoHead::Invalid("field value"),
        httparse::Error::Version => NoHead::Invalid("version"),
        httparse::Error::Status => NoHead::Invalid("status"),
        _ => NoHead::Invalid("syntax"),
    }
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    }
}

/// The part of `copy` that `part` is of `original`.
fn shared(copy: &Bytes, original: &[u8], part: &[u8]) -> Bytes {
    let start = part.as_ptr().addr().wrapping_sub(original.as_ptr().addr());
    match start.checked_add(part.len()) {
        Some(end) if end <= copy.len() => copy.slice(start..end),
        // Not a part of it after all.
        _ => Bytes::copy_from_slice(part),
    }
}

fn headers(
    fields: &[httparse::Header<'_>],
    original: &[u8],
    copy: &Bytes,
    spare: usize,
) -> Result<HeaderMap, NoHead> {
    let mut headers = HeaderMap::with_capacity(fields.len() + spare);
    for field in fields {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| NoHead::Invalid("field name"))?;
        let value = HeaderValue::from_maybe_shared(shared(copy, original, field.value))
            .map_err(|_| NoHead::Invalid("field value"))?;
        headers.try_append(name, value).map_err(|_| NoHead::TooLarge)?;
    }
    Ok(headers)
}

fn spelling(fields: &[httparse::Header<'_>], original: &[u8], copy: &Bytes) -> Result<Spelling, NoHead> {
    let mut names = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let written = field.name.as_bytes();
        let name = HeaderName::from_bytes(written).map_err(|_| NoHead::Invalid("field name"))?;
        names
            .try_append(name, shared(copy, original, written))
            .map_err(|_| NoHead::TooLarge)?;
    }
    Ok(Spelling::new(names))
}

fn uri(target: &str, bytes: Bytes) -> Result<Uri, NoHead> {
    Uri::from_maybe_shared(bytes).or_else(|_| {
        let escaped: String = percent_encoding::utf8_percent_encode(target, ESCAPED).collect();
        Uri::try_from(escaped).map_err(|_| NoHead::Invalid("target"))
    })
}

/// An absolute target names the host (RFC 9112 section 3.2.2). One that differs from Host is refused: somebody on the way
/// may have believed the other.
fn adopt_authority(parts: &mut request::Parts) -> Result<(), NoHead> {
    if parts.method == Method::CONNECT || parts.uri.scheme().is_none() {
        return Ok(());
    }
    let authority = parts
        .uri
        .authority()
        .map(http::uri::Authority::as_str)
        .unwrap_or_default();
    match parts.headers.get(HOST) {
        Some(host) if host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => {}
        Some(_) => return Err(NoHead::Invalid("target and host differ")),
        None => {
            let host = HeaderValue::from_str(authority).map_err(|_| NoHead::Invalid("target"))?;
            parts.headers.insert(HOST, host);
        }
    }
    let target = parts.uri.path_and_query().cloned();
    parts.uri = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    Ok(())
}

/// Refuses heads on whose framing recipients have been known to disagree (RFC 9112 section 11.2).
fn request_body(parts: &request::Parts) -> Result<Body, NoHead> {
    let length = parts.headers.get(CONTENT_LENGTH);
    let Some(coding) = parts.headers.get(TRANSFER_ENCODING) else {
        return match length {
            None => Ok(Body::Done),
            Some(_) => Ok(of_length(single_length(&parts.headers)?)),
        };
    };
    if length.is_some() || parts.version == Version::HTTP_10 {
        return Err(NoHead::Invalid("transfer coding beside a length, or in HTTP/1.0"));
    }
    if coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity") {
        return Err(NoHead::Invalid("transfer coding"));
    }
    if is_chunked(&parts.headers) {
        Ok(Body::Chunked(Box::default()))
    } else {
        Err(NoHead::Coding)
    }
}

/// Content-Length where there must be just one number.
fn single_length(headers: &HeaderMap) -> Result<u64, NoHead> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (
        lengths.next().and_then(|length| number(length.as_bytes())),
        lengths.next(),
    ) {
        (Some(length), None) => Ok(length),
        _ => Err(NoHead::Invalid("content-length")),
    }
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn of_length(length: u64) -> Body {
    if length == 0 {
        Body::Done
    } else {
        Body::Length(length)
    }
}

/// True if the one transfer coding is `chunked`.
fn is_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings
        .next()
        .is_some_and(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
        && codings.next().is_none()
}

/// RFC 9112 section 6.3.
fn response_body(parts: &mut response::Parts, to_head: bool, keepalive: &mut bool) -> Result<Body, NoHead> {
    if to_head || is_bodiless(parts.status) {
        return Ok(Body::Done);
    }
    let headers = &mut parts.headers;
    if let Some(coding) = headers.get(TRANSFER_ENCODING) {
        let identity = coding.as_bytes().eq_ignore_ascii_case(b"identity");
        if !identity {
            if !is_chunked(headers) {
                return Err(NoHead::Coding);
            }
            if headers.remove(CONTENT_LENGTH).is_some() || parts.version == Version::HTTP_10 {
                *keepalive = false;
            }
            return Ok(Body::Chunked(Box::default()));
        }
    }
    if !headers.contains_key(CONTENT_LENGTH) {
        *keepalive = false;
        return Ok(Body::UntilClose);
    }
    let (length, repeated) = agreed_length(headers)?;
    if repeated {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(of_length(length))
}

/// Content-Length where the same number may be repeated (RFC 9110 section 8.6); says whether it was.
fn agreed_length(headers: &HeaderMap) -> Result<(u64, bool), NoHead> {
    let invalid = NoHead::Invalid("content-length");
    let lines = headers.get_all(CONTENT_LENGTH).iter();
    let mut numbers = lines.flat_map(|line| line.as_bytes().split(|b| *b == b','));
    let Some(first) = numbers.next().and_then(|text| number(text.trim_ascii())) else {
        return Err(invalid);
    };
    let mut repeated = false;
    for other in numbers {
        if number(other.trim_ascii()) != Some(first) {
            return Err(invalid);
        }
        repeated = true;
    }
    Ok((first, repeated))
}

/// RFC 9112 section 9.3.
fn keepalive(version: Version, headers: &HeaderMap) -> bool {
    let mut keeps = version == Version::HTTP_11;
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keeps |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keeps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(head: &str) -> Result<Request, NoHead> {
        request(head.as_bytes(), false).map(|parsed| parsed.unwrap().0)
    }

    fn answer(head: &str, to_head: bool) -> Result<Response, NoHead> {
        response(head.as_bytes(), to_head, false).map(|parsed| parsed.unwrap().0)
    }

    #[test]
    fn a_request() {
        let text =
            "POST /a?b=c HTTP/1.1\r\nHost: H.example\r\nX: 1\r\nx:  2 \r\nContent-Length: 3\r\n\r\nabcGET";
        let (request, length) = request(text.as_bytes(), true).unwrap().unwrap();
        assert_eq!(&text[length..], "abcGET");
        assert_eq!(request.parts.method, "POST");
        assert_eq!(request.parts.uri, "/a?b=c");
        let values: Vec<_> = request.parts.headers.get_all("x").iter().collect();
        assert_eq!(values, ["1", "2"]);
        let spelling = Spelling::of(&request.parts.extensions).unwrap();
        let written = ["host", "x", "x", "x", "other"].map(|name| name.parse().unwrap());
        let found: Vec<_> = (0..)
            .zip(&written)
            .map(|(place, name)| spelling.get(name, usize::saturating_sub(place, 1)))
            .collect();
        assert_eq!(
            found,
            [Some(&b"Host"[..]), Some(b"X"), Some(b"x"), Some(b"X"), None]
        );
        assert!(matches!(request.body, Body::Length(3)));
        assert!(request.keepalive);
        for end in 0..length {
            assert!(
                super::request(&text.as_bytes()[..end], true).unwrap().is_none(),
                "{end}"
            );
        }
    }

    #[test]
    fn targets() {
        for (target, host, expected) in [
            (
                "http://a.example/b?c",
                "Host: A.example\r\n",
                Some(("/b?c", "A.example")),
            ),
            ("http://a.example:81", "", Some(("/", "a.example:81"))),
            ("http://a.example/", "Host: b.example\r\n", None),
            ("*", "Host: a\r\n", Some(("*", "a"))),
            ("/a<b>|c", "Host: a\r\n", Some(("/a%3Cb%3E%7Cc", "a"))),
            ("/ä", "Host: a\r\n", Some(("/ä", "a"))),
        ] {
            let parsed = parse(&format!("GET {target} HTTP/1.1\r\n{host}\r\n"));
            let parsed = parsed.ok().map(|request| request.parts);
            let found = parsed.as_ref().map(|parts| {
                let host = parts.headers.get(HOST).unwrap().to_str().unwrap();
                (parts.uri.to_string(), host.to_owned())
            });
            assert_eq!(
                found,
                expected.map(|(uri, host)| (uri.to_owned(), host.to_owned())),
                "{target}"
            );
        }
    }

    #[test]
    fn who_keeps_the_connection() {
        for (version, field, expected) in [
            ("1.1", "", true),
            ("1.1", "Connection: a, Close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ] {
            let request = parse(&format!("GET / HTTP/{version}\r\nHost: a\r\n{field}\r\n")).unwrap();
            assert_eq!(request.keepalive, expected, "{version} {field}");
        }
    }

    #[test]
    fn bodies_of_responses() {
        let body = |head: &str, to_head| match answer(&format!("{head}\r\n"), to_head) {
            Ok(answer) => format!("{:?} {}", answer.body, answer.keepalive),
            Err(error) => error.to_string(),
        };
        assert_eq!(
            body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", false),
            "Length(5) true"
        );
        assert_eq!(body("HTTP/1.1 200\r\nContent-Length: 5\r\n", true), "Done true");
        assert_eq!(
            body("HTTP/1.1 304 x\r\nContent-Length: 5\r\n", false),
            "Done true"
        );
        assert_eq!(
            body("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n", false),
            "Length(5) true"
        );
        assert_eq!(
            body(
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
                false
            ),
            "invalid head: content-length"
        );
        assert_eq!(body("HTTP/1.1 200 OK\r\n", false), "UntilClose false");
        let both = body(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            false,
        );
        assert!(both.starts_with("Chunked") && both.ends_with("false"), "{both}");
        assert_eq!(
            body("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n", false),
            "transfer coding not supported"
        );
    }

    proptest! {
        #[test]
        fn anything_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = request(&bytes, true);
            let _ = response(&bytes, false, true);
            let line = [b"GET /", &bytes[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            let _ = request(&line, false);
        }
    }
}
