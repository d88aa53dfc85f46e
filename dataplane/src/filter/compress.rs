//! Compressing responses for clients that take it (RFC 9110 section 12.5.3).

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG,
    HeaderValue, VARY,
};
use http::{HeaderMap, StatusCode, response};
use sluice_config::v1;

/// Bytes of the smallest body that is compressed if the configuration does not say.
const DEFAULT_MIN: u64 = 30;
/// Media types that are worth it; Envoy's default.
const TYPES: &[&str] = &[
    "application/ecmascript",
    "application/javascript",
    "application/json",
    "application/x-javascript",
    "application/x-json",
    "application/xhtml+xml",
    "application/xml",
    "image/svg+xml",
    "text/css",
    "text/ecmascript",
    "text/html",
    "text/javascript",
    "text/js",
    "text/jscript",
    "text/plain",
    "text/x-javascript",
    "text/x-js",
    "text/xml",
];

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// Compiled settings, in the order in which they are preferred.
#[derive(Debug, Default)]
pub struct Compressors(Box<[(Coding, u64)]>);

/// What a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice(Option<(Coding, u64)>);

impl Compressors {
    /// Reads the resources.
    ///
    /// # Errors
    /// If a kind is not known.
    pub fn compile(config: &[v1::Compressor]) -> Result<Self, String> {
        use v1::compressor::Kind;
        let one = |(i, config): (usize, &v1::Compressor)| {
            let coding = match config.kind() {
                Kind::Gzip => Coding::Gzip,
                Kind::Brotli => Coding::Brotli,
                Kind::Zstd => Coding::Zstd,
                Kind::Unspecified => {
                    return Err(format!(
                        "[{i}].kind: not set, or one that this version does not know"
                    ));
                }
            };
            let min = match config.min_content_length {
                0 => DEFAULT_MIN,
                min => min,
            };
            Ok((coding, min))
        };
        Ok(Self(
            config.iter().enumerate().map(one).collect::<Result<_, _>>()?,
        ))
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The coding that the client wants most; the first of those that it wants alike.
    pub fn choose(&self, headers: &HeaderMap) -> Choice {
        let mut best = None;
        let mut most = 0;
        for (coding, min) in &self.0 {
            let weight = weight(headers, coding.name()).unwrap_or(0);
            if weight > most {
                (best, most) = (Some((*coding, *min)), weight);
            }
        }
        // Only said outright is no coding at all wanted more.
        let plain = named_weight(headers, "identity").unwrap_or(0);
        Choice(best.filter(|_| most >= plain))
    }
}

impl Choice {
    /// Prepares a response to be compressed. `None`: it is sent as it is.
    pub fn apply(self, response: &mut response::Parts) -> Option<Encoder> {
        if !is_compressible(response) {
            return None;
        }
        add_vary(&mut response.headers);
        let (coding, min) = self.0?;
        let length = response
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse::<u64>().ok());
        if length.is_some_and(|length| length < min) {
            return None;
        }
        let encoder = Encoder::new(coding).ok()?;
        let headers = &mut response.headers;
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        headers.remove(CONTENT_LENGTH);
        headers.remove(ACCEPT_RANGES);
        // A strong validator promises equal bytes (RFC 9110 section 8.8.1).
        if headers
            .get(ETAG)
            .is_some_and(|tag| !tag.as_bytes().starts_with(b"W/"))
        {
            headers.remove(ETAG);
        }
        Some(encoder)
    }
}

fn is_compressible(response: &response::Parts) -> bool {
    let headers = &response.headers;
    let plain = !headers.contains_key(CONTENT_ENCODING)
        && !matches!(
            response.status,
            StatusCode::PARTIAL_CONTENT | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        )
        && !response.status.is_informational();
    let may_change = !tokens(headers, &CACHE_CONTROL).any(|token| token.eq_ignore_ascii_case("no-transform"));
    plain && may_change && has_type(headers)
}

fn has_type(headers: &HeaderMap) -> bool {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = text.and_then(|text| text.split(';').next()).map(str::trim);
    kind.is_some_and(|kind| TYPES.iter().any(|known| known.eq_ignore_ascii_case(kind)))
}

fn add_vary(headers: &mut HeaderMap) {
    let named =
        tokens(headers, &VARY).any(|token| token == "*" || token.eq_ignore_ascii_case("accept-encoding"));
    if !named {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

fn tokens<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
}

/// How much a coding is wanted, in thousandths; `None`: nothing is said of it.
fn weight(headers: &HeaderMap, coding: &str) -> Option<u16> {
    named_weight(headers, coding).or_else(|| named_weight(headers, "*"))
}

fn named_weight(headers: &HeaderMap, coding: &str) -> Option<u16> {
    tokens(headers, &ACCEPT_ENCODING).find_map(|token| {
        let mut parts = token.split(';').map(str::trim);
        let name = parts.next()?;
        if !name.eq_ignore_ascii_case(coding) {
            return None;
        }
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some(quality.map_or(1000, thousandths))
    })
}

/// A quality as RFC 9110 section 12.4.2 writes it; what is none counts as zero.
fn thousandths(text: &str) -> u16 {
    let quality = text.parse::<f32>().unwrap_or(0.0);
    if (0.0..=1.0).contains(&quality) {
        // In range, and rounded before.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        return (quality * 1000.0).round() as u16;
    }
    0
}

/// Compresses one body.
pub struct Encoder {
    inner: Inner,
    /// True while the coder may hold bytes back.
    holds: bool,
}

enum Inner {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Self> {
        let inner = match coding {
            Coding::Gzip => Inner::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(6))),
            // Quality and window of Envoy's defaults.
            Coding::Brotli => Inner::Brotli(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, 3, 18))),
            Coding::Zstd => Inner::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 3)?),
        };
        Ok(Self { inner, holds: false })
    }

    /// Takes a piece; returns what can be sent already.
    ///
    /// # Errors
    /// Those of the coder.
    pub fn push(&mut self, data: &[u8]) -> io::Result<Bytes> {
        match &mut self.inner {
            Inner::Gzip(gzip) => gzip.write_all(data)?,
            Inner::Brotli(brotli) => brotli.write_all(data)?,
            Inner::Zstd(zstd) => zstd.write_all(data)?,
        }
        self.holds = true;
        Ok(self.take())
    }

    /// What is held back, so that the client need not wait for it; empty if nothing is.
    ///
    /// # Errors
    /// Those of the coder.
    pub fn flush(&mut self) -> io::Result<Bytes> {
        if !std::mem::take(&mut self.holds) {
            return Ok(Bytes::new());
        }
        match &mut self.inner {
            Inner::Gzip(gzip) => gzip.flush()?,
            Inner::Brotli(brotli) => brotli.flush()?,
            Inner::Zstd(zstd) => zstd.flush()?,
        }
        Ok(self.take())
    }

    /// The end of the body.
    ///
    /// # Errors
    /// Those of the coder.
    pub fn finish(self) -> io::Result<Bytes> {
        Ok(match self.inner {
            Inner::Gzip(gzip) => gzip.finish()?,
            Inner::Brotli(brotli) => brotli.into_inner(),
            Inner::Zstd(zstd) => zstd.finish()?,
        }
        .into())
    }

    fn take(&mut self) -> Bytes {
        let out = match &mut self.inner {
            Inner::Gzip(gzip) => gzip.get_mut(),
            Inner::Brotli(brotli) => brotli.get_mut(),
            Inner::Zstd(zstd) => zstd.get_mut(),
        };
        std::mem::take(out).into()
    }
}

#[cfg(test)]
mod tests;
