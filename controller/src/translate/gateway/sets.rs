//! ListenerSets of a Gateway, and all its listeners, in order of precedence.

use std::sync::Arc;

use sluice_crds::gateway::{FromNamespaces, GROUP, Gateway, Listener, ListenerSet};

use super::listener::Draft;
use crate::engine::View;
use crate::store::ObjectRef;
use crate::translate::model::AllowedNamespaces;
use crate::translate::precedence::Precedence;

/// A ListenerSet that names the Gateway as its parent.
pub struct Set {
    /// The object.
    pub object: Arc<ListenerSet>,
    /// Its name.
    pub reference: ObjectRef,
    /// Whether the Gateway takes it.
    pub allowed: bool,
}

/// The ListenerSets that name `gateway` as their parent: the oldest first.
pub fn of(view: &View<'_>, reference: &ObjectRef, gateway: &Gateway) -> Vec<Set> {
    let namespaces = gateway
        .spec
        .allowed_listeners
        .as_ref()
        .and_then(|allowed| allowed.namespaces.as_ref());
    let from = namespaces.and_then(|n| n.from).unwrap_or(FromNamespaces::None);
    let allowed = AllowedNamespaces::read(from, namespaces.and_then(|n| n.selector.as_ref()));
    let mut sets: Vec<_> = view
        .pointing_at::<ListenerSet>(reference)
        .into_iter()
        .filter(|set| set.spec.parent_ref.group() == GROUP && set.spec.parent_ref.kind() == "Gateway")
        .map(|object| {
            let set = ObjectRef::of(object.as_ref());
            let allowed = allowed.admit(&reference.namespace, &set.namespace, view);
            Set {
                object,
                reference: set,
                allowed,
            }
        })
        .collect();
    sets.sort_by_cached_key(|set| Precedence::of(&set.object.metadata));
    sets
}

/// All listeners of a Gateway as `draft` reads them: its own, then those of each ListenerSet that it takes.
pub fn drafts(
    reference: &ObjectRef,
    gateway: &Gateway,
    sets: &[Set],
    draft: impl Fn(&ObjectRef, &Listener) -> Draft,
) -> Vec<Draft> {
    let own = gateway.spec.listeners.iter().map(|spec| (reference, spec));
    let theirs = sets.iter().filter(|set| set.allowed).flat_map(|set| {
        let listeners = set.object.spec.listeners.iter();
        listeners.map(|spec| (&set.reference, spec))
    });
    own.chain(theirs)
        .map(|(parent, spec)| draft(parent, spec))
        .collect()
}
