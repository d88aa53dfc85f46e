//! The routes of one listener.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::request;
use sluice_config::v1;

use super::table::PathKey;
use super::{Candidate, HostMap, Table};
use crate::filter::Lookup;
use crate::l4::L4Route;
use crate::rule::Rule;

/// Which of two routes comes first if their matches are equal: the older, then by name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    /// Unix seconds.
    pub created: i64,
    /// `namespace/name`.
    pub name: Box<str>,
    /// Key of the route's resource.
    pub owner: Box<str>,
}

/// A route, compiled and ready to be put into the tables of its listeners.
pub struct Compiled {
    precedence: Arc<Precedence>,
    /// By key of the listener: the route's hostnames there (`""`: any).
    attachments: Vec<(Box<str>, Vec<Box<str>>)>,
    matches: Vec<(PathKey, Arc<Candidate>)>,
    l4: Option<Arc<L4Route>>,
}

impl Compiled {
    /// Compiles a route.
    ///
    /// # Errors
    /// `field: reason` of what cannot be honoured.
    pub fn compile(key: &str, config: &v1::Route, lookup: &mut dyn Lookup) -> Result<Self, String> {
        let precedence = Arc::new(Precedence {
            created: config.created,
            name: config.precedence_name.as_str().into(),
            owner: key.into(),
        });
        let (mut matches, mut l4) = (Vec::new(), None);
        match &config.rules {
            None => return Err("rules: not set, or of a kind that this version does not know".into()),
            Some(v1::route::Rules::L4(rules)) => l4 = Some(Arc::new(L4Route::compile(&config.name, rules, lookup)?)),
            Some(v1::route::Rules::Http(http)) => {
                let name: Arc<str> = config.name.as_str().into();
                for (r, rule) in http.rules.iter().enumerate() {
                    let field = |e| format!("rules[{r}].{e}");
                    let compiled = Arc::new(Rule::compile(&name, http.grpc, rule, lookup).map_err(field)?);
                    for (m, config) in rule.matches.iter().enumerate() {
                        let field = |e| format!("rules[{r}].matches[{m}].{e}");
                        let place = (u32::try_from(r).unwrap_or(u32::MAX), u32::try_from(m).unwrap_or(u32::MAX));
                        let candidate = Candidate::compile(config, &compiled, &precedence, place).map_err(field)?;
                        matches.push((PathKey::of(config).map_err(field)?, Arc::new(candidate)));
                    }
                }
            }
        }
        let attachments = config.attachments.iter().map(|a| (a.listener.as_str().into(), hostnames(a))).collect();
        Ok(Self { precedence, attachments, matches, l4 })
    }

    /// Keys of the listeners that it is attached to.
    pub fn listeners(&self) -> impl Iterator<Item = &str> {
        self.attachments.iter().map(|(listener, _)| &**listener)
    }

    fn hostnames_at(&self, listener: &str) -> impl Iterator<Item = &str> {
        self.attachments.iter().filter(move |(key, _)| **key == *listener).flat_map(|(_, h)| h.iter().map(|h| &**h))
    }
}

/// The hostnames under which a route is found. A request has matched the listener's hostname before it comes to routes,
/// so the route's own hostname selects the same requests as the intersection of both, and orders them as the API wants.
fn hostnames(attachment: &v1::Attachment) -> Vec<Box<str>> {
    let names = match attachment.route_hostnames.len() {
        n if n == attachment.hostnames.len() => &attachment.route_hostnames,
        _ => &attachment.hostnames,
    };
    let mut names: Vec<Box<str>> = names.iter().map(|name| name.to_ascii_lowercase().into()).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        names.push("".into());
    }
    names
}

#[derive(Clone)]
struct L4Entry {
    precedence: Arc<Precedence>,
    route: Arc<L4Route>,
}

type L4Bucket = Arc<Vec<L4Entry>>;

/// The routes of one listener. They outlive changes of the listener itself.
#[derive(Default)]
pub struct Tables {
    http: ArcSwap<HostMap<Table>>,
    l4: ArcSwap<HostMap<L4Bucket>>,
    first: Arc<ArcSwapOption<L4Route>>,
}

impl Tables {
    /// Replaces `old` by `new` under the listener with this key, in one step. Only one at a time may call this.
    pub fn replace(&self, listener: &str, old: Option<&Compiled>, new: Option<&Compiled>) {
        if old.into_iter().chain(new).any(|route| route.l4.is_none()) {
            self.replace_http(listener, old, new);
        }
        if old.into_iter().chain(new).any(|route| route.l4.is_some()) {
            self.replace_l4(listener, old, new);
        }
    }

    fn replace_http(&self, listener: &str, old: Option<&Compiled>, new: Option<&Compiled>) {
        let mut hosts = HostMap::clone(&self.http.load());
        if let Some(old) = old {
            for host in old.hostnames_at(listener) {
                let Some(mut table) = hosts.get(host).cloned() else { continue };
                for (path, _) in &old.matches {
                    table.remove(path, &old.precedence.owner);
                }
                if table.is_empty() {
                    hosts.remove(host);
                } else {
                    hosts.insert(host, table);
                }
            }
        }
        if let Some(new) = new {
            for host in new.hostnames_at(listener) {
                let mut table = hosts.get(host).cloned().unwrap_or_default();
                for (path, candidate) in &new.matches {
                    table.insert(path, Arc::clone(candidate));
                }
                hosts.insert(host, table);
            }
        }
        self.http.store(Arc::new(hosts));
    }

    fn replace_l4(&self, listener: &str, old: Option<&Compiled>, new: Option<&Compiled>) {
        let mut hosts = HostMap::clone(&self.l4.load());
        let mut change = |host: &str, change: &dyn Fn(&mut Vec<L4Entry>)| {
            let mut bucket: L4Bucket = hosts.get(host).cloned().unwrap_or_default();
            change(Arc::make_mut(&mut bucket));
            if bucket.is_empty() { hosts.remove(host) } else { hosts.insert(host, bucket) }
        };
        if let Some(old) = old {
            for host in old.hostnames_at(listener) {
                change(host, &|bucket| bucket.retain(|e| e.precedence.owner != old.precedence.owner));
            }
        }
        if let Some((new, route)) = new.and_then(|new| Some((new, new.l4.as_ref()?))) {
            for host in new.hostnames_at(listener) {
                change(host, &|bucket| {
                    let at = bucket.partition_point(|e| e.precedence < new.precedence);
                    bucket.insert(at, L4Entry { precedence: Arc::clone(&new.precedence), route: Arc::clone(route) });
                });
            }
        }
        let first = hosts.get("").and_then(|bucket| bucket.first()).map(|entry| Arc::clone(&entry.route));
        self.l4.store(Arc::new(hosts));
        self.first.store(first);
    }

    /// The rule that serves a request, and the length of the path prefix that matched, if it was one.
    pub fn find(&self, host: &str, head: &request::Parts) -> Option<(Arc<Rule>, Option<usize>)> {
        self.http.load().levels(host).find_map(|table| table.find(head))
    }

    /// The route of a stream with this server name (lower case; empty: none).
    pub fn l4_route(&self, sni: &str) -> Option<Arc<L4Route>> {
        self.l4.load().levels(sni).find_map(|bucket| bucket.first()).map(|entry| Arc::clone(&entry.route))
    }

    /// The route of streams and datagrams without a server name, as it changes.
    pub fn first(&self) -> &Arc<ArcSwapOption<L4Route>> {
        &self.first
    }

    /// True if no route is attached.
    pub fn is_empty(&self) -> bool {
        self.http.load().is_empty() && self.l4.load().is_empty()
    }
}
