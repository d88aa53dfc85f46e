//! What the statuses of policies say: for each Gateway that a target leads to whether the policy is honoured there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_crds::envoy::{
    BackendTrafficPolicy, ClientTrafficPolicy, EnvoyExtensionPolicy, EnvoyPatchPolicy, SecurityPolicy,
};
use sluice_crds::gateway::ParentReference;

use super::attach::{Candidates, Effective, Policies, effective};
use super::priorities::{self, Place};
use super::reader::Reader;
use super::target::{self, Target};
use super::{EnvoyPolicy, authorization, client, extension, gaps, security, traffic};
use crate::engine::{AncestorStatus, GatewayRef, Output, Status, View};
use crate::store::{Kind, ObjectRef};
use crate::translate::class;
use crate::translate::condition::Condition;
use crate::translate::fault::{Fault, stated};
use crate::translate::model::{GatewayModel, ListenerModel, Protocol};
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

    /// The listeners of a Gateway where it is not what holds, though it is for them.
    fn lost(_policy: &ObjectRef, _model: &GatewayModel) -> Option<Lost> {
        None
    }

    /// What it needs of a Gateway that governs its target, and that one does not have.
    fn lacks(_policy: &Self, _model: &GatewayModel) -> Vec<String>
    where
        Self: Sized,
    {
        Vec::new()
    }

    /// What of it has no effect on routes that it holds for.
    fn on_routes(
        _view: &View<'_>,
        _policy: &Arc<Self>,
        _inherited: &Policies,
        _place: &Place<'_>,
    ) -> Vec<String> {
        Vec::new()
    }

    /// What of it has no effect on the listeners that it holds for: those of `target`, or one of them.
    fn remarks(_policy: &Self, _own: &Governed<'_, Self>) -> Vec<String>
    where
        Self: Sized,
    {
        Vec::new()
    }
}

/// Listeners for which another one's policy holds, because they share connections.
#[derive(Clone)]
struct Lost {
    ports: BTreeSet<u16>,
    /// There are listeners for which this one holds.
    holds: bool,
}

impl Lost {
    fn all(&self) -> bool {
        !self.holds
    }

    fn message(&self) -> String {
        let ports: Vec<_> = self.ports.iter().map(ToString::to_string).collect();
        format!(
            "listeners share port {} in cleartext, and connections are as another one's policy has them",
            ports.join(", ")
        )
    }

    fn fault(self) -> Fault {
        Fault::new("Conflicted", self.message())
    }

    fn condition(self) -> Condition {
        Condition::warns("Conflicted", "Conflicted", self.message())
    }
}

/// What a policy of listeners is for.
struct Governed<'a, P> {
    /// A Gateway or ListenerSet.
    target: &'a ObjectRef,
    section: Option<&'a str>,
    model: &'a GatewayModel,
    candidates: &'a Candidates<P>,
}

impl<P: EnvoyPolicy> Governed<'_, P> {
    /// The listeners. Those of ListenerSets that a Gateway's policy holds for are not among them.
    fn listeners(&self, policy: &P) -> impl Iterator<Item = &ListenerModel> {
        let policy = ObjectRef::of(policy);
        self.model.listeners.iter().filter(move |listener| {
            let prevails = self.candidates.most_specific(Some(&listener.name));
            listener.parent == *self.target
                && self.section.is_none_or(|section| section == &*listener.name)
                && prevails.is_some_and(|prevails| ObjectRef::of(prevails.as_ref()) == policy)
        })
    }
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
                security::policy(reader, found, false);
            }
        })
    }

    fn lacks(policy: &Self, model: &GatewayModel) -> Vec<String> {
        let missing = authorization::missing_databases(&policy.spec, model.geo);
        if missing.is_empty() {
            return Vec::new();
        }
        let field = "spec.authorization.rules[].principal.clientIPGeoLocations";
        let names = missing.join(", ");
        vec![format!(
            "{field}: geoIP of the Gateway's EnvoyProxy names no {names}"
        )]
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

    fn on_routes(
        view: &View<'_>,
        policy: &Arc<Self>,
        inherited: &Policies,
        place: &Place<'_>,
    ) -> Vec<String> {
        priorities::remarks(view, policy, inherited.traffic.as_ref(), place)
    }
}

impl Stating for EnvoyExtensionPolicy {
    const TARGETS: &'static [Kind] = SecurityPolicy::TARGETS;

    fn findings(view: &View<'_>, policy: &Arc<Self>, target: Kind, inherited: &Policies) -> Findings {
        read(view, policy, inherited.extension.as_ref(), |reader, found| {
            extension::check(reader, found, target == Kind::TCPRoute);
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

    fn lost(policy: &ObjectRef, model: &GatewayModel) -> Option<Lost> {
        let own = |listener: &&ListenerModel| listener.client_policy.as_ref() == Some(policy);
        let own = model.listeners.iter().filter(own);
        let (lost, held): (Vec<_>, Vec<_>) = own.partition(|listener| listener.overruled);
        (!lost.is_empty()).then(|| Lost {
            ports: lost.iter().map(|listener| listener.port).collect(),
            holds: !held.is_empty(),
        })
    }

    fn remarks(policy: &Self, own: &Governed<'_, Self>) -> Vec<String> {
        if !client::asks_for_http3(&policy.spec) {
            return Vec::new();
        }
        let https = |listener: &&ListenerModel| listener.protocol == Protocol::Https;
        let mut remarks: Vec<_> = own
            .listeners(policy)
            .filter(|listener| https(listener) && listener.serving && !listener.http3)
            .map(|listener| {
                format!(
                    "http3: the UDP port {} of listener {} belongs to another listener",
                    listener.port, listener.name
                )
            })
            .collect();
        let is_for_some = match own.section {
            Some(_) => own.listeners(policy).any(|listener| https(&listener)),
            None => own.model.listeners.iter().any(|listener| https(&listener)),
        };
        if !is_for_some {
            remarks.push("http3: no listener of protocol HTTPS".to_owned());
        }
        remarks
    }
}

fn of_kind<P: Stating>(policy: &ObjectRef, view: &View<'_>) -> Output {
    let Some(object) = view.get::<P>(&policy.namespace, &policy.name) else {
        return Output::default();
    };
    let mut ancestors = BTreeMap::<ParentReference, Vec<Condition>>::new();
    for (target, section) in target::all(view, object.as_ref(), P::TARGETS) {
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
            let mut findings = P::findings(view, &object, target.kind, &inherited);
            findings.warnings.extend(P::lacks(&object, &model));
            let place = Place {
                target: &target,
                section: section.as_deref(),
                gateway: &model.gateway,
            };
            findings
                .warnings
                .extend(P::on_routes(view, &object, &inherited, &place));
            if matches!(target.kind, Kind::Gateway | Kind::ListenerSet) {
                let own = Governed {
                    target: &target,
                    section: section.as_deref(),
                    model: &model,
                    candidates: &Candidates::of(view, &target, found.labels.as_ref()),
                };
                findings.warnings.extend(P::remarks(&object, &own));
            }
            let lost = P::lost(policy, &model);
            let overruled = lost.clone().filter(Lost::all).map(Lost::fault);
            let mut conditions = conditions(fault.clone().or(overruled), &findings);
            conditions.extend(lost.filter(|lost| !lost.all()).map(Lost::condition));
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
        for (object, _) in target::all(view, other.as_ref(), P::TARGETS) {
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
    let ancestor = match Kind::parse(&target.group, &target.kind) {
        Some(Kind::Gateway) => {
            let gateway = GatewayRef::new(policy.namespace.clone(), target.name.as_str());
            view.gateway(&gateway).map(|_| gateway_reference(&gateway))
        }
        Some(Kind::GatewayClass) => class::ours(view, &target.name).map(|_| ParentReference {
            group: Some(target.group.clone()),
            kind: Some(target.kind.clone()),
            name: target.name.clone(),
            ..ParentReference::default()
        }),
        _ => None,
    };
    let mut ancestors = BTreeMap::new();
    if let Some(ancestor) = ancestor {
        let why = gaps::GAPS
            .iter()
            .find(|gap| gap.kind == Kind::EnvoyPatchPolicy)
            .map_or("", |gap| gap.why);
        let fails = |kind| Condition::fails(kind, "Disabled", format!("spec.jsonPatches: {why}"));
        ancestors.insert(ancestor, vec![fails("Accepted"), fails("Programmed")]);
    }
    output(policy, object.metadata.generation, ancestors)
}
