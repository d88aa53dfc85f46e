//! What each fleet of proxies holds: a Gateway's own fleet what the Gateway holds, and one that Gateways share what they
//! hold together.
//!
//! Gateways that share a fleet name different things differently, so what several of them hold under one key is the
//! same: it is counted, and goes with the last of them. Owns these counts and the changes that are to be published.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_config::v1;

use super::config::ConfigChange;
use super::unit::GatewayRef;

/// Resources by key.
type Resources = BTreeMap<String, Arc<v1::Resource>>;

#[derive(Default)]
struct Shared {
    resources: Resources,
    /// How many Gateways hold each.
    holders: BTreeMap<String, u32>,
}

#[derive(Default)]
pub(super) struct Fleets {
    /// The Gateways that share a fleet, each with that fleet. All others have their own.
    of: BTreeMap<GatewayRef, GatewayRef>,
    shared: BTreeMap<GatewayRef, Shared>,
    changes: BTreeMap<GatewayRef, Change>,
}

/// What has changed since changes were last handed over.
#[derive(Default)]
struct Change {
    change: ConfigChange,
    /// Keys that were not held then: nobody has to hear of it if they are not held now either.
    fresh: BTreeSet<String>,
}

impl Change {
    /// `new`: nothing was held under this key.
    fn put(&mut self, resource: &Arc<v1::Resource>, new: bool) {
        let key = &resource.key;
        let was_there = self.change.removes.remove(key);
        if new && !was_there {
            self.fresh.insert(key.clone());
        }
        self.change.upserts.insert(key.clone(), Arc::clone(resource));
    }

    fn take(&mut self, key: &str) {
        self.change.upserts.remove(key);
        if !self.fresh.remove(key) {
            self.change.removes.insert(key.to_owned());
        }
    }
}

impl Fleets {
    /// Whether the Gateway shares a fleet, so that it has none of its own.
    pub fn is_in_another(&self, gateway: &GatewayRef) -> bool {
        self.of.contains_key(gateway)
    }

    /// What a fleet holds that Gateways share.
    pub fn shared(&self, fleet: &GatewayRef) -> impl Iterator<Item = (&String, &Arc<v1::Resource>)> {
        self.shared.get(fleet).into_iter().flat_map(|s| &s.resources)
    }

    /// The fleets that Gateways share.
    pub fn all_shared(&self) -> impl Iterator<Item = &GatewayRef> {
        self.shared.keys()
    }

    /// Hands over what has changed since the last time.
    pub fn take_changes(&mut self, into: &mut BTreeMap<GatewayRef, ConfigChange>) {
        let changed = std::mem::take(&mut self.changes).into_iter();
        into.extend(changed.filter_map(|(fleet, Change { change, .. })| {
            let is_empty = change.upserts.is_empty() && change.removes.is_empty();
            (!is_empty).then_some((fleet, change))
        }));
    }

    /// The Gateway holds this now. `first`: it held nothing under this key.
    pub fn put(&mut self, gateway: &GatewayRef, resource: &Arc<v1::Resource>, first: bool) {
        let fleet = self.of.get(gateway).unwrap_or(gateway);
        let mut new = first;
        if fleet != gateway {
            let Shared { resources, holders } = self.shared.entry(fleet.clone()).or_default();
            *holders.entry(resource.key.clone()).or_default() += u32::from(first);
            let before = resources.insert(resource.key.clone(), Arc::clone(resource));
            new = before.is_none();
            if before.is_some_and(|before| before.version == resource.version) {
                return;
            }
        }
        self.changes.entry(fleet.clone()).or_default().put(resource, new);
    }

    /// The Gateway does not hold this any more.
    pub fn take(&mut self, gateway: &GatewayRef, key: &str) {
        let fleet = self.of.get(gateway).unwrap_or(gateway);
        if fleet != gateway
            && let Some(shared) = self.shared.get_mut(fleet)
        {
            if let Some(holders) = shared.holders.get_mut(key)
                && *holders > 1
            {
                *holders -= 1;
                return;
            }
            shared.holders.remove(key);
            shared.resources.remove(key);
            if shared.resources.is_empty() {
                self.shared.remove(fleet);
            }
        }
        self.changes.entry(fleet.clone()).or_default().take(key);
    }

    /// Has what the Gateway holds held by this fleet from now on.
    pub fn assign(&mut self, gateway: &GatewayRef, fleet: &GatewayRef, held: Option<&Resources>) {
        if self.of.get(gateway).unwrap_or(gateway) == fleet {
            return;
        }
        let held = held.into_iter().flatten();
        for (key, _) in held.clone() {
            self.take(gateway, key);
        }
        if fleet == gateway {
            self.of.remove(gateway);
        } else {
            self.of.insert(gateway.clone(), fleet.clone());
        }
        for (_, resource) in held {
            self.put(gateway, resource, true);
        }
    }

    /// The Gateway, which holds nothing, is gone.
    pub fn forget(&mut self, gateway: &GatewayRef) {
        self.of.remove(gateway);
    }
}
