//! The order in which an EnvoyProxy wants the filters of rules to run.
//!
//! Owns where filters stand unless they are moved: as in Envoy Gateway's reference of `filterOrder`. Filters that the proxy does
//! not have, or does not have at a place of their own, have a place here all the same: others may be moved to them.

use sluice_config::v1::FilterStep;
use sluice_crds::envoy::FilterPosition;

/// What names of filters begin with.
const PREFIX: &str = "envoy.filters.http.";

/// All filters that can be moved, in their order, and what the proxy calls them.
const FILTERS: [(&str, Option<FilterStep>); 27] = [
    ("custom_response", Some(FilterStep::ResponseOverrides)),
    ("health_check", None),
    ("fault", Some(FilterStep::Fault)),
    ("cors", Some(FilterStep::Cors)),
    ("csrf", Some(FilterStep::Csrf)),
    ("header_mutation", None),
    ("ext_authz", Some(FilterStep::ExternalAuth)),
    ("api_key_auth", Some(FilterStep::ApiKeyAuth)),
    ("basic_auth", Some(FilterStep::BasicAuth)),
    ("oauth2", Some(FilterStep::Oidc)),
    ("jwt_authn", Some(FilterStep::Jwt)),
    ("stateful_session", Some(FilterStep::SessionPersistence)),
    ("buffer", Some(FilterStep::RequestBuffer)),
    ("lua", None),
    ("ext_proc", Some(FilterStep::ExternalProcessors)),
    ("wasm", None),
    ("dynamic_modules", None),
    ("geoip", None),
    ("rbac", Some(FilterStep::Authorization)),
    ("local_ratelimit", Some(FilterStep::RateLimit)),
    ("ratelimit", Some(FilterStep::GlobalRateLimit)),
    ("bandwidth_limit", None),
    ("grpc_web", None),
    ("grpc_stats", None),
    ("credential_injector", Some(FilterStep::CredentialInjection)),
    ("compressor", Some(FilterStep::Compression)),
    ("dynamic_forward_proxy", None),
];

/// The steps of the proxy in the order that is wanted, one position after the other heeded; empty if it is the usual one.
///
/// # Errors
/// `filterOrder[index].field: reason` of what makes no sense.
pub fn steps(positions: &[FilterPosition]) -> Result<Vec<i32>, String> {
    let mut order: Vec<usize> = (0..FILTERS.len()).collect();
    for (i, position) in positions.iter().enumerate() {
        let wrong = |why: String| format!("filterOrder[{i}]{why}");
        let moved = filter(&position.name).map_err(|why| wrong(format!(".name: {why}")))?;
        let (anchor, field, behind) = match (&position.before, &position.after) {
            (Some(before), None) => (before, "before", 0),
            (None, Some(after)) => (after, "after", 1),
            _ => return Err(wrong(": one of before and after is needed".to_owned())),
        };
        let anchor = filter(anchor).map_err(|why| wrong(format!(".{field}: {why}")))?;
        if anchor == moved {
            return Err(wrong(format!(".{field}: is the filter itself")));
        }
        order.retain(|other| *other != moved);
        if let Some(at) = order.iter().position(|other| *other == anchor) {
            order.insert(at + behind, moved);
        }
    }
    let steps = |order: &[usize]| -> Vec<i32> {
        let known = order.iter().filter_map(|at| FILTERS[*at].1);
        known.map(i32::from).collect()
    };
    let wanted = steps(&order);
    order.sort_unstable();
    Ok(if wanted == steps(&order) {
        Vec::new()
    } else {
        wanted
    })
}

/// The place of a filter in the list.
fn filter(name: &str) -> Result<usize, String> {
    let short = name.strip_prefix(PREFIX).unwrap_or_default();
    let at = FILTERS.iter().position(|(known, _)| *known == short);
    at.ok_or_else(|| match short {
        "router" => "the router is always the last".to_owned(),
        _ => format!("{name:?} is no filter that can be moved"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(yaml: &str) -> Result<Vec<FilterStep>, String> {
        let positions: Vec<FilterPosition> = serde_yaml_ng::from_str(&yaml.replace('~', PREFIX)).unwrap();
        let steps = super::steps(&positions)?;
        Ok(steps.into_iter().map(|step| step.try_into().unwrap()).collect())
    }

    #[test]
    fn positions_are_heeded_one_after_the_other() {
        use FilterStep::{Authorization, BasicAuth, Cors, ExternalAuth, Fault, Jwt, RateLimit};
        let among = |yaml: &str| -> Vec<_> {
            let of = [
                Authorization,
                BasicAuth,
                Cors,
                ExternalAuth,
                Fault,
                Jwt,
                RateLimit,
            ];
            let steps = steps(yaml).unwrap();
            assert!(steps.is_empty() || steps.len() == 17, "{steps:?}");
            steps.into_iter().filter(|step| of.contains(step)).collect()
        };
        assert_eq!(
            among("[{name: ~ext_authz, after: ~jwt_authn}, {name: ~local_ratelimit, before: ~fault}]"),
            [
                RateLimit,
                Fault,
                Cors,
                BasicAuth,
                Jwt,
                ExternalAuth,
                Authorization
            ]
        );
        // The second is moved to where the first has gone, and the third moves the first away again.
        assert_eq!(
            among(
                "[{name: ~cors, after: ~rbac}, {name: ~fault, before: ~cors}, {name: ~cors, before: ~ext_authz}]"
            ),
            [
                Cors,
                ExternalAuth,
                BasicAuth,
                Jwt,
                Authorization,
                Fault,
                RateLimit
            ]
        );
        // To where there is nothing here.
        assert_eq!(
            among("[{name: ~rbac, before: ~header_mutation}]"),
            [
                Fault,
                Cors,
                Authorization,
                ExternalAuth,
                BasicAuth,
                Jwt,
                RateLimit
            ]
        );
    }

    #[test]
    fn an_order_that_changes_nothing_is_the_usual_one() {
        for usual in [
            "[]",
            "[{name: ~fault, before: ~cors}]",
            "[{name: ~lua, before: ~custom_response}, {name: ~geoip, after: ~fault}]",
            "[{name: ~cors, after: ~rbac}, {name: ~cors, after: ~fault}]",
        ] {
            assert_eq!(steps(usual), Ok(Vec::new()), "{usual}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (yaml, why) in [
            (
                "[{name: ~cors, before: ~x}]",
                "[0].before: \"envoy.filters.http.x\" is no filter that can be moved",
            ),
            (
                "[{name: ~cors, before: ~fault}, {name: cors, before: ~fault}]",
                "[1].name: \"cors\" is no filter that can be moved",
            ),
            (
                "[{name: ~router, before: ~fault}]",
                "[0].name: the router is always the last",
            ),
            (
                "[{name: ~cors, after: ~router}]",
                "[0].after: the router is always the last",
            ),
            ("[{name: ~cors, after: ~cors}]", "[0].after: is the filter itself"),
            ("[{name: ~cors}]", "[0]: one of before and after is needed"),
            (
                "[{name: ~cors, before: ~jwt_authn, after: ~fault}]",
                "[0]: one of before and after is needed",
            ),
        ] {
            assert_eq!(steps(yaml), Err(format!("filterOrder{why}")), "{yaml}");
        }
    }
}
