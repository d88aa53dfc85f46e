//! Rate limits: those that each proxy counts by itself, and those that a service counts for all.

use sluice_config::v1;
use sluice_config::v1::rate_limit_rule::Headers;
use sluice_config::v1::selector_value::Kind as Compared;
use sluice_crds::envoy::{
    RateLimitCostFrom, RateLimitCostSpecifier, RateLimitHeaderMatch, RateLimitRule, RateLimitSelectCondition,
    RateLimitUnit, SourceMatch, SourceMatchType, XRateLimitHeadersOption,
};

use super::authorization::request_path;
use super::reader::Reader;
use crate::engine::Unit;
use crate::store::ObjectRef;
use crate::translate::backend::rate_limit;

/// `rateLimit.local`.
pub fn local(reader: &mut Reader<'_, '_, '_>, from: &[RateLimitRule], owner: &ObjectRef) -> v1::RateLimit {
    v1::RateLimit {
        rules: rules(reader, from, owner, "rateLimit.local.rules"),
    }
}

/// `rateLimit.global`; `None`, with a warning, if nobody counts.
pub fn global(
    reader: &mut Reader<'_, '_, '_>,
    from: &[RateLimitRule],
    owner: &ObjectRef,
) -> Option<v1::GlobalRateLimit> {
    // What is wrong with it is told in any case.
    let rules = rules(reader, from, owner, "rateLimit.global.rules");
    let Some(service) = reader.context.view.environment().rate_limit.as_ref() else {
        let why = "there is no rate limit service; see --rate-limit-service of the controller";
        reader.warnings.push(format!("spec.rateLimit.global: {why}"));
        return None;
    };
    reader.needs.push(Unit::RateLimitService);
    Some(v1::GlobalRateLimit {
        rules,
        backend: rate_limit::resource_key(),
        timeout_ms: service.timeout_ms,
        fail_closed: service.fail_closed,
    })
}

fn rules(
    reader: &mut Reader<'_, '_, '_>,
    from: &[RateLimitRule],
    owner: &ObjectRef,
    field: &str,
) -> Vec<v1::RateLimitRule> {
    let mut rules = Vec::with_capacity(from.len());
    for (i, from) in from.iter().enumerate() {
        let bucket = if from.shared == Some(true) {
            format!("{}/{}/{i}", owner.namespace, owner.name)
        } else {
            format!("{}/{}/{}/{i}", reader.scope, owner.namespace, owner.name)
        };
        rules.push(rule(reader, from, bucket, &format!("{field}[{i}]")));
    }
    rules
}

fn rule(
    reader: &mut Reader<'_, '_, '_>,
    from: &RateLimitRule,
    bucket: String,
    field: &str,
) -> v1::RateLimitRule {
    let mut selectors = Vec::with_capacity(from.client_selectors.len());
    for selector in &from.client_selectors {
        selectors.push(self::selector(
            reader,
            selector,
            &format!("{field}.clientSelectors"),
        ));
    }
    let headers = match &from.x_rate_limit_headers {
        None => Headers::Unspecified,
        Some(XRateLimitHeadersOption::Off) => Headers::Off,
        Some(XRateLimitHeadersOption::DraftVersion03) => Headers::Draft03,
        Some(XRateLimitHeadersOption::Other(other)) => {
            let field = format!("{field}.xRateLimitHeaders");
            reader.fault(field, format_args!("{other:?} is not known"));
            Headers::Unspecified
        }
    };
    if u32::try_from(from.limit.requests).is_err() {
        let why = format_args!("{} is out of range", from.limit.requests);
        reader.fault(format_args!("{field}.limit.requests"), why);
    }
    let cost = from.cost.clone().unwrap_or_default();
    let limit_from = from.limit.from_metadata.as_ref();
    v1::RateLimitRule {
        bucket,
        selectors,
        requests: u64::try_from(from.limit.requests).unwrap_or_default(),
        unit_seconds: seconds(reader, &from.limit.unit, field),
        cost: number(cost.request.as_ref()),
        headers: headers.into(),
        shadow: from.shadow_mode.unwrap_or_default(),
        response_cost: number(cost.response.as_ref()).unwrap_or_default(),
        cost_from: said(reader, cost.request.as_ref(), &format!("{field}.cost.request")),
        response_cost_from: said(reader, cost.response.as_ref(), &format!("{field}.cost.response")),
        limit_from: limit_from.map(|from| v1::MetadataKey {
            namespace: from.namespace.clone(),
            key: from.key.clone(),
        }),
    }
}

fn number(cost: Option<&RateLimitCostSpecifier>) -> Option<u64> {
    let cost = cost.filter(|cost| cost.from != RateLimitCostFrom::Metadata)?;
    let number = cost.number?;
    Some(u64::try_from(number).unwrap_or_default())
}

/// Where metadata says it.
fn said(
    reader: &mut Reader<'_, '_, '_>,
    cost: Option<&RateLimitCostSpecifier>,
    field: &str,
) -> Option<v1::MetadataKey> {
    let cost = cost?;
    match (&cost.from, &cost.metadata) {
        (RateLimitCostFrom::Number, _) => None,
        (RateLimitCostFrom::Metadata, Some(from)) => Some(v1::MetadataKey {
            namespace: from.namespace.clone(),
            key: from.key.clone(),
        }),
        (RateLimitCostFrom::Metadata, None) => {
            reader.fault(format_args!("{field}.metadata"), "from Metadata needs it");
            None
        }
        (RateLimitCostFrom::Other(other), _) => {
            reader.fault(
                format_args!("{field}.from"),
                format_args!("{other:?} is not known"),
            );
            None
        }
    }
}

fn seconds(reader: &mut Reader<'_, '_, '_>, unit: &RateLimitUnit, field: &str) -> u64 {
    const DAY: u64 = 24 * 60 * 60;
    match unit {
        RateLimitUnit::Second => 1,
        RateLimitUnit::Minute => 60,
        RateLimitUnit::Hour => 60 * 60,
        RateLimitUnit::Day => DAY,
        RateLimitUnit::Week => 7 * DAY,
        RateLimitUnit::Month => 30 * DAY,
        RateLimitUnit::Year => 365 * DAY,
        RateLimitUnit::Other(other) => {
            reader.fault(
                format_args!("{field}.limit.unit"),
                format_args!("{other:?} is not known"),
            );
            1
        }
    }
}

fn selector(
    reader: &mut Reader<'_, '_, '_>,
    from: &RateLimitSelectCondition,
    field: &str,
) -> v1::ClientSelector {
    let mut headers = Vec::new();
    for from in &from.headers {
        let field = format!("{field}.headers");
        let name = reader.header(&from.name, &field);
        headers.push(value(reader, name, from, &field));
    }
    let mut query = Vec::new();
    for from in &from.query_params {
        query.push(value(
            reader,
            from.name.clone(),
            from,
            &format!("{field}.queryParams"),
        ));
    }
    let methods = from.methods.iter().map(|method| v1::MethodMatch {
        method: method.value.clone(),
        invert: method.invert.unwrap_or_default(),
    });
    v1::ClientSelector {
        headers,
        methods: methods.collect(),
        path: from
            .path
            .as_ref()
            .map(|path| request_path(reader, path, &format!("{field}.path"))),
        source: from
            .source_cidr
            .as_ref()
            .map(|from| source(reader, from, &format!("{field}.sourceCIDR"))),
        query,
    }
}

/// What the header or parameter `name` is compared with.
fn value(
    reader: &mut Reader<'_, '_, '_>,
    name: String,
    from: &RateLimitHeaderMatch,
    field: &str,
) -> v1::SelectorValue {
    let kind = from.type_.as_ref().map_or("Exact", |kind| kind.as_str());
    v1::SelectorValue {
        name,
        kind: compared(reader, kind, from.value.as_deref(), field).into(),
        value: from.value.clone().unwrap_or_default(),
        invert: from.invert.unwrap_or_default(),
    }
}

fn compared(reader: &mut Reader<'_, '_, '_>, kind: &str, value: Option<&str>, field: &str) -> Compared {
    match (kind, value) {
        ("Exact", Some(_)) => Compared::Exact,
        ("RegularExpression", Some(pattern)) => {
            reader.regex(pattern, field);
            Compared::Regex
        }
        ("Distinct", _) => Compared::Distinct,
        (kind, _) => {
            reader.fault(field, format_args!("type {kind:?} is not known, or has no value"));
            Compared::Unspecified
        }
    }
}

fn source(reader: &mut Reader<'_, '_, '_>, from: &SourceMatch, field: &str) -> v1::SourceMatch {
    let distinct = match from.type_.as_ref().unwrap_or(&SourceMatchType::Exact) {
        SourceMatchType::Exact => false,
        SourceMatchType::Distinct => true,
        SourceMatchType::Other(other) => {
            reader.fault(field, format_args!("type {other:?} is not known"));
            false
        }
    };
    v1::SourceMatch {
        cidr: reader.cidr(&from.value, field),
        distinct,
        invert: from.invert.unwrap_or_default(),
    }
}
