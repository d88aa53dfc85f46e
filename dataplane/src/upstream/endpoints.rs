//! The endpoints behind a backend and the choice among them.
//!
//! Owns the set of addresses and their load. It opens no connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;
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
    active: AtomicU32,
    /// Milliseconds since [`epoch`] until which the endpoint is passed over.
    ejected_until: AtomicU64,
}

impl Endpoint {
    fn new(address: SocketAddr, zone: &str, hostname: &str) -> Self {
        Self {
            address,
            display: address.to_string(),
            zone: zone.into(),
            hostname: hostname.into(),
            active: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
        }
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
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
            let ip: IpAddr = endpoint.address.parse().map_err(|_| {
                format!(
                    "endpoints[{i}].address: `{}` is not an IP address",
                    endpoint.address
                )
            })?;
            let port = u16::try_from(endpoint.port)
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| format!("endpoints[{i}].port: {} is not a port", endpoint.port))?;
            let address = SocketAddr::new(ip, port);
            let known = previous
                .find(address)
                .filter(|known| *known.zone == *endpoint.zone && *known.hostname == *endpoint.hostname);
            let target = if endpoint.draining {
                &mut set.draining
            } else {
                &mut set.serving
            };
            target.push(
                known.unwrap_or_else(|| Arc::new(Endpoint::new(address, &endpoint.zone, &endpoint.hostname))),
            );
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
