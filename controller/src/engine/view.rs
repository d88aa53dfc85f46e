//! What a translation sees of the world, with a record of what it looked at.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::config::GatewayConfigs;
use super::unit::{Dep, GatewayRef};
use super::{Map, Set};
use crate::login_key::LoginKey;
use crate::store::{ObjectRef, Store, Stored};
use crate::translate::model::{FleetModel, GatewayModel, Share};

/// What is fixed while the controller runs.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Which GatewayClasses are ours: `spec.controllerName`.
    pub controller_name: String,
    /// Namespace of the controller: fleets that Gateways share run there.
    pub namespace: String,
    /// Where the proxies are.
    pub mode: Mode,
    /// Proxies in front of ours that are trusted to append to X-Forwarded-For.
    pub xff_trusted_hops: u32,
    /// Backends may have loopback and link-local addresses, whoever writes them, and also where the request names them.
    pub allow_local_backends: bool,
    /// What the keys of logins are made from; `None`: each proxy makes its own.
    pub login_key: Option<LoginKey>,
    /// Who counts requests for all proxies together, if anyone does.
    pub rate_limit: Option<RateLimitService>,
}

/// A rate limit service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitService {
    /// Name or address of its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Milliseconds that it may take; 0: the proxy's default.
    pub timeout_ms: u64,
    /// Requests that it cannot be asked about are turned away.
    pub fail_closed: bool,
}

impl Environment {
    /// Whether a backend's own endpoints may be this host's. In standalone mode whoever writes the files owns the host.
    pub fn allows_local_endpoints(&self) -> bool {
        self.allow_local_backends || self.mode != Mode::Cluster
    }
}

/// Where the proxies are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Pods that the controller creates: a privileged port p is bound as 10000+p, addresses come from the Service, and a
    /// Gateway is programmed when a proxy is available.
    Cluster,
    /// This process: ports are bound as they are, the address is this one.
    Standalone(String),
}

/// What is known of a Gateway's proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyReport {
    /// Resources that a proxy refused, by key, with its reason.
    pub rejected: BTreeMap<String, String>,
}

/// Read access for one translation. Every look-up is recorded, also one that finds nothing.
pub struct View<'a> {
    store: &'a Store,
    models: &'a Map<GatewayRef, Arc<GatewayModel>>,
    fleets: &'a Map<Arc<str>, Arc<FleetModel>>,
    proxies: &'a Map<GatewayRef, ProxyReport>,
    configs: &'a GatewayConfigs,
    environment: &'a Environment,
    deps: RefCell<Set<Dep>>,
}

impl<'a> View<'a> {
    pub(super) fn new(
        store: &'a Store,
        models: &'a Map<GatewayRef, Arc<GatewayModel>>,
        fleets: &'a Map<Arc<str>, Arc<FleetModel>>,
        proxies: &'a Map<GatewayRef, ProxyReport>,
        configs: &'a GatewayConfigs,
        environment: &'a Environment,
    ) -> Self {
        Self {
            store,
            models,
            fleets,
            proxies,
            configs,
            environment,
            deps: RefCell::default(),
        }
    }

    pub(super) fn into_deps(self) -> Set<Dep> {
        self.deps.into_inner()
    }

    fn note(&self, dep: Dep) {
        self.deps.borrow_mut().insert(dep);
    }

    /// What is fixed.
    pub fn environment(&self) -> &Environment {
        self.environment
    }

    /// The object with this name; the namespace is empty for cluster-scoped kinds.
    pub fn get<T: Stored>(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        let reference = ObjectRef::new(T::KIND, namespace, name);
        let found = self
            .store
            .get(&reference)
            .and_then(crate::store::Object::downcast);
        self.note(Dep::Object(reference));
        found
    }

    /// All objects of a kind in a namespace, by name.
    pub fn list_in<T: Stored>(&self, namespace: &str) -> Vec<Arc<T>> {
        self.note(Dep::Namespace(T::KIND, namespace.into()));
        self.store
            .list_in(T::KIND, namespace)
            .filter_map(crate::store::Object::downcast)
            .collect()
    }

    /// All objects of a kind. Whoever asks is translated anew at every change of that kind.
    pub fn list<T: Stored>(&self) -> Vec<Arc<T>> {
        self.note(Dep::Kind(T::KIND));
        self.store
            .list(T::KIND)
            .filter_map(crate::store::Object::downcast)
            .collect()
    }

    /// All objects of a kind that point at `target` (see [`Stored::targets`]), by namespace and name.
    pub fn pointing_at<T: Stored>(&self, target: &ObjectRef) -> Vec<Arc<T>> {
        self.note(Dep::PointingAt(T::KIND, target.clone()));
        self.store
            .pointing_at(T::KIND, target)
            .filter_map(crate::store::Object::downcast)
            .collect()
    }

    /// A Gateway as its routes see it; `None` if it is not ours.
    pub fn gateway(&self, gateway: &GatewayRef) -> Option<Arc<GatewayModel>> {
        self.note(Dep::Model(gateway.clone()));
        self.models.get(gateway).cloned()
    }

    /// What a Gateway has of the fleet that the Gateways of its class share.
    pub fn share(&self, class: &str, gateway: &GatewayRef) -> Option<Arc<Share>> {
        self.note(Dep::Share(class.into(), gateway.clone()));
        self.fleets.get(class)?.shares.get(gateway).cloned()
    }

    /// What is known of a fleet's proxies.
    pub fn proxies(&self, gateway: &GatewayRef) -> ProxyReport {
        self.note(Dep::Proxies(gateway.clone()));
        self.proxies.get(gateway).cloned().unwrap_or_default()
    }

    /// The Gateways that have `target` (a Service or the like) among their backends.
    pub fn gateways_using(&self, target: &ObjectRef) -> BTreeSet<GatewayRef> {
        self.note(Dep::Usage(target.clone()));
        self.configs.users(target)
    }
}
