//! The ports that are open and the listeners on them.
//!
//! Owns the tables that are being changed; [`Ports::publish`] shows them to requests. Sockets are opened and closed
//! here through [`Bind`], and only for ports that come and go: what changes on a port never touches its socket.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tokio_util::sync::DropGuard;

use super::listener::{Compiled, Place};
use crate::route::{Attachment, HostMap, Kind, Port, Route, Site, Table};

/// Opens sockets.
pub trait Bind: Send {
    /// Opens the sockets of a port at `bind_port` and starts to serve it. They are closed when the guard goes.
    ///
    /// # Errors
    /// If the port cannot be had.
    fn bind(&mut self, bind_port: u16, port: &Arc<Port>) -> io::Result<DropGuard>;
}

/// Why a listener was not put in its place.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("bind_port: {bind_port} cannot be bound: {error}")]
    Bind { bind_port: u16, error: io::Error },
    #[error("{0}")]
    Conflict(String),
}

struct OpenPort {
    port: Arc<Port>,
    table: Table,
    /// `None` when no connection is taken any more.
    socket: Option<DropGuard>,
    changed: bool,
}

/// All ports.
pub(super) struct Ports {
    bind: Box<dyn Bind>,
    open: HashMap<Place, OpenPort>,
    /// Listeners by key.
    placed: HashMap<String, Compiled>,
    closed: bool,
}

impl Ports {
    pub(super) fn new(bind: Box<dyn Bind>) -> Self {
        Self {
            bind,
            open: HashMap::new(),
            placed: HashMap::new(),
            closed: false,
        }
    }

    /// The listener with this key, if it is in its place.
    pub(super) fn listener(&self, key: &str) -> Option<&Compiled> {
        self.placed.get(key)
    }

    /// The port that is bound there.
    pub(super) fn port(&self, place: Place) -> Option<&Arc<Port>> {
        self.open.get(&place).map(|open| &open.port)
    }

    /// Replaces a listener that keeps its place.
    pub(super) fn replace(&mut self, key: &str, compiled: Compiled) {
        let listener = Arc::clone(&compiled.listener);
        self.change(key, |site| site.listener = listener);
        self.placed.insert(key.to_owned(), compiled);
    }

    /// Puts a listener in its place, with its routes.
    pub(super) fn attach<'a>(
        &mut self,
        key: &str,
        compiled: Compiled,
        routes: impl Iterator<Item = (&'a Route, &'a Attachment)>,
    ) -> Result<(), Refusal> {
        self.open(&compiled)?;
        let Some(open) = self.open.get_mut(&compiled.place) else {
            return Ok(());
        };
        let mut site = Site::new(Arc::clone(&compiled.listener));
        routes.for_each(|(route, attachment)| site.attach(route, attachment));
        open.table
            .sites
            .insert(&compiled.listener.hostname, Arc::new(site));
        open.changed = true;
        self.placed.insert(key.to_owned(), compiled);
        Ok(())
    }

    /// Takes a listener out of its place.
    pub(super) fn detach(&mut self, key: &str) -> Option<Compiled> {
        let compiled = self.placed.remove(key)?;
        if let Some(open) = self.open.get_mut(&compiled.place) {
            open.table.sites.remove(&compiled.listener.hostname);
            open.changed = true;
        }
        Some(compiled)
    }

    /// Changes what a listener serves, if it is in its place.
    pub(super) fn change(&mut self, listener: &str, change: impl FnOnce(&mut Site)) {
        let Some(compiled) = self.placed.get(listener) else {
            return;
        };
        let Some(open) = self.open.get_mut(&compiled.place) else {
            return;
        };
        if let Some(site) = open.table.sites.get_mut(&compiled.listener.hostname) {
            change(Arc::make_mut(site));
            open.changed = true;
        }
    }

    /// Shows the changes to requests, and closes the ports on which nothing is left.
    pub(super) fn publish(&mut self) {
        self.open.retain(|_, open| {
            if std::mem::take(&mut open.changed) {
                open.port.publish(open.table.clone());
            }
            !open.table.sites.is_empty()
        });
    }

    /// Takes no connection any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.open.values_mut().for_each(|open| open.socket = None);
    }

    /// Makes sure that the port of a listener is open and has room for it.
    fn open(&mut self, compiled: &Compiled) -> Result<(), Refusal> {
        let Compiled {
            place,
            kind,
            listener,
            ..
        } = compiled;
        if self
            .open
            .get(place)
            .is_some_and(|open| open.table.sites.is_empty() && open.port.number() != listener.port)
        {
            self.open.remove(place);
        }
        let Some(open) = self.open.get_mut(place) else {
            let port = Arc::new(Port::new(listener.port, *kind));
            let socket = self.bind(place.bind_port, &port)?;
            let table = Table {
                kind: *kind,
                sites: HostMap::default(),
            };
            self.open.insert(
                *place,
                OpenPort {
                    port,
                    table,
                    socket,
                    changed: true,
                },
            );
            return Ok(());
        };
        if open.table.sites.is_empty() {
            open.table.kind = *kind;
            open.changed = true;
        }
        conflict(open, compiled).map_or(Ok(()), |reason| Err(Refusal::Conflict(reason)))
    }

    fn bind(&mut self, bind_port: u16, port: &Arc<Port>) -> Result<Option<DropGuard>, Refusal> {
        if self.closed {
            return Ok(None);
        }
        self.bind
            .bind(bind_port, port)
            .map(Some)
            .map_err(|error| Refusal::Bind { bind_port, error })
    }
}

fn conflict(open: &OpenPort, compiled: &Compiled) -> Option<String> {
    let (bind_port, number) = (compiled.place.bind_port, open.port.number());
    if number != compiled.listener.port {
        return Some(format!("bind_port: {bind_port} serves port {number} already"));
    }
    if open.table.kind != compiled.kind {
        return Some(format!(
            "protocol: port {number} is used with another one already"
        ));
    }
    let other = open.table.sites.get(&compiled.listener.hostname)?;
    let (hostname, name) = (&compiled.listener.hostname, &other.listener.name);
    Some(match compiled.kind {
        Kind::Tcp | Kind::Udp => format!("port: {number} is served by listener {name} already"),
        Kind::Http | Kind::Tls => {
            format!("hostname: `{hostname}` is served by listener {name} on this port already")
        }
    })
}
