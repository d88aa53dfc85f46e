//! Whose address a request's client has, as a listener wants it found.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::HeaderName;
use ipnet::IpNet;
use sluice_config::v1;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How the client's address is found.
#[derive(Debug)]
pub enum Detection {
    /// What so many trusted proxies have appended to X-Forwarded-For.
    Hops(u32),
    /// The last of X-Forwarded-For that is not of a trusted network.
    Networks(Vec<IpNet>),
    /// What a header says.
    Header {
        /// The header.
        name: HeaderName,
        /// Without a valid one the request is refused.
        fail_closed: bool,
    },
}

impl Detection {
    pub(super) fn compile(config: &v1::client_ip_detection::Source) -> Result<Self, String> {
        use v1::client_ip_detection::Source;
        Ok(match config {
            Source::TrustedHops(hops) => Self::Hops(*hops),
            Source::TrustedNetworks(networks) => {
                let nets = networks.cidrs.iter().map(|cidr| network(cidr));
                Self::Networks(nets.collect::<Result<_, _>>()?)
            }
            Source::Header(header) => Self::Header {
                name: HeaderName::from_bytes(header.name.as_bytes())
                    .map_err(|_| format!("header.name: `{}` is not a header name", header.name))?,
                fail_closed: header.fail_closed,
            },
        })
    }

    /// The client's address, and whether the peer is trusted to speak of it. `None`: the request is to be refused.
    pub fn client(&self, headers: &HeaderMap, peer: IpAddr) -> Option<(IpAddr, bool)> {
        match self {
            Self::Hops(0) => Some((peer, false)),
            Self::Hops(hops) => {
                let mut entries = forwarded_for(headers).into_iter().rev();
                let address = entries.nth(*hops as usize - 1).and_then(|entry| address(&entry));
                Some((address.unwrap_or(peer), true))
            }
            Self::Networks(networks) => {
                let trusted = |address: IpAddr| networks.iter().any(|net| net.contains(&address));
                if !trusted(peer) {
                    return Some((peer, false));
                }
                let mut client = peer;
                for entry in forwarded_for(headers).iter().rev() {
                    // Who appended this is trusted, but it says nothing of use.
                    let Some(entry) = address(entry) else { break };
                    client = entry;
                    if !trusted(entry) {
                        break;
                    }
                }
                Some((client, true))
            }
            Self::Header { name, fail_closed } => {
                let mut values = headers.get_all(name).iter();
                let only = values.next().filter(|_| values.next().is_none());
                match only.and_then(|value| value.to_str().ok()).and_then(address) {
                    Some(address) => Some((address, false)),
                    None if *fail_closed => None,
                    None => Some((peer, false)),
                }
            }
        }
    }
}

/// The entries of X-Forwarded-For, over all its fields.
fn forwarded_for(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|entry| String::from_utf8_lossy(entry).trim().to_owned())
        .collect()
}

/// An address as a header has it: bare, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(text)
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<std::net::SocketAddr>().map(|address| address.ip()))
        .ok()
        .map(|address| address.to_canonical())
}

fn network(cidr: &str) -> Result<IpNet, String> {
    cidr.parse::<IpNet>()
        .or_else(|_| cidr.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("trusted_networks.cidrs: `{cidr}` is not a network"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        headers
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn hops_are_counted_from_the_end() {
        let find = |hops, lines: &[&str]| {
            Detection::Hops(hops)
                .client(&headers(lines), ip("10.0.0.1"))
                .unwrap()
                .0
        };
        assert_eq!(find(0, &["192.0.2.1"]), ip("10.0.0.1"));
        assert_eq!(find(1, &["forged, 192.0.2.1"]), ip("192.0.2.1"));
        assert_eq!(find(2, &["192.0.2.1", "192.0.2.2"]), ip("192.0.2.1"));
        assert_eq!(find(3, &["192.0.2.1", "192.0.2.2"]), ip("10.0.0.1"));
        assert_eq!(find(1, &["nonsense"]), ip("10.0.0.1"));
    }

    #[test]
    fn networks_are_skipped_from_the_end() {
        let networks = Detection::Networks(vec![
            network("10.0.0.0/8").unwrap(),
            network("2001:db8::1").unwrap(),
        ]);
        let find = |peer, lines: &[&str]| networks.client(&headers(lines), ip(peer)).unwrap();
        assert_eq!(find("192.0.2.9", &["1.1.1.1"]), (ip("192.0.2.9"), false));
        assert_eq!(
            find("10.0.0.1", &["forged, 192.0.2.1:4711, [2001:db8::1], 10.1.1.1"]),
            (ip("192.0.2.1"), true)
        );
        assert_eq!(find("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), (ip("10.0.0.3"), true));
        assert_eq!(
            find("10.0.0.1", &["192.0.2.1, nonsense,10.0.0.2"]),
            (ip("10.0.0.2"), true)
        );
        assert_eq!(find("10.0.0.1", &[]), (ip("10.0.0.1"), true));
        assert!(network("10.0.0.0/33").is_err());
    }

    #[test]
    fn a_header_may_be_demanded() {
        let detection = |fail_closed| Detection::Header {
            name: X_FORWARDED_FOR,
            fail_closed,
        };
        let peer = ip("10.0.0.1");
        let one = headers(&["192.0.2.1"]);
        assert_eq!(detection(true).client(&one, peer), Some((ip("192.0.2.1"), false)));
        for bad in [
            headers(&[]),
            headers(&["nonsense"]),
            headers(&["192.0.2.1", "192.0.2.2"]),
        ] {
            assert_eq!(detection(true).client(&bad, peer), None);
            assert_eq!(detection(false).client(&bad, peer), Some((peer, false)));
        }
    }
}
