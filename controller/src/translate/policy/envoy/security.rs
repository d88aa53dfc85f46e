//! SecurityPolicy: what it comes to for a rule, or for the connections of a TCPRoute.

use sluice_config::v1;
use sluice_crds::envoy::{CORS, CSRF, SecurityPolicySpec, StringMatch, StringMatchType};

use super::attach::Effective;
use super::reader::{Reader, string_match};
use super::{authorization, credentials, external_auth, gaps, jwt, oidc};
use crate::store::Kind;
use crate::translate::route::millis;

/// What it comes to. What is wrong is noted with the reader: then none of it may be relied on. `forgives`: what is wrong with
/// an authorizer that fails open is not noted; requests go without it.
pub fn policy(
    reader: &mut Reader<'_, '_, '_>,
    from: &Effective<SecurityPolicySpec>,
    forgives: bool,
) -> v1::Policy {
    let spec = &gaps::honoured(reader, Kind::SecurityPolicy, &from.spec);
    let jwt = spec
        .jwt
        .as_ref()
        .map(|from_jwt| jwt::translate(reader, from.owner("jwt"), from_jwt));
    let oidc = spec
        .oidc
        .as_ref()
        .map(|login| oidc::translate(reader, from.owner("oidc"), login, jwt.as_ref()));
    v1::Policy {
        cors: spec.cors.as_ref().map(|from| cors(reader, from)),
        csrf: spec.csrf.as_ref().map(|from| csrf(reader, from)),
        external_auth: spec.ext_auth.as_ref().and_then(|auth| {
            let known = reader.faults.len();
            let found = external_auth::translate(reader, from.owner("extAuth"), auth);
            let is_bypassed = forgives && auth.fail_open == Some(true) && reader.faults.len() > known;
            if is_bypassed {
                reader.faults.truncate(known);
            }
            found.filter(|_| !is_bypassed)
        }),
        api_key_auth: spec
            .api_key_auth
            .as_ref()
            .map(|auth| credentials::api_keys(reader, from.owner("apiKeyAuth"), auth)),
        basic_auth: spec
            .basic_auth
            .as_ref()
            .map(|auth| credentials::basic(reader, from.owner("basicAuth"), auth)),
        oidc,
        jwt,
        authorization: spec
            .authorization
            .as_ref()
            .map(|rules| authorization::translate(reader, rules, spec.jwt.as_ref())),
        ..v1::Policy::default()
    }
}

/// What it comes to for connections: addresses are all that is known of them.
pub fn connections(
    reader: &mut Reader<'_, '_, '_>,
    from: &Effective<SecurityPolicySpec>,
) -> Option<v1::Authorization> {
    let spec = gaps::honoured(reader, Kind::SecurityPolicy, &from.spec);
    let others = [
        ("cors", spec.cors.is_some()),
        ("csrf", spec.csrf.is_some()),
        ("extAuth", spec.ext_auth.is_some()),
        ("apiKeyAuth", spec.api_key_auth.is_some()),
        ("basicAuth", spec.basic_auth.is_some()),
        ("jwt", spec.jwt.is_some()),
        ("oidc", spec.oidc.is_some()),
    ];
    for (field, _) in others.into_iter().filter(|(_, set)| *set) {
        reader.fault(field, "a TCPRoute can have authorization alone");
    }
    let rules = spec.authorization.as_ref()?;
    authorization::check_connections(reader, rules);
    Some(authorization::translate(reader, rules, None))
}

/// The same for a policy that the route inherits: what it says of requests is not meant for connections.
pub fn inherited_connections(
    reader: &mut Reader<'_, '_, '_>,
    from: &Effective<SecurityPolicySpec>,
) -> Option<v1::Authorization> {
    let rules = from.spec.authorization.as_ref()?;
    let spec = SecurityPolicySpec {
        authorization: Some(rules.clone()),
        ..SecurityPolicySpec::default()
    };
    gaps::honoured(reader, Kind::SecurityPolicy, &spec);
    authorization::check_connections(reader, rules);
    Some(authorization::translate(reader, rules, None))
}

fn csrf(reader: &mut Reader<'_, '_, '_>, from: &CSRF) -> v1::Csrf {
    let mut additional_origins = Vec::with_capacity(from.additional_origins.len());
    for origin in &from.additional_origins {
        additional_origins.push(origin_match(reader, origin));
    }
    let shadow = from.shadow_fraction.as_ref();
    v1::Csrf {
        additional_origins,
        shadow_numerator: shadow.map_or(0, |share| share.numerator),
        shadow_denominator: shadow.map_or(0, sluice_crds::gateway::Fraction::denominator),
    }
}

/// An origin, perhaps with a wildcard, as a text that must match.
fn origin_match(reader: &mut Reader<'_, '_, '_>, origin: &str) -> v1::StringMatch {
    let (kind, value) = if origin == "*" {
        (StringMatchType::RegularExpression, ".*".to_owned())
    } else if origin.contains('*') {
        let pattern = regex::escape(origin).replace("\\*", ".*");
        (StringMatchType::RegularExpression, pattern)
    } else {
        (StringMatchType::Exact, origin.to_owned())
    };
    let from = StringMatch {
        type_: Some(kind),
        value,
    };
    string_match(reader, &from, "csrf.additionalOrigins")
}

fn cors(reader: &mut Reader<'_, '_, '_>, from: &CORS) -> v1::Cors {
    for (field, names) in [
        ("cors.allowMethods", &from.allow_methods),
        ("cors.allowHeaders", &from.allow_headers),
        ("cors.exposeHeaders", &from.expose_headers),
    ] {
        for name in names {
            reader.header(name, field);
        }
    }
    v1::Cors {
        allow_origins: from.allow_origins.clone(),
        allow_credentials: from.allow_credentials.unwrap_or_default(),
        allow_methods: from.allow_methods.clone(),
        allow_headers: from.allow_headers.clone(),
        expose_headers: from.expose_headers.clone(),
        max_age: from
            .max_age
            .map(|age| u32::try_from(millis(age) / 1000).unwrap_or(u32::MAX))
            .unwrap_or_default(),
    }
}
