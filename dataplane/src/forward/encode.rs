//! HTTP/1.1 messages as bytes (RFC 9112): heads and bodies of both directions.

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, StatusCode, request};

use super::message::spelling::Spelling;
use crate::wire::Wire;

/// From this size on a piece of a body is worth a system call of its own rather than a copy.
const LARGE: usize = 16 * 1024;

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// By Content-Length.
    Length,
    /// Chunked.
    Chunked,
    /// By closing the connection.
    UntilClose,
}

/// True for statuses whose responses never have a body (RFC 9110 section 6.4.1).
pub fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// Writes status line and header fields; names that came with a head as they are spelled there.
pub fn head(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap, spelling: Option<&Spelling>) {
    out.reserve(64 + headers.len() * 48);
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
    fields(out, headers, None, spelling);
    out.put_slice(b"\r\n");
}

/// What a request says besides its own fields, about the connection and its framing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Own<'a> {
    /// The body is chunked, whatever length was told.
    pub chunked: bool,
    /// There is no body, and the method is one of which that is said.
    pub no_content: bool,
    /// The protocol that the connection is to go on with.
    pub upgrade: Option<&'a HeaderValue>,
}

/// Writes request line and header fields. The head has no fields that concern the connection.
pub fn request_head(out: &mut BytesMut, head: &request::Parts, own: Own<'_>) {
    let target = match head.headers.get(HOST) {
        // Where the tunnel is to lead (RFC 9112 section 3.2.3).
        Some(host) if head.method == Method::CONNECT => host.as_bytes(),
        _ => head
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str())
            .as_bytes(),
    };
    out.reserve(128 + target.len() + head.headers.len() * 48);
    out.put_slice(head.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(target);
    out.put_slice(b" HTTP/1.1\r\n");
    let spelling = Spelling::of(&head.extensions);
    let without = own.chunked.then_some(&CONTENT_LENGTH);
    fields(out, &head.headers, without, spelling);
    if own.chunked {
        let chunked = HeaderValue::from_static("chunked");
        field(out, written(&TRANSFER_ENCODING, 0, spelling), &chunked);
    }
    if own.no_content {
        field(
            out,
            written(&CONTENT_LENGTH, 0, spelling),
            &HeaderValue::from_static("0"),
        );
    }
    if let Some(protocol) = own.upgrade {
        let upgrade = HeaderValue::from_static("upgrade");
        field(out, written(&CONNECTION, 0, spelling), &upgrade);
        field(out, written(&UPGRADE, 0, spelling), protocol);
    }
    out.put_slice(b"\r\n");
}

fn fields(
    out: &mut BytesMut,
    headers: &HeaderMap,
    without: Option<&HeaderName>,
    spelling: Option<&Spelling>,
) {
    let wanted = headers.iter().filter(|(name, _)| without != Some(*name));
    if spelling.is_none() {
        return wanted.for_each(|(name, value)| field(out, name.as_str().as_bytes(), value));
    }
    let (mut last, mut before) = (None, 0);
    for (name, value) in wanted {
        before = if last.replace(name) == Some(name) {
            before + 1
        } else {
            0
        };
        field(out, written(name, before, spelling), value);
    }
}

/// A name as it came with the head, or in lower case.
fn written<'a>(name: &'a HeaderName, before: usize, spelling: Option<&'a Spelling>) -> &'a [u8] {
    let came = spelling.and_then(|spelling| spelling.get(name, before));
    came.unwrap_or(name.as_str().as_bytes())
}

fn field(out: &mut BytesMut, name: &[u8], value: &HeaderValue) {
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

/// Writes a piece of a body.
pub fn body(out: &mut BytesMut, framing: Framing, data: &[u8]) {
    match framing {
        // An empty chunk would end the body.
        Framing::Chunked if !data.is_empty() => {
            chunk_size(out, data.len());
            out.put_slice(data);
            out.put_slice(b"\r\n");
        }
        Framing::Length | Framing::UntilClose => out.put_slice(data),
        Framing::Chunked | Framing::None => {}
    }
}

/// Writes a piece of a body; a large one goes to the socket as far as that takes it, without being copied.
pub fn send(wire: &Wire, framing: Framing, data: &[u8]) {
    if data.len() < LARGE {
        return wire.put(|out| body(out, framing, data));
    }
    match framing {
        Framing::None => {}
        Framing::Length | Framing::UntilClose => wire.put_large(data, b""),
        Framing::Chunked => {
            wire.put(|out| chunk_size(out, data.len()));
            wire.put_large(data, b"\r\n");
        }
    }
}

fn chunk_size(out: &mut BytesMut, len: usize) {
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.put_u8(b"0123456789abcdef"[(len >> (place * 4)) & 0xf]);
    }
    out.put_slice(b"\r\n");
}

/// Writes the end of a body; trailers have a place only in chunked ones.
pub fn end(out: &mut BytesMut, framing: Framing, trailers: Option<&HeaderMap>) {
    if framing == Framing::Chunked {
        out.put_slice(b"0\r\n");
        if let Some(trailers) = trailers {
            fields(out, trailers, None, None);
        }
        out.put_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunked_with_trailers() {
        let mut out = BytesMut::new();
        body(&mut out, Framing::Chunked, b"hello, world, hello");
        body(&mut out, Framing::Chunked, b"");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        end(&mut out, Framing::Chunked, Some(&trailers));
        assert_eq!(&out[..], b"13\r\nhello, world, hello\r\n0\r\nx-sum: 1\r\n\r\n");
    }

    #[test]
    fn chunk_sizes() {
        for len in [1, 9, 10, 15, 16, 255, 256, 4096, 65536, 1_000_000] {
            let mut out = BytesMut::new();
            chunk_size(&mut out, len);
            assert_eq!(&out[..], format!("{len:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn a_request_says_how_it_is_framed() {
        let request = http::Request::post("/a?b")
            .header("content-length", "5")
            .header("x", "y");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let encode = |own| {
            let mut out = BytesMut::new();
            request_head(&mut out, &head, own);
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(
            encode(Own::default()),
            "POST /a?b HTTP/1.1\r\ncontent-length: 5\r\nx: y\r\n\r\n"
        );
        let websocket = HeaderValue::from_static("websocket");
        let own = Own {
            chunked: true,
            no_content: false,
            upgrade: Some(&websocket),
        };
        let expected = "POST /a?b HTTP/1.1\r\nx: y\r\ntransfer-encoding: chunked\r\n\
             connection: upgrade\r\nupgrade: websocket\r\n\r\n";
        assert_eq!(encode(own), expected);
    }

    #[test]
    fn head_only() {
        let mut out = BytesMut::new();
        head(&mut out, StatusCode::CONTINUE, &HeaderMap::new(), None);
        assert_eq!(&out[..], b"HTTP/1.1 100 Continue\r\n\r\n");
    }
}
