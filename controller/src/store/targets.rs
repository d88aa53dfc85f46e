//! What a policy of Envoy Gateway points at: objects that it names, and stand-ins for those that it selects.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sluice_crds::envoy::{PolicyTargetReferences, TargetNamespaceFrom};

use super::{Kind, ObjectRef};

/// What a policy with these targets is found by.
pub(super) fn of_policy(meta: &ObjectMeta, targets: &PolicyTargetReferences) -> Vec<ObjectRef> {
    let own = meta.namespace.as_deref().unwrap_or_default();
    let named = targets
        .target_ref
        .iter()
        .chain(&targets.target_refs)
        .filter_map(|t| {
            Some(ObjectRef::new(
                Kind::parse(&t.group, &t.kind)?,
                own,
                t.name.as_str(),
            ))
        });
    let selecting = targets.target_selectors.iter().filter_map(|selector| {
        let group = selector.group.as_deref().unwrap_or(sluice_crds::gateway::GROUP);
        let kind = Kind::parse(group, &selector.kind)?;
        let namespace = match selector.namespaces.as_ref().map(|n| &n.from) {
            None | Some(TargetNamespaceFrom::Same) => own,
            Some(_) => "",
        };
        Some(selected(kind, namespace))
    });
    let mut all: Vec<_> = named.chain(selecting).collect();
    all.sort();
    all.dedup();
    all
}

/// Stands for all objects of a kind in a namespace; in any namespace if it is empty. No object has an empty name.
pub fn selected(kind: Kind, namespace: &str) -> ObjectRef {
    ObjectRef::new(kind, namespace, "")
}
