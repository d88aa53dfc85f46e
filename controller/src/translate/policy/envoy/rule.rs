//! What the policies come to that govern a rule of a route.

use sluice_config::v1;
use sluice_crds::envoy::{
    BackendTrafficPolicy, BackendTrafficPolicySpec, EnvoyExtensionPolicy, EnvoyExtensionPolicySpec,
    RoutingType, SecurityPolicy, SecurityPolicySpec,
};

use super::attach::{Candidates, Found, Labels, Policies, effective};
use super::reader::Reader;
use super::{cluster, extension, gaps, security, traffic};
use crate::engine::View;
use crate::store::{Kind, ObjectRef};
use crate::translate::model;
use crate::translate::route::Context;

/// Answered under a policy that cannot be honoured.
const REFUSED: u32 = 500;

/// A route's own policies.
pub struct RoutePolicies {
    security: Candidates<SecurityPolicy>,
    traffic: Candidates<BackendTrafficPolicy>,
    extension: Candidates<EnvoyExtensionPolicy>,
}

impl RoutePolicies {
    /// Those for a route that has `labels`.
    pub fn of(view: &View<'_>, route: &ObjectRef, labels: Option<&Labels>) -> Self {
        Self {
            security: Candidates::of(view, route, labels),
            traffic: Candidates::of(view, route, labels),
            extension: Candidates::of(view, route, labels),
        }
    }
}

/// The policies that govern one rule.
pub struct Governing {
    security: Found<SecurityPolicySpec>,
    is_own_security: bool,
    traffic: Found<BackendTrafficPolicySpec>,
    extension: Found<EnvoyExtensionPolicySpec>,
}

impl Governing {
    /// Those of the rule with this name; `inherited` are those of the listener.
    pub fn of(view: &View<'_>, own: &RoutePolicies, inherited: &Policies, rule: Option<&str>) -> Self {
        let security = own.security.most_specific(rule);
        Self {
            is_own_security: security.is_some(),
            security: effective(view, security, inherited.security.as_ref()),
            traffic: effective(view, own.traffic.most_specific(rule), inherited.traffic.as_ref()),
            extension: effective(
                view,
                own.extension.most_specific(rule),
                inherited.extension.as_ref(),
            ),
        }
    }

    /// The policies that say how backends are connected to.
    pub fn traffic(&self) -> Vec<ObjectRef> {
        let found = self.traffic.as_ref().and_then(|found| found.as_ref().ok());
        found.map(|found| found.policies.clone()).unwrap_or_default()
    }

    /// How Services are reached, if a policy says so.
    pub fn routing(&self) -> Option<model::RoutingType> {
        let found = self.traffic.as_ref()?.as_ref().ok()?;
        match found.spec.routing_type.as_ref()? {
            RoutingType::Service => Some(model::RoutingType::Service),
            RoutingType::Endpoint => Some(model::RoutingType::Endpoint),
            RoutingType::Other(_) => None,
        }
    }

    /// Adds what they ask of an HTTP rule. `scope` names the rule in keys.
    pub fn apply(&self, context: &mut Context<'_, '_>, scope: String, rule: &mut v1::HttpRule) {
        if self.security.is_none() && self.traffic.is_none() && self.extension.is_none() {
            return;
        }
        let mut reader = Reader::new(context, scope);
        let mut policy = v1::Policy::default();
        match &self.security {
            Some(Ok(found)) => policy = security::policy(&mut reader, found, true),
            Some(Err((_, fault))) => reader.faults.push(fault.clone()),
            None => {}
        }
        match &self.traffic {
            Some(Ok(found)) => traffic::apply(&mut reader, found, rule, &mut policy),
            Some(Err((_, fault))) => reader.faults.push(fault.clone()),
            None => {}
        }
        match &self.extension {
            Some(Ok(found)) => policy.external_processors = extension::processors(&mut reader, found),
            Some(Err((_, fault))) => reader.faults.push(fault.clone()),
            None => {}
        }
        let is_valid = reader.faults.is_empty();
        let (needs, resources) = (reader.needs, reader.resources);
        if !is_valid {
            policy = v1::Policy {
                refuse: Some(v1::FixedResponse { status: REFUSED }),
                ..v1::Policy::default()
            };
        }
        if policy != v1::Policy::default() {
            rule.policy = Some(policy);
        }
        // Needed also if it is refused, so that what is mended is noticed as a change of the same units.
        context.needs.extend(needs);
        for (key, body) in resources {
            if !context.resources.iter().any(|(other, _)| *other == key) {
                context.resources.push((key, body));
            }
        }
    }

    /// Adds what they ask of connections. Policies that a route inherits are written for HTTP as well: of them only what
    /// connections can have is asked.
    pub fn apply_to_connections(
        &self,
        context: &mut Context<'_, '_>,
        scope: String,
        rules: &mut v1::L4Rules,
    ) {
        let mut reader = Reader::new(context, scope);
        match &self.security {
            // SecurityPolicies are for TCP.
            _ if context.referrer.kind == Kind::UDPRoute => {}
            Some(Ok(found)) if self.is_own_security => {
                rules.authorization = security::connections(&mut reader, found);
            }
            Some(Ok(found)) => rules.authorization = security::inherited_connections(&mut reader, found),
            Some(Err((_, fault))) => reader.faults.push(fault.clone()),
            None => {}
        }
        match &self.traffic {
            Some(Ok(found)) => {
                let spec = BackendTrafficPolicySpec {
                    cluster: found.spec.cluster.clone(),
                    ..BackendTrafficPolicySpec::default()
                };
                let spec = gaps::honoured(&mut reader, Kind::BackendTrafficPolicy, &spec);
                cluster::apply(&mut reader, &spec, &mut v1::Backend::default());
            }
            Some(Err((_, fault))) => reader.faults.push(fault.clone()),
            None => {}
        }
        if !reader.faults.is_empty() {
            // Nobody is let through.
            rules.authorization = Some(v1::Authorization::default());
        }
    }
}
