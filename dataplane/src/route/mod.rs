//! Which listener, and which rule, a request belongs to; which route a connection belongs to.
//!
//! Owns the tables and Gateway API's rules of precedence. A table is immutable: [`crate::state`] changes a copy, which
//! shares with the old one what has not changed, and swaps it in, so that no request ever waits for a lock. Opens
//! nothing, sends nothing, and does nothing to a request.
//!
//! ```text
//! Port -> Table -> Site (a listener, by its hostname) -> tier (a host of its routes) -> Paths -> Candidate -> Rule
//! ```
//!
//! A request belongs to the listener with the most specific hostname that covers its host, and is never served by
//! routes of another one. Within the listener, routes with more specific hostnames come first.

mod candidate;
mod compiled;
mod hosts;
mod paths;
#[cfg(test)]
mod property;
mod site;
mod split;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;
use tokio::sync::watch;

pub(crate) use candidate::{Path, REGEX_CACHE, REGEX_SIZE, header_value, whole};
pub use compiled::{Attachment, Route};
pub use hosts::HostMap;
pub use site::Site;

use crate::filter::Filter;
use crate::l4::L4Route;
use crate::listen::fingerprint::Wanted;
use crate::listen::{Client, Http3, TlsSession};
use crate::rule::Rule;
use crate::telemetry::ListenerMetrics;

/// One listener, as requests see it.
#[derive(Debug)]
pub struct Listener {
    /// The resource's key.
    pub key: Arc<str>,
    /// `namespace/parent/listener`.
    pub name: Arc<str>,
    /// True if it terminates TLS for HTTP.
    pub https: bool,
    /// The port as clients know it.
    pub port: u16,
    /// Lower case; empty: any; `*.example.com`: any below.
    pub hostname: Arc<str>,
    /// Filters of the listener itself; they run before those of a route.
    pub filters: Vec<Filter>,
    /// What is done about TLS.
    pub tls: Termination,
    /// What it says of its clients, if anything.
    pub client: Option<Arc<Client>>,
    /// What is computed of ClientHellos.
    pub fingerprints: Wanted,
    /// Its counters.
    pub metrics: Arc<ListenerMetrics>,
}

impl Listener {
    /// Set if it serves HTTP/3.
    pub fn http3(&self) -> Option<&Http3> {
        self.client.as_ref()?.http3.as_ref()
    }
}

/// What a listener does about TLS.
#[derive(Debug, Clone)]
pub enum Termination {
    /// There is none.
    Cleartext,
    /// It is between the client and the backend.
    Passthrough,
    /// It ends here.
    Terminate(Arc<ServerConfig>),
    /// It should end here, but there is no certificate, or nothing to verify the client's with.
    Refused,
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTTP in cleartext.
    Http,
    /// TLS, with HTTP inside or not.
    Tls,
    /// Anything over TCP.
    Tcp,
    /// Datagrams.
    Udp,
}

/// What is served on a port: its listeners by hostname.
#[derive(Debug, Clone)]
pub struct Table {
    /// What is spoken.
    pub kind: Kind,
    /// The listeners.
    pub sites: HostMap<Arc<Site>>,
}

/// One port and what is served on it. Stable while its content changes, so that open connections see the changes.
#[derive(Debug)]
pub struct Port {
    number: u16,
    table: ArcSwap<Table>,
    datagrams: Arc<ArcSwapOption<L4Route>>,
    /// The UDP port at which some listener serves HTTP/3.
    http3: watch::Sender<Option<u16>>,
    /// Connections that are open, where they are counted.
    open: AtomicU64,
}

impl Port {
    /// A port on which nothing is served yet. `number` is as clients know it.
    pub fn new(number: u16, kind: Kind) -> Self {
        let table = Table {
            kind,
            sites: HostMap::default(),
        };
        Self {
            number,
            table: ArcSwap::from_pointee(table),
            datagrams: Arc::default(),
            http3: watch::Sender::new(None),
            open: AtomicU64::new(0),
        }
    }

    /// Counts a connection as open until the guard is dropped. `None`: there are `most` already.
    pub fn enter(self: &Arc<Self>, most: u64) -> Option<Entered> {
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < most).then(|| open + 1)
            })
            .ok()?;
        Some(Entered(Arc::clone(self)))
    }

    /// As clients know it.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The listener that a request belongs to: `host`, lower case and without port, decides alone. The listener's
    /// filters run before [`Site::matched`] chooses among its routes.
    ///
    /// # Errors
    /// See [`Miss`].
    pub fn locate(&self, host: &str, tls: Option<&TlsSession>) -> Result<Arc<Site>, Miss> {
        let table = self.table.load();
        let site = table
            .sites
            .covering(host)
            .find(|site| site.listener.https == tls.is_some())
            .ok_or(Miss::NoRoute)?;
        // A client may send requests for several hosts over one connection. The listener that the host belongs to may
        // have another certificate or ask for a client's: the connection has to be made to it (GEP-3567).
        if tls.is_some_and(|tls| tls.listener.key != site.listener.key) {
            return Err(Miss::Misdirected);
        }
        Ok(Arc::clone(site))
    }

    /// What is spoken.
    pub fn kind(&self) -> Kind {
        self.table.load().kind
    }

    /// The listener for a connection whose client asked for this name, or for none (empty).
    pub fn site(&self, server_name: &str) -> Option<Arc<Site>> {
        self.table.load().sites.covering(server_name).next().cloned()
    }

    /// Any listener, for what cannot be told apart yet: the one without a hostname if there is one.
    pub fn any_listener(&self) -> Option<Arc<Listener>> {
        self.table
            .load()
            .sites
            .values()
            .next()
            .map(|site| Arc::clone(&site.listener))
    }

    /// The route for datagrams; changes without being asked for again.
    pub fn datagrams(&self) -> &Arc<ArcSwapOption<L4Route>> {
        &self.datagrams
    }

    /// The UDP port at which some listener serves HTTP/3; tells of changes.
    pub fn http3(&self) -> watch::Receiver<Option<u16>> {
        self.http3.subscribe()
    }

    /// The settings of a listener that serves HTTP/3.
    pub fn http3_client(&self) -> Option<Arc<Client>> {
        let table = self.table.load();
        let mut sites = table.sites.values();
        let site = sites.find(|site| site.listener.http3().is_some())?;
        site.listener.client.clone()
    }

    /// Replaces what is served.
    pub fn publish(&self, table: Table) {
        if table.kind == Kind::Udp {
            self.datagrams
                .store(table.sites.get("").and_then(|site| site.l4("").cloned()));
        }
        let http3 = table
            .sites
            .values()
            .find_map(|site| Some(site.listener.http3()?.bind_port));
        self.table.store(Arc::new(table));
        self.http3
            .send_if_modified(|current| std::mem::replace(current, http3) != http3);
    }
}

/// A connection that counts as open.
#[derive(Debug)]
pub struct Entered(Arc<Port>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why nothing serves a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// No listener or no rule is for it: 404.
    NoRoute,
    /// The host belongs to another listener than the connection: 421 (RFC 9110, 15.5.20).
    Misdirected,
}

/// A rule, and how it was matched.
#[derive(Debug)]
pub struct Matched {
    /// The listener that the request belongs to.
    pub listener: Arc<Listener>,
    /// The rule.
    pub rule: Arc<Rule>,
    /// Length of the path prefix that matched, without a slash at its end.
    pub prefix: Option<usize>,
}
