//! The PROXY protocol's header as it is sent, versions 1 and 2.
//!
//! Owns the encoding (the specification is haproxy's doc/proxy-protocol.txt, sections 2.1 and 2.2). Reading is
//! [`crate::listen`]'s business.

use std::net::{IpAddr, SocketAddr};

/// How the header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// In text.
    V1,
    /// In binary.
    V2,
}

/// What version 2 begins with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The header for a TCP connection that `source` made to `destination`.
pub fn header(version: Version, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (source, destination) = one_family(source, destination);
    match version {
        Version::V1 => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            let (from_port, to_port) = (source.port(), destination.port());
            format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
        }
        Version::V2 => {
            let mut out = SIGNATURE.to_vec();
            // Version 2, command PROXY.
            out.push(0x21);
            // AF_INET or AF_INET6, SOCK_STREAM; then the length of what follows.
            let (family, length): (u8, u16) = if source.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
            out.push(family);
            out.extend_from_slice(&length.to_be_bytes());
            for address in [source, destination] {
                match address.ip() {
                    IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
                    IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
                }
            }
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&destination.port().to_be_bytes());
            out
        }
    }
}

/// Both addresses in one family, as the header wants them.
fn one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    let (source, destination) = (canonical(source), canonical(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        (source, destination)
    } else {
        (mapped(source), mapped(destination))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_specified() {
        let (from, to) = (
            "192.0.2.1:56324".parse().unwrap(),
            "[::ffff:192.0.2.2]:443".parse().unwrap(),
        );
        assert_eq!(
            header(Version::V1, from, to),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"
        );
        let v2 = header(Version::V2, from, to);
        assert_eq!(&v2[12..16], [0x21, 0x11, 0, 12]);
        assert_eq!(&v2[16..], [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 0x01, 0xbb]);
        let mixed = header(Version::V1, from, "[2001:db8::1]:80".parse().unwrap());
        assert_eq!(mixed, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 56324 80\r\n");
        assert_eq!(
            header(Version::V2, from, "[2001:db8::1]:80".parse().unwrap()).len(),
            16 + 36
        );
    }
}
