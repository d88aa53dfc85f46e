//! The PROXY protocol's header at the beginning of a client's connection, versions 1 and 2.
//!
//! Owns reading it: bounded in size and in time, and never a byte more is taken away than the header has. Whether one is
//! expected is the listener's to say.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use ppp::{PartialResult, v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long a client may take for it, unless the listener says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest header of version 1, line end included (haproxy's proxy-protocol.txt, section 2.1).
const LONGEST_V1: usize = 107;
/// Longest header of version 2 that is read, fields of types unknown here included.
const LONGEST_V2: usize = 16 * 1024;

/// Both ends of the connection that the header speaks of.
pub(super) type Ends = (SocketAddr, SocketAddr);

/// What the bytes read so far are.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// Perhaps the beginning of a header.
    Partial,
    /// A header of so many bytes. `None`: it says nothing of the client, as a health check's does.
    Header(usize, Option<Ends>),
    /// No header.
    Other,
    /// Something that wants to be a header and is none.
    Invalid,
}

/// Reads the header. Returns what it says and what was read beyond it.
///
/// # Errors
/// If the connection ends, takes longer than until `deadline` (`None`: ten seconds), or has no valid header although it must (`optional` is false) or begins like
/// one.
pub(super) async fn read(
    tcp: &mut TcpStream,
    optional: bool,
    deadline: Option<Instant>,
) -> io::Result<(Option<Ends>, BytesMut)> {
    let deadline = deadline.unwrap_or_else(|| Instant::now() + TIMEOUT);
    tokio::time::timeout_at(deadline, read_untimed(tcp, optional)).await?
}

async fn read_untimed(tcp: &mut TcpStream, optional: bool) -> io::Result<(Option<Ends>, BytesMut)> {
    let mut buffer = BytesMut::new();
    loop {
        // A client that waits to be spoken to has no header, and nothing to be told apart by.
        if tcp.read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match parse(&buffer) {
            Read::Partial => {}
            Read::Header(length, ends) => {
                let _ = buffer.split_to(length);
                return Ok((ends, buffer));
            }
            Read::Other if optional => return Ok((None, buffer)),
            Read::Other | Read::Invalid => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "no PROXY protocol header",
                ));
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Read {
    const TEXT: &[u8] = b"PROXY ";
    const BINARY: &[u8] = &crate::upstream::proxy_protocol::SIGNATURE;
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if begins(TEXT) {
        if bytes.len() < TEXT.len() {
            return Read::Partial;
        }
        return text(bytes);
    }
    if !begins(BINARY) {
        return Read::Other;
    }
    if bytes.len() < BINARY.len() {
        return Read::Partial;
    }
    let header = v2::Header::try_from(bytes);
    if header.is_incomplete() {
        return if bytes.len() < LONGEST_V2 {
            Read::Partial
        } else {
            Read::Invalid
        };
    }
    match header {
        Ok(header) => Read::Header(header.len(), binary(&header)),
        Err(_) => Read::Invalid,
    }
}

fn text(bytes: &[u8]) -> Read {
    let Some(end) = bytes.windows(2).take(LONGEST_V1).position(|two| two == b"\r\n") else {
        return if bytes.len() < LONGEST_V1 {
            Read::Partial
        } else {
            Read::Invalid
        };
    };
    let length = end + 2;
    let Ok(header) = v1::Header::try_from(&bytes[..length]) else {
        return Read::Invalid;
    };
    let ends = match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(a) => Some((
            SocketAddr::new(a.source_address.into(), a.source_port),
            SocketAddr::new(a.destination_address.into(), a.destination_port),
        )),
        v1::Addresses::Tcp6(a) => Some((
            SocketAddr::new(a.source_address.into(), a.source_port),
            SocketAddr::new(a.destination_address.into(), a.destination_port),
        )),
    };
    Read::Header(length, ends)
}

fn binary(header: &v2::Header<'_>) -> Option<Ends> {
    if header.command == v2::Command::Local {
        return None;
    }
    match header.addresses {
        v2::Addresses::IPv4(a) => Some((
            SocketAddr::new(a.source_address.into(), a.source_port),
            SocketAddr::new(a.destination_address.into(), a.destination_port),
        )),
        v2::Addresses::IPv6(a) => Some((
            SocketAddr::new(a.source_address.into(), a.source_port),
            SocketAddr::new(a.destination_address.into(), a.destination_port),
        )),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::proxy_protocol::{SIGNATURE, Version, header};

    fn ends() -> Ends {
        (
            "192.0.2.1:56324".parse().unwrap(),
            "192.0.2.2:443".parse().unwrap(),
        )
    }

    #[test]
    fn what_is_written_is_read() {
        let six: Ends = (
            "[2001:db8::1]:1".parse().unwrap(),
            "[2001:db8::2]:2".parse().unwrap(),
        );
        for (source, destination) in [ends(), six] {
            for version in [Version::V1, Version::V2] {
                let mut bytes = header(version, source, destination);
                let length = bytes.len();
                // Every beginning of it may go on.
                for cut in 0..length {
                    assert_eq!(parse(&bytes[..cut]), Read::Partial, "{version:?} {cut}");
                }
                bytes.extend_from_slice(b"\x16\x03\x01\xff");
                assert_eq!(parse(&bytes), Read::Header(length, Some((source, destination))));
            }
        }
    }

    #[test]
    fn malformed_headers_are_told_from_none() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n"), Read::Other);
        assert_eq!(parse(b"\x16\x03\x01"), Read::Other);
        assert_eq!(parse(b"PROXY UNKNOWN\r\nGET"), Read::Header(15, None));
        for bad in [
            &b"PROXY TCP4 nonsense\r\n"[..],
            b"PROXY TCP4 192.0.2.1 192.0.2.2 99999 1\r\n",
            b"PROXY TCP4 2001:db8::1 192.0.2.2 1 1\r\n",
            b"PROXY \xff\xff\r\n",
            &[b"PROXY ", &[b'x'; LONGEST_V1][..]].concat(),
        ] {
            assert_eq!(parse(bad), Read::Invalid, "{}", bad.escape_ascii());
        }
        // Version 3.
        let mut v3 = header(Version::V2, ends().0, ends().1);
        v3[12] = 0x31;
        assert_eq!(parse(&v3), Read::Invalid);
        // LOCAL says nothing of a client.
        let mut local = header(Version::V2, ends().0, ends().1);
        local[12] = 0x20;
        assert_eq!(parse(&local), Read::Header(local.len(), None));
    }

    #[test]
    fn a_header_is_not_read_for_ever() {
        let mut long = SIGNATURE.to_vec();
        long.extend_from_slice(&[0x21, 0x11, 0xff, 0xff]);
        long.resize(LONGEST_V2 - 1, 0);
        assert_eq!(parse(&long), Read::Partial);
        long.push(0);
        assert_eq!(parse(&long), Read::Invalid);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes: Vec<u8>, v2: bool) {
            let begin: &[u8] = if v2 { &SIGNATURE } else { b"PROXY " };
            let _ = parse(&[begin, &bytes].concat());
            let _ = parse(&bytes);
        }
    }
}
