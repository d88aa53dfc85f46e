//! How clients of listeners are treated: whose ClientTrafficPolicy holds where, and who serves HTTP/3.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use sluice_crds::envoy::ClientTrafficPolicy;
use sluice_crds::gateway::Gateway;

use super::listener::Draft;
use super::sets::Set;
use crate::engine::{GatewayRef, View};
use crate::store::ObjectRef;
use crate::translate::model::Protocol;
use crate::translate::policy::envoy::{Candidates, client};

/// Hands each listener's ClientTrafficPolicy to `apply`: that of a listener goes before that of its ListenerSet or
/// Gateway. `reference` is the Gateway's.
pub fn policies(
    view: &View<'_>,
    reference: &ObjectRef,
    gateway: &Gateway,
    sets: &[Set],
    drafts: &mut [Draft],
    mut apply: impl FnMut(&mut Draft, &Arc<ClientTrafficPolicy>),
) {
    let of = |object: &ObjectRef, labels| Candidates::<ClientTrafficPolicy>::of(view, object, labels);
    let own = of(reference, gateway.metadata.labels.as_ref());
    let of_sets: BTreeMap<_, _> = sets
        .iter()
        .map(|set| {
            (
                &set.reference,
                of(&set.reference, set.object.metadata.labels.as_ref()),
            )
        })
        .collect();
    for draft in drafts {
        let closest = of_sets.get(&draft.parent);
        let policy = match closest {
            Some(of_set) => of_set
                .most_specific(Some(&draft.name))
                .or_else(|| own.winner(None)),
            None => own.most_specific(Some(&draft.name)),
        };
        if let Some(policy) = policy {
            apply(draft, policy);
        }
    }
}

/// Whose policy holds on each port where listeners of several Gateways share connections: that of the listener without a
/// hostname, else of the first, which is the oldest Gateway's. `owners` says whose each draft is, in order of precedence.
/// To be called once conflicts are settled.
pub fn in_common(drafts: &[Draft], owners: &[GatewayRef]) -> BTreeMap<u16, Option<ObjectRef>> {
    let mut by_port = BTreeMap::<u16, Vec<(&Draft, &GatewayRef)>>::new();
    for (draft, owner) in drafts.iter().zip(owners).filter(|(draft, _)| is_in_common(draft)) {
        by_port.entry(draft.port).or_default().push((draft, owner));
    }
    let holds = |(port, listeners): (u16, Vec<(&Draft, &GatewayRef)>)| {
        let (_, owner) = *listeners.first()?;
        listeners.iter().find(|(_, other)| *other != owner)?;
        let holder = holder(listeners.iter().map(|(draft, _)| *draft))?;
        Some((port, holder.client_policy.clone()))
    };
    by_port.into_iter().filter_map(holds).collect()
}

/// Whether connections of a listener may be those of other Gateways' listeners, too.
fn is_in_common(draft: &Draft) -> bool {
    draft.protocol == Some(Protocol::Http) && draft.holds_port()
}

/// Which of the listeners that share connections says how clients are treated: the one without a hostname, else the first.
fn holder<'a>(mut listeners: impl Iterator<Item = &'a Draft> + Clone) -> Option<&'a Draft> {
    let mut any = listeners.clone().filter(|draft| draft.hostname.is_none());
    any.next().or_else(|| listeners.next())
}

/// Has listeners whose connections are those of other Gateways' listeners, too, treat clients as is said in `common`.
pub fn share_with_others(view: &View<'_>, drafts: &mut [Draft], common: &BTreeMap<u16, Option<ObjectRef>>) {
    for draft in drafts.iter_mut().filter(|draft| is_in_common(draft)) {
        let Some(policy) = common
            .get(&draft.port)
            .filter(|policy| **policy != draft.client_policy)
        else {
            continue;
        };
        let (own, settings) = (draft.client_policy.take(), draft.client.take());
        let found = policy
            .as_ref()
            .and_then(|name| view.get::<ClientTrafficPolicy>(&name.namespace, &name.name));
        if let Some(policy) = found {
            let of = client::translate(view, &policy, &draft.key, draft.hostname.as_deref());
            draft.apply(&ObjectRef::of(policy.as_ref()), of);
        }
        draft.overruled = own.is_some() && draft.client != settings;
        draft.client_policy = own;
    }
}

/// Has listeners that share a port in cleartext, and so connections, treat clients alike: as the one without a hostname says,
/// else the first. To be called once it is known who serves.
pub fn share_connections(drafts: &mut [Draft]) {
    let mut by_port = BTreeMap::<u16, Vec<usize>>::new();
    let in_cleartext = |draft: &Draft| draft.protocol == Some(Protocol::Http) && draft.serves();
    for (index, draft) in drafts.iter().enumerate().filter(|(_, draft)| in_cleartext(draft)) {
        by_port.entry(draft.port).or_default().push(index);
    }
    for indices in by_port.into_values().filter(|indices| indices.len() > 1) {
        let Some(holder) = holder(indices.iter().map(|index| &drafts[*index])) else {
            continue;
        };
        let (policy, settings) = (holder.client_policy.clone(), holder.client.clone());
        for index in indices {
            let draft = &mut drafts[index];
            if draft.client_policy != policy && draft.client != settings {
                draft.overruled = draft.client_policy.is_some();
                draft.client.clone_from(&settings);
            }
        }
    }
}

/// Takes HTTP/3 from listeners whose UDP port belongs to a listener of its own. To be called once conflicts are settled.
pub fn settle_http3(drafts: &mut [Draft]) {
    let taken: HashSet<u16> = drafts
        .iter()
        .filter(|draft| draft.protocol == Some(Protocol::Udp) && draft.holds_port())
        .map(|draft| draft.port)
        .collect();
    for draft in drafts.iter_mut().filter(|draft| taken.contains(&draft.port)) {
        draft.http3 = false;
    }
}
