//! Endpoints that are given by name: looks the names up and keeps the sets of endpoints up to date.
//!
//! Owns the look-ups: one task a name of an Endpoints resource, which ends with it. Nothing waits for a look-up, no
//! request and no update; until the first answer a name has no addresses, and while answers fail it keeps the last.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use sluice_config::v1;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::dns::LookUp;
use super::{EndpointSet, EndpointSlot};

/// Who looks names up, and where.
#[derive(Debug, Clone)]
pub struct Resolver {
    runtime: Handle,
    /// None: the system's, as it is configured at each look-up.
    servers: Arc<[SocketAddr]>,
}

impl Resolver {
    /// Look-ups run on `runtime` and ask `servers`, or those of the system if there are none.
    pub fn new(runtime: Handle, servers: Vec<SocketAddr>) -> Self {
        Self {
            runtime,
            servers: servers.into(),
        }
    }

    /// Who is asked; empty: the servers of the system.
    pub(super) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// Keeps `slot` as `config` says, until what is returned is dropped.
    ///
    /// # Errors
    /// Names the field of the first endpoint that is none.
    pub fn follow(&self, config: &v1::Endpoints, slot: Arc<EndpointSlot>) -> Result<Followed, String> {
        let names = Names {
            config: v1::Endpoints::default(),
            found: HashMap::new(),
            slot,
            ended: false,
        };
        let mut followed = Followed {
            resolver: self.clone(),
            names: Arc::new(Mutex::new(names)),
            tasks: HashMap::new(),
        };
        followed.update(config)?;
        Ok(followed)
    }
}

/// Whether any endpoint is given by name.
pub fn has_names(config: &v1::Endpoints) -> bool {
    config.endpoints.iter().any(|e| !e.hostname.is_empty())
}

/// The look-ups for one Endpoints resource.
#[derive(Debug)]
pub struct Followed {
    resolver: Resolver,
    names: Arc<Mutex<Names>>,
    tasks: HashMap<String, JoinHandle<()>>,
}

impl Followed {
    /// Goes on with another configuration; what is known of names that stay is kept.
    ///
    /// # Errors
    /// Names the field of the first endpoint that is none; then all stays as it was.
    pub fn update(&mut self, config: &v1::Endpoints) -> Result<(), String> {
        let wanted = hostnames(config)?;
        {
            let mut names = lock(&self.names);
            let before = std::mem::replace(&mut names.config, config.clone());
            if let Err(reason) = names.publish() {
                names.config = before;
                return Err(reason);
            }
            names.found.retain(|name, _| wanted.contains_key(name));
        }
        self.tasks.retain(|name, task| {
            let stays = wanted.contains_key(name);
            if !stays {
                task.abort();
            }
            stays
        });
        for (hostname, name) in wanted {
            let (names, servers) = (&self.names, &self.resolver.servers);
            self.tasks.entry(hostname.clone()).or_insert_with(|| {
                let task = keep_up(Arc::clone(names), hostname, name, Arc::clone(servers));
                self.resolver.runtime.spawn(task)
            });
        }
        Ok(())
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        // A task may be just about to publish.
        lock(&self.names).ended = true;
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

/// The names of a resource that are to be looked up.
fn hostnames(config: &v1::Endpoints) -> Result<HashMap<String, Name>, String> {
    let mut names = HashMap::new();
    for (i, endpoint) in config.endpoints.iter().enumerate() {
        let hostname = &endpoint.hostname;
        if hostname.is_empty() {
            continue;
        }
        if !endpoint.address.is_empty() {
            return Err(format!("endpoints[{i}].hostname: there is an address too"));
        }
        if u16::try_from(endpoint.port).is_ok_and(|port| port != 0) {
            // Absolute, so that the search list of the system has no say.
            let name = Name::from_ascii(format!("{}.", hostname.trim_end_matches('.')));
            if let Ok(name) = name
                && hostname.parse::<IpAddr>().is_err()
            {
                names.insert(hostname.clone(), name);
                continue;
            }
            return Err(format!("endpoints[{i}].hostname: `{hostname}` is no hostname"));
        }
        return Err(format!("endpoints[{i}].port: {} is not a port", endpoint.port));
    }
    Ok(names)
}

/// The endpoints of a resource, and what is known of their names.
#[derive(Debug)]
struct Names {
    config: v1::Endpoints,
    found: HashMap<String, Vec<IpAddr>>,
    slot: Arc<EndpointSlot>,
    ended: bool,
}

impl Names {
    /// How a name is looked up.
    fn how(&self, hostname: &str) -> LookUp {
        let mut endpoints = self.config.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.hostname == hostname);
        LookUp::new(endpoint.and_then(|endpoint| endpoint.dns.as_ref()))
    }

    /// Takes in what a name has for addresses now.
    fn put(&mut self, hostname: &str, addresses: Vec<IpAddr>) {
        if self.ended || self.found.get(hostname) == Some(&addresses) {
            return;
        }
        tracing::debug!(hostname, ?addresses, "name resolved");
        if addresses.iter().all(|address| is_local(*address))
            && (self.config.endpoints.iter()).any(|e| e.hostname == hostname && !e.allow_local)
        {
            tracing::warn!(
                hostname,
                ?addresses,
                "name has only addresses of this host, which are not used"
            );
        }
        self.found.insert(hostname.to_owned(), addresses);
        if let Err(reason) = self.publish() {
            tracing::warn!(hostname, reason, "endpoints stay as they are");
        }
    }

    /// Shows the endpoints to requests. Those that were there before keep their state.
    fn publish(&self) -> Result<(), String> {
        let set = EndpointSet::build(&self.expand(), &self.slot.load())?;
        self.slot.store(Arc::new(set));
        Ok(())
    }

    /// The configuration with addresses in place of names.
    fn expand(&self) -> v1::Endpoints {
        let mut seen = HashSet::new();
        let mut endpoints = Vec::with_capacity(self.config.endpoints.len());
        for endpoint in &self.config.endpoints {
            if endpoint.hostname.is_empty() {
                endpoints.push(endpoint.clone());
                continue;
            }
            let found = self.found.get(&endpoint.hostname).into_iter().flatten();
            for address in found.filter(|address| endpoint.allow_local || !is_local(**address)) {
                if seen.insert((*address, endpoint.port)) {
                    endpoints.push(v1::Endpoint {
                        address: address.to_string(),
                        ..endpoint.clone()
                    });
                }
            }
        }
        v1::Endpoints { endpoints }
    }
}

fn lock(names: &Mutex<Names>) -> MutexGuard<'_, Names> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks a name up again and again.
async fn keep_up(names: Arc<Mutex<Names>>, hostname: String, name: Name, servers: Arc<[SocketAddr]>) {
    let mut failures = 0;
    loop {
        let how = lock(&names).how(&hostname);
        let pause = match look_up(name.clone(), &servers, how).await {
            Ok((addresses, ttl)) => {
                if failures > 0 {
                    tracing::info!(hostname, failures, "name resolves again");
                }
                failures = 0;
                lock(&names).put(&hostname, addresses);
                how.holds(ttl)
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(
                        hostname,
                        error,
                        "name does not resolve; its last addresses stay in use"
                    );
                }
                failures += 1;
                how.pause(failures - 1)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// The addresses of a name, in order, and how long they hold.
pub(super) async fn look_up(
    name: Name,
    servers: &[SocketAddr],
    how: LookUp,
) -> Result<(Vec<IpAddr>, Duration), String> {
    let mut builder = builder(servers)?;
    builder.options_mut().ip_strategy = how.families;
    let resolver = builder.build().map_err(|error| error.to_string())?;
    let found = resolver
        .lookup_ip(name)
        .await
        .map_err(|error| error.to_string())?;
    let ttl = found.valid_until().saturating_duration_since(Instant::now());
    let mut addresses: Vec<_> = found.iter().map(|address| address.to_canonical()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    // A family that leads nowhere is left out if the other one does not.
    if addresses.iter().any(|address| has_route(*address)) {
        addresses.retain(|address| has_route(*address));
    }
    Ok((addresses, ttl))
}

/// Each look-up reads the system's settings anew: they may have changed, and look-ups are rare.
fn builder(servers: &[SocketAddr]) -> Result<ResolverBuilder<TokioRuntimeProvider>, String> {
    if servers.is_empty() {
        return TokioResolver::builder_tokio().map_err(|error| error.to_string());
    }
    let server = |address: &SocketAddr| {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for connection in &mut connections {
            connection.port = address.port();
        }
        NameServerConfig::new(address.ip(), true, connections)
    };
    let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
    Ok(TokioResolver::builder_with_config(
        config,
        TokioRuntimeProvider::default(),
    ))
}

/// Whether the kernel knows a way to an address. Sends nothing.
fn has_route(address: IpAddr) -> bool {
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect((address, 9)).is_ok())
}

/// Addresses that are this host's own, its neighbours', or nobody's.
pub(super) fn is_local(address: IpAddr) -> bool {
    let either = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    either
        || match address {
            IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(of: &[(&str, &str, bool)]) -> v1::Endpoints {
        let endpoint = |(address, hostname, allow_local): &(&str, &str, bool)| v1::Endpoint {
            address: (*address).to_owned(),
            hostname: (*hostname).to_owned(),
            port: 80,
            allow_local: *allow_local,
            ..Default::default()
        };
        v1::Endpoints {
            endpoints: of.iter().map(endpoint).collect(),
        }
    }

    fn names(config: v1::Endpoints) -> Names {
        Names {
            config,
            found: HashMap::new(),
            slot: Arc::default(),
            ended: false,
        }
    }

    fn addresses(names: &Names) -> Vec<String> {
        let expanded = names.expand().endpoints;
        expanded.into_iter().map(|e| e.address).collect()
    }

    #[test]
    fn names_become_their_addresses_and_each_address_is_there_once() {
        let mut names = names(endpoints(&[
            ("192.0.2.1", "", false),
            ("", "a.example", false),
            ("", "b.example", false),
        ]));
        assert_eq!(addresses(&names), ["192.0.2.1"]);
        names.put(
            "a.example",
            vec!["192.0.2.2".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        );
        names.put("b.example", vec!["192.0.2.2".parse().unwrap()]);
        assert_eq!(addresses(&names), ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    }

    #[test]
    fn addresses_that_stay_keep_their_load() {
        let mut names = names(endpoints(&[("", "a.example", false)]));
        let (first, second) = (
            "192.0.2.1".parse::<IpAddr>().unwrap(),
            "192.0.2.2".parse().unwrap(),
        );
        names.put("a.example", vec![first]);
        let before = names.slot.load().find((first, 80).into()).unwrap();
        names.put("a.example", vec![first, second]);
        let after = names.slot.load().find((first, 80).into()).unwrap();
        assert!(Arc::ptr_eq(&before, &after));
        assert!(names.slot.load().find((second, 80).into()).is_some());
    }

    #[test]
    fn a_name_does_not_lead_into_the_host_itself() {
        for local in [
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
        ] {
            let mut refused = names(endpoints(&[("", "a.example", false)]));
            refused.put("a.example", vec![local.parse().unwrap()]);
            assert!(addresses(&refused).is_empty(), "{local}");
            let mut allowed = names(endpoints(&[("", "a.example", true)]));
            allowed.put("a.example", vec![local.parse().unwrap()]);
            assert_eq!(addresses(&allowed), [local]);
        }
    }

    #[test]
    fn what_has_ended_publishes_nothing() {
        let mut names = names(endpoints(&[("", "a.example", false)]));
        names.ended = true;
        names.put("a.example", vec!["192.0.2.1".parse().unwrap()]);
        assert!(names.slot.load().is_empty());
    }

    #[test]
    fn only_hostnames_are_looked_up() {
        for (address, hostname) in [
            ("", "192.0.2.1"),
            ("", "a..example"),
            ("", "a b"),
            ("192.0.2.1", "a.example"),
        ] {
            assert!(
                hostnames(&endpoints(&[(address, hostname, false)])).is_err(),
                "{hostname}"
            );
        }
        assert!(hostnames(&endpoints(&[("", "a.example.", false)])).is_ok());
    }

    #[tokio::test]
    async fn look_ups_end_with_their_resource() {
        // Nobody answers there.
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let resolver = Resolver::new(Handle::current(), vec![server.local_addr().unwrap()]);
        let config = endpoints(&[("", "a.example", false), ("", "b.example", false)]);
        let mut followed = resolver.follow(&config, Arc::default()).unwrap();
        let names = Arc::downgrade(&followed.names);
        tokio::task::yield_now().await;
        assert_eq!(names.strong_count(), 3);
        followed.update(&endpoints(&[("", "b.example", false)])).unwrap();
        while names.strong_count() != 2 {
            tokio::task::yield_now().await;
        }
        drop(followed);
        while names.strong_count() != 0 {
            tokio::task::yield_now().await;
        }
    }
}
