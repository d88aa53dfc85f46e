//! What BackendTrafficPolicies say of backends beyond [`super::cluster`]: look-ups of names, connections ahead of need,
//! reports of load.

use sluice_config::v1;
use sluice_config::v1::dns::Family;
use sluice_crds::envoy::{BackendUtilization, DNS, DNSLookupFamily, PreconnectPolicy};

use super::reader::Reader;
use crate::translate::model::LookUp;
use crate::translate::route::millis;

/// Percent of a connection that need not be there before it is needed.
const NO_PRECONNECT: i64 = 100;

/// How names are looked up; `None`: as the proxy does by itself.
pub fn dns(reader: &mut Reader<'_, '_, '_>, from: &DNS) -> Option<LookUp> {
    let family = match &from.lookup_family {
        None => Family::Unspecified,
        Some(DNSLookupFamily::IPv4) => Family::Ipv4,
        Some(DNSLookupFamily::IPv6) => Family::Ipv6,
        Some(DNSLookupFamily::IPv4Preferred) => Family::Ipv4Preferred,
        Some(DNSLookupFamily::IPv6Preferred) => Family::Ipv6Preferred,
        Some(DNSLookupFamily::IPv4AndIPv6) => Family::Both,
        Some(DNSLookupFamily::Other(other)) => {
            reader.fault("dns.lookupFamily", format_args!("{other:?} is not known"));
            Family::Unspecified
        }
    };
    let look_up = LookUp {
        family,
        refresh_ms: from.dns_refresh_rate.map(millis).unwrap_or_default(),
        ignore_ttl: from.respect_dns_ttl == Some(false),
    };
    (look_up != LookUp::default()).then_some(look_up)
}

/// Connections ahead of need; `None` if there are to be none.
pub fn preconnect(
    reader: &mut Reader<'_, '_, '_>,
    from: &PreconnectPolicy,
    policy: v1::load_balancer::Policy,
) -> Option<v1::Preconnect> {
    let mut percent = |value: Option<i64>, field: &str| {
        let field = format_args!("connection.preconnect.{field}");
        match value.unwrap_or(NO_PRECONNECT) {
            less if less < NO_PRECONNECT => {
                reader.fault(field, "less than 100 is no connection at all");
                0
            }
            NO_PRECONNECT => 0,
            more => reader.number(more, field),
        }
    };
    let per_endpoint_percent = percent(from.per_endpoint_percent, "perEndpointPercent");
    let mut predictive_percent = percent(from.predictive_percent, "predictivePercent");
    let predictable = [
        v1::load_balancer::Policy::Random,
        v1::load_balancer::Policy::RoundRobin,
    ];
    if predictive_percent != 0 && !predictable.contains(&policy) {
        let why = "what comes next is known only with load balancers Random and RoundRobin";
        let field = format_args!("spec.{}connection.preconnect.predictivePercent", reader.prefix);
        reader.warnings.push(format!("{field}: {why}"));
        predictive_percent = 0;
    }
    (per_endpoint_percent != 0 || predictive_percent != 0).then_some(v1::Preconnect {
        per_endpoint_percent,
        predictive_percent,
    })
}

/// Shares by the load that endpoints report.
pub fn utilization(reader: &mut Reader<'_, '_, '_>, from: &BackendUtilization) -> v1::BackendUtilization {
    let field = "loadBalancer.backendUtilization";
    v1::BackendUtilization {
        blackout_ms: from.blackout_period.map(millis),
        expiration_ms: from.weight_expiration_period.map(millis).unwrap_or_default(),
        update_ms: from.weight_update_period.map(millis).unwrap_or_default(),
        error_penalty_percent: from
            .error_utilization_penalty_percent
            .map(|percent| reader.number(percent, format_args!("{field}.errorUtilizationPenaltyPercent")))
            .unwrap_or_default(),
        metric_names: from.metric_names_for_computing_utilization.clone(),
        keep_response_headers: from.keep_response_headers.unwrap_or_default(),
        out_of_band: from
            .out_of_band
            .as_ref()
            .map(|from| v1::backend_utilization::OutOfBand {
                period_ms: from.reporting_period.map(millis).unwrap_or_default(),
                port: from
                    .port
                    .map(|port| reader.number(port, format_args!("{field}.outOfBand.port")))
                    .unwrap_or_default(),
                authority: from.authority.clone().unwrap_or_default(),
            }),
    }
}
