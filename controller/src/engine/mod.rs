//! Incremental translation: keeps the output of every unit, and after an event translates anew just the units that
//! read what has changed.
//!
//! A [`Unit`] is the smallest thing that is translated by itself: a class, a Gateway, a route, a backend, its
//! endpoints, a secret, a policy. While a unit is translated its [`View`] records every look-up, also those that found nothing;
//! the engine keeps these [`Dep`]s and needs no other knowledge of what depends on what. A backend, its endpoints and
//! its secrets are translated only while a Gateway reaches them.
//!
//! ```text
//! objects --> Class --> Gateway --model--> Route --needs--> Backend --needs--> Endpoints, Secret
//!                          \------------------needs------------------------------> Secret
//! ```

mod config;
mod fleets;
mod output;
mod unit;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

pub use config::ConfigChange;
pub use output::{
    AncestorStatus, Bundle, Infra, InfraPort, Infrastructure, ListenerStatus, Output, ParentStatus,
    PodService, Status, WantedPodService,
};
pub use unit::{BackendId, BackendUsage, Dep, EndpointsId, GatewayRef, Unit};
pub use view::{Environment, Mode, ProxyReport, RateLimitService, View};

use crate::store::{Object, ObjectRef, Store};
use crate::translate;
use crate::translate::model::{FleetModel, GatewayModel};
use config::GatewayConfigs;

pub(crate) type Map<K, V> = HashMap<K, V, ahash::RandomState>;
pub(crate) type Set<K> = HashSet<K, ahash::RandomState>;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// An object is there, new or changed.
    Upsert(Object),
    /// An object is gone.
    Delete(ObjectRef),
    /// What is known of a fleet's proxies has changed.
    Proxies(GatewayRef, ProxyReport),
}

/// What follows from a batch of events.
#[derive(Debug, Default)]
pub struct Changes {
    /// Configuration to publish, by fleet.
    pub config: BTreeMap<GatewayRef, ConfigChange>,
    /// Statuses that differ from the last ones stated. `None`: the object is not ours any more, withdraw what we said.
    pub statuses: BTreeMap<ObjectRef, Option<Status>>,
    /// What is to become of infrastructure, by fleet.
    pub infra: BTreeMap<GatewayRef, Infrastructure>,
    /// What is to become of the Services that find pods, by XBackend.
    pub pods: BTreeMap<ObjectRef, PodService>,
    /// Units that were translated anew, in order.
    pub translated: Vec<Unit>,
}

/// Listeners whose number of routes has changed, by gateway.
type Recounted = BTreeMap<GatewayRef, BTreeSet<Arc<str>>>;

#[derive(Default)]
struct Translated {
    output: Output,
    deps: Set<Dep>,
}

/// The store, the output of every unit, and what each unit depends on.
pub struct Engine {
    environment: Environment,
    store: Store,
    units: Map<Unit, Translated>,
    dependents: Map<Dep, BTreeSet<Unit>>,
    models: Map<GatewayRef, Arc<GatewayModel>>,
    /// By class: the fleets that Gateways share.
    fleets: Map<Arc<str>, Arc<FleetModel>>,
    proxies: Map<GatewayRef, ProxyReport>,
    configs: GatewayConfigs,
    /// Routes attached to each listener, by key of the listener's resource, for each gateway.
    attached: Map<(GatewayRef, Arc<str>), i32>,
}

impl Engine {
    /// An engine without objects.
    pub fn new(environment: Environment) -> Self {
        Self {
            environment,
            store: Store::default(),
            units: Map::default(),
            dependents: Map::default(),
            models: Map::default(),
            fleets: Map::default(),
            proxies: Map::default(),
            configs: GatewayConfigs::default(),
            attached: Map::default(),
        }
    }

    /// The objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// All resources of a fleet's proxies by key, as they are now.
    pub fn config(&self, fleet: &GatewayRef) -> BTreeMap<&str, &sluice_config::v1::Resource> {
        self.configs.resources(fleet)
    }

    /// The fleets that have configuration: each Gateway's, or that which the Gateways of a class share.
    pub fn fleets(&self) -> impl Iterator<Item = &GatewayRef> {
        self.configs.fleets()
    }

    /// Every status that is stated now.
    pub fn statuses(&self) -> impl Iterator<Item = (&ObjectRef, Status)> {
        self.units.iter().flat_map(|(unit, translated)| {
            translated
                .output
                .statuses
                .iter()
                .map(|(object, status)| (object, self.with_counts(unit, status)))
        })
    }

    /// All infrastructure that has to be there or may stay, by fleet.
    pub fn infra(&self) -> impl Iterator<Item = (&GatewayRef, &Infrastructure)> {
        let all = self.units.values().map(|translated| &translated.output.infra);
        all.filter_map(|infra| Some((&infra.infra()?.gateway, infra)))
    }

    /// The Services that find the pods of XBackends: what should be there and what is.
    pub fn pods(&self) -> impl Iterator<Item = (&ObjectRef, &PodService)> {
        self.units
            .iter()
            .filter_map(|(unit, translated)| match (unit, &translated.output.pods) {
                (Unit::Policy(object), Some(pods)) => Some((object, pods)),
                _ => None,
            })
    }

    /// Takes in a batch of events and says what follows. Cost grows with what the events touch, not with the number
    /// of objects.
    pub fn apply(&mut self, events: impl IntoIterator<Item = Event>) -> Changes {
        let mut dirty = BTreeSet::new();
        for event in events {
            self.take_in(event, &mut dirty);
        }
        let mut changes = Changes::default();
        let mut recounted = Recounted::default();
        // The order of units is the order of the data's path, so that a unit is translated after what it reads.
        while let Some(unit) = dirty.pop_first() {
            self.retranslate(&unit, &mut dirty, &mut recounted, &mut changes);
        }
        // At the end, so that thousands of routes on one Gateway state its listeners once.
        for (gateway, counted) in recounted {
            self.restate(&gateway, &counted, &mut changes);
        }
        self.configs.take_changes(&mut changes.config);
        changes
    }

    fn take_in(&mut self, event: Event, dirty: &mut BTreeSet<Unit>) {
        let reference = match event {
            Event::Upsert(object) => {
                let reference = object.reference().clone();
                let targets: Vec<_> = object.targets().to_vec();
                let previous = self.store.insert(object);
                let before = previous.iter().flat_map(|p| p.targets().iter().cloned());
                for target in targets.into_iter().chain(before) {
                    self.soil(&Dep::PointingAt(reference.kind, target), dirty);
                }
                reference
            }
            Event::Delete(reference) => {
                let Some(previous) = self.store.remove(&reference) else {
                    return;
                };
                for target in previous.targets() {
                    self.soil(&Dep::PointingAt(reference.kind, target.clone()), dirty);
                }
                reference
            }
            Event::Proxies(gateway, report) => {
                if self.proxies.get(&gateway) != Some(&report) {
                    self.proxies.insert(gateway.clone(), report);
                    self.soil(&Dep::Proxies(gateway), dirty);
                }
                return;
            }
        };
        self.soil(
            &Dep::Namespace(reference.kind, Arc::clone(&reference.namespace)),
            dirty,
        );
        self.soil(&Dep::Kind(reference.kind), dirty);
        dirty.extend(Unit::root(&reference));
        self.soil(&Dep::Object(reference), dirty);
    }

    fn soil(&self, dep: &Dep, dirty: &mut BTreeSet<Unit>) {
        if let Some(units) = self.dependents.get(dep) {
            dirty.extend(units.iter().cloned());
        }
    }

    fn retranslate(
        &mut self,
        unit: &Unit,
        dirty: &mut BTreeSet<Unit>,
        recounted: &mut Recounted,
        changes: &mut Changes,
    ) {
        let exists = match unit.object() {
            Some(object) => self.store.get(&object).is_some(),
            None => self.configs.is_needed(unit),
        };
        let (output, deps) = if exists {
            let view = View::new(
                &self.store,
                &self.models,
                &self.fleets,
                &self.proxies,
                &self.configs,
                &self.environment,
            );
            let output = translate::translate(unit, &view);
            changes.translated.push(unit.clone());
            (output, view.into_deps())
        } else {
            (Output::default(), Set::default())
        };
        self.replace_deps(unit, &deps);
        let new = Translated { output, deps };
        let old = self.units.insert(unit.clone(), new).unwrap_or_default().output;
        self.compare(unit, &old, dirty, recounted, changes);
        if !exists {
            self.units.remove(unit);
        }
    }

    fn replace_deps(&mut self, unit: &Unit, new: &Set<Dep>) {
        let empty = Set::default();
        let old = self.units.get(unit).map_or(&empty, |t| &t.deps);
        for gone in old.difference(new) {
            if let Some(units) = self.dependents.get_mut(gone) {
                units.remove(unit);
                if units.is_empty() {
                    self.dependents.remove(gone);
                }
            }
        }
        for added in new.difference(old) {
            self.dependents
                .entry(added.clone())
                .or_default()
                .insert(unit.clone());
        }
    }

    /// Carries the difference between the unit's last output and its present one into everything derived from it.
    fn compare(
        &mut self,
        unit: &Unit,
        old: &Output,
        dirty: &mut BTreeSet<Unit>,
        recounted: &mut Recounted,
        changes: &mut Changes,
    ) {
        let new = std::mem::take(&mut self.units.entry(unit.clone()).or_default().output);
        if let Unit::Gateway(gateway) = unit
            && old.model != new.model
        {
            match &new.model {
                Some(model) => {
                    self.configs.assign(gateway, &model.fleet);
                    self.models.insert(gateway.clone(), Arc::clone(model))
                }
                None => self.models.remove(gateway),
            };
            self.soil(&Dep::Model(gateway.clone()), dirty);
        }
        if let Unit::Class(class) = unit {
            self.share_out(class, old.fleet.as_deref(), new.fleet.as_ref(), dirty);
        }
        if old.infra != new.infra
            && let Some(infra) = new.infra.infra().or(old.infra.infra())
        {
            changes.infra.insert(infra.gateway.clone(), new.infra.clone());
        }
        if let Unit::Policy(object) = unit
            && old.pods != new.pods
        {
            let pods = new.pods.clone().unwrap_or_default();
            changes.pods.insert(object.clone(), pods);
        }
        let touched = self.configs.replace(unit, old, &new, |needed| {
            self.units.get(needed).map(|t| &t.output)
        });
        for needed in touched.translate {
            dirty.insert(needed);
        }
        for used in touched.usage {
            self.soil(&Dep::Usage(used), dirty);
        }
        self.recount(old, &new, recounted);
        for (object, _) in &old.statuses {
            if !new.statuses.iter().any(|(o, _)| o == object) {
                changes.statuses.insert(object.clone(), None);
            }
        }
        for (object, status) in &new.statuses {
            if !old.statuses.iter().any(|(o, s)| o == object && s == status) {
                changes
                    .statuses
                    .insert(object.clone(), Some(self.with_counts(unit, status)));
            }
        }
        self.units.entry(unit.clone()).or_default().output = new;
    }

    /// Has the Gateways of a class that share a fleet translated anew if they have something else of it now.
    fn share_out(
        &mut self,
        class: &Arc<str>,
        old: Option<&FleetModel>,
        new: Option<&Arc<FleetModel>>,
        dirty: &mut BTreeSet<Unit>,
    ) {
        if old == new.map(AsRef::as_ref) {
            return;
        }
        let (old, now) = (old.map(|o| &o.shares), new.map(|n| &n.shares));
        for gateway in old.into_iter().chain(now).flat_map(BTreeMap::keys) {
            if old.and_then(|o| o.get(gateway)) != now.and_then(|n| n.get(gateway)) {
                self.soil(&Dep::Share(Arc::clone(class), gateway.clone()), dirty);
            }
        }
        match new {
            Some(fleet) => self.fleets.insert(Arc::clone(class), Arc::clone(fleet)),
            None => self.fleets.remove(class),
        };
    }

    /// Counts attached routes, and notes the listeners whose counts changed.
    fn recount(&mut self, old: &Output, new: &Output, changed: &mut Recounted) {
        if old.attached == new.attached {
            return;
        }
        for (attached, step) in [(&old.attached, -1), (&new.attached, 1)] {
            for (gateway, key) in attached {
                let count = self
                    .attached
                    .entry((gateway.clone(), Arc::clone(key)))
                    .or_default();
                *count += step;
                changed
                    .entry(gateway.clone())
                    .or_default()
                    .insert(Arc::clone(key));
            }
        }
        for at in &old.attached {
            if self.attached.get(at) == Some(&0) {
                self.attached.remove(at);
            }
        }
    }

    /// States anew the statuses that hold one of these listeners' counts.
    fn restate(&self, gateway: &GatewayRef, counted: &BTreeSet<Arc<str>>, changes: &mut Changes) {
        let unit = Unit::Gateway(gateway.clone());
        let Some(translated) = self.units.get(&unit) else {
            return;
        };
        for (object, status) in &translated.output.statuses {
            if status
                .listeners()
                .iter()
                .any(|listener| counted.contains(&listener.key))
            {
                changes
                    .statuses
                    .insert(object.clone(), Some(self.with_counts(&unit, status)));
            }
        }
    }

    fn with_counts(&self, unit: &Unit, status: &Status) -> Status {
        let mut status = status.clone();
        if let Unit::Gateway(gateway) = unit
            && let Status::Gateway { listeners, .. } | Status::ListenerSet { listeners, .. } = &mut status
        {
            for listener in listeners {
                let at = (gateway.clone(), Arc::clone(&listener.key));
                listener.attached_routes = self.attached.get(&at).copied().unwrap_or_default();
            }
        }
        status
    }
}
