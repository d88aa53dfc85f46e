//! Which policy applies where.
//!
//! The more specific target goes first: a rule, its route, the listener, its ListenerSet, the Gateway. Of several policies
//! for one target the older goes first. A policy takes the place of those for less specific targets, unless it asks to
//! be laid over them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use sluice_crds::envoy::{
    BackendTrafficPolicy, EnvoyExtensionPolicy, PolicyMergeType, SecurityPolicy, TargetNamespaceFrom,
    TargetSelector,
};

use super::{EnvoyPolicy, merge};
use crate::engine::View;
use crate::store::{Kind, ObjectRef, selected};
use crate::translate::fault::Fault;
use crate::translate::precedence::Precedence;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// The policies that apply to what reaches a listener, as far as Gateway and ListenerSet say.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policies {
    /// SecurityPolicy.
    pub security: Option<ObjectRef>,
    /// BackendTrafficPolicy.
    pub traffic: Option<ObjectRef>,
    /// EnvoyExtensionPolicy.
    pub extension: Option<ObjectRef>,
}

/// The policies of a kind that are for an object or a section of it, in order of precedence.
pub struct Candidates<P> {
    found: Vec<(Arc<P>, BTreeSet<Option<String>>)>,
}

impl<P: EnvoyPolicy> Candidates<P> {
    /// Those for `object`, which has `labels`.
    pub fn of(view: &View<'_>, object: &ObjectRef, labels: Option<&Labels>) -> Self {
        let mut found = BTreeMap::new();
        let named = [
            object.clone(),
            selected(object.kind, &object.namespace),
            selected(object.kind, ""),
        ];
        for target in named {
            for policy in view.pointing_at::<P>(&target) {
                let sections = sections(view, policy.as_ref(), object, labels);
                if !sections.is_empty() {
                    let key = (Precedence::of(policy.meta()), ObjectRef::of(policy.as_ref()));
                    found.insert(key, (policy, sections));
                }
            }
        }
        Self {
            found: found.into_values().collect(),
        }
    }

    /// The one that prevails for a section, or for the object as a whole.
    pub fn winner(&self, section: Option<&str>) -> Option<&Arc<P>> {
        let names = |sections: &BTreeSet<Option<String>>| sections.iter().any(|s| s.as_deref() == section);
        self.found
            .iter()
            .find(|(_, sections)| names(sections))
            .map(|(policy, _)| policy)
    }

    /// The one that prevails for a section: its own, else that of the object as a whole.
    pub fn most_specific(&self, section: Option<&str>) -> Option<&Arc<P>> {
        section
            .and_then(|section| self.winner(Some(section)))
            .or_else(|| self.winner(None))
    }

    fn reference(&self, section: &str) -> Option<ObjectRef> {
        self.most_specific(Some(section))
            .map(|policy| ObjectRef::of(policy.as_ref()))
    }
}

/// The policies of each kind for one Gateway or ListenerSet.
pub struct ParentPolicies {
    security: Candidates<SecurityPolicy>,
    traffic: Candidates<BackendTrafficPolicy>,
    extension: Candidates<EnvoyExtensionPolicy>,
}

impl ParentPolicies {
    /// Those for `object`, which has `labels`.
    pub fn of(view: &View<'_>, object: &ObjectRef, labels: Option<&Labels>) -> Self {
        Self {
            security: Candidates::of(view, object, labels),
            traffic: Candidates::of(view, object, labels),
            extension: Candidates::of(view, object, labels),
        }
    }

    /// Those for one of its listeners; `outer` are those of the Gateway that a ListenerSet extends.
    pub fn at(&self, listener: &str, outer: &Policies) -> Policies {
        let or = |own: Option<ObjectRef>, outer: &Option<ObjectRef>| own.or_else(|| outer.clone());
        Policies {
            security: or(self.security.reference(listener), &outer.security),
            traffic: or(self.traffic.reference(listener), &outer.traffic),
            extension: or(self.extension.reference(listener), &outer.extension),
        }
    }

    /// Those for the object as a whole.
    pub fn whole(&self) -> Policies {
        // No listener has an empty name.
        self.at("", &Policies::default())
    }
}

/// The sections of `object` that a policy is for; `None` among them: the whole.
pub fn sections<P: EnvoyPolicy>(
    view: &View<'_>,
    policy: &P,
    object: &ObjectRef,
    labels: Option<&Labels>,
) -> BTreeSet<Option<String>> {
    let own = policy.meta().namespace.as_deref().unwrap_or_default();
    let targets = policy.target_references();
    let mut sections = BTreeSet::new();
    if own == &*object.namespace {
        let named = targets.target_ref.iter().chain(&targets.target_refs);
        let named = named
            .filter(|t| Kind::parse(&t.group, &t.kind) == Some(object.kind) && t.name == *object.name)
            .map(|t| t.section_name.clone().filter(|name| !name.is_empty()));
        sections.extend(named);
    }
    let selects = |selector: &&TargetSelector| selects(view, selector, own, object, labels);
    if targets.target_selectors.iter().any(|s| selects(&s)) {
        sections.insert(None);
    }
    sections
}

fn selects(
    view: &View<'_>,
    selector: &TargetSelector,
    own: &str,
    object: &ObjectRef,
    labels: Option<&Labels>,
) -> bool {
    let group = selector.group.as_deref().unwrap_or(sluice_crds::gateway::GROUP);
    if Kind::parse(group, &selector.kind) != Some(object.kind) {
        return false;
    }
    let namespaces = selector.namespaces.as_ref();
    let in_namespace = match namespaces.map(|n| &n.from) {
        None | Some(TargetNamespaceFrom::Same) => own == &*object.namespace,
        Some(TargetNamespaceFrom::All) => true,
        Some(TargetNamespaceFrom::Selector) => {
            namespaces
                .and_then(|n| n.selector.as_ref())
                .is_some_and(|selector| {
                    let namespace = view.get::<Namespace>("", &object.namespace);
                    namespace.is_some_and(|namespace| {
                        matches(selector.clone(), namespace.metadata.labels.as_ref())
                    })
                })
        }
        Some(TargetNamespaceFrom::Other(_)) => false,
    };
    let own_labels = LabelSelector {
        match_labels: (!selector.match_labels.is_empty()).then(|| selector.match_labels.clone()),
        match_expressions: (!selector.match_expressions.is_empty())
            .then(|| selector.match_expressions.clone()),
    };
    in_namespace && matches(own_labels, labels)
}

fn matches(selector: LabelSelector, labels: Option<&Labels>) -> bool {
    let none = Labels::new();
    Selector::try_from(selector).is_ok_and(|selector| selector.matches(labels.unwrap_or(&none)))
}

/// What holds at some place: a policy, perhaps laid over another.
#[derive(Debug, Clone)]
pub struct Effective<S> {
    /// The settings.
    pub spec: S,
    /// Where they come from: the more specific policy first.
    pub policies: Vec<ObjectRef>,
    /// Fields that the more specific policy has set.
    own: BTreeSet<String>,
}

impl<S> Effective<S> {
    /// The policy that a field of the spec comes from: references are read from there.
    pub fn owner(&self, field: &str) -> &ObjectRef {
        match self.policies.as_slice() {
            [_, outer] if !self.own.contains(field) => outer,
            policies => &policies[0],
        }
    }
}

/// What holds, if anything does; or which policy cannot be honoured, and why.
pub type Found<S> = Option<Result<Effective<S>, (ObjectRef, Fault)>>;

/// What `own` comes to where `inherited` would hold without it; `Err` if they cannot be laid over each other.
pub fn effective<P: EnvoyPolicy>(
    view: &View<'_>,
    own: Option<&Arc<P>>,
    inherited: Option<&ObjectRef>,
) -> Found<P::Spec> {
    let outer = || inherited.and_then(|policy| view.get::<P>(&policy.namespace, &policy.name));
    let alone = |policy: &P| {
        Ok(Effective {
            spec: policy.settings().clone(),
            policies: vec![ObjectRef::of(policy)],
            own: BTreeSet::new(),
        })
    };
    let Some(own) = own else {
        return outer().map(|policy| alone(policy.as_ref()));
    };
    let strategic = match own.merge_type() {
        None | Some(PolicyMergeType::Replace) => return Some(alone(own.as_ref())),
        Some(PolicyMergeType::StrategicMerge) => true,
        Some(PolicyMergeType::JSONMerge) => false,
        Some(PolicyMergeType::Other(other)) => {
            let fault = Fault::new("Invalid", format!("spec.mergeType: {other:?} is not supported"));
            return Some(Err((ObjectRef::of(own.as_ref()), fault)));
        }
    };
    let Some(outer) = outer() else {
        return Some(alone(own.as_ref()));
    };
    let merged =
        merge::specs(outer.settings(), own.settings(), strategic).map(|(spec, own_fields)| Effective {
            spec,
            policies: vec![ObjectRef::of(own.as_ref()), ObjectRef::of(outer.as_ref())],
            own: own_fields,
        });
    Some(merged.map_err(|why| {
        let fault = Fault::new("Invalid", format!("spec.mergeType: {why}"));
        (ObjectRef::of(own.as_ref()), fault)
    }))
}

/// What the policies of [`Effective::policies`] come to.
pub fn chain<P: EnvoyPolicy>(view: &View<'_>, policies: &[ObjectRef]) -> Option<Effective<P::Spec>> {
    let first = policies.first()?;
    let own = view.get::<P>(&first.namespace, &first.name)?;
    effective(view, Some(&own), policies.get(1))?.ok()
}
