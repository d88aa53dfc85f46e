//! Authorization rules.

use sluice_config::v1;
use sluice_config::v1::path_match;
use sluice_crds::envoy::{
    Authorization, AuthorizationAction, AuthorizationRule, JWT, JWTClaimValueType, JWTPrincipal, PathMatch,
};
use sluice_crds::gateway::PathMatchType;

use super::jwt;
use super::reader::Reader;

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
        let more = rule
            .principal
            .as_ref()
            .is_some_and(|principal| principal.jwt.is_some() || !principal.headers.is_empty());
        if more || rule.operation.is_some() {
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
    }
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
