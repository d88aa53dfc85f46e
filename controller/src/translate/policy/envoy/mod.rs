//! Policies of Envoy Gateway: which one applies where ([`attach`]), what it comes to ([`security`], [`traffic`],
//! [`cluster`], [`client`]), what of it cannot be honoured ([`gaps`]), and what its status says ([`status`]).
//!
//! A policy that cannot be honoured is never passed over in silence: its status says so, and where it is about security
//! what it governs is answered with an error.

mod attach;
mod authorization;
pub mod client;
pub mod cluster;
mod credentials;
pub mod destination;
pub mod expression;
mod extension;
mod external_auth;
pub mod gaps;
pub mod health;
pub mod http_filter;
mod jwt;
mod limits;
mod merge;
mod oidc;
mod priorities;
mod reader;
mod response;
mod rule;
mod security;
pub mod stats;
mod status;
mod target;
mod traffic;
mod upstream;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_crds::envoy::{
    BackendTrafficPolicy, BackendTrafficPolicySpec, ClientTrafficPolicy, ClientTrafficPolicySpec,
    EnvoyExtensionPolicy, EnvoyExtensionPolicySpec, PolicyMergeType, PolicyTargetReferences, SecurityPolicy,
    SecurityPolicySpec,
};

pub use attach::{Candidates, ParentPolicies, Policies};
pub use client::tls_parameters;
pub use merge::specs as merge_specs;
pub use reader::{Reader, string_match};
pub use rule::{Governing, RoutePolicies};
pub use status::translate;

use crate::store::Stored;

/// A kind of policy that attaches to Gateways, ListenerSets or routes.
pub trait EnvoyPolicy: Stored {
    /// Its spec.
    type Spec: Clone + Serialize + DeserializeOwned;

    /// What it names as its targets.
    fn target_references(&self) -> &PolicyTargetReferences;

    /// How it is laid over the policy of the route's parent.
    fn merge_type(&self) -> Option<&PolicyMergeType>;

    /// Its spec.
    fn settings(&self) -> &Self::Spec;
}

macro_rules! policies {
    ($($kind:ty, $spec:ty, |$policy:ident| $merge:expr;)*) => {$(
        impl EnvoyPolicy for $kind {
            type Spec = $spec;

            fn target_references(&self) -> &PolicyTargetReferences {
                &self.spec.targets
            }

            fn merge_type(&self) -> Option<&PolicyMergeType> {
                let $policy = self;
                $merge
            }

            fn settings(&self) -> &$spec {
                &self.spec
            }
        }
    )*};
}

policies! {
    SecurityPolicy, SecurityPolicySpec, |policy| policy.spec.merge_type.as_ref();
    BackendTrafficPolicy, BackendTrafficPolicySpec, |policy| policy.spec.merge_type.as_ref();
    EnvoyExtensionPolicy, EnvoyExtensionPolicySpec, |policy| policy.spec.merge_type.as_ref();
    ClientTrafficPolicy, ClientTrafficPolicySpec, |_policy| None;
}
