//! Whether an object may attach from a namespace, for routes and ListenerSets alike.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use sluice_crds::gateway::FromNamespaces;

use super::model::AllowedNamespaces;
use crate::engine::View;

impl AllowedNamespaces {
    /// From the API's fields. A missing selector selects nothing.
    pub fn read(from: FromNamespaces, selector: Option<&LabelSelector>) -> Self {
        match from {
            FromNamespaces::All => Self::All,
            FromNamespaces::Same => Self::Same,
            FromNamespaces::None => Self::None,
            FromNamespaces::Selector => selector.cloned().map_or(Self::None, Self::Selector),
        }
    }

    /// Whether objects of `namespace` may attach to an object of `own`.
    pub fn admit(&self, own: &str, namespace: &str, view: &View<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Same => own == namespace,
            Self::None => false,
            Self::Selector(selector) => {
                let Ok(selector) = Selector::try_from(selector.clone()) else {
                    return false;
                };
                let labels = view
                    .get::<Namespace>("", namespace)
                    .map(|ns| ns.metadata.labels.clone());
                labels.is_some_and(|labels| selector.matches(&labels.unwrap_or_default()))
            }
        }
    }
}
