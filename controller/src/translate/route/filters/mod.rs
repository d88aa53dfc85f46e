//! Filters of HTTP and gRPC rules and of their backends.
//!
//! Owns their validation; order is kept. A filter that cannot be honoured is never skipped: it is refused with its
//! rule, or it answers with an error.

mod auth;
mod headers;
mod spec;

use std::fmt;

use http::uri::PathAndQuery;
use sluice_config::v1;
use sluice_config::v1::{filter, path_match, path_modifier};
use sluice_crds::envoy::HTTPRouteFilter;
use sluice_crds::gateway::{
    HTTPCORSFilter, HTTPPathModifier, HTTPPathModifierType, HTTPRequestMirrorFilter,
    HTTPRequestRedirectFilter,
};

pub use auth::translate as external_auth;
pub use spec::{Filter, Spec};

use super::refs::Context;
use crate::engine::BackendUsage;
use crate::store::{Kind, ObjectRef};
use crate::translate::fault::Fault;
use crate::translate::policy::envoy::{Reader, http_filter};

/// What the API says a browser may keep a preflight's answer for, in seconds.
const DEFAULT_MAX_AGE: u32 = 5;
/// Answered where a filter cannot be resolved.
const UNRESOLVED: u32 = 500;

/// Where filters stand.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Matches of the rule.
    pub matches: &'a [v1::HttpMatch],
    /// What the rule's backends are spoken to with.
    pub usage: BackendUsage,
    /// They are those of one backend, not of the rule.
    pub of_backend: bool,
}

/// Translates a list of filters; `field` is the list's.
pub fn translate<F: Filter>(
    context: &mut Context<'_, '_>,
    filters: &[F],
    place: Place<'_>,
    field: fmt::Arguments<'_>,
) -> Result<Vec<v1::Filter>, Fault> {
    check_combination(filters, field)?;
    let mut all = Vec::with_capacity(filters.len());
    for (i, from) in filters.iter().enumerate() {
        let filters = one(context, &from.spec(), place, format_args!("{field}[{i}]"))?;
        all.extend(
            filters
                .into_iter()
                .map(|filter| v1::Filter { filter: Some(filter) }),
        );
    }
    Ok(all)
}

fn check_combination<F: Filter>(filters: &[F], field: fmt::Arguments<'_>) -> Result<(), Fault> {
    let incompatible = |why: fmt::Arguments<'_>| Err(Fault::at("IncompatibleFilters", field, why));
    let has = |name: &str| filters.iter().any(|f| f.type_name() == name);
    if has("RequestRedirect") && has("URLRewrite") {
        return incompatible(format_args!("RequestRedirect and URLRewrite exclude each other"));
    }
    for (i, filter) in filters.iter().enumerate() {
        // These two may be there several times.
        let repeatable = matches!(filter.spec(), Spec::Mirror(_) | Spec::Extension(_));
        if !repeatable && filters[..i].iter().any(|f| f.type_name() == filter.type_name()) {
            return incompatible(format_args!("{} must not be there twice", filter.type_name()));
        }
    }
    Ok(())
}

fn one(
    context: &mut Context<'_, '_>,
    from: &Spec<'_>,
    place: Place<'_>,
    field: fmt::Arguments<'_>,
) -> Result<Vec<filter::Filter>, Fault> {
    Ok(vec![match from {
        Spec::RequestHeaders(from) => filter::Filter::RequestHeaders(headers::modifier(
            from,
            format_args!("{field}.requestHeaderModifier"),
        )?),
        Spec::ResponseHeaders(from) => filter::Filter::ResponseHeaders(headers::modifier(
            from,
            format_args!("{field}.responseHeaderModifier"),
        )?),
        Spec::Mirror(from) => {
            let mirror = mirror(context, from, place.usage, format_args!("{field}.requestMirror"))?;
            return Ok(mirror.map(filter::Filter::Mirror).into_iter().collect());
        }
        Spec::Redirect(from) => {
            filter::Filter::Redirect(redirect(from, place, format_args!("{field}.requestRedirect"))?)
        }
        Spec::Rewrite(from) => filter::Filter::UrlRewrite(v1::UrlRewrite {
            hostname: from.hostname.clone().unwrap_or_default(),
            path: path_modifier(from.path.as_ref(), place, format_args!("{field}.urlRewrite.path"))?,
            ..v1::UrlRewrite::default()
        }),
        Spec::Cors(from) => filter::Filter::Cors(cors(from, format_args!("{field}.cors"))?),
        Spec::ExternalAuth(_) if place.of_backend => {
            return Err(Fault::unsupported(
                field,
                "ExternalAuth is a filter of rules, not of backends",
            ));
        }
        Spec::ExternalAuth(from) => auth::translate(context, from, format_args!("{field}.externalAuth"))?,
        Spec::Extension(to) if Kind::parse(&to.group, &to.kind) == Some(Kind::HTTPRouteFilter) => {
            return Ok(extension(context, &to.name, format_args!("{field}.extensionRef")));
        }
        Spec::Extension(to) => {
            let why = format!(
                "{} {} of group {:?} is not a filter that is supported",
                to.kind, to.name, to.group
            );
            context.problems.unresolved(Fault::at(
                "InvalidKind",
                format_args!("{field}.extensionRef"),
                why,
            ));
            filter::Filter::FixedResponse(v1::FixedResponse { status: UNRESOLVED })
        }
        Spec::Unknown(name) => {
            let why = format_args!("{name:?} is not a type of filter, or its settings are missing");
            return Err(Fault::unsupported(field, why));
        }
    }])
}

/// An HTTPRouteFilter; an error for every request if it is not there, or cannot be honoured.
fn extension(context: &mut Context<'_, '_>, name: &str, field: fmt::Arguments<'_>) -> Vec<filter::Filter> {
    let namespace = context.referrer.namespace.clone();
    let owner = ObjectRef::new(Kind::HTTPRouteFilter, namespace, name);
    let unresolved = |context: &mut Context<'_, '_>, why: &str| {
        let fault = Fault::at("BackendNotFound", field, format_args!("{owner}: {why}"));
        context.problems.unresolved(fault);
        vec![filter::Filter::FixedResponse(v1::FixedResponse {
            status: UNRESOLVED,
        })]
    };
    let Some(object) = context.view.get::<HTTPRouteFilter>(&owner.namespace, &owner.name) else {
        return unresolved(context, "it does not exist");
    };
    let scope = context.scope();
    let mut reader = Reader::new(context, scope);
    let found = http_filter::translate(&mut reader, &owner, &object);
    let (faults, needs) = (reader.faults, reader.needs);
    context.needs.extend(needs);
    if let Some(fault) = faults.first() {
        return unresolved(context, &fault.message);
    }
    context.cookies.extend(found.cookies);
    found.filters
}

/// `None` if the backend is not to be used: the API drops the mirror, not the rule.
fn mirror(
    context: &mut Context<'_, '_>,
    from: &HTTPRequestMirrorFilter,
    usage: BackendUsage,
    field: fmt::Arguments<'_>,
) -> Result<Option<v1::Mirror>, Fault> {
    let (numerator, denominator) = match (from.percent, from.fraction) {
        (None, None) => (0, 0),
        (Some(percent), None) if percent <= 100 => (percent, 100),
        (None, Some(of)) if of.denominator() > 0 && of.numerator <= of.denominator() => {
            (of.numerator, of.denominator())
        }
        (Some(_), Some(_)) => {
            return Err(Fault::unsupported(
                field,
                "percent and fraction exclude each other",
            ));
        }
        _ => return Err(Fault::unsupported(field, "the share is more than all requests")),
    };
    let backend = context.backend(&from.backend_ref, usage, format_args!("{field}.backendRef"));
    Ok(backend.map(|backend| v1::Mirror {
        backend,
        numerator,
        denominator,
    }))
}

fn redirect(
    from: &HTTPRequestRedirectFilter,
    place: Place<'_>,
    field: fmt::Arguments<'_>,
) -> Result<v1::Redirect, Fault> {
    let scheme = from.scheme.clone().unwrap_or_default();
    if !matches!(scheme.as_str(), "" | "http" | "https") {
        return Err(Fault::unsupported(
            format_args!("{field}.scheme"),
            format_args!("{scheme:?} is not a scheme"),
        ));
    }
    let status = u32::from(from.status_code.unwrap_or(302));
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        let why = format_args!("{status} is not the status of a redirect");
        return Err(Fault::unsupported(format_args!("{field}.statusCode"), why));
    }
    Ok(v1::Redirect {
        scheme,
        hostname: from.hostname.clone().unwrap_or_default(),
        path: path_modifier(from.path.as_ref(), place, format_args!("{field}.path"))?,
        port: from.port.map(u32::from).unwrap_or_default(),
        status,
    })
}

fn path_modifier(
    from: Option<&HTTPPathModifier>,
    place: Place<'_>,
    field: fmt::Arguments<'_>,
) -> Result<Option<v1::PathModifier>, Fault> {
    let Some(from) = from else { return Ok(None) };
    let (replacement, modifier) = match &from.type_ {
        HTTPPathModifierType::ReplaceFullPath => {
            let path = from.replace_full_path.clone().unwrap_or_default();
            (path.clone(), path_modifier::Modifier::ReplaceFullPath(path))
        }
        HTTPPathModifierType::ReplacePrefixMatch => {
            let prefix = i32::from(path_match::Kind::Prefix);
            if place
                .matches
                .iter()
                .any(|m| m.path.as_ref().is_none_or(|path| path.kind != prefix))
            {
                return Err(Fault::unsupported(
                    field,
                    "ReplacePrefixMatch needs matches of type PathPrefix",
                ));
            }
            let path = from.replace_prefix_match.clone().unwrap_or_default();
            (path.clone(), path_modifier::Modifier::ReplacePrefixMatch(path))
        }
        HTTPPathModifierType::Other(kind) => {
            return Err(Fault::unsupported(
                field,
                format_args!("{kind:?} is not a type of path modifier"),
            ));
        }
    };
    if PathAndQuery::try_from(format!("/{}", replacement.trim_start_matches('/'))).is_err() {
        return Err(Fault::unsupported(
            field,
            format_args!("{replacement:?} is not a path"),
        ));
    }
    Ok(Some(v1::PathModifier {
        modifier: Some(modifier),
    }))
}

fn cors(from: &HTTPCORSFilter, field: fmt::Arguments<'_>) -> Result<v1::Cors, Fault> {
    let max_age = match from.max_age {
        None => DEFAULT_MAX_AGE,
        Some(seconds) => u32::try_from(seconds)
            .map_err(|_| Fault::unsupported(format_args!("{field}.maxAge"), "it is negative"))?,
    };
    headers::check_names(&from.allow_methods, format_args!("{field}.allowMethods"))?;
    headers::check_names(&from.allow_headers, format_args!("{field}.allowHeaders"))?;
    headers::check_names(&from.expose_headers, format_args!("{field}.exposeHeaders"))?;
    Ok(v1::Cors {
        allow_origins: from.allow_origins.clone(),
        allow_credentials: from.allow_credentials.unwrap_or_default(),
        allow_methods: from.allow_methods.clone(),
        allow_headers: from.allow_headers.clone(),
        expose_headers: from.expose_headers.clone(),
        max_age,
    })
}
