//! What policies are for: objects, their sections, and the Gateways that they lead to.

use std::sync::Arc;

use sluice_crds::gateway::{
    GRPCRoute, Gateway, HTTPRoute, ListenerSet, ParentReference, Route, TCPRoute, TLSRoute, UDPRoute,
};

use super::EnvoyPolicy;
use super::attach::{Labels, sections};
use crate::engine::{GatewayRef, View};
use crate::store::{Kind, ObjectRef, Stored};
use crate::translate::model::GatewayModel;
use crate::translate::policy::gateway_reference;

/// An object that policies can be for.
pub struct Target {
    /// Its labels.
    pub labels: Option<Labels>,
    /// Names of its sections: listeners or rules.
    pub sections: Vec<String>,
    /// The Gateways that it leads to, each with the Gateway or ListenerSet by which.
    pub ancestors: Vec<(ParentReference, Arc<GatewayModel>, ObjectRef)>,
}

impl Target {
    /// `None` if it is not there, or leads to no Gateway of ours.
    pub fn find(view: &View<'_>, object: &ObjectRef) -> Option<Self> {
        let found = match object.kind {
            Kind::Gateway => {
                let gateway = view.get::<Gateway>(&object.namespace, &object.name)?;
                Self::of_parent(view, object, gateway.metadata.labels.clone(), object)
            }
            Kind::ListenerSet => {
                let set = view.get::<ListenerSet>(&object.namespace, &object.name)?;
                let parent = &set.spec.parent_ref;
                let namespace = parent.namespace(&object.namespace);
                let gateway = ObjectRef::new(Kind::Gateway, namespace, parent.name.as_str());
                Self::of_parent(view, object, set.metadata.labels.clone(), &gateway)
            }
            Kind::HTTPRoute => {
                let names =
                    |route: &HTTPRoute| route.spec.rules.iter().filter_map(|r| r.name.clone()).collect();
                Self::of_route::<HTTPRoute>(view, object, names)
            }
            Kind::GRPCRoute => {
                let names =
                    |route: &GRPCRoute| route.spec.rules.iter().filter_map(|r| r.name.clone()).collect();
                Self::of_route::<GRPCRoute>(view, object, names)
            }
            Kind::TCPRoute => Self::of_route::<TCPRoute>(view, object, |_| Vec::new()),
            Kind::TLSRoute => Self::of_route::<TLSRoute>(view, object, |_| Vec::new()),
            Kind::UDPRoute => Self::of_route::<UDPRoute>(view, object, |_| Vec::new()),
            _ => None,
        }?;
        (!found.ancestors.is_empty()).then_some(found)
    }

    fn of_parent(
        view: &View<'_>,
        object: &ObjectRef,
        labels: Option<Labels>,
        gateway: &ObjectRef,
    ) -> Option<Self> {
        let gateway = GatewayRef::new(gateway.namespace.clone(), gateway.name.clone());
        let model = view.gateway(&gateway)?;
        let own = model
            .listeners
            .iter()
            .filter(|listener| listener.parent == *object);
        Some(Self {
            labels,
            sections: own.map(|listener| listener.name.to_string()).collect(),
            ancestors: vec![(gateway_reference(&gateway), model, object.clone())],
        })
    }

    fn of_route<R: Route + Stored>(
        view: &View<'_>,
        object: &ObjectRef,
        rules: impl FnOnce(&R) -> Vec<String>,
    ) -> Option<Self> {
        let route = view.get::<R>(&object.namespace, &object.name)?;
        let mut ancestors = Vec::new();
        for parent in route.parent_refs() {
            let Some(gateway) = gateway_of(view, parent, &object.namespace) else {
                continue;
            };
            let Some(model) = view.gateway(&gateway) else {
                continue;
            };
            let mut ancestor = gateway_reference(&gateway);
            if parent.kind() == Kind::Gateway.as_str() {
                ancestor.section_name.clone_from(&parent.section_name);
            }
            let kind = Kind::parse(parent.group(), parent.kind()).unwrap_or(Kind::Gateway);
            let namespace = parent.namespace(&object.namespace);
            let via = ObjectRef::new(kind, namespace, parent.name.as_str());
            ancestors.push((ancestor, model, via));
        }
        Some(Self {
            labels: route.meta().labels.clone(),
            sections: rules(&route),
            ancestors,
        })
    }
}

fn gateway_of(view: &View<'_>, parent: &ParentReference, own: &str) -> Option<GatewayRef> {
    let namespace = parent.namespace(own);
    match Kind::parse(parent.group(), parent.kind())? {
        Kind::Gateway => Some(GatewayRef::new(namespace, parent.name.as_str())),
        Kind::ListenerSet => {
            let set = view.get::<ListenerSet>(namespace, &parent.name)?;
            let gateway = &set.spec.parent_ref;
            Some(GatewayRef::new(
                gateway.namespace(namespace),
                gateway.name.as_str(),
            ))
        }
        _ => None,
    }
}

/// What a policy is for, of these kinds: objects and, perhaps, a section of them.
pub fn all<P: EnvoyPolicy>(view: &View<'_>, policy: &P, kinds: &[Kind]) -> Vec<(ObjectRef, Option<String>)> {
    let own = policy.meta().namespace.as_deref().unwrap_or_default();
    let references = policy.target_references();
    let named = references.target_ref.iter().chain(&references.target_refs);
    let mut all: Vec<_> = named
        .filter_map(|t| {
            let kind = Kind::parse(&t.group, &t.kind).filter(|kind| kinds.contains(kind))?;
            let section = t.section_name.clone().filter(|name| !name.is_empty());
            Some((ObjectRef::new(kind, own, t.name.as_str()), section))
        })
        .collect();
    for selector in &references.target_selectors {
        let group = selector.group.as_deref().unwrap_or(sluice_crds::gateway::GROUP);
        let kind = Kind::parse(group, &selector.kind).filter(|kind| kinds.contains(kind));
        for (object, labels) in kind.map(|kind| objects(view, kind)).unwrap_or_default() {
            if sections(view, policy, &object, labels.as_ref()).contains(&None) {
                all.push((object, None));
            }
        }
    }
    all
}

fn objects(view: &View<'_>, kind: Kind) -> Vec<(ObjectRef, Option<Labels>)> {
    fn list<T: Stored>(view: &View<'_>) -> Vec<(ObjectRef, Option<Labels>)> {
        let all = view.list::<T>();
        all.iter()
            .map(|object| (ObjectRef::of(object.as_ref()), object.meta().labels.clone()))
            .collect()
    }
    match kind {
        Kind::Gateway => list::<Gateway>(view),
        Kind::ListenerSet => list::<ListenerSet>(view),
        Kind::HTTPRoute => list::<HTTPRoute>(view),
        Kind::GRPCRoute => list::<GRPCRoute>(view),
        Kind::TCPRoute => list::<TCPRoute>(view),
        Kind::TLSRoute => list::<TLSRoute>(view),
        Kind::UDPRoute => list::<UDPRoute>(view),
        _ => Vec::new(),
    }
}
