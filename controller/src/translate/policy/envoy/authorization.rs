//! Authorization rules.

use sluice_config::v1;
use sluice_config::v1::path_match;
use sluice_crds::envoy::{
    Authorization, AuthorizationAction, AuthorizationRule, ClientIPGeoLocation, GeoIPAnonymousMatch, JWT,
    JWTClaimValueType, JWTPrincipal, PathMatch, SecurityPolicySpec,
};
use sluice_crds::gateway::PathMatchType;

use super::reader::Reader;
use super::{expression, jwt};
use crate::translate::model::Geo;

/// `authorization`; `tokens` is the policy's `jwt`.
pub fn translate(
    reader: &mut Reader<'_, '_, '_>,
    from: &Authorization,
    tokens: Option<&JWT>,
) -> v1::Authorization {
    let mut rules = Vec::with_capacity(from.rules.len());
    for (i, from) in from.rules.iter().enumerate() {
        rules.push(rule(reader, from, tokens, &format!("authorization.rules[{i}]")));
    }
    let action = from.default_action.as_ref().unwrap_or(&AuthorizationAction::Deny);
    v1::Authorization {
        rules,
        allow_by_default: allows(reader, action, "authorization.defaultAction"),
    }
}

/// Notes what cannot be known of a connection.
pub fn check_connections(reader: &mut Reader<'_, '_, '_>, from: &Authorization) {
    for (i, rule) in from.rules.iter().enumerate() {
        let more = rule.principal.as_ref().is_some_and(|principal| {
            principal.jwt.is_some()
                || !principal.headers.is_empty()
                || !principal.client_ip_geo_locations.is_empty()
        });
        if more || rule.operation.is_some() || rule.cel.is_some() {
            let field = format!("authorization.rules[{i}]");
            reader.fault(field, "of a TCPRoute's connections the address alone is known");
        }
    }
}

fn rule(
    reader: &mut Reader<'_, '_, '_>,
    from: &AuthorizationRule,
    tokens: Option<&JWT>,
    field: &str,
) -> v1::AuthorizationRule {
    let principal = from.principal.clone().unwrap_or_default();
    let operation = from.operation.clone().unwrap_or_default();
    let mut client_cidrs = Vec::new();
    for cidr in &principal.client_cidrs {
        client_cidrs.push(reader.cidr(cidr, format_args!("{field}.principal.clientCIDRs")));
    }
    let mut headers = Vec::new();
    for header in &principal.headers {
        headers.push(v1::HeaderPrincipal {
            name: reader.header(&header.name, format_args!("{field}.principal.headers")),
            values: header.values.clone(),
        });
    }
    let mut locations = Vec::new();
    for (i, from) in principal.client_ip_geo_locations.iter().enumerate() {
        let field = format!("{field}.principal.clientIPGeoLocations[{i}]");
        locations.push(location(reader, from, &field));
    }
    if let Some(Err(why)) = from.cel.as_deref().map(expression::check) {
        reader.fault(format_args!("{field}.cel"), why);
    }
    v1::AuthorizationRule {
        name: from.name.clone().unwrap_or_default(),
        allow: allows(reader, &from.action, &format!("{field}.action")),
        client_cidrs,
        jwt: principal
            .jwt
            .as_ref()
            .map(|from| token(reader, from, tokens, &format!("{field}.principal.jwt"))),
        headers,
        methods: operation.methods,
        path: operation
            .path
            .as_ref()
            .map(|path| request_path(reader, path, &format!("{field}.operation.path"))),
        expression: from.cel.clone().unwrap_or_default(),
        locations,
    }
}

fn location(reader: &mut Reader<'_, '_, '_>, from: &ClientIPGeoLocation, field: &str) -> v1::GeoLocation {
    if *from == ClientIPGeoLocation::default() {
        reader.fault(field, "empty");
    }
    let is_code = |country: &&String| country.len() == 2 && country.bytes().all(|c| c.is_ascii_alphabetic());
    if let Some(country) = from.country.as_ref().filter(|country| !is_code(country)) {
        reader.fault(
            format_args!("{field}.country"),
            format_args!("{country:?} is not a code of two letters"),
        );
    }
    if from.anonymous == Some(GeoIPAnonymousMatch::default()) {
        reader.fault(format_args!("{field}.anonymous"), "empty");
    }
    let asn = from.asn.map(|asn| u32::try_from(asn).ok().filter(|asn| *asn > 0));
    if asn == Some(None) {
        reader.fault(
            format_args!("{field}.asn"),
            "not the number of an autonomous system",
        );
    }
    v1::GeoLocation {
        country: from.country.clone().unwrap_or_default(),
        region: from.region.clone().unwrap_or_default(),
        city: from.city.clone().unwrap_or_default(),
        asn: asn.flatten().unwrap_or_default(),
        isp: from.isp.clone().unwrap_or_default(),
        anonymous: from.anonymous.as_ref().map(|from| v1::GeoAnonymous {
            is_anonymous: from.is_anonymous,
            is_vpn: from.is_vpn,
            is_hosting: from.is_hosting,
            is_tor: from.is_tor,
            is_proxy: from.is_proxy,
        }),
    }
}

/// The databases that a policy's locations are looked up in, and that are not among these.
pub fn missing_databases(spec: &SecurityPolicySpec, geo: Geo) -> Vec<&'static str> {
    let rules = spec
        .authorization
        .iter()
        .flat_map(|authorization| &authorization.rules);
    let locations = rules
        .filter_map(|rule| rule.principal.as_ref())
        .flat_map(|principal| &principal.client_ip_geo_locations);
    let mut missing = Vec::new();
    for location in locations {
        let of_city = location.region.is_some() || location.city.is_some();
        for (name, is_needed, is_there) in [
            ("cityDbSource", of_city, geo.city),
            (
                "countryDbSource",
                location.country.is_some(),
                geo.country || geo.city,
            ),
            ("asnDbSource", location.asn.is_some(), geo.asn),
            ("ispDbSource", location.isp.is_some(), geo.isp),
            ("anonymousIpDbSource", location.anonymous.is_some(), geo.anonymous),
        ] {
            if is_needed && !is_there && !missing.contains(&name) {
                missing.push(name);
            }
        }
    }
    missing
}

fn allows(reader: &mut Reader<'_, '_, '_>, action: &AuthorizationAction, field: &str) -> bool {
    match action {
        AuthorizationAction::Allow => true,
        AuthorizationAction::Deny => false,
        AuthorizationAction::Other(other) => {
            reader.fault(field, format_args!("{other:?} is not known"));
            false
        }
    }
}

fn token(
    reader: &mut Reader<'_, '_, '_>,
    from: &JWTPrincipal,
    tokens: Option<&JWT>,
    field: &str,
) -> v1::JwtPrincipal {
    if !jwt::has_provider(tokens, &from.provider) {
        let why = format!("jwt has no provider {:?}", from.provider);
        reader.fault(format_args!("{field}.provider"), why);
    }
    let claim = |from: &sluice_crds::envoy::JWTClaim| v1::ClaimMatch {
        name: from.name.clone(),
        values: from.values.clone(),
        list: from.value_type == Some(JWTClaimValueType::StringArray),
    };
    v1::JwtPrincipal {
        provider: from.provider.clone(),
        claims: from.claims.iter().map(claim).collect(),
        scopes: from.scopes.clone(),
    }
}

/// A path that a request must, or must not, have.
pub fn request_path(reader: &mut Reader<'_, '_, '_>, from: &PathMatch, field: &str) -> v1::RequestPath {
    let kind = match from.type_.as_ref().unwrap_or(&PathMatchType::PathPrefix) {
        PathMatchType::Exact => path_match::Kind::Exact,
        PathMatchType::PathPrefix => path_match::Kind::Prefix,
        PathMatchType::RegularExpression => {
            reader.regex(&from.value, field);
            path_match::Kind::Regex
        }
        PathMatchType::Other(other) => {
            reader.fault(field, format_args!("{other:?} is not known"));
            path_match::Kind::Unspecified
        }
    };
    v1::RequestPath {
        path: Some(v1::PathMatch {
            kind: kind.into(),
            value: from.value.clone(),
        }),
        invert: from.invert.unwrap_or_default(),
    }
}
