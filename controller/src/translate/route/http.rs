//! Rules of HTTPRoutes and GRPCRoutes.
//!
//! Both come to the same configuration: a gRPC rule is an HTTP rule whose matches are of paths `/service/method`.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sluice_config::v1;
use sluice_crds::gateway::{
    BackendRef, GRPCRoute, HTTPRoute, HTTPRouteRetry, HTTPRouteRule, SessionPersistence,
};

use super::filters::{self, Filter, Place};
use super::refs::Context;
use super::{matches, session};
use crate::engine::BackendUsage;
use crate::translate::fault::Fault;
use crate::translate::policy::envoy::stats;

/// What annotations begin with that a route's metadata has.
const TOLD: &str = "gateway.envoyproxy.io/";

/// The rules of an HTTPRoute.
pub fn http(route: &HTTPRoute, context: &mut Context<'_, '_>) -> v1::HttpRules {
    let annotations = told_annotations(&route.metadata);
    // As the CRD would fill it in.
    let default = [HTTPRouteRule::default()];
    let rules = if route.spec.rules.is_empty() {
        &default[..]
    } else {
        &route.spec.rules
    };
    let mut all = Vec::with_capacity(rules.len());
    for (i, rule) in rules.iter().enumerate() {
        let translated = attempt(context, |context| {
            let timeouts = rule.timeouts.unwrap_or_default();
            let parts = Parts {
                index: i,
                name: rule.name.as_deref(),
                annotations: &annotations,
                usage: BackendUsage::Http,
                session: rule.session_persistence.as_ref(),
            };
            let translated = common(
                context,
                &parts,
                matches::http(&rule.matches, i)?,
                &rule.filters,
                &rule.backend_refs,
            )?;
            // What the rule itself says goes before what policies say.
            let request_timeout = timeouts.request.map(session::millis);
            Ok(v1::HttpRule {
                request_timeout_ms: request_timeout.unwrap_or(translated.request_timeout_ms),
                backend_request_timeout_ms: timeouts.backend_request.map(session::millis).unwrap_or_default(),
                retry: rule.retry.as_ref().map_or(translated.retry, retry),
                ..translated
            })
        });
        all.extend(translated);
    }
    v1::HttpRules {
        rules: all,
        grpc: false,
    }
}

/// The rules of a GRPCRoute.
pub fn grpc(route: &GRPCRoute, context: &mut Context<'_, '_>) -> v1::HttpRules {
    let annotations = told_annotations(&route.metadata);
    let mut all = Vec::with_capacity(route.spec.rules.len());
    for (i, rule) in route.spec.rules.iter().enumerate() {
        let translated = attempt(context, |context| {
            let parts = Parts {
                index: i,
                name: rule.name.as_deref(),
                annotations: &annotations,
                usage: BackendUsage::Grpc,
                session: rule.session_persistence.as_ref(),
            };
            common(
                context,
                &parts,
                matches::grpc(&rule.matches, i)?,
                &rule.filters,
                &rule.backend_refs,
            )
        });
        all.extend(translated);
    }
    v1::HttpRules {
        rules: all,
        grpc: true,
    }
}

/// Annotations of a route that its metadata has, without their prefix.
fn told_annotations(meta: &ObjectMeta) -> BTreeMap<String, String> {
    let annotations = meta.annotations.iter().flatten();
    annotations
        .filter_map(|(name, value)| Some((name.strip_prefix(TOLD)?.to_owned(), value.clone())))
        .collect()
}

/// A rule that is dropped needs nothing.
fn attempt(
    context: &mut Context<'_, '_>,
    rule: impl FnOnce(&mut Context<'_, '_>) -> Result<v1::HttpRule, Fault>,
) -> Option<v1::HttpRule> {
    let needed = context.needs.len();
    let outcome = rule(context);
    if outcome.is_err() {
        context.needs.truncate(needed);
    }
    context.problems.rule(outcome)
}

/// What rules of both kinds have in common besides matches, filters and backends.
struct Parts<'a> {
    index: usize,
    name: Option<&'a str>,
    annotations: &'a BTreeMap<String, String>,
    usage: BackendUsage,
    session: Option<&'a SessionPersistence>,
}

fn common<F: Filter>(
    context: &mut Context<'_, '_>,
    parts: &Parts<'_>,
    matches: Vec<v1::HttpMatch>,
    filters: &[F],
    backends: &[BackendRef<F>],
) -> Result<v1::HttpRule, Fault> {
    let rule = parts.index;
    let governing = context.enter(parts.name);
    let place = Place {
        matches: &matches,
        usage: parts.usage,
        of_backend: false,
    };
    let filters = filters::translate(
        context,
        filters,
        place,
        format_args!("spec.rules[{rule}].filters"),
    )?;
    let mut weighted = Vec::with_capacity(backends.len());
    for (i, backend) in backends.iter().enumerate() {
        let field = format_args!("spec.rules[{rule}].backendRefs[{i}]");
        weighted.push(weighted_backend(context, backend, place, field)?);
    }
    let matches = with_cookies(matches, &std::mem::take(&mut context.cookies));
    let mut translated = v1::HttpRule {
        name: parts.name.unwrap_or_default().to_owned(),
        filters,
        backends: weighted,
        session_persistence: session_persistence(context, parts, backends)?,
        annotations: parts.annotations.clone(),
        backend_stat_name: stat_name(context, parts, backends),
        matches,
        ..Default::default()
    };
    if let Some(governing) = governing {
        let scope = format!("{}/{rule}", context.scope());
        governing.apply(context, scope, &mut translated);
    }
    Ok(translated)
}

/// The name by which metrics know requests to the rule's backends; empty: each backend's.
fn stat_name<F>(context: &Context<'_, '_>, parts: &Parts<'_>, backends: &[BackendRef<F>]) -> String {
    let Some(pattern) = context.stat_name.filter(|_| !backends.is_empty()) else {
        return String::new();
    };
    let route = context.referrer;
    let backend = |backend: &BackendRef<F>| {
        let namespace = backend.object.namespace.as_deref().unwrap_or(&route.namespace);
        format!("{namespace}/{}", backend.object.name)
    };
    let rule = stats::RuleBackends {
        route,
        number: parts.index,
        name: parts.name,
        backends: backends.iter().map(backend).collect(),
    };
    stats::backend_name(&rule, pattern)
}

/// Each of the matches with each of the sets of cookies.
fn with_cookies(matches: Vec<v1::HttpMatch>, sets: &[Vec<v1::ValueMatch>]) -> Vec<v1::HttpMatch> {
    if sets.is_empty() {
        return matches;
    }
    let with = |set: &Vec<v1::ValueMatch>, matched: &v1::HttpMatch| v1::HttpMatch {
        cookies: set.clone(),
        ..matched.clone()
    };
    matches
        .iter()
        .flat_map(|matched| sets.iter().map(move |set| with(set, matched)))
        .collect()
}

fn weighted_backend<F: Filter>(
    context: &mut Context<'_, '_>,
    from: &BackendRef<F>,
    place: Place<'_>,
    field: fmt::Arguments<'_>,
) -> Result<v1::WeightedBackend, Fault> {
    let place = Place {
        of_backend: true,
        ..place
    };
    Ok(v1::WeightedBackend {
        // The share of an invalid backend stays: it is answered with an error.
        backend: context
            .backend(&from.object, place.usage, field)
            .unwrap_or_default(),
        weight: from.weight(),
        filters: filters::translate(context, &from.filters, place, format_args!("{field}.filters"))?,
        fallback: context.is_fallback(&from.object),
    })
}

/// What the rule itself says, else what all its backends agree on.
fn session_persistence<F>(
    context: &Context<'_, '_>,
    parts: &Parts<'_>,
    backends: &[BackendRef<F>],
) -> Result<Option<v1::SessionPersistence>, Fault> {
    if let Some(from) = parts.session {
        let rule = parts.index;
        let owner = format_args!("{} rule {rule}", context.referrer);
        let field = format_args!("spec.rules[{rule}].sessionPersistence");
        return session::translate(from, owner, field).map(Some);
    }
    let mut used = backends.iter().filter(|backend| backend.weight() > 0);
    let Some(first) = used.next() else { return Ok(None) };
    let persistence = context.backend_session(&first.object);
    Ok(persistence.filter(|p| used.all(|other| context.backend_session(&other.object).as_ref() == Some(p))))
}

fn retry(from: &HTTPRouteRetry) -> Option<v1::Retry> {
    let attempts = from.attempts.unwrap_or(1);
    // Zero switches retries off.
    (attempts > 0).then(|| v1::Retry {
        codes: from.codes.iter().copied().map(u32::from).collect(),
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        backoff_ms: from.backoff.map(session::millis).unwrap_or_default(),
        ..v1::Retry::default()
    })
}
