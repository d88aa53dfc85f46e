//! Routes of all five kinds, by one mechanism.
//!
//! [`parents`] finds what a route attaches to, [`http`] and [`l4`] say what its rules come to, [`refs`] resolves what
//! they name. Nothing here knows addresses: those are a matter of backends, so that they can change without a route.

mod filters;
mod hostname;
mod http;
mod l4;
mod matches;
mod parents;
mod problems;
mod refs;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_config::{key, v1};
use sluice_crds::gateway::{GRPCRoute, HTTPRoute, Route, TCPRoute, TLSRoute, UDPRoute};

pub use filters::external_auth;
pub use refs::Context;
pub use session::millis;

use crate::engine::{BackendUsage, GatewayRef, Output, ParentStatus, Status, Unit, View};
use crate::store::{Kind, ObjectRef, Stored};
use crate::translate::fault::stated;
use crate::translate::model::{GatewayModel, Protocol};
use crate::translate::policy::envoy::{Policies, RoutePolicies};
use hostname::Served;
use parents::{Attaching, Parent};
use problems::Problems;

/// Translates one route.
pub fn translate(route: &ObjectRef, view: &View<'_>) -> Output {
    match route.kind {
        Kind::HTTPRoute => of_kind::<HTTPRoute>(route, view),
        Kind::GRPCRoute => of_kind::<GRPCRoute>(route, view),
        Kind::TLSRoute => of_kind::<TLSRoute>(route, view),
        Kind::TCPRoute => of_kind::<TCPRoute>(route, view),
        Kind::UDPRoute => of_kind::<UDPRoute>(route, view),
        _ => Output::default(),
    }
}

/// What tells one kind of route from the others.
trait RouteKind: Route + Stored {
    /// What the rules come to for backends used like this.
    fn rules(&self, usage: BackendUsage, context: &mut Context<'_, '_>) -> v1::route::Rules;
}

impl RouteKind for HTTPRoute {
    fn rules(&self, _: BackendUsage, context: &mut Context<'_, '_>) -> v1::route::Rules {
        v1::route::Rules::Http(http::http(self, context))
    }
}

impl RouteKind for GRPCRoute {
    fn rules(&self, _: BackendUsage, context: &mut Context<'_, '_>) -> v1::route::Rules {
        v1::route::Rules::Http(http::grpc(self, context))
    }
}

impl RouteKind for TLSRoute {
    fn rules(&self, usage: BackendUsage, context: &mut Context<'_, '_>) -> v1::route::Rules {
        v1::route::Rules::L4(l4::rules(&self.spec.rules, usage, context))
    }
}

impl RouteKind for TCPRoute {
    fn rules(&self, usage: BackendUsage, context: &mut Context<'_, '_>) -> v1::route::Rules {
        v1::route::Rules::L4(l4::rules(&self.spec.rules, usage, context))
    }
}

impl RouteKind for UDPRoute {
    fn rules(&self, usage: BackendUsage, context: &mut Context<'_, '_>) -> v1::route::Rules {
        v1::route::Rules::L4(l4::rules(&self.spec.rules, usage, context))
    }
}

/// How backends of a route are used at a listener; `None`: routes of this kind do not go with such a listener.
fn usage(kind: Kind, listener: Protocol) -> Option<BackendUsage> {
    match (kind, listener) {
        (Kind::HTTPRoute, Protocol::Http | Protocol::Https) => Some(BackendUsage::Http),
        (Kind::GRPCRoute, Protocol::Http | Protocol::Https) => Some(BackendUsage::Grpc),
        (Kind::TLSRoute, Protocol::TlsPassthrough) => Some(BackendUsage::Passthrough),
        (Kind::TLSRoute | Kind::TCPRoute, Protocol::TlsTerminate) | (Kind::TCPRoute, Protocol::Tcp) => {
            Some(BackendUsage::Tcp)
        }
        (Kind::UDPRoute, Protocol::Udp) => Some(BackendUsage::Udp),
        _ => None,
    }
}

/// The usage by which references are checked for a route that is attached nowhere.
fn usual(kind: Kind) -> BackendUsage {
    match kind {
        Kind::GRPCRoute => BackendUsage::Grpc,
        Kind::TLSRoute => BackendUsage::Passthrough,
        Kind::TCPRoute => BackendUsage::Tcp,
        Kind::UDPRoute => BackendUsage::Udp,
        _ => BackendUsage::Http,
    }
}

/// What tells scopes apart: nothing else of a listener matters to the rules.
type ScopeKey = (GatewayRef, BackendUsage, Policies);

/// A Gateway's listeners at which the rules come to the same configuration.
struct Scope {
    model: Arc<GatewayModel>,
    /// Keys of all listeners that the route is attached to.
    attached: BTreeSet<Arc<str>>,
    /// Hostnames at those of them that are configured.
    serving: BTreeMap<Arc<str>, Vec<Served>>,
}

/// What the rules come to in a scope.
struct Translated {
    rules: v1::route::Rules,
    needs: BTreeSet<Unit>,
    resources: Vec<(String, v1::resource::Body)>,
    problems: Problems,
}

fn of_kind<R: RouteKind>(reference: &ObjectRef, view: &View<'_>) -> Output {
    let mut output = Output::default();
    let Some(route) = view.get::<R>(&reference.namespace, &reference.name) else {
        return output;
    };
    let attaching = Attaching {
        route: reference,
        parent_refs: route.parent_refs(),
        default_gateways: route.use_default_gateways(),
        hostnames: route.hostnames(),
    };
    let parents = parents::find(attaching, view);
    let Some(first) = parents.first() else {
        return output;
    };

    let own = RoutePolicies::of(view, reference, route.meta().labels.as_ref());
    let mut problems = BTreeMap::new();
    for ((gateway, usage, policies), scope) in scopes(&parents) {
        let variant = variant(&scope.model, usual(reference.kind), usage, &policies);
        let governed = Governed {
            own: &own,
            inherited: &policies,
            variant,
        };
        let translated = rules(&*route, reference, &scope.model, usage, view, &governed);
        if translated.problems.fatal().is_none() {
            output.attached.extend(
                scope
                    .attached
                    .iter()
                    .map(|key| (gateway.clone(), Arc::clone(key))),
            );
            let bundle = output.for_gateway.entry(gateway.clone()).or_default();
            // Needed even if no listener serves: policies state in their status which Gateways use a backend.
            bundle.needs.extend(translated.needs);
            if !scope.serving.is_empty() {
                let filters = matches!(translated.rules, v1::route::Rules::Http(_));
                let resource = v1::Route {
                    in_order: scope.model.keeps_route_order && reference.kind == Kind::HTTPRoute,
                    filter_order: if filters {
                        scope.model.filter_order.clone()
                    } else {
                        Vec::new()
                    },
                    ..resource(&*route, reference, scope.serving, translated.rules)
                };
                for (key, body) in translated.resources {
                    bundle.add(key, body);
                }
                let key = key::route(reference.kind.as_str(), &reference.namespace, &reference.name);
                bundle.add(
                    format!("{key}{}", governed.variant),
                    v1::resource::Body::Route(resource),
                );
            }
        }
        problems.insert((gateway, usage, policies), translated.problems);
    }
    if problems.is_empty() {
        // Attached nowhere: whether its references resolve is said all the same.
        let usage = usual(reference.kind);
        let policies = first.model.policies.clone();
        let governed = Governed {
            own: &own,
            inherited: &policies,
            variant: String::new(),
        };
        let translated = rules(&*route, reference, &first.model, usage, view, &governed);
        let key = (first.model.gateway.clone(), usage, policies.clone());
        problems.insert(key, translated.problems);
    }
    let status = parents.iter().map(|parent| status(parent, &problems)).collect();
    let generation = route.meta().generation.unwrap_or_default();
    output.statuses.push((
        reference.clone(),
        Status::Route {
            generation,
            parents: status,
        },
    ));
    output
}

fn scopes(parents: &[Parent]) -> BTreeMap<ScopeKey, Scope> {
    let mut scopes = BTreeMap::new();
    for parent in parents {
        for attached in parent.attached.iter().flatten() {
            let scope = scopes
                .entry((
                    parent.model.gateway.clone(),
                    attached.usage,
                    attached.policies.clone(),
                ))
                .or_insert_with(|| Scope {
                    model: Arc::clone(&parent.model),
                    attached: BTreeSet::new(),
                    serving: BTreeMap::new(),
                });
            // Two parentRefs that name one listener come to the same hostnames there.
            scope.attached.insert(Arc::clone(&attached.listener));
            if attached.serving {
                scope
                    .serving
                    .insert(Arc::clone(&attached.listener), attached.hostnames.clone());
            }
        }
    }
    scopes
}

/// The policies that govern a route in a scope.
struct Governed<'a> {
    own: &'a RoutePolicies,
    inherited: &'a Policies,
    /// What tells the scope apart in keys.
    variant: String,
}

fn rules<R: RouteKind>(
    route: &R,
    reference: &ObjectRef,
    model: &GatewayModel,
    usage: BackendUsage,
    view: &View<'_>,
    governed: &Governed<'_>,
) -> Translated {
    let mut context = Context::new(view, reference, model.routing, Some(&model.backend_tls));
    context.policies = Some((governed.own, governed.inherited));
    context.variant.clone_from(&governed.variant);
    context.stat_name = model.backend_stat_name.as_deref();
    let rules = route.rules(usage, &mut context);
    Translated {
        rules,
        resources: context.resources,
        needs: context.needs.into_iter().collect(),
        problems: context.problems,
    }
}

/// What a scope's keys end in: nothing for the listeners that most routes have.
fn variant(model: &GatewayModel, usual: BackendUsage, usage: BackendUsage, policies: &Policies) -> String {
    let mut variant = String::new();
    if usage != usual {
        // A TLSRoute at a listener that terminates: there may be the one for listeners that pass through as well.
        variant.push_str("/terminated");
    }
    if *policies != model.policies {
        let named = [&policies.security, &policies.traffic, &policies.extension];
        for policy in named.into_iter().flatten() {
            variant.push_str("/under/");
            variant.push_str(&policy.to_string().replace(' ', "/"));
        }
        if policies == &Policies::default() {
            variant.push_str("/under/none");
        }
    }
    if model.fleet != model.gateway {
        // Proxies that several Gateways share have the route once for each.
        let GatewayRef { namespace, name } = &model.gateway;
        for part in ["/of/", namespace, "/", name] {
            variant.push_str(part);
        }
    }
    variant
}

fn resource<R: RouteKind>(
    route: &R,
    reference: &ObjectRef,
    serving: BTreeMap<Arc<str>, Vec<Served>>,
    rules: v1::route::Rules,
) -> v1::Route {
    let attachments = serving.into_iter().map(|(listener, served)| {
        let (hostnames, route_hostnames) = served.into_iter().map(|s| (s.hostname, s.origin)).unzip();
        v1::Attachment {
            listener: listener.to_string(),
            hostnames,
            route_hostnames,
        }
    });
    let (kind, namespace, name) = (reference.kind, &reference.namespace, &reference.name);
    v1::Route {
        name: format!("{kind}/{namespace}/{name}"),
        attachments: attachments.collect(),
        created: route
            .meta()
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second()),
        precedence_name: format!("{namespace}/{name}"),
        rules: Some(rules),
        ..v1::Route::default()
    }
}

fn status(parent: &Parent, problems: &BTreeMap<ScopeKey, Problems>) -> ParentStatus {
    let gateway = &parent.model.gateway;
    let attached = parent.attached.iter().flatten();
    let mut own: Vec<_> = attached
        .filter_map(|attached| problems.get(&(gateway.clone(), attached.usage, attached.policies.clone())))
        .collect();
    if own.is_empty() {
        // Not attached here. Validity of rules does not depend on where.
        own.extend(problems.values());
    }
    let fatal = own.iter().find_map(|p| p.fatal());
    let accepted = stated("Accepted", "Accepted", parent.attached.as_ref().err().or(fatal));
    let says = own
        .iter()
        .find(|p| p.first_unresolved().is_some())
        .or(own.first());
    let partially = own
        .iter()
        .find_map(|p| p.partially_invalid())
        .filter(|_| accepted.status);
    let mut conditions = vec![accepted];
    conditions.extend(says.map(|p| p.resolved_refs()));
    conditions.extend(partially);
    ParentStatus {
        parent_ref: parent.reference.clone(),
        conditions,
    }
}
