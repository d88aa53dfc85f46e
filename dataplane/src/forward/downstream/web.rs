//! A client of gRPC-Web, seen as one of gRPC (PROTOCOL-WEB of the gRPC project).
//!
//! Owns what differs between the two: the names of content types, bodies in Base64, and trailers, which are a last frame of
//! the body. A response that is not gRPC is passed on as it is.

use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::{HeaderMap, Method, request, response};

use super::{Chunk, Downstream, Gone};
use crate::listen::Client;

const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC: &str = "application/grpc";
const WEB: &str = "application/grpc-web";
const TEXT: &str = "application/grpc-web-text";
/// Marks the frame that holds the trailers.
const TRAILERS: u8 = 0x80;

/// The client's side of one request.
pub struct Web {
    inner: Downstream,
    /// Set if the request is in Base64: what is left of it, less than four characters.
    encoded: Option<BytesMut>,
    /// The response is to be in Base64.
    text: bool,
    /// The response is gRPC.
    translates: bool,
}

/// The client's side of a request as it is to be seen; turns the head of one of gRPC-Web into one of gRPC, if the listener
/// serves that.
pub fn adopt(down: Downstream, client: Option<&Client>, head: &mut request::Parts) -> Downstream {
    if client.is_none_or(|client| !client.grpc_web) {
        return down;
    }
    let Some((encoded, text)) = into_grpc(head) else {
        return down;
    };
    Downstream::Web(Box::new(Web {
        inner: down,
        encoded: encoded.then(BytesMut::new),
        text,
        translates: false,
    }))
}

/// Says whether the request's body is in Base64, and whether the response's is to be. `None`: it is not gRPC-Web.
fn into_grpc(head: &mut request::Parts) -> Option<(bool, bool)> {
    if head.method != Method::POST {
        return None;
    }
    let headers = &mut head.headers;
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?.to_ascii_lowercase();
    let (encoded, format) = match suffix(&kind, TEXT) {
        Some(format) => (true, format),
        None => (false, suffix(&kind, WEB)?),
    };
    let text = match headers.get(ACCEPT) {
        Some(accept) => accept.to_str().is_ok_and(|accept| accept.contains(TEXT)),
        None => encoded,
    };
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::try_from(format!("{GRPC}{format}")).ok()?,
    );
    headers.remove(CONTENT_LENGTH);
    headers.insert(TE, HeaderValue::from_static("trailers"));
    // Most clients of gRPC-Web know no coding of messages.
    headers
        .entry(ACCEPT_ENCODING)
        .or_insert(HeaderValue::from_static("identity"));
    Some((encoded, text))
}

/// What follows the name of a content type: the format of messages, parameters.
fn suffix<'a>(kind: &'a str, name: &str) -> Option<&'a str> {
    let rest = kind.strip_prefix(name)?;
    (rest.is_empty() || rest.starts_with(['+', ';'])).then_some(rest)
}

impl Web {
    /// The client's side as it is.
    pub fn inner(&self) -> &Downstream {
        &self.inner
    }

    /// The client's side as it is.
    pub fn inner_mut(&mut self) -> &mut Downstream {
        &mut self.inner
    }

    /// The client's side as it is.
    pub fn into_inner(self) -> Downstream {
        self.inner
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Gone>> {
        loop {
            let chunk = ready!(self.inner.poll_body(cx))?;
            let Some(rest) = &mut self.encoded else {
                return Poll::Ready(Ok(chunk));
            };
            match chunk {
                Some(Chunk::Data(data)) => {
                    rest.extend_from_slice(&data);
                    let decoded = decode(rest)?;
                    if !decoded.is_empty() {
                        return Poll::Ready(Ok(Some(Chunk::Data(decoded))));
                    }
                }
                other if rest.is_empty() => return Poll::Ready(Ok(other)),
                _ => return Poll::Ready(Err(invalid())),
            }
        }
    }

    pub(super) fn respond(&mut self, mut head: response::Parts, end: bool) -> Result<(), Gone> {
        let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if let Some(format) = kind.and_then(|kind| suffix(kind, GRPC)) {
            let name = if self.text { TEXT } else { WEB };
            if let Ok(kind) = HeaderValue::try_from(format!("{name}{format}")) {
                head.headers.insert(CONTENT_TYPE, kind);
                head.headers.remove(CONTENT_LENGTH);
                self.translates = true;
            }
        }
        self.inner.respond(head, end)
    }

    pub(super) fn push(&mut self, data: Bytes) -> Result<(), Gone> {
        if !self.translates || !self.text || data.is_empty() {
            return self.inner.push(data);
        }
        // Clients take Base64 that is padded anywhere.
        self.inner.push(STANDARD.encode(data).into())
    }

    pub(super) fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), Gone> {
        if !self.translates {
            return self.inner.finish(trailers);
        }
        if let Some(trailers) = trailers {
            self.push(frame(&trailers))?;
        }
        self.inner.finish(None)
    }
}

/// The frame that says the trailers.
fn frame(trailers: &HeaderMap) -> Bytes {
    let mut lines = BytesMut::new();
    for (name, value) in trailers {
        lines.put_slice(name.as_str().as_bytes());
        lines.put_slice(b": ");
        lines.put_slice(value.as_bytes());
        lines.put_slice(b"\r\n");
    }
    let mut frame = BytesMut::with_capacity(5 + lines.len());
    frame.put_u8(TRAILERS);
    frame.put_u32(u32::try_from(lines.len()).unwrap_or(u32::MAX));
    frame.put(lines);
    frame.freeze()
}

/// Takes whole groups of four characters off the front, each of which may be padded.
fn decode(text: &mut BytesMut) -> Result<Bytes, Gone> {
    let whole = text.split_to(text.len() / 4 * 4);
    let mut out = BytesMut::with_capacity(whole.len() / 4 * 3);
    for group in whole.chunks_exact(4) {
        let mut bytes = [0; 3];
        let length = STANDARD.decode_slice(group, &mut bytes).map_err(|_| invalid())?;
        out.put_slice(&bytes[..length]);
    }
    Ok(out.freeze())
}

fn invalid() -> Gone {
    Gone("gRPC-Web: the body is not Base64".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(fields: &[(&str, &str)]) -> (Option<(bool, bool)>, HeaderMap) {
        let mut builder = http::Request::post("/a.B/C");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        let mut head = builder.body(()).unwrap().into_parts().0;
        let found = into_grpc(&mut head);
        (found, head.headers)
    }

    #[test]
    fn heads_become_those_of_grpc() {
        for (kind, accept, expected, becomes) in [
            (
                "application/grpc-web",
                None,
                Some((false, false)),
                "application/grpc",
            ),
            (
                "Application/gRPC-Web+proto",
                Some("application/grpc-web-text"),
                Some((false, true)),
                "application/grpc+proto",
            ),
            (
                "application/grpc-web-text",
                None,
                Some((true, true)),
                "application/grpc",
            ),
            (
                "application/grpc-web-text+proto;x=y",
                Some("*/*"),
                Some((true, false)),
                "application/grpc+proto;x=y",
            ),
            ("application/grpc-webby", None, None, "application/grpc-webby"),
            ("application/grpc", None, None, "application/grpc"),
        ] {
            let mut fields = vec![("content-type", kind), ("content-length", "5")];
            fields.extend(accept.map(|accept| ("accept", accept)));
            let (found, headers) = translated(&fields);
            assert_eq!(found, expected, "{kind}");
            assert_eq!(headers[CONTENT_TYPE], becomes);
            assert_eq!(headers.contains_key(TE), found.is_some());
            assert_eq!(headers.contains_key(CONTENT_LENGTH), found.is_none());
        }
    }

    #[test]
    fn base64_comes_in_any_pieces() {
        let whole = b"aGVsbG8=d29ybGQ=IQ==";
        for size in 1..=whole.len() {
            let (mut rest, mut got) = (BytesMut::new(), Vec::new());
            for piece in whole.chunks(size) {
                rest.extend_from_slice(piece);
                got.extend_from_slice(&decode(&mut rest).unwrap());
            }
            assert_eq!((got.as_slice(), rest.len()), (&b"helloworld!"[..], 0));
        }
        assert!(decode(&mut BytesMut::from(&b"a!bc"[..])).is_err());
    }

    #[test]
    fn trailers_are_a_frame() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(&frame(&trailers)[..], b"\x80\0\0\0\x10grpc-status: 0\r\n");
    }
}
