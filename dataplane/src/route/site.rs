//! What one listener serves: by hostname, the matches of its routes.

use std::cmp::Reverse;
use std::sync::Arc;

use http::request::Parts;

use super::candidate::{Candidate, RouteOrder};
use super::compiled::{Attachment, Body, Host, L4Candidate};
use super::hosts::{HostMap, Specificity};
use super::paths::Paths;
use super::{Listener, Matched, Route};
use crate::l4::L4Route;

/// A listener with its routes. Copies share what does not differ.
#[derive(Debug, Clone)]
pub struct Site {
    /// The listener.
    pub listener: Arc<Listener>,
    http: HostMap<Arc<Vec<Tier>>>,
    l4: HostMap<Arc<Vec<L4Place>>>,
}

/// A route for connections, the more specific name first.
type L4Place = (Specificity, Arc<L4Candidate>);

/// The matches of routes whose hostnames are equally specific.
#[derive(Debug, Clone)]
struct Tier {
    /// As routes name it.
    host: Arc<str>,
    specificity: Specificity,
    paths: Paths,
}

impl Site {
    /// A listener without routes.
    pub fn new(listener: Arc<Listener>) -> Self {
        Self {
            listener,
            http: HostMap::default(),
            l4: HostMap::default(),
        }
    }

    /// The match for a request. A more specific hostname takes precedence; what it does not match goes on to the less
    /// specific ones.
    pub fn find(&self, host: &str, head: &Parts) -> Option<(&Arc<Candidate>, Option<usize>)> {
        let path = head.uri.path();
        self.http
            .covering(host)
            .flat_map(|tiers| tiers.iter())
            .find_map(|tier| tier.paths.find(path, head))
    }

    /// The rule for a request that [`super::Port::locate`] has found to belong here.
    pub fn matched(&self, host: &str, head: &Parts) -> Option<Matched> {
        let (candidate, prefix) = self.find(host, head)?;
        let (listener, rule) = (Arc::clone(&self.listener), Arc::clone(&candidate.rule));
        Some(Matched {
            listener,
            rule,
            prefix,
        })
    }

    /// The host, as routes name it, by which [`Site::find`] finds the match for a request.
    pub fn host(&self, host: &str, head: &Parts) -> Option<&Arc<str>> {
        let path = head.uri.path();
        let tiers = self.http.covering(host).flat_map(|tiers| tiers.iter());
        let mut matching = tiers.filter(|tier| tier.paths.find(path, head).is_some());
        matching.next().map(|tier| &tier.host)
    }

    /// The route for a connection.
    pub fn l4(&self, server_name: &str) -> Option<&Arc<L4Route>> {
        let first = self
            .l4
            .covering(server_name)
            .find_map(|candidates| candidates.first());
        first.map(|(_, candidate)| &candidate.route)
    }

    /// Hangs a route in.
    pub fn attach(&mut self, route: &Route, attachment: &Attachment) {
        for host in self.hosts(attachment) {
            match &route.body {
                Body::Http(candidates) => self.attach_http(&host, candidates),
                Body::L4(candidate) => self.attach_l4(&host, candidate),
            }
        }
    }

    /// Takes a route out, as it was hung in.
    pub fn detach(&mut self, route: &Route, attachment: &Attachment) {
        for host in self.hosts(attachment) {
            match &route.body {
                Body::Http(candidates) => self.detach_http(&host, candidates),
                Body::L4(candidate) => self.detach_l4(&host.name, &candidate.order),
            }
        }
    }

    fn hosts(&self, attachment: &Attachment) -> Vec<Host> {
        if attachment.hosts.is_empty() {
            return vec![Host {
                name: Arc::clone(&self.listener.hostname),
                specificity: Specificity::of(""),
            }];
        }
        attachment.hosts.clone()
    }

    fn attach_http(&mut self, host: &Host, candidates: &[Arc<Candidate>]) {
        if candidates.is_empty() {
            return;
        }
        if self.http.get(&host.name).is_none() {
            self.http.insert(&host.name, Arc::default());
        }
        let Some(tiers) = self.http.get_mut(&host.name) else {
            return;
        };
        let tiers = Arc::make_mut(tiers);
        let at =
            match tiers.binary_search_by_key(&Reverse(host.specificity), |tier| Reverse(tier.specificity)) {
                Ok(at) => at,
                Err(at) => {
                    // Nearly always the only one; four would be reserved.
                    tiers.reserve_exact(1);
                    tiers.insert(
                        at,
                        Tier {
                            host: Arc::clone(&host.name),
                            specificity: host.specificity,
                            paths: Paths::default(),
                        },
                    );
                    at
                }
            };
        for candidate in candidates {
            tiers[at].paths.insert(candidate);
        }
    }

    fn detach_http(&mut self, host: &Host, candidates: &[Arc<Candidate>]) {
        let Some(tiers) = self.http.get_mut(&host.name) else {
            return;
        };
        let tiers = Arc::make_mut(tiers);
        if let Some(tier) = tiers.iter_mut().find(|tier| tier.specificity == host.specificity) {
            for candidate in candidates {
                tier.paths.remove(candidate);
            }
        }
        tiers.retain(|tier| !tier.paths.is_empty());
        if tiers.is_empty() {
            self.http.remove(&host.name);
        }
    }

    fn attach_l4(&mut self, host: &Host, candidate: &Arc<L4Candidate>) {
        if self.l4.get(&host.name).is_none() {
            self.l4.insert(&host.name, Arc::default());
        }
        let Some(candidates) = self.l4.get_mut(&host.name) else {
            return;
        };
        let candidates = Arc::make_mut(candidates);
        let place = (Reverse(host.specificity), &candidate.order);
        let at =
            candidates.partition_point(|(specificity, other)| (Reverse(*specificity), &other.order) < place);
        candidates.insert(at, (host.specificity, Arc::clone(candidate)));
    }

    fn detach_l4(&mut self, name: &str, order: &RouteOrder) {
        let Some(candidates) = self.l4.get_mut(name) else {
            return;
        };
        Arc::make_mut(candidates).retain(|(_, other)| other.order.key != order.key);
        if candidates.is_empty() {
            self.l4.remove(name);
        }
    }
}
