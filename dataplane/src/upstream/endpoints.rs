//! The endpoints behind a backend and the choice among them.
//!
//! Owns the set of addresses and their load. It opens no connection.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;
use rustls::pki_types::ServerName;
use sluice_config::v1;

use super::health::Member;

/// How long an endpoint that refused a connection is passed over while others are left.
const EJECTION: Duration = Duration::from_secs(2);

/// One address and what is known of its load. Kept across updates that keep the address.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    /// `address` as the access log prints it.
    display: String,
    zone: Box<str>,
    /// The name that it was found by; empty: it was given by address.
    hostname: Box<str>,
    /// What few endpoints have.
    special: Option<Box<Special>>,
    active: AtomicU32,
    /// Milliseconds since [`epoch`] until which the endpoint is passed over.
    ejected_until: AtomicU64,
}

/// How an endpoint differs from an address.
#[derive(Debug, PartialEq, Eq)]
struct Special {
    /// Where its Unix socket is; `address` only tells it from others then.
    path: Option<Box<Path>>,
    /// The name that its certificate must hold, if that is not the backend's.
    server_name: Option<ServerName<'static>>,
    identity: u64,
}

impl Special {
    fn read(config: &v1::Endpoint) -> Result<Option<Box<Self>>, String> {
        if config.path.is_empty() && config.server_name.is_empty() {
            return Ok(None);
        }
        let server_name = match config.server_name.as_str() {
            "" => None,
            name => Some(
                ServerName::try_from(name.to_owned())
                    .map_err(|_| format!("server_name: `{name}` is not a host name"))?,
            ),
        };
        let mut hasher = DefaultHasher::new();
        (&config.path, &config.server_name).hash(&mut hasher);
        Ok(Some(Box::new(Self {
            path: (!config.path.is_empty()).then(|| Path::new(&config.path).into()),
            server_name,
            identity: hasher.finish().max(1),
        })))
    }
}

/// Stands for a Unix socket where endpoints are told apart by address: an address of the range that leads nowhere (RFC 6666).
fn stand_in(path: &str) -> SocketAddr {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    let ip = Ipv6Addr::from((0x100 << 112) | u128::from(hasher.finish()));
    SocketAddr::new(ip.into(), 1)
}

impl Endpoint {
    fn new(address: SocketAddr, config: &v1::Endpoint, special: Option<Box<Special>>) -> Self {
        Self {
            address,
            display: if config.path.is_empty() {
                address.to_string()
            } else {
                config.path.clone()
            },
            zone: config.zone.as_str().into(),
            hostname: config.hostname.as_str().into(),
            special,
            active: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
        }
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Path of its Unix socket, if it is one.
    pub fn path(&self) -> Option<&Path> {
        self.special.as_ref()?.path.as_deref()
    }

    /// The name that its certificate must hold, if that is not the backend's.
    pub fn server_name(&self) -> Option<&ServerName<'static>> {
        self.special.as_ref()?.server_name.as_ref()
    }

    /// Differs between endpoints of one address whose connections must not be taken for each other's.
    pub fn identity(&self) -> u64 {
        self.special.as_ref().map_or(0, |special| special.identity)
    }

    /// The address in text.
    pub fn display(&self) -> &str {
        &self.display
    }

    /// Passes the endpoint over for a short while: it refused a connection.
    pub fn eject(&self) {
        self.ejected_until
            .store(now_ms() + duration_ms(EJECTION), Ordering::Relaxed);
    }

    /// The name that it was found by; empty: it was given by address.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Where it is, if that is known; else empty.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// True if it refused a connection just now.
    pub fn is_ejected(&self) -> bool {
        let until = self.ejected_until.load(Ordering::Relaxed);
        until != 0 && until > now_ms()
    }

    /// Requests under way to it.
    pub fn load(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }
}

fn epoch() -> Instant {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

fn duration_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
    duration_ms(epoch().elapsed())
}

/// Counts one request towards an endpoint's load until it is dropped.
#[derive(Debug)]
pub struct Active {
    endpoint: Arc<Endpoint>,
    member: Option<Arc<Member>>,
}

impl Active {
    /// The endpoint that the request goes to.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The endpoint as its backend knows it, if the backend keeps an eye on it.
    pub fn member(&self) -> Option<&Arc<Member>> {
        self.member.as_ref()
    }

    pub(super) fn of(member: &Arc<Member>) -> Self {
        let mut active = EndpointSet::claim(member.endpoint());
        active.member = Some(Arc::clone(member));
        active
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.endpoint.active.fetch_sub(1, Ordering::Relaxed);
    }
}

fn address(config: &v1::Endpoint) -> Result<SocketAddr, String> {
    if !config.path.is_empty() {
        return if config.path.starts_with('/') {
            Ok(stand_in(&config.path))
        } else {
            Err(format!("path: `{}` is not absolute", config.path))
        };
    }
    let ip: IpAddr = config
        .address
        .parse()
        .map_err(|_| format!("address: `{}` is not an IP address", config.address))?;
    let port = u16::try_from(config.port)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("port: {} is not a port", config.port))?;
    Ok(SocketAddr::new(ip, port))
}

/// An immutable set of endpoints.
#[derive(Debug, Default)]
pub struct EndpointSet {
    serving: Vec<Arc<Endpoint>>,
    /// Terminating but still serving; used only when nothing else is left.
    draining: Vec<Arc<Endpoint>>,
}

impl EndpointSet {
    /// Reads the addresses; endpoints that `previous` knows keep their state.
    ///
    /// # Errors
    /// Names the field of the first address or port that is none.
    pub fn build(config: &v1::Endpoints, previous: &EndpointSet) -> Result<Self, String> {
        let mut set = Self::default();
        for (i, endpoint) in config.endpoints.iter().enumerate() {
            let address = address(endpoint).map_err(|e| format!("endpoints[{i}].{e}"))?;
            let special = Special::read(endpoint).map_err(|e| format!("endpoints[{i}].{e}"))?;
            let known = previous.find(address).filter(|known| {
                *known.zone == *endpoint.zone
                    && *known.hostname == *endpoint.hostname
                    && known.special == special
            });
            let target = if endpoint.draining {
                &mut set.draining
            } else {
                &mut set.serving
            };
            target.push(known.unwrap_or_else(|| Arc::new(Endpoint::new(address, endpoint, special))));
        }
        Ok(set)
    }

    /// The endpoint with this address, if it is in the set.
    pub fn find(&self, address: SocketAddr) -> Option<Arc<Endpoint>> {
        self.serving
            .iter()
            .chain(&self.draining)
            .find(|e| e.address == address)
            .cloned()
    }

    /// Those that serve.
    pub fn serving(&self) -> &[Arc<Endpoint>] {
        &self.serving
    }

    /// Those that end but still serve.
    pub fn draining(&self) -> &[Arc<Endpoint>] {
        &self.draining
    }

    /// True if there is nothing to send a request to.
    pub fn is_empty(&self) -> bool {
        self.serving.is_empty() && self.draining.is_empty()
    }

    /// Power of two choices, least active requests. Endpoints in `tried` and those that lately refused a connection
    /// are taken only if no other is left; draining ones only if no serving one exists.
    pub fn pick(&self, tried: &[SocketAddr]) -> Option<Active> {
        let all = if self.serving.is_empty() {
            &self.draining
        } else {
            &self.serving
        };
        let endpoint = match all.as_slice() {
            [] => return None,
            [only] => only,
            _ => {
                let good = |e: &Endpoint| !e.is_ejected() && !tried.contains(&e.address);
                two_choices(all, good)
                    .or_else(|| two_choices(all, |e| !tried.contains(&e.address)))
                    .or_else(|| two_choices(all, |_| true))?
            }
        };
        Some(Self::claim(endpoint))
    }

    /// True if there is an endpoint besides `this` and those in `tried`.
    pub fn has_other(&self, this: &Endpoint, tried: &[SocketAddr]) -> bool {
        let all = if self.serving.is_empty() {
            &self.draining
        } else {
            &self.serving
        };
        all.iter()
            .any(|e| e.address != this.address && !tried.contains(&e.address))
    }

    /// Takes a given endpoint, as session persistence asks.
    pub fn claim(endpoint: &Arc<Endpoint>) -> Active {
        endpoint.active.fetch_add(1, Ordering::Relaxed);
        Active {
            endpoint: Arc::clone(endpoint),
            member: None,
        }
    }
}

/// Looks at two random places and takes the less loaded acceptable one; walks on from a place that is not acceptable.
fn two_choices(all: &[Arc<Endpoint>], accept: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
    let mut rng = rand::rng();
    let from = |start: usize| {
        (0..all.len())
            .map(|i| &all[(start + i) % all.len()])
            .find(|e| accept(e))
    };
    let first = from(rng.random_range(0..all.len()))?;
    let second = from(rng.random_range(0..all.len()))?;
    Some(if second.load() < first.load() {
        second
    } else {
        first
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(serving: &[u16], draining: &[u16]) -> EndpointSet {
        let endpoint = |port: &u16, draining| v1::Endpoint {
            address: "127.0.0.1".into(),
            port: u32::from(*port),
            draining,
            ..Default::default()
        };
        let endpoints = serving
            .iter()
            .map(|p| endpoint(p, false))
            .chain(draining.iter().map(|p| endpoint(p, true)));
        EndpointSet::build(
            &v1::Endpoints {
                endpoints: endpoints.collect(),
            },
            &EndpointSet::default(),
        )
        .unwrap()
    }

    #[test]
    fn prefers_the_less_loaded() {
        let set = set(&[1, 2], &[]);
        let held: Vec<_> = (0..20).map(|_| set.pick(&[]).unwrap()).collect();
        let ones = held.iter().filter(|a| a.endpoint().address().port() == 1).count();
        assert!((5..=15).contains(&ones), "{ones} of 20");
    }

    #[test]
    fn draining_ones_are_the_last_resort() {
        let mixed = set(&[1], &[2]);
        assert!((0..20).all(|_| mixed.pick(&[]).unwrap().endpoint().address().port() == 1));
        assert_eq!(set(&[], &[2]).pick(&[]).unwrap().endpoint().address().port(), 2);
        assert!(set(&[], &[]).pick(&[]).is_none());
    }

    #[test]
    fn a_retry_goes_elsewhere() {
        let set = set(&[1, 2, 3], &[]);
        let tried = ["127.0.0.1:1".parse().unwrap(), "127.0.0.1:3".parse().unwrap()];
        assert!((0..20).all(|_| set.pick(&tried).unwrap().endpoint().address().port() == 2));
    }

    #[test]
    fn load_survives_an_update() {
        let before = set(&[1, 2], &[]);
        let held = before.pick(&[]).unwrap();
        let config = v1::Endpoints {
            endpoints: vec![v1::Endpoint {
                address: "127.0.0.1".into(),
                port: u32::from(held.endpoint().address().port()),
                ..Default::default()
            }],
        };
        let after = EndpointSet::build(&config, &before).unwrap();
        assert_eq!(after.serving[0].load(), 1);
    }
}
