//! Fingerprints of clients: JA3 and JA4 of their ClientHellos.
//!
//! Owns reading from a recorded ClientHello what goes into them. rustls has taken the message as valid before; what is not
//! understood here has no fingerprint, and is no reason to refuse anybody.

mod hello;

use std::fmt::Write;

use http::HeaderValue;
use md5::{Digest, Md5};
use ring::digest::{SHA256, digest};
use sluice_config::v1;

use hello::Hello;

/// Extensions that have a place of their own in JA4: server_name and application_layer_protocol_negotiation.
const NAMED: [u16; 2] = [0, 16];
/// Hexadecimal digits of a part of JA4.
const SHORT: usize = 12;

/// Which of them are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    ja3: bool,
    ja4: bool,
}

impl Wanted {
    /// Those that a listener's resource asks for.
    pub fn new(config: Option<&v1::TlsParameters>) -> Self {
        let wants = |kind| config.is_some_and(|config| config.fingerprints().any(|wanted| wanted == kind));
        Self {
            ja3: wants(v1::TlsFingerprint::Ja3),
            ja4: wants(v1::TlsFingerprint::Ja4),
        }
    }
}

/// What carries a connection's TLS, as JA4 names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Tcp,
    Quic,
}

/// What was computed of a ClientHello.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprints {
    /// MD5 of its JA3 text, in hexadecimal.
    pub ja3: Option<HeaderValue>,
    /// JA4.
    pub ja4: Option<HeaderValue>,
}

impl Fingerprints {
    /// JA3 and JA4 as texts.
    pub fn texts(&self) -> [Option<&str>; 2] {
        [&self.ja3, &self.ja4].map(|one| one.as_ref()?.to_str().ok())
    }

    /// Of a ClientHello in the records that it came in. `None`: nothing is wanted, or the message is not understood.
    pub fn of(records: &[u8], wanted: Wanted) -> Option<Box<Self>> {
        if wanted == Wanted::default() {
            return None;
        }
        Self::compute(&hello::message(records)?, wanted, Carrier::Tcp)
    }

    /// Of a ClientHello as QUIC carries it: one handshake message.
    pub fn of_quic(message: &[u8], wanted: Wanted) -> Option<Box<Self>> {
        if wanted == Wanted::default() {
            return None;
        }
        Self::compute(hello::body(message)?, wanted, Carrier::Quic)
    }

    fn compute(body: &[u8], wanted: Wanted, carrier: Carrier) -> Option<Box<Self>> {
        let hello = Hello::read(body)?;
        let value = |text: String| HeaderValue::try_from(text).ok();
        Some(Box::new(Self {
            ja3: wanted.ja3.then(|| ja3(&hello)).and_then(value),
            ja4: wanted.ja4.then(|| ja4(&hello, carrier)).and_then(value),
        }))
    }
}

/// Version, cipher suites, extensions, groups and point formats, in the order in which they are offered.
fn ja3(hello: &Hello) -> String {
    let text = format!(
        "{},{},{},{},{}",
        hello.version,
        joined(&hello.ciphers, '-', |out, id| write!(out, "{id}")),
        joined(&hello.extensions, '-', |out, id| write!(out, "{id}")),
        joined(&hello.groups, '-', |out, id| write!(out, "{id}")),
        joined(&hello.point_formats, '-', |out, id| write!(out, "{id}")),
    );
    hexadecimal(&Md5::digest(text))
}

/// What is plain to see, then a hash of the cipher suites and one of the extensions, each sorted.
fn ja4(hello: &Hello, carrier: Carrier) -> String {
    let carrier = match carrier {
        Carrier::Tcp => 't',
        Carrier::Quic => 'q',
    };
    let version = match hello.newest {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    };
    let name = if hello.has_name { 'd' } else { 'i' };
    let (ciphers, extensions) = (hello.ciphers.len().min(99), hello.extensions.len().min(99));
    let protocol = ends(&hello.protocol);
    let hex = |out: &mut String, id: &u16| write!(out, "{id:04x}");
    let mut sorted = hello.ciphers.clone();
    sorted.sort_unstable();
    let of_ciphers = shortened(&joined(&sorted, ',', hex), sorted.is_empty());
    let mut sorted: Vec<u16> = hello.extensions.clone();
    sorted.retain(|id| !NAMED.contains(id));
    sorted.sort_unstable();
    let mut text = joined(&sorted, ',', hex);
    if !hello.signatures.is_empty() {
        text.push('_');
        text.push_str(&joined(&hello.signatures, ',', hex));
    }
    let of_extensions = shortened(&text, sorted.is_empty());
    format!("{carrier}{version}{name}{ciphers:02}{extensions:02}{protocol}_{of_ciphers}_{of_extensions}")
}

/// First and last character of an application protocol; of one with odd characters, those of its hexadecimal.
fn ends(protocol: &[u8]) -> String {
    let (Some(first), Some(last)) = (protocol.first(), protocol.last()) else {
        return "00".to_owned();
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [char::from(*first), char::from(*last)].iter().collect();
    }
    format!("{:x}{:x}", first >> 4, last & 0xf)
}

fn joined<T>(ids: &[T], delimiter: char, one: impl Fn(&mut String, &T) -> std::fmt::Result) -> String {
    let mut out = String::new();
    for (place, id) in ids.iter().enumerate() {
        if place > 0 {
            out.push(delimiter);
        }
        // Writing to memory cannot fail.
        let _ = one(&mut out, id);
    }
    out
}

fn shortened(text: &str, nothing: bool) -> String {
    if nothing {
        return "0".repeat(SHORT);
    }
    let mut hash = hexadecimal(digest(&SHA256, text.as_bytes()).as_ref());
    hash.truncate(SHORT);
    hash
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to memory cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of JA4's specification, a browser's.
    #[test]
    fn ja4_is_that_of_the_specification() {
        let hello = Hello {
            version: 0x0303,
            newest: 0x0304,
            ciphers: vec![
                0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
                0x009c, 0x009d, 0x002f, 0x0035,
            ],
            extensions: vec![
                0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012,
                0x002b, 0xff01, 0x000b, 0x000a, 0x0015,
            ],
            signatures: vec![0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601],
            protocol: b"h2".to_vec(),
            has_name: true,
            ..Hello::default()
        };
        assert_eq!(ja4(&hello, Carrier::Tcp), "t13d1516h2_8daaf6152771_e5627efa2ab1");
        assert_eq!(ja4(&hello, Carrier::Quic), "q13d1516h2_8daaf6152771_e5627efa2ab1");
    }

    /// The examples of JA3's description.
    #[test]
    fn ja3_is_that_of_its_description() {
        let hello = Hello {
            version: 769,
            ciphers: vec![47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4],
            extensions: vec![0, 10, 11],
            groups: vec![23, 24, 25],
            point_formats: vec![0],
            ..Hello::default()
        };
        assert_eq!(ja3(&hello), "ada70206e40642a3e4461f35503241d5");
        let bare = Hello {
            version: 769,
            ciphers: vec![4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99],
            ..Hello::default()
        };
        assert_eq!(ja3(&bare), "de350869b8c85de67a350c8d186f11e6");
    }

    #[test]
    fn odd_protocols_have_ends() {
        for (protocol, expected) in [
            (&b"http/1.1"[..], "h1"),
            (b"h", "hh"),
            (b"", "00"),
            (b"\xab\xcd", "ad"),
            (b"h\xff", "6f"),
        ] {
            assert_eq!(ends(protocol), expected);
        }
    }
}
