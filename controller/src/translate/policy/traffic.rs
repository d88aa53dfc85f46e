//! XBackendTrafficPolicy: which one applies to a backend.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_crds::gateway::XBackendTrafficPolicy;

use super::Ancestors;
use crate::engine::{GatewayRef, View};
use crate::store::{Kind, ObjectRef};
use crate::translate::fault::{Fault, stated};
use crate::translate::precedence::Precedence;

/// The XBackendTrafficPolicy that applies to `target` (a Service), if there is one.
pub fn backend_traffic(view: &View<'_>, target: &ObjectRef) -> Option<Arc<XBackendTrafficPolicy>> {
    let policies = view.pointing_at::<XBackendTrafficPolicy>(target);
    policies
        .into_iter()
        .min_by_key(|policy| Precedence::of(&policy.metadata))
}

/// What the policy's status says, by ancestor.
pub(super) fn ancestors(policy: &XBackendTrafficPolicy, view: &View<'_>) -> Ancestors {
    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
    let mut faults = BTreeMap::<GatewayRef, Option<Fault>>::new();
    for (index, reference) in policy.spec.target_refs.iter().enumerate() {
        let Some(kind) = Kind::parse(&reference.group, &reference.kind) else {
            continue;
        };
        let target = ObjectRef::new(kind, namespace, reference.name.as_str());
        let prevails = backend_traffic(view, &target);
        let rival = prevails.filter(|p| p.metadata.name != policy.metadata.name);
        let fault = rival.map(|rival| {
            let name = rival.metadata.name.as_deref().unwrap_or_default();
            let message = format!(
                "targetRefs[{index}]: XBackendTrafficPolicy {name} has the same target and goes before"
            );
            Fault::new("Conflicted", message)
        });
        for gateway in view.gateways_using(&target) {
            let entry = faults.entry(gateway).or_default();
            *entry = entry.take().or_else(|| fault.clone());
        }
    }
    faults
        .into_iter()
        .map(|(gateway, fault)| (gateway, vec![stated("Accepted", "Accepted", fault.as_ref())]))
        .collect()
}
