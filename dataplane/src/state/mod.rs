//! Configuration: resources by key, and everything that is built from them.
//!
//! Owns what is in effect. An update is applied as one: its resources are compiled in the order given, then removals
//! are done, and only then do requests and sockets see the result. A resource that cannot be honoured is refused alone,
//! with the field in the reason, and its last good version stays in effect. The cost of an update follows its size, not
//! that of the configuration. Serves no connection itself.

mod listener;
mod ports;
mod slots;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use prost::Message;
use sluice_config::{key, v1};

pub use ports::Bind;

use crate::filter::geo::Databases;
use crate::filter::text::TextMatch;
use crate::route::{Attachment, Port, Route};
use crate::telemetry::settings::Settings as Telemetry;
use crate::upstream::{Prober, Resolver};
use crate::worker::Shared;
use listener::{Compiled, Place};
use ports::{Ports, Refusal};
use slots::{Slots, Users};

/// A resource that is in effect.
struct Held {
    version: String,
    /// The body, to be shown; empty for key material.
    encoded: Vec<u8>,
}

/// All configuration that is in effect.
pub struct State {
    shared: Arc<Shared>,
    held: HashMap<Arc<str>, Held>,
    slots: Slots,
    routes: HashMap<Arc<str>, Arc<Route>>,
    /// Keys of the routes on each listener, which may come later.
    attached: HashMap<Box<str>, BTreeSet<Arc<str>>>,
    ports: Ports,
    listener_secrets: Users,
    /// Listeners whose sockets could not be had.
    unbound: BTreeMap<String, v1::Resource>,
}

/// What an update leaves to be done at its end.
#[derive(Default)]
struct Pending {
    listeners: BTreeMap<String, (Compiled, v1::Resource)>,
    /// Listeners whose Secrets have changed.
    stale: BTreeSet<String>,
    rejected: Vec<v1::Rejection>,
}

impl Pending {
    fn reject(&mut self, resource: &v1::Resource, reason: String) {
        tracing::warn!(
            key = resource.key,
            version = resource.version,
            reason,
            "resource rejected"
        );
        let (key, version) = (resource.key.clone(), resource.version.clone());
        self.rejected.push(v1::Rejection { key, version, reason });
    }
}

impl State {
    /// Nothing yet. Sockets are opened with `bind`; without a `resolver` no endpoint can be given by name.
    pub fn new(shared: Arc<Shared>, bind: Box<dyn Bind>, resolver: Option<Resolver>) -> Self {
        let slots = Slots::new(Arc::clone(&shared.metrics), resolver);
        Self {
            shared,
            held: HashMap::new(),
            slots,
            routes: HashMap::new(),
            attached: HashMap::new(),
            ports: Ports::new(bind),
            listener_secrets: Users::default(),
            unbound: BTreeMap::new(),
        }
    }

    /// Says in which zone the proxy is (empty: not known), and what checks the health of endpoints (`None`: nothing).
    pub fn situate(&mut self, zone: &str, prober: Option<Prober>) {
        self.slots.situate(zone, prober);
    }

    /// Applies an update.
    pub fn apply(&mut self, update: &v1::Update) -> v1::Ack {
        let mut pending = Pending::default();
        for resource in &update.upserts {
            if self
                .held
                .get(resource.key.as_str())
                .is_some_and(|held| held.version == resource.version)
            {
                // What was waiting to replace it has been taken back.
                self.unbound.remove(&resource.key);
                pending.listeners.remove(&resource.key);
                continue;
            }
            match self.upsert(resource, &mut pending) {
                Ok(()) => {}
                Err(reason) => pending.reject(resource, reason),
            }
        }
        for key in &update.removes {
            self.remove(key, &mut pending);
        }
        self.settle(&mut pending);
        self.slots.sweep();
        v1::Ack {
            nonce: update.nonce,
            rejected: pending.rejected,
        }
    }

    /// Key and version of everything that is in effect.
    pub fn known(&self) -> HashMap<String, String> {
        self.held
            .iter()
            .map(|(key, held)| (key.to_string(), held.version.clone()))
            .collect()
    }

    /// How many resources are in effect.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// True if nothing is in effect.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Everything that is in effect, by key. Key material is left out.
    pub fn dump(&self) -> serde_json::Value {
        let show = |held: &Held| {
            let body = v1::Resource::decode(held.encoded.as_slice())
                .ok()
                .and_then(|resource| resource.body);
            serde_json::json!({ "version": held.version, "config": body })
        };
        self.held
            .iter()
            .map(|(key, held)| (key.to_string(), show(held)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// The port that is bound at `bind_port`, for TCP or for UDP.
    pub fn port(&self, bind_port: u16, udp: bool) -> Option<&Arc<Port>> {
        self.ports.port(Place { bind_port, udp })
    }

    /// True if no listener waits for its socket.
    pub fn all_bound(&self) -> bool {
        self.unbound.is_empty()
    }

    /// Tries again to bind what could not be bound.
    pub fn retry_binds(&mut self) {
        let mut pending = Pending::default();
        for (key, resource) in std::mem::take(&mut self.unbound) {
            if let Some(v1::resource::Body::Listener(config)) = &resource.body
                && let Ok(compiled) = Compiled::new(&key, &resource.version, config, &mut self.slots)
            {
                pending.listeners.insert(key, (compiled, resource));
            }
        }
        self.settle(&mut pending);
    }

    /// Takes no connection any more.
    pub fn close_sockets(&mut self) {
        self.ports.close();
    }

    fn upsert(&mut self, resource: &v1::Resource, pending: &mut Pending) -> Result<(), String> {
        use v1::resource::Body;
        let (key, version) = (resource.key.as_str(), resource.version.as_str());
        let kind = key::kind(key);
        let expect = |wanted: &str| {
            if kind == wanted {
                Ok(())
            } else {
                Err(format!("key: a {wanted} cannot be under `{key}`"))
            }
        };
        match resource
            .body
            .as_ref()
            .ok_or("body: not set, or of a kind that this version does not know")?
        {
            Body::Settings(settings) => {
                expect(key::SETTINGS)?;
                let geo = Databases::open(settings.geo.as_ref(), &self.shared.geo.load());
                self.shared.geo.store(Arc::new(geo));
                self.tell(settings)?;
                self.shared.settings.store(Arc::new(settings.clone()));
            }
            Body::Secret(secret) => {
                expect("secret")?;
                let rebuilt = self.slots.put_secret(key, secret)?;
                pending.stale.extend(self.listener_secrets.of(key).cloned());
                for (backend, version, encoded) in rebuilt {
                    self.held.insert(backend.into(), Held { version, encoded });
                }
                self.held.insert(
                    key.into(),
                    Held {
                        version: version.to_owned(),
                        encoded: Vec::new(),
                    },
                );
                return Ok(());
            }
            Body::Endpoints(endpoints) => {
                expect("endpoints")?;
                self.slots.put_endpoints(key, endpoints)?;
            }
            Body::Backend(backend) => {
                expect("backend")?;
                self.slots.put_backend(key, version, backend)?;
            }
            Body::Route(route) => {
                expect("route")?;
                let key = self.shared_key(key);
                let route = Route::compile(&key, route, &mut self.slots)?;
                self.detach_route(&key);
                self.attach_route(&key, route);
            }
            Body::Listener(listener) => {
                expect("listener")?;
                let compiled = Compiled::new(key, version, listener, &mut self.slots)?;
                // It is in effect once it is in its place.
                pending
                    .listeners
                    .insert(key.to_owned(), (compiled, resource.clone()));
                return Ok(());
            }
        }
        self.hold(resource);
        Ok(())
    }

    /// Puts what is to be told into effect.
    fn tell(&mut self, settings: &v1::Settings) -> Result<(), String> {
        let before = self.shared.telemetry.load_full();
        let asked = settings
            .telemetry
            .as_ref()
            .filter(|asked| **asked != v1::Telemetry::default());
        let compiled = asked
            .map(|asked| {
                Telemetry::compile(asked, &mut self.slots, &self.shared.access_log, before.as_deref())
                    .map_err(|e| format!("telemetry.{e}"))
            })
            .transpose()?;
        let names = asked.and_then(|asked| asked.metrics.as_ref());
        let names = names.map_or(&[][..], |metrics| &metrics.names);
        let names = names.iter().map(TextMatch::compile);
        let names = names
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| format!("telemetry.metrics.names.{e}"))?;
        self.shared.metrics.tell_only(names);
        self.shared.telemetry.store(compiled.map(Arc::new));
        self.slots
            .log_checks(asked.and_then(|asked| asked.health_check_log.as_ref()));
        Ok(())
    }

    fn hold(&mut self, resource: &v1::Resource) {
        let mut encoded = Vec::new();
        if let Some(body) = &resource.body {
            encoded.reserve_exact(body.encoded_len());
            body.encode(&mut encoded);
        }
        let held = Held {
            version: resource.version.clone(),
            encoded,
        };
        let key = self.routes.get_key_value(resource.key.as_str());
        let key = key.map_or_else(|| Arc::from(resource.key.as_str()), |(key, _)| Arc::clone(key));
        self.held.insert(key, held);
    }

    /// The key, as it is held already if it is: of thousands of routes each key is in memory once.
    fn shared_key(&self, key: &str) -> Arc<str> {
        let held = self.held.get_key_value(key);
        held.map_or_else(|| Arc::from(key), |(held, _)| Arc::clone(held))
    }

    fn remove(&mut self, key: &str, pending: &mut Pending) {
        self.held.remove(key);
        match key::kind(key) {
            key::SETTINGS => {
                self.shared.settings.store(Arc::default());
                self.shared.telemetry.store(None);
                self.shared.metrics.tell_only(Vec::new());
                self.slots.log_checks(None);
            }
            "secret" => {
                self.slots.remove_secret(key);
                pending.stale.extend(self.listener_secrets.of(key).cloned());
            }
            "endpoints" => self.slots.remove_endpoints(key),
            "backend" => self.slots.remove_backend(key),
            "route" => self.detach_route(key),
            "listener" => {
                pending.listeners.remove(key);
                self.unbound.remove(key);
                if let Some(compiled) = self.ports.detach(key) {
                    self.listener_secrets
                        .remove(key, listener::secrets_of(&compiled.config));
                }
            }
            _ => {}
        }
    }

    fn attach_route(&mut self, key: &Arc<str>, route: Route) {
        for attachment in &route.attachments {
            let listener = &attachment.listener;
            self.attached
                .entry(listener.clone())
                .or_default()
                .insert(Arc::clone(key));
            self.ports
                .change(listener, |site| site.attach(&route, attachment));
        }
        self.routes.insert(Arc::clone(key), Arc::new(route));
    }

    fn detach_route(&mut self, key: &str) {
        let Some(route) = self.routes.remove(key) else {
            return;
        };
        for attachment in &route.attachments {
            let listener = &attachment.listener;
            if let Some(keys) = self.attached.get_mut(listener) {
                keys.remove(key);
                if keys.is_empty() {
                    self.attached.remove(listener);
                }
            }
            self.ports
                .change(listener, |site| site.detach(&route, attachment));
        }
    }

    /// Puts listeners in their places and shows everything to requests.
    fn settle(&mut self, pending: &mut Pending) {
        self.refresh(pending);
        let mut moved = Vec::new();
        for (key, (compiled, resource)) in std::mem::take(&mut pending.listeners) {
            self.unbound.remove(&key);
            match self.ports.listener(&key) {
                Some(current) if current.same_place(&compiled) => {
                    self.note_secrets(&key, &compiled);
                    self.ports.replace(&key, compiled);
                    self.hold(&resource);
                }
                _ => moved.push((key, compiled, resource)),
            }
        }
        // All of them leave before the first takes its new place: they may change places with each other.
        let mut left = Vec::with_capacity(moved.len());
        for (key, compiled, resource) in moved {
            let before = self.ports.detach(&key);
            left.push((key, compiled, resource, before));
        }
        for (key, compiled, resource, before) in left {
            self.place(&key, compiled, &resource, before, pending);
        }
        self.ports.publish();
    }

    fn place(
        &mut self,
        key: &str,
        compiled: Compiled,
        resource: &v1::Resource,
        before: Option<Compiled>,
        pending: &mut Pending,
    ) {
        let Err(refusal) = self.attach_listener(key, before.as_ref(), compiled) else {
            return self.hold(resource);
        };
        pending.reject(resource, refusal.to_string());
        if matches!(refusal, Refusal::Bind { .. }) {
            self.unbound.insert(key.to_owned(), resource.clone());
        }
        let Some(before) = before else { return };
        if let Err(refusal) = self.attach_listener(key, None, before) {
            // Another listener of the same update has its place now.
            tracing::warn!(key, %refusal, "listener is not served");
            self.held.remove(key);
        }
    }

    fn attach_listener(
        &mut self,
        key: &str,
        before: Option<&Compiled>,
        compiled: Compiled,
    ) -> Result<(), Refusal> {
        let keys = self.attached.get(key).into_iter().flatten();
        let routes = keys.filter_map(|route| self.routes.get(route)).flat_map(|route| {
            let here = route
                .attachments
                .iter()
                .filter(|attachment| *attachment.listener == *key);
            here.map(|attachment: &Attachment| (route.as_ref(), attachment))
        });
        let named: Vec<String> = listener::secrets_of(&compiled.config)
            .into_iter()
            .cloned()
            .collect();
        self.ports.attach(key, compiled, routes)?;
        if let Some(before) = before {
            self.listener_secrets
                .remove(key, listener::secrets_of(&before.config));
        }
        self.listener_secrets.add(key, &named);
        Ok(())
    }

    fn note_secrets(&mut self, key: &str, compiled: &Compiled) {
        if let Some(before) = self.ports.listener(key) {
            self.listener_secrets
                .remove(key, listener::secrets_of(&before.config));
        }
        self.listener_secrets
            .add(key, listener::secrets_of(&compiled.config));
    }

    /// Builds the listeners anew whose Secrets have changed.
    fn refresh(&mut self, pending: &mut Pending) {
        for key in std::mem::take(&mut pending.stale) {
            if let Some((compiled, resource)) = pending.listeners.get_mut(&key) {
                // A Secret may have gone since it was compiled.
                if let Ok(fresh) = Compiled::new(&key, &resource.version, &compiled.config, &mut self.slots) {
                    *compiled = fresh;
                }
            } else if let Some(current) = self.ports.listener(&key).cloned() {
                match Compiled::new(&key, &current.version, &current.config, &mut self.slots) {
                    Ok(fresh) => self.ports.replace(&key, fresh),
                    Err(reason) => tracing::warn!(key, reason, "listener keeps its old TLS settings"),
                }
            }
        }
    }
}
