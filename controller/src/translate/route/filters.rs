//! Filters of HTTP and gRPC rules and of their backends.
//!
//! Owns their validation; order is kept. A filter that cannot be honoured is never skipped: it is refused with its
//! rule, or it answers with an error.

use std::fmt;

use sluice_config::v1;
use sluice_config::v1::{filter, path_match, path_modifier};
use sluice_crds::gateway::{
    GRPCRouteFilter, GRPCRouteFilterType, HTTPCORSFilter, HTTPExternalAuthFilter, HTTPHeader,
    HTTPHeaderFilter, HTTPPathModifier, HTTPPathModifierType, HTTPRequestMirrorFilter,
    HTTPRequestRedirectFilter, HTTPRouteExternalAuthProtocol, HTTPRouteFilter, HTTPRouteFilterType,
    HTTPURLRewriteFilter, LocalObjectReference,
};

use super::refs::Context;
use crate::engine::BackendUsage;
use crate::translate::fault::Fault;

/// What the API says a browser may keep a preflight's answer for, in seconds.
const DEFAULT_MAX_AGE: u32 = 5;
/// Answered where a filter cannot be resolved.
const UNRESOLVED: u32 = 500;

/// A filter of either kind of route, with the settings that its type calls for.
pub enum Spec<'a> {
    /// RequestHeaderModifier.
    RequestHeaders(&'a HTTPHeaderFilter),
    /// ResponseHeaderModifier.
    ResponseHeaders(&'a HTTPHeaderFilter),
    /// RequestMirror.
    Mirror(&'a HTTPRequestMirrorFilter),
    /// RequestRedirect.
    Redirect(&'a HTTPRequestRedirectFilter),
    /// URLRewrite.
    Rewrite(&'a HTTPURLRewriteFilter),
    /// CORS.
    Cors(&'a HTTPCORSFilter),
    /// ExternalAuth.
    ExternalAuth(&'a HTTPExternalAuthFilter),
    /// ExtensionRef.
    Extension(&'a LocalObjectReference),
    /// A type that is not known, or whose settings are missing.
    Unknown(&'a str),
}

/// A filter as one of the API's types declares it.
pub trait Filter {
    /// What it is to do.
    fn spec(&self) -> Spec<'_>;
    /// Its type as manifests spell it.
    fn type_name(&self) -> &str;
}

impl Filter for HTTPRouteFilter {
    fn spec(&self) -> Spec<'_> {
        let spec = match self.type_ {
            HTTPRouteFilterType::RequestHeaderModifier => {
                self.request_header_modifier.as_ref().map(Spec::RequestHeaders)
            }
            HTTPRouteFilterType::ResponseHeaderModifier => {
                self.response_header_modifier.as_ref().map(Spec::ResponseHeaders)
            }
            HTTPRouteFilterType::RequestMirror => self.request_mirror.as_ref().map(Spec::Mirror),
            HTTPRouteFilterType::RequestRedirect => self.request_redirect.as_ref().map(Spec::Redirect),
            HTTPRouteFilterType::UrlRewrite => self.url_rewrite.as_ref().map(Spec::Rewrite),
            HTTPRouteFilterType::Cors => self.cors.as_ref().map(Spec::Cors),
            HTTPRouteFilterType::ExternalAuth => self.external_auth.as_ref().map(Spec::ExternalAuth),
            HTTPRouteFilterType::ExtensionRef => self.extension_ref.as_ref().map(Spec::Extension),
            HTTPRouteFilterType::Other(_) => None,
        };
        spec.unwrap_or(Spec::Unknown(self.type_name()))
    }

    fn type_name(&self) -> &str {
        self.type_.as_str()
    }
}

impl Filter for GRPCRouteFilter {
    fn spec(&self) -> Spec<'_> {
        let spec = match self.type_ {
            GRPCRouteFilterType::RequestHeaderModifier => {
                self.request_header_modifier.as_ref().map(Spec::RequestHeaders)
            }
            GRPCRouteFilterType::ResponseHeaderModifier => {
                self.response_header_modifier.as_ref().map(Spec::ResponseHeaders)
            }
            GRPCRouteFilterType::RequestMirror => self.request_mirror.as_ref().map(Spec::Mirror),
            GRPCRouteFilterType::ExtensionRef => self.extension_ref.as_ref().map(Spec::Extension),
            GRPCRouteFilterType::Other(_) => None,
        };
        spec.unwrap_or(Spec::Unknown(self.type_name()))
    }

    fn type_name(&self) -> &str {
        self.type_.as_str()
    }
}

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
        if let Some(filter) = one(context, &from.spec(), place, format_args!("{field}[{i}]"))? {
            all.push(v1::Filter { filter: Some(filter) });
        }
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
) -> Result<Option<filter::Filter>, Fault> {
    Ok(Some(match from {
        Spec::RequestHeaders(from) => filter::Filter::RequestHeaders(header_modifier(
            from,
            format_args!("{field}.requestHeaderModifier"),
        )?),
        Spec::ResponseHeaders(from) => filter::Filter::ResponseHeaders(header_modifier(
            from,
            format_args!("{field}.responseHeaderModifier"),
        )?),
        Spec::Mirror(from) => {
            let mirror = mirror(context, from, place.usage, format_args!("{field}.requestMirror"))?;
            return Ok(mirror.map(filter::Filter::Mirror));
        }
        Spec::Redirect(from) => {
            filter::Filter::Redirect(redirect(from, place, format_args!("{field}.requestRedirect"))?)
        }
        Spec::Rewrite(from) => filter::Filter::UrlRewrite(v1::UrlRewrite {
            hostname: from.hostname.clone().unwrap_or_default(),
            path: path_modifier(from.path.as_ref(), place, format_args!("{field}.urlRewrite.path"))?,
        }),
        Spec::Cors(from) => filter::Filter::Cors(cors(from, format_args!("{field}.cors"))?),
        Spec::ExternalAuth(_) if place.of_backend => {
            return Err(Fault::unsupported(
                field,
                "ExternalAuth is a filter of rules, not of backends",
            ));
        }
        Spec::ExternalAuth(from) => external_auth(context, from, format_args!("{field}.externalAuth"))?,
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
    }))
}

fn header_modifier(from: &HTTPHeaderFilter, field: fmt::Arguments<'_>) -> Result<v1::HeaderModifier, Fault> {
    let set = headers(&from.set, format_args!("{field}.set"))?;
    let add = headers(&from.add, format_args!("{field}.add"))?;
    let mut remove = Vec::<String>::with_capacity(from.remove.len());
    for name in &from.remove {
        check_header_name(name, format_args!("{field}.remove"))?;
        if !remove.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            remove.push(name.clone());
        }
    }
    let removed = |name: &str| remove.iter().any(|r| r.eq_ignore_ascii_case(name));
    let added = |name: &str| add.iter().any(|a| a.name.eq_ignore_ascii_case(name));
    let twice = set
        .iter()
        .find(|s| added(&s.name) || removed(&s.name))
        .or_else(|| add.iter().find(|a| removed(&a.name)));
    if let Some(header) = twice {
        // The API allows one action for a name.
        return Err(Fault::unsupported(
            field,
            format_args!("several actions for header {:?}", header.name),
        ));
    }
    Ok(v1::HeaderModifier { set, add, remove })
}

/// Of several entries with one name the first counts.
fn headers(from: &[HTTPHeader], field: fmt::Arguments<'_>) -> Result<Vec<v1::Header>, Fault> {
    let mut all = Vec::<v1::Header>::with_capacity(from.len());
    for header in from {
        check_header_name(&header.name, field)?;
        if http::HeaderValue::from_str(&header.value).is_err() {
            let why = format_args!("{:?} is not a value that a header can have", header.value);
            return Err(Fault::unsupported(field, why));
        }
        if !all
            .iter()
            .any(|other| other.name.eq_ignore_ascii_case(&header.name))
        {
            all.push(v1::Header {
                name: header.name.clone(),
                value: header.value.clone(),
            });
        }
    }
    Ok(all)
}

fn check_header_name(name: &str, field: fmt::Arguments<'_>) -> Result<(), Fault> {
    match http::HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err(Fault::unsupported(
            field,
            format_args!("{name:?} is not the name of a header"),
        )),
    }
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
    let modifier = match &from.type_ {
        HTTPPathModifierType::ReplaceFullPath => {
            path_modifier::Modifier::ReplaceFullPath(from.replace_full_path.clone().unwrap_or_default())
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
            path_modifier::Modifier::ReplacePrefixMatch(from.replace_prefix_match.clone().unwrap_or_default())
        }
        HTTPPathModifierType::Other(kind) => {
            return Err(Fault::unsupported(
                field,
                format_args!("{kind:?} is not a type of path modifier"),
            ));
        }
    };
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
    Ok(v1::Cors {
        allow_origins: from.allow_origins.clone(),
        allow_credentials: from.allow_credentials.unwrap_or_default(),
        allow_methods: from.allow_methods.clone(),
        allow_headers: from.allow_headers.clone(),
        expose_headers: from.expose_headers.clone(),
        max_age,
    })
}

/// External authorization; an error for every request if whoever decides cannot be asked: this filter fails closed.
pub fn external_auth(
    context: &mut Context<'_, '_>,
    from: &HTTPExternalAuthFilter,
    field: fmt::Arguments<'_>,
) -> Result<filter::Filter, Fault> {
    let (protocol, usage) = match &from.protocol {
        HTTPRouteExternalAuthProtocol::Grpc => (v1::external_auth::Protocol::Grpc, BackendUsage::Grpc),
        HTTPRouteExternalAuthProtocol::Http => (v1::external_auth::Protocol::Http, BackendUsage::Http),
        HTTPRouteExternalAuthProtocol::Other(protocol) => {
            let why = format_args!("{protocol:?} is not a protocol of authorization services");
            return Err(Fault::unsupported(format_args!("{field}.protocol"), why));
        }
    };
    let Some(backend) = context.backend(&from.backend_ref, usage, format_args!("{field}.backendRef")) else {
        return Ok(filter::Filter::FixedResponse(v1::FixedResponse {
            status: UNRESOLVED,
        }));
    };
    let http = from.http.clone().unwrap_or_default();
    let allowed = match protocol {
        v1::external_auth::Protocol::Grpc => from.grpc.clone().unwrap_or_default().allowed_headers,
        _ => http.allowed_headers,
    };
    Ok(filter::Filter::ExternalAuth(v1::ExternalAuth {
        protocol: protocol.into(),
        backend,
        allowed_request_headers: lower_case(&allowed),
        path: path_prefix(http.path.as_deref(), format_args!("{field}.http.path"))?,
        allowed_response_headers: lower_case(&http.allowed_response_headers),
        max_body_bytes: from
            .forward_body
            .and_then(|body| u32::try_from(body.max_size?).ok())
            .unwrap_or_default(),
    }))
}

/// A prefix that can be put before a path, without a slash at its end.
fn path_prefix(path: Option<&str>, field: fmt::Arguments<'_>) -> Result<String, Fault> {
    let path = path.unwrap_or_default().trim_end_matches('/');
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&b);
    if path.is_empty() {
        Ok(String::new())
    } else if path.bytes().all(allowed) && !path.split('/').any(|part| matches!(part, "." | "..")) {
        // The API's pattern does not ask for the slash at the front.
        Ok(format!("/{}", path.trim_start_matches('/')))
    } else {
        Err(Fault::unsupported(field, format_args!("{path:?} is not a path")))
    }
}

fn lower_case(names: &[String]) -> Vec<String> {
    names.iter().map(|name| name.to_ascii_lowercase()).collect()
}
