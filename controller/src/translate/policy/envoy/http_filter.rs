//! HTTPRouteFilter: what a filter of type ExtensionRef comes to.

use sluice_config::v1;
use sluice_config::v1::filter::Filter;
use sluice_crds::envoy::{
    CookieMatchType, HTTPHostnameModifierType, HTTPRouteFilter, PathRegexModifierType, URLRewriteFilter,
};

use super::reader::Reader;
use super::{gaps, response};
use crate::store::{Kind, ObjectRef};

/// The entry of a Secret with a credential.
const CREDENTIAL: &str = "credential";

/// The filters, and what else a request must have to match.
#[derive(Debug, Default)]
pub struct Extension {
    /// In the order in which they apply.
    pub filters: Vec<Filter>,
    /// Cookies of which all of one set must match; none: any request.
    pub cookies: Vec<Vec<v1::ValueMatch>>,
}

/// What the filter comes to. What is wrong is noted with the reader: then none of it may be relied on.
pub fn translate(reader: &mut Reader<'_, '_, '_>, owner: &ObjectRef, from: &HTTPRouteFilter) -> Extension {
    let spec = &gaps::honoured(reader, Kind::HTTPRouteFilter, &from.spec);
    let mut extension = Extension::default();
    if let Some(rewrite) = &spec.url_rewrite {
        let rewrite = self::rewrite(reader, rewrite);
        extension.filters.push(Filter::UrlRewrite(rewrite));
    }
    if let Some(from) = &spec.credential_injection {
        let field = "credentialInjection.credential.valueRef";
        let data = reader.secret(owner, &from.credential.value_ref, field);
        let name = from.header.as_deref().unwrap_or("authorization");
        let injection = v1::CredentialInjection {
            header: reader.header(name, "credentialInjection.header"),
            credential: reader.entry(data, CREDENTIAL, false, field),
            overwrite: from.overwrite.unwrap_or_default(),
        };
        extension.filters.push(Filter::CredentialInjection(injection));
    }
    if let Some(from) = &spec.direct_response {
        let direct = response::direct(reader, owner, from);
        extension.filters.push(Filter::DirectResponse(direct));
    }
    for from in &spec.matches {
        let mut cookies = Vec::with_capacity(from.cookies.len());
        for cookie in &from.cookies {
            let regex = match cookie.type_.as_ref().unwrap_or(&CookieMatchType::Exact) {
                CookieMatchType::Exact => false,
                CookieMatchType::RegularExpression => {
                    reader.regex(&cookie.value, "matches[].cookies[].value");
                    true
                }
                CookieMatchType::Other(other) => {
                    reader.fault("matches[].cookies[].type", format_args!("{other:?} is not known"));
                    false
                }
            };
            cookies.push(v1::ValueMatch {
                name: cookie.name.clone(),
                value: cookie.value.clone(),
                regex,
            });
        }
        extension.cookies.push(cookies);
    }
    extension
}

fn rewrite(reader: &mut Reader<'_, '_, '_>, from: &URLRewriteFilter) -> v1::UrlRewrite {
    let mut rewrite = v1::UrlRewrite {
        append_x_forwarded_host: from.append_x_forwarded_host.unwrap_or_default(),
        ..v1::UrlRewrite::default()
    };
    if let Some(host) = &from.hostname {
        match (&host.type_, &host.header) {
            (HTTPHostnameModifierType::Header, Some(name)) => {
                rewrite.hostname_from_header = reader.header(name, "urlRewrite.hostname.header");
            }
            (HTTPHostnameModifierType::Backend, _) => rewrite.hostname_from_backend = true,
            (HTTPHostnameModifierType::PathRegex, _) if host.path_regex.is_some() => {
                rewrite.hostname_from_path = host.path_regex.as_ref().map(|regex| v1::RegexRewrite {
                    pattern: reader.regex(&regex.pattern, "urlRewrite.hostname.pathRegex.pattern"),
                    substitution: regex.substitution.clone(),
                });
            }
            (kind, _) => {
                let why = format!("type {kind} is not known, or its field is missing");
                reader.fault("urlRewrite.hostname", why);
            }
        }
    }
    if let Some(path) = &from.path {
        match (&path.type_, &path.replace_regex_match) {
            (PathRegexModifierType::ReplaceRegexMatch, Some(regex)) => {
                let replace = v1::RegexRewrite {
                    pattern: reader.regex(&regex.pattern, "urlRewrite.path.replaceRegexMatch.pattern"),
                    substitution: regex.substitution.clone(),
                };
                rewrite.path = Some(v1::PathModifier {
                    modifier: Some(v1::path_modifier::Modifier::ReplaceRegexMatch(replace)),
                });
            }
            (kind, _) => {
                let why = format!("type {kind} is not known, or its field is missing");
                reader.fault("urlRewrite.path", why);
            }
        }
    }
    rewrite
}
