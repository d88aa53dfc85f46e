//! Policies that attach to backends: which one applies where ([`tls`], [`traffic`]), and what their statuses say.
//!
//! A policy's ancestors are the Gateways that use one of its targets. Entries of other controllers are not known here;
//! the status writer keeps them.

pub mod envoy;
mod tls;
mod traffic;

use sluice_crds::gateway::{BackendTLSPolicy, GROUP, ParentReference, XBackendTrafficPolicy};

use super::condition::Condition;
use crate::engine::{AncestorStatus, GatewayRef, Output, Status, View};
use crate::store::{Kind, ObjectRef};

pub use tls::{UpstreamTls, backend_tls, validation};
pub use traffic::backend_traffic;

/// Most ancestors that a status can hold.
const MOST_ANCESTORS: usize = 16;

/// Translates a policy: to its status.
pub fn translate(policy: &ObjectRef, view: &View<'_>) -> Output {
    let (generation, ancestors) = match policy.kind {
        Kind::BackendTLSPolicy => {
            let Some(object) = view.get::<BackendTLSPolicy>(&policy.namespace, &policy.name) else {
                return Output::default();
            };
            (object.metadata.generation, tls::ancestors(&object, view))
        }
        Kind::XBackendTrafficPolicy => {
            let Some(object) = view.get::<XBackendTrafficPolicy>(&policy.namespace, &policy.name) else {
                return Output::default();
            };
            (object.metadata.generation, traffic::ancestors(&object, view))
        }
        _ => return envoy::translate(policy, view),
    };
    let ancestors = ancestors
        .into_iter()
        .take(MOST_ANCESTORS)
        .map(|(gateway, conditions)| AncestorStatus {
            ancestor_ref: gateway_reference(&gateway),
            conditions,
        })
        .collect();
    let status = Status::Policy {
        generation: generation.unwrap_or_default(),
        ancestors,
    };
    Output {
        statuses: vec![(policy.clone(), status)],
        ..Output::default()
    }
}

/// Conditions of a policy towards each ancestor.
type Ancestors = Vec<(GatewayRef, Vec<Condition>)>;

/// A Gateway as an ancestor.
pub fn gateway_reference(gateway: &GatewayRef) -> ParentReference {
    ParentReference {
        group: Some(GROUP.to_owned()),
        kind: Some("Gateway".to_owned()),
        namespace: Some(gateway.namespace.to_string()),
        name: gateway.name.to_string(),
        ..ParentReference::default()
    }
}
