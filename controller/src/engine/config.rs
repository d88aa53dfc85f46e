//! Which resources each gateway's proxies hold: the outputs of its own units and of all units that these need.
//!
//! Owns the reference counts. A proxy gets what its Gateway reaches and nothing else. What becomes of the resources of
//! Gateways that share proxies is a matter of [`super::fleets`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_config::v1;

use super::Map;
use super::fleets::Fleets;
use super::output::{Bundle, Output};
use super::unit::{GatewayRef, Unit};
use crate::store::ObjectRef;

/// The difference between what a gateway's proxies hold and what they should.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConfigChange {
    /// New or changed resources, by key.
    pub upserts: BTreeMap<String, Arc<v1::Resource>>,
    /// Keys of resources that are gone.
    pub removes: BTreeSet<String>,
}

#[derive(Default)]
struct GatewayConfig {
    resources: BTreeMap<String, Arc<v1::Resource>>,
    needed: Map<Unit, u32>,
}

#[derive(Default)]
pub(super) struct GatewayConfigs {
    gateways: BTreeMap<GatewayRef, GatewayConfig>,
    /// The gateways that need a unit.
    needing: Map<Unit, BTreeSet<GatewayRef>>,
    /// For each backend target the gateways that use it, with the number of their backends.
    usage: Map<ObjectRef, BTreeMap<GatewayRef, u32>>,
    fleets: Fleets,
}

/// What has to be looked at after a replacement.
#[derive(Default)]
pub(super) struct Touched {
    /// Units that are needed and not translated yet, or not needed any more.
    pub translate: Vec<Unit>,
    /// Backend targets whose users changed.
    pub usage: Vec<ObjectRef>,
}

impl GatewayConfigs {
    pub fn is_needed(&self, unit: &Unit) -> bool {
        self.needing.contains_key(unit)
    }

    pub fn users(&self, target: &ObjectRef) -> BTreeSet<GatewayRef> {
        self.usage
            .get(target)
            .into_iter()
            .flat_map(BTreeMap::keys)
            .cloned()
            .collect()
    }

    /// The resources of a fleet's proxies.
    pub fn resources(&self, fleet: &GatewayRef) -> BTreeMap<&str, &v1::Resource> {
        if self.fleets.is_in_another(fleet) {
            return BTreeMap::new();
        }
        let own = self.gateways.get(fleet).into_iter().flat_map(|c| &c.resources);
        own.chain(self.fleets.shared(fleet))
            .map(|(key, r)| (key.as_str(), r.as_ref()))
            .collect()
    }

    /// The fleets that hold resources.
    pub fn fleets(&self) -> impl Iterator<Item = &GatewayRef> {
        let own = self.gateways.keys();
        own.filter(|gateway| !self.fleets.is_in_another(gateway))
            .chain(self.fleets.all_shared())
    }

    /// Has the gateway's resources held by this fleet from now on.
    pub fn assign(&mut self, gateway: &GatewayRef, fleet: &GatewayRef) {
        let held = self.gateways.get(gateway).map(|config| &config.resources);
        self.fleets.assign(gateway, fleet, held);
    }

    pub fn take_changes(&mut self, into: &mut BTreeMap<GatewayRef, ConfigChange>) {
        self.fleets.take_changes(into);
    }

    /// Replaces a unit's output. `output_of` knows the present outputs of other units.
    pub fn replace<'o>(
        &mut self,
        unit: &Unit,
        old: &Output,
        new: &Output,
        output_of: impl Fn(&Unit) -> Option<&'o Output>,
    ) -> Touched {
        let mut touched = Touched::default();
        let none = Bundle::default();
        let gateways: BTreeSet<_> = old
            .for_gateway
            .keys()
            .chain(new.for_gateway.keys())
            .cloned()
            .collect();
        for gateway in gateways {
            let old = old.for_gateway.get(&gateway).unwrap_or(&none);
            let new = new.for_gateway.get(&gateway).unwrap_or(&none);
            self.swap(&gateway, old, new, &output_of, &mut touched);
        }
        for gateway in self.needing.get(unit).cloned().unwrap_or_default() {
            self.swap(&gateway, &old.shared, &new.shared, &output_of, &mut touched);
        }
        touched
    }

    fn swap<'o>(
        &mut self,
        gateway: &GatewayRef,
        old: &Bundle,
        new: &Bundle,
        output_of: &impl Fn(&Unit) -> Option<&'o Output>,
        touched: &mut Touched,
    ) {
        if old == new {
            return;
        }
        // What stays needed must not be dropped in between.
        for unit in &new.needs {
            self.retain(gateway, unit, output_of, touched);
        }
        for resource in &new.resources {
            self.upsert(gateway, resource);
        }
        for resource in &old.resources {
            if !new.resources.iter().any(|r| r.key == resource.key) {
                self.remove(gateway, &resource.key);
            }
        }
        for unit in &old.needs {
            self.release(gateway, unit, output_of, touched);
        }
        if self
            .gateways
            .get(gateway)
            .is_some_and(|c| c.resources.is_empty() && c.needed.is_empty())
        {
            self.gateways.remove(gateway);
            self.fleets.forget(gateway);
        }
    }

    fn upsert(&mut self, gateway: &GatewayRef, resource: &Arc<v1::Resource>) {
        let held = &mut self.gateways.entry(gateway.clone()).or_default().resources;
        if held
            .get(&resource.key)
            .is_some_and(|r| r.version == resource.version)
        {
            return;
        }
        let before = held.insert(resource.key.clone(), Arc::clone(resource));
        self.fleets.put(gateway, resource, before.is_none());
    }

    fn remove(&mut self, gateway: &GatewayRef, key: &str) {
        let Some(config) = self.gateways.get_mut(gateway) else {
            return;
        };
        if config.resources.remove(key).is_some() {
            self.fleets.take(gateway, key);
        }
    }

    fn retain<'o>(
        &mut self,
        gateway: &GatewayRef,
        unit: &Unit,
        output_of: &impl Fn(&Unit) -> Option<&'o Output>,
        touched: &mut Touched,
    ) {
        let count = self
            .gateways
            .entry(gateway.clone())
            .or_default()
            .needed
            .entry(unit.clone())
            .or_default();
        *count += 1;
        if *count > 1 {
            return;
        }
        self.needing
            .entry(unit.clone())
            .or_default()
            .insert(gateway.clone());
        if let Unit::Backend(backend) = unit {
            let users = self.usage.entry(backend.target.clone()).or_default();
            *users.entry(gateway.clone()).or_default() += 1;
            touched.usage.push(backend.target.clone());
        }
        match output_of(unit) {
            None => touched.translate.push(unit.clone()),
            Some(output) => {
                for needed in &output.shared.needs {
                    self.retain(gateway, needed, output_of, touched);
                }
                for resource in &output.shared.resources {
                    self.upsert(gateway, resource);
                }
            }
        }
    }

    fn release<'o>(
        &mut self,
        gateway: &GatewayRef,
        unit: &Unit,
        output_of: &impl Fn(&Unit) -> Option<&'o Output>,
        touched: &mut Touched,
    ) {
        let Some(config) = self.gateways.get_mut(gateway) else {
            return;
        };
        let Some(count) = config.needed.get_mut(unit) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        config.needed.remove(unit);
        if let Some(needing) = self.needing.get_mut(unit) {
            needing.remove(gateway);
            if needing.is_empty() {
                self.needing.remove(unit);
                touched.translate.push(unit.clone());
            }
        }
        if let Unit::Backend(backend) = unit {
            self.stop_using(gateway, &backend.target);
            touched.usage.push(backend.target.clone());
        }
        if let Some(output) = output_of(unit) {
            for resource in &output.shared.resources {
                self.remove(gateway, &resource.key);
            }
            for needed in &output.shared.needs {
                self.release(gateway, needed, output_of, touched);
            }
        }
    }

    fn stop_using(&mut self, gateway: &GatewayRef, target: &ObjectRef) {
        let Some(users) = self.usage.get_mut(target) else {
            return;
        };
        if let Some(count) = users.get_mut(gateway) {
            *count -= 1;
            if *count == 0 {
                users.remove(gateway);
            }
        }
        if users.is_empty() {
            self.usage.remove(target);
        }
    }
}
