//! Where `retry.numAttemptsPerPriority` cannot be honoured: in rules whose fallbacks other filters would have to prepare
//! a request for than those that have run for the backend that was meant first.

use std::sync::Arc;

use sluice_crds::envoy::BackendTrafficPolicy;
use sluice_crds::gateway::{BackendRef, GRPCRoute, GRPCRouteRule, HTTPRoute, HTTPRouteRule, Route};

use super::attach::{Candidates, effective};
use super::target::Target;
use crate::engine::{GatewayRef, View};
use crate::store::{Kind, ObjectRef, Stored};
use crate::translate::model::RoutingType;
use crate::translate::route::Context;

/// What a policy is for, and the Gateway that its status speaks of.
pub struct Place<'a> {
    /// The object.
    pub target: &'a ObjectRef,
    /// A section of it.
    pub section: Option<&'a str>,
    /// The Gateway.
    pub gateway: &'a GatewayRef,
}

/// A rule with backends.
trait Rule {
    fn name(&self) -> Option<&str>;
    /// True if requests stay with backends of the first priority.
    fn stays(&self, context: &Context<'_, '_>) -> bool;
}

impl Rule for HTTPRouteRule {
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn stays(&self, context: &Context<'_, '_>) -> bool {
        differ(context, &self.backend_refs)
    }
}

impl Rule for GRPCRouteRule {
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn stays(&self, context: &Context<'_, '_>) -> bool {
        differ(context, &self.backend_refs)
    }
}

/// A route with such rules.
trait Ruled: Route + Stored {
    type Rule: Rule;
    fn rules(&self) -> &[Self::Rule];
}

impl Ruled for HTTPRoute {
    type Rule = HTTPRouteRule;
    fn rules(&self) -> &[Self::Rule] {
        &self.spec.rules
    }
}

impl Ruled for GRPCRoute {
    type Rule = GRPCRouteRule;
    fn rules(&self) -> &[Self::Rule] {
        &self.spec.rules
    }
}

/// True if there are fallbacks, and none of them has the filters of some backend that goes before.
fn differ<F: PartialEq>(context: &Context<'_, '_>, backends: &[BackendRef<F>]) -> bool {
    let used = backends.iter().filter(|backend| backend.weight() > 0);
    let (fallbacks, first): (Vec<_>, Vec<_>) = used.partition(|backend| context.is_fallback(&backend.object));
    let has_none = |backend: &&BackendRef<F>| fallbacks.iter().all(|other| other.filters != backend.filters);
    !fallbacks.is_empty() && first.iter().any(has_none)
}

/// The rules that the policy holds for and where the field has no effect, if it is set.
pub fn remarks(
    view: &View<'_>,
    policy: &Arc<BackendTrafficPolicy>,
    inherited: Option<&ObjectRef>,
    place: &Place<'_>,
) -> Vec<String> {
    let Some(Ok(found)) = effective(view, Some(policy), inherited) else {
        return Vec::new();
    };
    let retry = found.spec.cluster.retry.as_ref();
    if retry.is_none_or(|retry| retry.num_attempts_per_priority.unwrap_or_default() == 0) {
        return Vec::new();
    }
    let mut rules = Vec::new();
    match place.target.kind {
        Kind::HTTPRoute | Kind::GRPCRoute => {
            let name = Some(ObjectRef::of(policy.as_ref()));
            one::<HTTPRoute>(view, place.target, name.as_ref(), &mut rules);
            one::<GRPCRoute>(view, place.target, name.as_ref(), &mut rules);
        }
        _ => {
            below::<HTTPRoute>(view, place, &mut rules);
            below::<GRPCRoute>(view, place, &mut rules);
        }
    }
    if rules.is_empty() {
        return rules;
    }
    vec![format!(
        "spec.retry.numAttemptsPerPriority: fallbacks have other filters than the backends before them in {}",
        rules.join(", ")
    )]
}

/// Adds the rules of a route where `policy` is what holds, or no policy of the route's own.
fn one<R: Ruled>(view: &View<'_>, route: &ObjectRef, policy: Option<&ObjectRef>, found: &mut Vec<String>) {
    if route.kind != <R as Stored>::KIND {
        return;
    }
    let Some(object) = view.get::<R>(&route.namespace, &route.name) else {
        return;
    };
    let context = Context::new(view, route, RoutingType::default(), None);
    let candidates = Candidates::<BackendTrafficPolicy>::of(view, route, object.meta().labels.as_ref());
    for (i, rule) in object.rules().iter().enumerate() {
        let holds = candidates.most_specific(rule.name());
        let holds = holds.map(|policy| ObjectRef::of(policy.as_ref()));
        if holds.as_ref() == policy && rule.stays(&context) {
            found.push(format!("{route} spec.rules[{i}]"));
        }
    }
}

/// Adds those of all routes that come to the Gateway by the target.
fn below<R: Ruled>(view: &View<'_>, place: &Place<'_>, found: &mut Vec<String>) {
    let is_gateway = place.target.kind == Kind::Gateway && place.section.is_none();
    for route in view.list::<R>() {
        let name = ObjectRef::of(route.as_ref());
        let mut rules = Vec::new();
        one::<R>(view, &name, None, &mut rules);
        if rules.is_empty() {
            continue;
        }
        let comes = Target::find(view, &name).is_some_and(|found| {
            found.ancestors.iter().any(|(ancestor, model, via)| {
                let section = ancestor.section_name.as_deref();
                let in_section = place.section.is_none() || section.is_none() || section == place.section;
                model.gateway == *place.gateway && (via == place.target || is_gateway) && in_section
            })
        });
        if comes {
            found.append(&mut rules);
        }
    }
}
