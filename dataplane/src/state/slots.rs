//! Everything that other resources name: key material, endpoints, backends.
//!
//! Routes hold slots and never need to hear of what changes in them. A slot exists as soon as something names it, and
//! may be filled later.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use sluice_config::v1;

use crate::filter::{Lookup, Store};
use crate::own_calls::OwnCalls;
use crate::telemetry::{BackendMetrics, Metrics, RouteMetrics};
use crate::tls::client::ClientTls;
use crate::tls::material::{KeyPair, Material, root_store};
use crate::upstream::dynamic::Dynamic;
use crate::upstream::outside::Outside;
use crate::upstream::probe::Watch;
use crate::upstream::resolve::{self, Followed};
use crate::upstream::{Backend, EndpointSet, EndpointSlot, Prober, Resolver, Slot};

/// Which resources name a resource.
#[derive(Debug, Default)]
pub(super) struct Users(HashMap<String, BTreeSet<String>>);

impl Users {
    pub(super) fn add<'a>(&mut self, user: &str, named: impl IntoIterator<Item = &'a String>) {
        for name in named {
            self.0.entry(name.clone()).or_default().insert(user.to_owned());
        }
    }

    pub(super) fn remove<'a>(&mut self, user: &str, named: impl IntoIterator<Item = &'a String>) {
        for name in named {
            if let Some(users) = self.0.get_mut(name) {
                users.remove(user);
                if users.is_empty() {
                    self.0.remove(name);
                }
            }
        }
    }

    pub(super) fn of(&self, name: &str) -> impl Iterator<Item = &String> {
        self.0.get(name).into_iter().flatten()
    }
}

/// Empty slots that are never worth a sweep.
const FEW: usize = 64;

/// A backend that names Secrets, and has to be built anew when they change.
struct Dependent {
    config: v1::Backend,
    version: String,
}

/// Key, version and encoded body of a backend that is in effect now.
type Rebuilt = (String, String, Vec<u8>);

impl Dependent {
    fn encoded(&self) -> Vec<u8> {
        let body = v1::resource::Body::Backend(self.config.clone());
        let mut encoded = Vec::with_capacity(body.encoded_len());
        body.encode(&mut encoded);
        encoded
    }
}

/// The slots.
pub(super) struct Slots {
    metrics: Arc<Metrics>,
    backends: HashMap<String, Arc<Slot>>,
    /// Keys in `backends` of which there is no resource: they go when nobody holds them.
    empty: HashSet<String>,
    endpoints: HashMap<String, Arc<EndpointSlot>>,
    empty_endpoints: HashSet<String>,
    resolver: Option<Resolver>,
    /// The proxy's zone, or empty.
    zone: Box<str>,
    prober: Option<Prober>,
    /// Health checks that run, by backend.
    watches: HashMap<String, Watch>,
    /// Endpoints with hostnames: they go on changing by themselves.
    followed: HashMap<String, Followed>,
    secrets: HashMap<String, Material>,
    secret_users: Users,
    dependents: HashMap<String, Dependent>,
    /// How many empty slots there may be before they are looked through.
    sweep_at: usize,
    store: Store,
}

impl Slots {
    pub(super) fn new(metrics: Arc<Metrics>, resolver: Option<Resolver>) -> Self {
        Self {
            metrics,
            resolver,
            zone: "".into(),
            prober: None,
            watches: HashMap::new(),
            backends: HashMap::new(),
            empty: HashSet::new(),
            endpoints: HashMap::new(),
            empty_endpoints: HashSet::new(),
            followed: HashMap::new(),
            secrets: HashMap::new(),
            secret_users: Users::default(),
            dependents: HashMap::new(),
            sweep_at: FEW,
            store: Store::default(),
        }
    }

    /// Says where the proxy is, and what checks the health of endpoints.
    pub(super) fn situate(&mut self, zone: &str, prober: Option<Prober>) {
        (self.zone, self.prober) = (zone.into(), prober);
    }

    /// Says where outcomes of health checks are written.
    pub(super) fn log_checks(&self, config: Option<&v1::HealthCheckLog>) {
        if let Some(prober) = &self.prober {
            prober.log_to(config);
        }
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Takes a Secret. Returns the backends that were built anew with it.
    pub(super) fn put_secret(&mut self, key: &str, config: &v1::Secret) -> Result<Vec<Rebuilt>, String> {
        if let Some(v1::secret::Body::Data(data)) = &config.body {
            self.secrets.remove(key);
            self.store.put_secret(key, Some(data.entries.clone()));
            return Ok(Vec::new());
        }
        self.secrets.insert(key.to_owned(), Material::parse(config)?);
        self.store.put_secret(key, None);
        let users: Vec<String> = self.secret_users.of(key).cloned().collect();
        let mut rebuilt = Vec::new();
        for user in users {
            let Some(dependent) = self.dependents.remove(&user) else {
                continue;
            };
            match self.build(&user, &dependent.config) {
                Ok(backend) => {
                    self.fill(&user, backend);
                    rebuilt.push((user.clone(), dependent.version.clone(), dependent.encoded()));
                }
                Err(reason) => tracing::warn!(backend = user, reason, "backend keeps its old TLS settings"),
            }
            self.dependents.insert(user, dependent);
        }
        Ok(rebuilt)
    }

    /// Forgets a Secret. What was built with key material stays as it is.
    pub(super) fn remove_secret(&mut self, key: &str) {
        self.secrets.remove(key);
        self.store.put_secret(key, None);
    }

    pub(super) fn key_pair(&self, key: &str) -> Option<&Arc<KeyPair>> {
        match self.secrets.get(key) {
            Some(Material::KeyPair(pair)) => Some(pair),
            _ => None,
        }
    }

    pub(super) fn anchors(&self, key: &str) -> Option<&Arc<Vec<CertificateDer<'static>>>> {
        match self.secrets.get(key) {
            Some(Material::Anchors(anchors)) => Some(anchors),
            _ => None,
        }
    }

    pub(super) fn revocations(&self, key: &str) -> Option<&Arc<Vec<CertificateRevocationListDer<'static>>>> {
        match self.secrets.get(key) {
            Some(Material::Revocations(lists)) => Some(lists),
            _ => None,
        }
    }

    pub(super) fn put_endpoints(&mut self, key: &str, config: &v1::Endpoints) -> Result<(), String> {
        let slot = self.endpoint_slot(key);
        if resolve::has_names(config) {
            if let Some(followed) = self.followed.get_mut(key) {
                followed.update(config)?;
            } else {
                let resolver = self.resolver.as_ref();
                let resolver = resolver.ok_or("endpoints: hostnames cannot be looked up here")?;
                self.followed
                    .insert(key.to_owned(), resolver.follow(config, slot)?);
            }
        } else {
            let set = EndpointSet::build(config, &slot.load())?;
            self.followed.remove(key);
            slot.store(Arc::new(set));
        }
        self.empty_endpoints.remove(key);
        Ok(())
    }

    pub(super) fn remove_endpoints(&mut self, key: &str) {
        self.followed.remove(key);
        if let Some(slot) = self.endpoints.get(key) {
            slot.store(Arc::default());
            self.empty_endpoints.insert(key.to_owned());
        }
    }

    pub(super) fn put_backend(
        &mut self,
        key: &str,
        version: &str,
        config: &v1::Backend,
    ) -> Result<(), String> {
        self.forget_dependent(key);
        let named = secrets_of(config);
        if !named.is_empty() {
            self.secret_users.add(key, named);
            let dependent = Dependent {
                config: config.clone(),
                version: version.to_owned(),
            };
            self.dependents.insert(key.to_owned(), dependent);
        }
        let backend = self.build(key, config)?;
        self.fill(key, backend);
        Ok(())
    }

    fn fill(&mut self, key: &str, (backend, watch): (Arc<Backend>, Option<Watch>)) {
        self.slot(key).store(Some(backend));
        self.empty.remove(key);
        // The checks of its last version end here.
        match watch {
            Some(watch) => drop(self.watches.insert(key.to_owned(), watch)),
            None => drop(self.watches.remove(key)),
        }
    }

    pub(super) fn remove_backend(&mut self, key: &str) {
        self.forget_dependent(key);
        self.watches.remove(key);
        if let Some(slot) = self.backends.get(key) {
            slot.store(None);
            self.empty.insert(key.to_owned());
        }
    }

    /// Drops the slots that hold nothing and that nobody holds, when there may be as many of them as of others: an
    /// update does not pay for slots that wait for their resources.
    pub(super) fn sweep(&mut self) {
        self.store.sweep();
        if self.empty.len() + self.empty_endpoints.len() < self.sweep_at {
            return;
        }
        let Self {
            backends,
            empty,
            endpoints,
            empty_endpoints,
            ..
        } = self;
        let unused = |slots: usize| slots <= 1;
        empty.retain(|key| {
            let gone = backends
                .get(key)
                .is_none_or(|slot| unused(Arc::strong_count(slot)));
            if gone {
                backends.remove(key);
            }
            !gone
        });
        empty_endpoints.retain(|key| {
            let gone = endpoints
                .get(key)
                .is_none_or(|slot| unused(Arc::strong_count(slot)));
            if gone {
                endpoints.remove(key);
            }
            !gone
        });
        self.sweep_at = FEW.max(2 * (empty.len() + empty_endpoints.len()));
    }

    fn forget_dependent(&mut self, key: &str) {
        if let Some(dependent) = self.dependents.remove(key) {
            self.secret_users.remove(key, secrets_of(&dependent.config));
        }
    }

    fn build(&mut self, key: &str, config: &v1::Backend) -> Result<(Arc<Backend>, Option<Watch>), String> {
        let tls = config.tls.as_ref().map(|tls| self.client_tls(tls)).transpose()?;
        let endpoints = self.endpoint_slot(&config.endpoints);
        let metrics = self.metrics.backend(&config.name);
        let before = self.backends.get(key).and_then(|slot| slot.load());
        let tls = tls.map(Arc::new);
        let dynamic = Dynamic::new(config, tls.clone(), self.resolver.as_ref(), &self.zone)?;
        let mut backend = Backend::new(config, endpoints, tls, metrics, before.as_deref(), &self.zone)?;
        backend.dynamic = dynamic;
        let own_calls = config.own_calls.as_ref();
        let own_calls = own_calls.map(|own| OwnCalls::compile(own, self)).transpose();
        backend.own_calls = own_calls.map_err(|e| format!("own_calls.{e}"))?.map(Box::new);
        let backend = Arc::new(backend);
        let watch = match &self.prober {
            Some(prober) => prober.watch(config, &backend)?,
            None => None,
        };
        Ok((backend, watch))
    }

    fn client_tls(&self, config: &v1::UpstreamTls) -> Result<ClientTls, String> {
        let mut bundles = Vec::with_capacity(config.ca_secrets.len());
        for (i, key) in config.ca_secrets.iter().enumerate() {
            let missing = || format!("tls.ca_secrets[{i}]: there is no trust bundle `{key}`");
            bundles.push(self.anchors(key).ok_or_else(missing)?);
        }
        let client =
            match config.client_certificate_secret.as_str() {
                "" => None,
                key => Some(self.key_pair(key).ok_or_else(|| {
                    format!("tls.client_certificate_secret: there is no certificate `{key}`")
                })?),
            };
        ClientTls::build(config, root_store(bundles), client.map(AsRef::as_ref))
    }

    fn endpoint_slot(&mut self, key: &str) -> Arc<EndpointSlot> {
        let slot = self.endpoints.entry(key.to_owned()).or_insert_with(|| {
            self.empty_endpoints.insert(key.to_owned());
            Arc::default()
        });
        Arc::clone(slot)
    }

    fn slot(&mut self, key: &str) -> Arc<Slot> {
        if let Some(slot) = self.backends.get(key) {
            return Arc::clone(slot);
        }
        let slot = Arc::<Slot>::default();
        self.backends.insert(key.to_owned(), Arc::clone(&slot));
        self.empty.insert(key.to_owned());
        slot
    }
}

impl Lookup for Slots {
    fn backend(&mut self, key: &str) -> Arc<Slot> {
        self.slot(key)
    }

    fn route_metrics(&mut self, route: &str) -> Arc<RouteMetrics> {
        self.metrics.route(route)
    }

    fn backend_metrics(&mut self, backend: &str) -> Arc<BackendMetrics> {
        self.metrics.backend(backend)
    }

    fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    fn outside(&self) -> Outside {
        Outside::new(self.resolver.clone(), Arc::clone(&self.metrics))
    }
}

fn secrets_of(config: &v1::Backend) -> Vec<&String> {
    let Some(tls) = &config.tls else { return Vec::new() };
    let client = Some(&tls.client_certificate_secret).filter(|key| !key.is_empty());
    tls.ca_secrets.iter().chain(client).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_slots_go_when_nobody_holds_them() {
        let mut slots = Slots::new(Arc::default(), None);
        let held: Vec<_> = (0..FEW)
            .map(|i| slots.backend(&format!("backend/held-{i}")))
            .collect();
        for i in 0..10 * FEW {
            slots.backend(&format!("backend/{i}"));
            slots.sweep();
        }
        assert!(slots.backends.len() <= 4 * FEW, "{}", slots.backends.len());
        for (i, slot) in held.iter().enumerate() {
            assert!(
                Arc::ptr_eq(slot, &slots.backend(&format!("backend/held-{i}"))),
                "a route would hold another slot"
            );
        }
    }
}
