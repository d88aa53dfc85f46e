//! What the statuses of policies say: for each Gateway that a target leads to whether the policy is honoured there.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_crds::envoy::{
    BackendTrafficPolicy, ClientTrafficPolicy, EnvoyExtensionPolicy, EnvoyPatchPolicy, SecurityPolicy,
};
use sluice_crds::gateway::{
    GRPCRoute, Gateway, HTTPRoute, ListenerSet, ParentReference, Route, TCPRoute, TLSRoute, UDPRoute,
};

use super::attach::{Candidates, Effective, Labels, Policies, effective, sections};
use super::reader::Reader;
use super::{EnvoyPolicy, client, gaps, security, traffic};
use crate::engine::{AncestorStatus, GatewayRef, Output, Status, View};
use crate::store::{Kind, ObjectRef, Stored};
use crate::translate::condition::Condition;
use crate::translate::fault::{Fault, stated};
use crate::translate::model::GatewayModel;
use crate::translate::policy::{MOST_ANCESTORS, gateway_reference};
use crate::translate::route::Context;

/// Routes that a message names at most.
const NAMED: usize = 8;

/// Translates a policy of Envoy Gateway: to its status.
pub fn translate(policy: &ObjectRef, view: &View<'_>) -> Output {
    match policy.kind {
        Kind::SecurityPolicy => of_kind::<SecurityPolicy>(policy, view),
        Kind::BackendTrafficPolicy => of_kind::<BackendTrafficPolicy>(policy, view),
        Kind::ClientTrafficPolicy => of_kind::<ClientTrafficPolicy>(policy, view),
        Kind::EnvoyExtensionPolicy => of_kind::<EnvoyExtensionPolicy>(policy, view),
        Kind::EnvoyPatchPolicy => patches(policy, view),
        _ => Output::default(),
    }
}

/// What was found out about a policy at one place.
#[derive(Default)]
struct Findings {
    faults: Vec<Fault>,
    warnings: Vec<String>,
    merged_into: Option<ObjectRef>,
}

/// A kind whose statuses are stated here.
trait Stating: EnvoyPolicy {
    /// Kinds that it can be for.
    const TARGETS: &'static [Kind];

    /// What is wrong with it where its target is of kind `target` and `inherited` would hold without it.
    fn findings(view: &View<'_>, policy: &Arc<Self>, target: Kind, inherited: &Policies) -> Findings;
}

/// Reads what policy holds where `inherited` would hold without it.
fn read<P: EnvoyPolicy>(
    view: &View<'_>,
    policy: &Arc<P>,
    inherited: Option<&ObjectRef>,
    check: impl FnOnce(&mut Reader<'_, '_, '_>, &Effective<P::Spec>),
) -> Findings {
    let own = ObjectRef::of(policy.as_ref());
    let found = match effective(view, Some(policy), inherited) {
        Some(Ok(found)) => found,
        Some(Err((_, fault))) => {
            return Findings {
                faults: vec![fault],
                ..Findings::default()
            };
        }
        None => return Findings::default(),
    };
    let context = Context::new(view, &own, crate::translate::model::RoutingType::default(), None);
    let mut reader = Reader::new(&context, String::new());
    check(&mut reader, &found);
    Findings {
        faults: reader.faults,
        warnings: reader.warnings,
        merged_into: found.policies.get(1).cloned(),
    }
}

impl Stating for SecurityPolicy {
    const TARGETS: &'static [Kind] = &[
        Kind::Gateway,
        Kind::ListenerSet,
        Kind::HTTPRoute,
        Kind::GRPCRoute,
        Kind::TCPRoute,
    ];

    fn findings(view: &View<'_>, policy: &Arc<Self>, target: Kind, inherited: &Policies) -> Findings {
        read(view, policy, inherited.security.as_ref(), |reader, found| {
            if target == Kind::TCPRoute {
                security::connections(reader, found);
            } else {
                security::policy(reader, found);
            }
        })
    }
}

impl Stating for BackendTrafficPolicy {
    const TARGETS: &'static [Kind] = &[
        Kind::Gateway,
        Kind::ListenerSet,
        Kind::HTTPRoute,
        Kind::GRPCRoute,
        Kind::TCPRoute,
        Kind::TLSRoute,
        Kind::UDPRoute,
    ];

    fn findings(view: &View<'_>, policy: &Arc<Self>, _: Kind, inherited: &Policies) -> Findings {
        read(view, policy, inherited.traffic.as_ref(), |reader, found| {
            let (mut rule, mut policy) = Default::default();
            traffic::apply(reader, found, &mut rule, &mut policy);
        })
    }
}

impl Stating for EnvoyExtensionPolicy {
    const TARGETS: &'static [Kind] = SecurityPolicy::TARGETS;

    fn findings(view: &View<'_>, policy: &Arc<Self>, _: Kind, inherited: &Policies) -> Findings {
        read(view, policy, inherited.extension.as_ref(), |reader, found| {
            gaps::honoured(reader, Kind::EnvoyExtensionPolicy, &found.spec);
        })
    }
}

impl Stating for ClientTrafficPolicy {
    const TARGETS: &'static [Kind] = &[Kind::Gateway, Kind::ListenerSet];

    fn findings(view: &View<'_>, policy: &Arc<Self>, _: Kind, _: &Policies) -> Findings {
        let found = client::translate(view, policy, "", None);
        Findings {
            faults: found.faults,
            warnings: found.warnings,
            merged_into: None,
        }
    }
}

fn of_kind<P: Stating>(policy: &ObjectRef, view: &View<'_>) -> Output {
    let Some(object) = view.get::<P>(&policy.namespace, &policy.name) else {
        return Output::default();
    };
    let mut ancestors = BTreeMap::<ParentReference, Vec<Condition>>::new();
    for (target, section) in targets(view, object.as_ref()) {
        let Some(found) = Target::find(view, &target) else {
            continue;
        };
        let fault = target_fault::<P>(view, policy, &target, section.as_deref(), &found);
        for (mut ancestor, model, _) in found.ancestors {
            if target.kind == Kind::Gateway {
                ancestor.section_name.clone_from(&section);
            }
            let inherited = match target.kind {
                Kind::Gateway | Kind::ListenerSet => Policies::default(),
                _ => model.policies.clone(),
            };
            let findings = P::findings(view, &object, target.kind, &inherited);
            let mut conditions = conditions(fault.clone(), &findings);
            if fault.is_none() {
                conditions.extend(overridden::<P>(
                    view,
                    policy,
                    &target,
                    section.as_deref(),
                    &model.gateway,
                ));
            }
            // A target that is well is no news where another is not.
            let is_bad =
                |conditions: &[Condition]| conditions.iter().any(|c| c.kind == "Accepted" && !c.status);
            let entry = ancestors.entry(ancestor).or_insert_with(|| conditions.clone());
            if is_bad(&conditions) && !is_bad(entry) {
                *entry = conditions;
            }
        }
    }
    output(policy, object.meta().generation, ancestors)
}

fn output(
    policy: &ObjectRef,
    generation: Option<i64>,
    ancestors: BTreeMap<ParentReference, Vec<Condition>>,
) -> Output {
    let ancestors = ancestors.into_iter().take(MOST_ANCESTORS);
    let ancestors = ancestors.map(|(ancestor_ref, conditions)| AncestorStatus {
        ancestor_ref,
        conditions,
    });
    let status = Status::Policy {
        generation: generation.unwrap_or_default(),
        ancestors: ancestors.collect(),
    };
    Output {
        statuses: vec![(policy.clone(), status)],
        ..Output::default()
    }
}

fn conditions(target: Option<Fault>, findings: &Findings) -> Vec<Condition> {
    let invalid = (!findings.faults.is_empty()).then(|| {
        let messages: Vec<_> = findings
            .faults
            .iter()
            .map(|fault| fault.message.as_str())
            .collect();
        Fault::new("Invalid", messages.join("; "))
    });
    let mut conditions = vec![stated("Accepted", "Accepted", target.or(invalid).as_ref())];
    if !findings.warnings.is_empty() {
        let message = format!("not honoured: {}", findings.warnings.join("; "));
        conditions.push(Condition::warns("Warning", "UnsupportedField", message));
    }
    if let Some(outer) = &findings.merged_into {
        conditions.push(Condition::warns("Merged", "Merged", format!("laid over {outer}")));
    }
    conditions
}

/// An object that policies can be for.
struct Target {
    labels: Option<Labels>,
    sections: Vec<String>,
    /// With what each is reached by: a Gateway or a ListenerSet.
    ancestors: Vec<(ParentReference, Arc<GatewayModel>, ObjectRef)>,
}

impl Target {
    /// `None` if it is not there, or leads to no Gateway of ours.
    fn find(view: &View<'_>, object: &ObjectRef) -> Option<Self> {
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

/// What a policy is for: objects and, perhaps, a section of them.
fn targets<P: Stating>(view: &View<'_>, policy: &P) -> Vec<(ObjectRef, Option<String>)> {
    let own = policy.meta().namespace.as_deref().unwrap_or_default();
    let references = policy.target_references();
    let named = references.target_ref.iter().chain(&references.target_refs);
    let mut all: Vec<_> = named
        .filter_map(|t| {
            let kind = Kind::parse(&t.group, &t.kind).filter(|kind| P::TARGETS.contains(kind))?;
            let section = t.section_name.clone().filter(|name| !name.is_empty());
            Some((ObjectRef::new(kind, own, t.name.as_str()), section))
        })
        .collect();
    for selector in &references.target_selectors {
        let group = selector.group.as_deref().unwrap_or(sluice_crds::gateway::GROUP);
        let kind = Kind::parse(group, &selector.kind).filter(|kind| P::TARGETS.contains(kind));
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

/// Why the policy does not apply to what it names.
fn target_fault<P: Stating>(
    view: &View<'_>,
    policy: &ObjectRef,
    target: &ObjectRef,
    section: Option<&str>,
    found: &Target,
) -> Option<Fault> {
    if let Some(section) = section
        && !found.sections.iter().any(|name| name == section)
    {
        let message = format!("{target} has no section {section:?}");
        return Some(Fault::new("TargetNotFound", message));
    }
    let candidates = Candidates::<P>::of(view, target, found.labels.as_ref());
    let prevails = ObjectRef::of(candidates.winner(section)?.as_ref());
    (prevails != *policy).then(|| {
        let message = format!("{prevails} has the same target, {target}, and goes before");
        Fault::new("Conflicted", message)
    })
}

/// `Overridden`, if routes of the Gateway have policies of their own in the place of this one.
fn overridden<P: Stating>(
    view: &View<'_>,
    policy: &ObjectRef,
    target: &ObjectRef,
    section: Option<&str>,
    gateway: &GatewayRef,
) -> Option<Condition> {
    if !matches!(target.kind, Kind::Gateway | Kind::ListenerSet) || !P::TARGETS.contains(&Kind::HTTPRoute) {
        return None;
    }
    let mut routes = Vec::new();
    for other in view.list::<P>() {
        if ObjectRef::of(other.as_ref()) == *policy || other.merge_type().is_some() {
            continue;
        }
        for (object, _) in targets(view, other.as_ref()) {
            if matches!(object.kind, Kind::Gateway | Kind::ListenerSet) || routes.contains(&object) {
                continue;
            }
            let leads_here = Target::find(view, &object).is_some_and(|found| {
                found.ancestors.iter().any(|(ancestor, model, via)| {
                    let names = ancestor.section_name.as_deref();
                    let in_section = section.is_none() || names.is_none() || names == section;
                    let of_target = via == target || (target.kind == Kind::Gateway && section.is_none());
                    model.gateway == *gateway && of_target && in_section
                })
            });
            if leads_here {
                routes.push(object);
            }
        }
    }
    routes.sort();
    let more = routes.len().saturating_sub(NAMED);
    let named: Vec<_> = routes.iter().take(NAMED).map(ToString::to_string).collect();
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    (!routes.is_empty()).then(|| {
        let message = format!("other policies hold for {}{rest}", named.join(", "));
        Condition::warns("Overridden", "Overridden", message)
    })
}

fn patches(policy: &ObjectRef, view: &View<'_>) -> Output {
    let Some(object) = view.get::<EnvoyPatchPolicy>(&policy.namespace, &policy.name) else {
        return Output::default();
    };
    let target = &object.spec.target_ref;
    let gateway = GatewayRef::new(policy.namespace.clone(), target.name.as_str());
    let is_ours =
        Kind::parse(&target.group, &target.kind) == Some(Kind::Gateway) && view.gateway(&gateway).is_some();
    let mut ancestors = BTreeMap::new();
    if is_ours {
        let why = gaps::GAPS
            .iter()
            .find(|gap| gap.kind == Kind::EnvoyPatchPolicy)
            .map_or("", |gap| gap.why);
        let fails = |kind| Condition::fails(kind, "Disabled", format!("spec.jsonPatches: {why}"));
        ancestors.insert(
            gateway_reference(&gateway),
            vec![fails("Accepted"), fails("Programmed")],
        );
    }
    output(policy, object.metadata.generation, ancestors)
}
