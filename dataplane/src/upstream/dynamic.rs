//! Backends whose destination is the host of the request.
//!
//! Owns what is known of such hosts: a bounded number of them, each with its addresses and, with TLS, its name. What a client
//! names must not lead into the proxy's own surroundings: addresses are judged after the look-up, each time anew.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::Name;
use http::uri::Authority;
use sluice_config::v1;
use tokio::sync::Semaphore;

use super::dns::LookUp;
use super::resolve::{self, Resolver};
use super::{Backend, EndpointSet};
use crate::tls::client::ClientTls;

/// Hosts that are remembered. Beyond that, the one that was not used for longest is forgotten.
const MAX_HOSTS: usize = 1024;
/// Look-ups under way at once.
const LOOK_UPS: usize = 64;
/// How long the last addresses of a name stay in use that does not resolve, before it is looked up again.
const STALE: Duration = Duration::from_secs(5);

/// Why a host is not gone to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no host with a port.
    #[error("the host is not one that can be connected to")]
    Invalid,
    /// All of its addresses are the proxy's own, or its neighbours'.
    #[error("the host has only addresses that may not be connected to")]
    Forbidden,
    /// It has no address that is known.
    #[error("the host cannot be resolved")]
    Unresolved,
}

/// Finds the destinations of one backend's requests.
#[derive(Debug)]
pub struct Dynamic {
    /// What each host's backend is made from.
    config: v1::Backend,
    tls: Option<Arc<ClientTls>>,
    zone: Box<str>,
    allow_local: bool,
    how: LookUp,
    resolver: Resolver,
    look_ups: Semaphore,
    hosts: Mutex<HashMap<(Box<str>, u16), Host>>,
}

#[derive(Debug)]
struct Host {
    backend: Arc<Backend>,
    until: Instant,
    used: Instant,
}

impl Dynamic {
    /// Reads the resource; `None` if its backend has endpoints of its own.
    ///
    /// # Errors
    /// If names cannot be looked up here.
    pub fn new(
        config: &v1::Backend,
        tls: Option<Arc<ClientTls>>,
        resolver: Option<&Resolver>,
        zone: &str,
    ) -> Result<Option<Box<Self>>, String> {
        let Some(dynamic) = &config.dynamic else {
            return Ok(None);
        };
        let resolver = resolver.ok_or("dynamic: hosts cannot be looked up here")?;
        Ok(Some(Box::new(Self {
            config: v1::Backend {
                dynamic: None,
                // Nobody would run the checks, and there is a backend a host.
                health_check: None,
                ..config.clone()
            },
            tls,
            zone: zone.into(),
            allow_local: dynamic.allow_local,
            how: LookUp::new(dynamic.dns.as_ref()),
            resolver: resolver.clone(),
            look_ups: Semaphore::new(LOOK_UPS),
            hosts: Mutex::default(),
        })))
    }

    /// The backend that a request with this Host header goes to; `parent` is the one that this belongs to.
    ///
    /// # Errors
    /// [`Refused`] if there is none.
    pub async fn destination(&self, parent: &Backend, host: &[u8]) -> Result<Arc<Backend>, Refused> {
        let (host, port) = self.parse(host).ok_or(Refused::Invalid)?;
        let key = (host, port);
        let known = self.known(&key);
        if let Some((backend, true)) = known {
            return Ok(backend);
        }
        let found = tokio::time::timeout(parent.connect_timeout, self.look_up(&key.0)).await;
        match (found.unwrap_or(Err(Refused::Unresolved)), known) {
            (Ok((addresses, holds)), known) => {
                let backend = match known {
                    Some((backend, _)) => backend,
                    None => Arc::new(self.build(parent, &key.0).ok_or(Refused::Invalid)?),
                };
                Self::place(&backend, &addresses, port)?;
                Ok(self.keep(key, backend, holds))
            }
            (Err(Refused::Unresolved), Some((backend, _))) => Ok(self.keep(key, backend, STALE)),
            (Err(refused), _) => Err(refused),
        }
    }

    /// Host in lower case, without brackets, and port.
    fn parse(&self, host: &[u8]) -> Option<(Box<str>, u16)> {
        let authority = Authority::try_from(host).ok()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let default = if self.tls.is_some() { 443 } else { 80 };
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // What has a colon and no port is broken.
            None if authority.as_str().len() != authority.host().len() => return None,
            None => default,
        };
        let host = authority.host();
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host)
            .trim_end_matches('.');
        (port != 0 && !bare.is_empty()).then(|| (bare.to_ascii_lowercase().into(), port))
    }

    /// What is known of the host; true if that still holds.
    fn known(&self, key: &(Box<str>, u16)) -> Option<(Arc<Backend>, bool)> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let host = hosts.get_mut(key)?;
        let now = Instant::now();
        host.used = now;
        Some((Arc::clone(&host.backend), now < host.until))
    }

    /// Remembers the backend, unless another request was quicker; then that one's.
    fn keep(&self, key: (Box<str>, u16), backend: Arc<Backend>, holds: Duration) -> Arc<Backend> {
        let now = Instant::now();
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if !hosts.contains_key(&key)
            && hosts.len() >= MAX_HOSTS
            && let Some(oldest) = hosts.iter().min_by_key(|(_, host)| host.used)
        {
            let oldest = oldest.0.clone();
            hosts.remove(&oldest);
        }
        let host = hosts.entry(key).or_insert(Host {
            backend,
            until: now,
            used: now,
        });
        host.until = now + holds;
        Arc::clone(&host.backend)
    }

    async fn look_up(&self, host: &str) -> Result<(Vec<IpAddr>, Duration), Refused> {
        let (mut addresses, holds) = if let Ok(address) = host.parse::<IpAddr>() {
            (vec![address.to_canonical()], LookUp::forever())
        } else {
            let name = Name::from_ascii(format!("{host}.")).map_err(|_| Refused::Invalid)?;
            let _permit = self.look_ups.acquire().await.map_err(|_| Refused::Unresolved)?;
            let found = resolve::look_up(name, self.resolver.servers(), self.how).await;
            let (addresses, ttl) = found.map_err(|error| {
                tracing::debug!(host, error, "host does not resolve");
                Refused::Unresolved
            })?;
            (addresses, self.how.holds(ttl))
        };
        if addresses.is_empty() {
            return Err(Refused::Unresolved);
        }
        addresses.retain(|address| self.allow_local || !is_guarded(*address));
        if addresses.is_empty() {
            return Err(Refused::Forbidden);
        }
        Ok((addresses, holds))
    }

    fn build(&self, parent: &Backend, host: &str) -> Option<Backend> {
        let tls = match &self.tls {
            None => None,
            Some(tls) => Some(Arc::new(tls.named(host)?)),
        };
        let (endpoints, metrics) = (Arc::default(), Arc::clone(&parent.metrics));
        let mut backend = Backend::new(&self.config, endpoints, tls, metrics, None, &self.zone).ok()?;
        // What is bounded is bounded over all hosts.
        backend.breaker.clone_from(&parent.breaker);
        Some(backend)
    }

    fn place(backend: &Backend, addresses: &[IpAddr], port: u16) -> Result<(), Refused> {
        let endpoint = |address: &IpAddr| v1::Endpoint {
            address: address.to_string(),
            port: u32::from(port),
            ..v1::Endpoint::default()
        };
        let config = v1::Endpoints {
            endpoints: addresses.iter().map(endpoint).collect(),
        };
        let set = EndpointSet::build(&config, &backend.endpoints.load()).map_err(|_| Refused::Invalid)?;
        backend.endpoints.store(Arc::new(set));
        Ok(())
    }
}

/// Addresses that a client must not be led to: this host's own, its neighbours', nobody's, and those of metadata services; also
/// where IPv6 only carries IPv4 (RFC 6052, RFC 3056, RFC 4291 section 2.5.5.1).
fn is_guarded(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_guarded_v4(v4),
        IpAddr::V6(v6) => {
            let parts = v6.segments();
            let carried =
                |high: u16, low: u16| is_guarded_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
            resolve::is_local(address)
                // Instance metadata of AWS.
                || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
                || (parts[..6] == [0x64, 0xff9b, 0, 0, 0, 0] && carried(parts[6], parts[7]))
                || (parts[0] == 0x2002 && carried(parts[1], parts[2]))
                || (parts[..6] == [0; 6] && carried(parts[6], parts[7]))
        }
    }
}

fn is_guarded_v4(address: Ipv4Addr) -> bool {
    /// Metadata services outside of the link-local range: Alibaba Cloud and Oracle Cloud.
    const METADATA: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
    resolve::is_local(address.into()) || address.octets()[0] == 0 || METADATA.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxys_surroundings_are_known_in_every_guise() {
        for text in [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "fd00:ec2::254",
            "100.100.100.200",
            "192.0.0.192",
            "224.0.0.1",
            "255.255.255.255",
            "fe80::1",
            "ff02::1",
            "::",
        ] {
            assert!(is_guarded(text.parse().unwrap()), "{text}");
        }
        for text in ["10.0.0.1", "192.0.2.7", "2001:db8::1", "64:ff9b::c000:207"] {
            assert!(!is_guarded(text.parse().unwrap()), "{text}");
        }
    }

    #[tokio::test]
    async fn hosts_are_read_as_they_are_written() {
        let config = v1::Backend {
            dynamic: Some(v1::DynamicResolver::default()),
            ..v1::Backend::default()
        };
        let resolver = Resolver::new(tokio::runtime::Handle::current(), Vec::new());
        let dynamic = Dynamic::new(&config, None, Some(&resolver), "").unwrap().unwrap();
        let parsed = |text: &str| {
            dynamic
                .parse(text.as_bytes())
                .map(|(host, port)| format!("{host} {port}"))
        };
        assert_eq!(parsed("A.example").as_deref(), Some("a.example 80"));
        assert_eq!(parsed("a.example.:8080").as_deref(), Some("a.example 8080"));
        assert_eq!(parsed("[2001:db8::1]:81").as_deref(), Some("2001:db8::1 81"));
        for broken in [
            "",
            "a.example:",
            "a.example:0",
            "a.example:99999",
            "u@a.example",
            "a b",
            ":80",
        ] {
            assert_eq!(parsed(broken), None, "{broken}");
        }
    }
}
