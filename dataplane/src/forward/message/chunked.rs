//! The chunked transfer coding (RFC 9112 section 7.1), taken off.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// Longest line of a chunk's size with its extensions, or of a trailer field.
const MAX_LINE: usize = 8 * 1024;
/// Largest trailer section.
const MAX_TRAILERS: usize = 8 * 1024;

/// Why a chunked body is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A chunk's size is not a hexadecimal number, or does not fit.
    #[error("invalid chunk size")]
    Size,
    /// A line does not end as it must.
    #[error("invalid line end in a chunked body")]
    LineEnd,
    /// A line or the trailers are too long.
    #[error("chunked body: line or trailers too long")]
    TooLong,
    /// A trailer is not a field.
    #[error("invalid trailer field")]
    Trailer,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Size,
    /// This many bytes of the chunk are to come.
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// A decoder that is fed the body in pieces as they come.
#[derive(Debug)]
pub struct Chunked {
    state: State,
    trailers: HeaderMap,
    trailer_bytes: usize,
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            state: State::Size,
            trailers: HeaderMap::new(),
            trailer_bytes: 0,
        }
    }
}

impl Chunked {
    /// True once the end has come.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer fields that may be passed on.
    pub fn take_trailers(&mut self) -> Option<HeaderMap> {
        let trailers = std::mem::take(&mut self.trailers);
        (!trailers.is_empty()).then_some(trailers)
    }

    /// Passes the content of `input` on; says how much of it was used. What was not is to be given again with more.
    ///
    /// # Errors
    /// See [`Invalid`].
    pub fn feed(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) -> Result<usize, Invalid> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match &mut self.state {
                State::Done => return Ok(at),
                State::Data(left) => {
                    let n = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    if n == 0 {
                        return Ok(at);
                    }
                    sink(&rest[..n]);
                    at += n;
                    *left -= n as u64;
                    if *left == 0 {
                        self.state = State::DataEnd;
                    }
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(at),
                    _ => return Err(Invalid::LineEnd),
                },
                State::Size => {
                    let Some(line) = line(rest)? else { return Ok(at) };
                    at += line.len() + 2;
                    self.state = match size(line)? {
                        0 => State::Trailers,
                        size => State::Data(size),
                    };
                }
                State::Trailers => {
                    let Some(line) = line(rest)? else { return Ok(at) };
                    at += line.len() + 2;
                    if line.is_empty() {
                        self.state = State::Done;
                    } else {
                        self.trailer(line)?;
                    }
                }
            }
        }
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), Invalid> {
        self.trailer_bytes += line.len();
        if self.trailer_bytes > MAX_TRAILERS {
            return Err(Invalid::TooLong);
        }
        let (name, value) = field(line).ok_or(Invalid::Trailer)?;
        if !is_forbidden(&name) {
            self.trailers.append(name, value);
        }
        Ok(())
    }
}

/// The next line without its end, if all of it is there.
fn line(input: &[u8]) -> Result<Option<&[u8]>, Invalid> {
    let within = &input[..input.len().min(MAX_LINE)];
    match within.iter().position(|b| *b == b'\n') {
        Some(end) => {
            let line = within[..end].strip_suffix(b"\r").ok_or(Invalid::LineEnd)?;
            // A lone CR is a line's end to some.
            if line.contains(&b'\r') {
                return Err(Invalid::LineEnd);
            }
            Ok(Some(line))
        }
        None if input.len() >= MAX_LINE => Err(Invalid::TooLong),
        None => Ok(None),
    }
}

/// The size of a chunk; extensions are ignored (RFC 9112 section 7.1.1).
fn size(line: &[u8]) -> Result<u64, Invalid> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if !(1..=16).contains(&digits) {
        return Err(Invalid::Size);
    }
    let after = line[digits..].trim_ascii_start();
    if !after.is_empty() && !after.starts_with(b";") {
        return Err(Invalid::Size);
    }
    let digits = std::str::from_utf8(&line[..digits]).map_err(|_| Invalid::Size)?;
    u64::from_str_radix(digits, 16).map_err(|_| Invalid::Size)
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|b| *b == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((name, value))
}

/// Fields that must not come after the content (RFC 9110 section 6.5.1).
fn is_forbidden(name: &HeaderName) -> bool {
    const FORBIDDEN: &[&str] = &[
        "transfer-encoding",
        "content-length",
        "host",
        "connection",
        "keep-alive",
        "upgrade",
        "te",
        "trailer",
        "cookie",
        "set-cookie",
        "authorization",
        "content-encoding",
        "content-type",
        "content-range",
        "expect",
        "max-forwards",
    ];
    FORBIDDEN.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `input` in pieces of at most `piece` bytes; the content, the trailers, and what is left over.
    fn decode(input: &[u8], piece: usize) -> Result<(Vec<u8>, Option<HeaderMap>, usize), Invalid> {
        let mut chunked = Chunked::default();
        let mut content = Vec::new();
        let mut pending: Vec<u8> = Vec::new();
        for part in input.chunks(piece) {
            pending.extend_from_slice(part);
            let used = chunked.feed(&pending, &mut |data| content.extend_from_slice(data))?;
            pending.drain(..used);
        }
        let trailers = chunked.take_trailers();
        Ok((
            content,
            trailers,
            if chunked.is_done() {
                pending.len()
            } else {
                usize::MAX
            },
        ))
    }

    #[test]
    fn content_and_trailers() {
        let body = b"5;a=b\r\nhello\r\n7 \r\n, world\r\n0\r\nX-Sum: 42\r\nContent-Length: 3\r\n\r\nGET";
        for piece in 1..body.len() {
            let (content, trailers, left) = decode(body, piece).unwrap();
            assert_eq!((content.as_slice(), left), (&b"hello, world"[..], 3), "{piece}");
            let trailers = trailers.unwrap();
            assert_eq!((trailers.len(), trailers["x-sum"].as_bytes()), (1, &b"42"[..]));
        }
    }

    #[test]
    fn what_is_not_certain_is_refused() {
        for (body, expected) in [
            (&b"\r\n"[..], Invalid::Size),
            (b"zz\r\n", Invalid::Size),
            (b"-3\r\n", Invalid::Size),
            (b"0x3\r\n", Invalid::Size),
            (b"3 3\r\nabc\r\n", Invalid::Size),
            (b"11111111111111111\r\n", Invalid::Size),
            (b"3\nabc\r\n", Invalid::LineEnd),
            (b"3;a\rb\r\nabc\r\n", Invalid::LineEnd),
            (b"3\r\nabcd\r\n", Invalid::LineEnd),
            (b"0\r\nno field\r\n\r\n", Invalid::Trailer),
            (b"0\r\nbad name: 1\r\n\r\n", Invalid::Trailer),
        ] {
            assert_eq!(
                decode(body, 1024).unwrap_err(),
                expected,
                "{}",
                body.escape_ascii()
            );
        }
    }

    #[test]
    fn lines_and_trailers_are_bounded() {
        let long = [b"1;".to_vec(), vec![b'a'; MAX_LINE]].concat();
        assert_eq!(decode(&long, 100).unwrap_err(), Invalid::TooLong);
        let many = [b"0\r\n".to_vec(), b"a: b\r\n".repeat(MAX_TRAILERS / 4 + 1)].concat();
        assert_eq!(decode(&many, 1000).unwrap_err(), Invalid::TooLong);
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8), piece in 1..40usize) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let (content, trailers, left) = decode(&body, piece).unwrap();
            prop_assert_eq!(content, chunks.concat());
            prop_assert_eq!((trailers, left), (None, 0));
        }

        #[test]
        fn anything_is_survived(body in prop::collection::vec(any::<u8>(), 0..200), piece in 1..40usize) {
            let _ = decode(&body, piece);
        }
    }
}
