//! What a route attaches to: one mechanism for all kinds of routes, Gateways and ListenerSets alike.
//!
//! Owns the way from a parentRef to listeners, and the reasons for which there may be none.

use std::fmt;
use std::sync::Arc;

use sluice_crds::gateway::{Gateway, GatewayDefaultScope, ListenerSet, ParentReference};

use super::hostname::{self, Served};
use crate::engine::{BackendUsage, GatewayRef, View};
use crate::store::{Kind, ObjectRef};
use crate::translate::fault::Fault;
use crate::translate::model::GatewayModel;
use crate::translate::policy::envoy::Policies;

/// A route as its parents see it.
#[derive(Clone, Copy)]
pub struct Attaching<'a> {
    /// Which route.
    pub route: &'a ObjectRef,
    /// `spec.parentRefs`.
    pub parent_refs: &'a [ParentReference],
    /// `spec.useDefaultGateways`.
    pub default_gateways: Option<GatewayDefaultScope>,
    /// `spec.hostnames`.
    pub hostnames: &'a [String],
}

/// A parent that is ours.
pub struct Parent {
    /// As the route has it.
    pub reference: ParentReference,
    /// Its Gateway.
    pub model: Arc<GatewayModel>,
    /// The listeners that the route is attached to, at least one; or why there is none.
    pub attached: Result<Vec<Attached>, Fault>,
}

/// A listener that a route is attached to.
pub struct Attached {
    /// Key of the listener's resource.
    pub listener: Arc<str>,
    /// Whether it is configured at all.
    pub serving: bool,
    /// What the route's backends are spoken to with.
    pub usage: BackendUsage,
    /// The policies that Gateway and ListenerSet have for it.
    pub policies: Policies,
    /// Hostnames that the route serves there.
    pub hostnames: Vec<Served>,
}

/// The parents of a route that are ours, in the route's order and each once.
pub fn find(route: Attaching<'_>, view: &View<'_>) -> Vec<Parent> {
    let mut seen = Vec::new();
    let mut parents = Vec::new();
    for (i, parent_ref) in route.parent_refs.iter().enumerate() {
        if seen.contains(&parent_ref) {
            continue;
        }
        seen.push(parent_ref);
        if let Some((object, model)) = resolve(parent_ref, &route.route.namespace, view) {
            let attached = attach(
                route,
                parent_ref,
                format_args!("spec.parentRefs[{i}]"),
                &object,
                &model,
                view,
            );
            parents.push(Parent {
                reference: parent_ref.clone(),
                model,
                attached,
            });
        }
    }
    if route.default_gateways == Some(GatewayDefaultScope::All) {
        add_default_gateways(route, view, &mut parents);
    }
    parents
}

/// The parent and the Gateway behind it, if that is ours.
fn resolve(parent: &ParentReference, own: &str, view: &View<'_>) -> Option<(ObjectRef, Arc<GatewayModel>)> {
    let kind = Kind::parse(parent.group(), parent.kind())?;
    let namespace = parent.namespace(own);
    let gateway = match kind {
        Kind::Gateway => GatewayRef::new(namespace, parent.name.as_str()),
        Kind::ListenerSet => {
            let set = view.get::<ListenerSet>(namespace, &parent.name)?;
            let gateway = &set.spec.parent_ref;
            if Kind::parse(gateway.group(), gateway.kind()) != Some(Kind::Gateway) {
                return None;
            }
            GatewayRef::new(gateway.namespace(namespace), gateway.name.as_str())
        }
        _ => return None,
    };
    let model = view.gateway(&gateway)?;
    Some((ObjectRef::new(kind, namespace, parent.name.as_str()), model))
}

fn add_default_gateways(route: Attaching<'_>, view: &View<'_>, parents: &mut Vec<Parent>) {
    for gateway in view.list::<Gateway>() {
        let object = ObjectRef::of(&*gateway);
        let named = parents
            .iter()
            .any(|parent| parent.model.gateway.object() == object);
        if named || gateway.spec.default_scope != Some(GatewayDefaultScope::All) {
            continue;
        }
        let parent_ref = ParentReference {
            group: Some(Kind::Gateway.group().to_owned()),
            kind: Some(Kind::Gateway.as_str().to_owned()),
            namespace: Some(object.namespace.to_string()),
            name: object.name.to_string(),
            ..Default::default()
        };
        if let Some((object, model)) = resolve(&parent_ref, &route.route.namespace, view) {
            let attached = attach(
                route,
                &parent_ref,
                format_args!("spec.useDefaultGateways"),
                &object,
                &model,
                view,
            );
            parents.push(Parent {
                reference: parent_ref,
                model,
                attached,
            });
        }
    }
}

fn attach(
    route: Attaching<'_>,
    parent_ref: &ParentReference,
    field: fmt::Arguments<'_>,
    parent: &ObjectRef,
    model: &GatewayModel,
    view: &View<'_>,
) -> Result<Vec<Attached>, Fault> {
    let fails =
        |reason, why: fmt::Arguments<'_>| Err(Fault::at(reason, field, format_args!("{parent} {why}")));
    // Listeners of a ListenerSet are not reached through its Gateway, nor the other way round.
    let named: Vec<_> = model
        .listeners
        .iter()
        .filter(|listener| listener.parent == *parent)
        .filter(|listener| {
            parent_ref
                .section_name
                .as_deref()
                .is_none_or(|name| *listener.name == *name)
        })
        .filter(|listener| parent_ref.port.is_none_or(|port| listener.port == port))
        .collect();
    if named.is_empty() {
        // Of a ListenerSet without any listener here the Gateway takes none.
        return if model.listeners.iter().any(|listener| listener.parent == *parent) {
            fails(
                "NoMatchingParent",
                format_args!("has no listener with this sectionName and port"),
            )
        } else {
            fails(
                "NoMatchingParent",
                format_args!("has no listener that Gateway {} takes", model.gateway),
            )
        };
    }
    let kind = route.route.kind;
    let fitting: Vec<_> = named
        .into_iter()
        .filter(|listener| listener.kinds.contains(&kind))
        .filter_map(|listener| Some((listener, super::usage(kind, listener.protocol)?)))
        .collect();
    if fitting.is_empty() {
        return fails(
            "NotAllowedByListeners",
            format_args!("has no listener that takes routes of kind {kind}"),
        );
    }
    let namespace = &route.route.namespace;
    let allowed: Vec<_> = fitting
        .into_iter()
        .filter(|(listener, _)| {
            listener
                .namespaces
                .admit(&listener.parent.namespace, namespace, view)
        })
        .collect();
    if allowed.is_empty() {
        return fails(
            "NotAllowedByListeners",
            format_args!("takes no routes from namespace {namespace}"),
        );
    }
    let attached: Vec<_> = allowed
        .into_iter()
        .filter_map(|(listener, usage)| {
            let hostnames = hostname::intersect(listener.hostname.as_deref(), route.hostnames)?;
            Some(Attached {
                listener: Arc::clone(&listener.key),
                serving: listener.serving,
                usage,
                policies: listener.policies.clone(),
                hostnames,
            })
        })
        .collect();
    if attached.is_empty() {
        return fails(
            "NoMatchingListenerHostname",
            format_args!("has no listener for any of the route's hostnames"),
        );
    }
    Ok(attached)
}
