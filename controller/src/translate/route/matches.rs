//! Matches of HTTP and gRPC routes.
//!
//! Owns their validation and defaults: what is returned, a proxy can compile.

use std::fmt;

use sluice_config::v1;
use sluice_config::v1::path_match;
use sluice_crds::gateway::{
    GRPCMethodMatch, GRPCRouteMatch, HTTPPathMatch, HTTPRouteMatch, HeaderMatch, HeaderMatchType,
    PathMatchType,
};

use crate::translate::fault::Fault;

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// Matches of a rule of an HTTPRoute; without any, prefix `/`.
pub fn http(matches: &[HTTPRouteMatch], rule: usize) -> Result<Vec<v1::HttpMatch>, Fault> {
    if matches.is_empty() {
        return Ok(vec![v1::HttpMatch {
            path: Some(everything()),
            ..Default::default()
        }]);
    }
    let each = matches.iter().enumerate();
    each.map(|(i, m)| http_match(m, format_args!("spec.rules[{rule}].matches[{i}]")))
        .collect()
}

/// Matches of a rule of a GRPCRoute; without any, every call.
pub fn grpc(matches: &[GRPCRouteMatch], rule: usize) -> Result<Vec<v1::HttpMatch>, Fault> {
    if matches.is_empty() {
        return Ok(vec![v1::HttpMatch {
            path: Some(everything()),
            ..Default::default()
        }]);
    }
    let each = matches.iter().enumerate();
    each.map(|(i, m)| grpc_match(m, format_args!("spec.rules[{rule}].matches[{i}]")))
        .collect()
}

fn everything() -> v1::PathMatch {
    path_match(path_match::Kind::Prefix, "/")
}

fn path_match(kind: path_match::Kind, value: impl Into<String>) -> v1::PathMatch {
    v1::PathMatch {
        kind: kind.into(),
        value: value.into(),
    }
}

fn http_match(from: &HTTPRouteMatch, field: fmt::Arguments<'_>) -> Result<v1::HttpMatch, Fault> {
    let method = from.method.as_deref().unwrap_or_default();
    if !method.is_empty() && !METHODS.contains(&method) {
        return Err(Fault::unsupported(
            format_args!("{field}.method"),
            format_args!("{method:?} is not a method"),
        ));
    }
    Ok(v1::HttpMatch {
        path: Some(match &from.path {
            Some(path) => http_path(path, format_args!("{field}.path"))?,
            None => everything(),
        }),
        headers: headers(&from.headers, field)?,
        query: values(
            &from.query_params,
            format_args!("{field}.queryParams"),
            str::to_owned,
        )?,
        method: method.to_owned(),
        ..v1::HttpMatch::default()
    })
}

fn http_path(from: &HTTPPathMatch, field: fmt::Arguments<'_>) -> Result<v1::PathMatch, Fault> {
    let value = from.value();
    let kind = match from.type_.as_ref().unwrap_or(&PathMatchType::PathPrefix) {
        PathMatchType::Exact => path_match::Kind::Exact,
        PathMatchType::PathPrefix => path_match::Kind::Prefix,
        PathMatchType::RegularExpression => {
            check_regex(value, field)?;
            return Ok(path_match(path_match::Kind::Regex, value));
        }
        PathMatchType::Other(kind) => {
            return Err(Fault::unsupported(
                field,
                format_args!("{kind:?} is not a type of path match"),
            ));
        }
    };
    if !value.starts_with('/') {
        return Err(Fault::unsupported(
            field,
            format_args!("{value:?} does not start with a slash"),
        ));
    }
    // The API ignores a prefix's trailing slash.
    Ok(match kind {
        path_match::Kind::Prefix if value.len() > 1 => {
            path_match(kind, value.strip_suffix('/').unwrap_or(value))
        }
        _ => path_match(kind, value),
    })
}

fn headers(from: &[HeaderMatch], field: fmt::Arguments<'_>) -> Result<Vec<v1::ValueMatch>, Fault> {
    for header in from {
        if http::HeaderName::from_bytes(header.name.as_bytes()).is_err() {
            let why = format!("{:?} is not the name of a header", header.name);
            return Err(Fault::unsupported(format_args!("{field}.headers"), why));
        }
    }
    values(from, format_args!("{field}.headers"), str::to_ascii_lowercase)
}

/// Of several entries with one name the first counts.
fn values(
    from: &[HeaderMatch],
    field: fmt::Arguments<'_>,
    name: fn(&str) -> String,
) -> Result<Vec<v1::ValueMatch>, Fault> {
    let mut all = Vec::<v1::ValueMatch>::with_capacity(from.len());
    for (i, value) in from.iter().enumerate() {
        let name = name(&value.name);
        if all.iter().any(|other| other.name == name) {
            continue;
        }
        let regex = match value.type_.as_ref().unwrap_or(&HeaderMatchType::Exact) {
            HeaderMatchType::Exact => false,
            HeaderMatchType::RegularExpression => true,
            HeaderMatchType::Other(kind) => {
                let why = format!("{kind:?} is not a type of match");
                return Err(Fault::unsupported(format_args!("{field}[{i}]"), why));
            }
        };
        if regex {
            check_regex(&value.value, format_args!("{field}[{i}]"))?;
        }
        all.push(v1::ValueMatch {
            name,
            value: value.value.clone(),
            regex,
        });
    }
    Ok(all)
}

fn grpc_match(from: &GRPCRouteMatch, field: fmt::Arguments<'_>) -> Result<v1::HttpMatch, Fault> {
    Ok(v1::HttpMatch {
        path: Some(match &from.method {
            Some(method) => grpc_path(method, format_args!("{field}.method"))?,
            None => everything(),
        }),
        headers: headers(&from.headers, field)?,
        ..Default::default()
    })
}

/// A gRPC method is called by the path `/service/method`.
fn grpc_path(from: &GRPCMethodMatch, field: fmt::Arguments<'_>) -> Result<v1::PathMatch, Fault> {
    let given = |part: &Option<String>| part.clone().filter(|p| !p.is_empty());
    let (service, method) = (given(&from.service), given(&from.method));
    match from.type_.as_ref().unwrap_or(&HeaderMatchType::Exact) {
        HeaderMatchType::Exact => {
            for part in [&service, &method].into_iter().flatten() {
                if part.contains('/') {
                    return Err(Fault::unsupported(
                        field,
                        format_args!("{part:?} has a slash in it"),
                    ));
                }
            }
            Ok(match (service, method) {
                (Some(service), Some(method)) => {
                    path_match(path_match::Kind::Exact, format!("/{service}/{method}"))
                }
                (Some(service), None) => path_match(path_match::Kind::Prefix, format!("/{service}")),
                (None, Some(method)) => path_match(
                    path_match::Kind::Regex,
                    format!("/[^/]+/{}", regex::escape(&method)),
                ),
                (None, None) => everything(),
            })
        }
        HeaderMatchType::RegularExpression => {
            for part in [&service, &method].into_iter().flatten() {
                check_regex(part, field)?;
            }
            let part = |part: Option<String>| part.map_or_else(|| "[^/]+".to_owned(), |p| format!("(?:{p})"));
            Ok(path_match(
                path_match::Kind::Regex,
                format!("/{}/{}", part(service), part(method)),
            ))
        }
        HeaderMatchType::Other(kind) => Err(Fault::unsupported(
            field,
            format_args!("{kind:?} is not a type of method match"),
        )),
    }
}

fn check_regex(pattern: &str, field: fmt::Arguments<'_>) -> Result<(), Fault> {
    // By itself, and as the proxy compiles it: the whole value has to match.
    let compiled = regex::Regex::new(pattern).and_then(|_| regex::Regex::new(&format!("^(?:{pattern})$")));
    let Err(error) = compiled else { return Ok(()) };
    let text = error.to_string();
    // The lines before draw the place in the pattern.
    let why = text
        .lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ");
    Err(Fault::unsupported(
        field,
        format_args!("{pattern:?} is not a regular expression: {why}"),
    ))
}
