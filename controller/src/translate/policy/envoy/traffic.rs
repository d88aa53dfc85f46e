//! BackendTrafficPolicy: what it comes to for a rule. What concerns connections to backends is in `cluster`.

use sluice_config::v1;
use sluice_config::v1::retry::Trigger;
use sluice_crds::IntOrString;
use sluice_crds::envoy::{
    AdmissionControl, BackendTrafficPolicySpec, BandwidthLimitUnit, BandwidthLimitValue, Compression,
    CompressorType, FaultInjection, GRPCSuccessCode, ProtocolUpgradeConfig, Retry, TriggerEnum,
};

use super::attach::Effective;
use super::reader::Reader;
use super::{cluster, gaps, limits, response, stats};
use crate::store::Kind;
use crate::translate::route::millis;
use crate::translate::telemetry;

/// Retries after the first try.
const RETRIES: i64 = 2;
/// Millionths a percent.
const PERCENT: f64 = 10_000.0;

/// Adds what it asks of a rule. What is wrong is noted with the reader: then none of it may be relied on.
pub fn apply(
    reader: &mut Reader<'_, '_, '_>,
    from: &Effective<BackendTrafficPolicySpec>,
    rule: &mut v1::HttpRule,
    policy: &mut v1::Policy,
) {
    let spec = &gaps::honoured(reader, Kind::BackendTrafficPolicy, &from.spec);
    // What it says of connections must be right as well.
    cluster::apply(reader, spec, &mut v1::Backend::default());
    let http = spec
        .cluster
        .timeout
        .as_ref()
        .and_then(|timeout| timeout.http.as_ref());
    if let Some(http) = http {
        rule.request_timeout_ms = http.request_timeout.map(millis).unwrap_or_default();
        policy.max_stream_duration_ms = http.max_stream_duration.map(millis).unwrap_or_default();
        policy.stream_idle_timeout_ms = http.stream_idle_timeout.map(millis);
    }
    rule.retry = spec.cluster.retry.as_ref().and_then(|from| retry(reader, from));
    policy.fault = spec.fault_injection.as_ref().map(|from| fault(reader, from));
    if let Some(limit) = &spec.rate_limit {
        let owner = from.owner("rateLimit");
        policy.rate_limit = limit
            .local
            .as_ref()
            .map(|local| limits::local(reader, &local.rules, owner));
        policy.global_rate_limit = limit
            .global
            .as_ref()
            .and_then(|global| limits::global(reader, &global.rules, owner));
    }
    policy.bandwidth_limit = spec.bandwidth_limit.as_ref().map(|limit| v1::BandwidthLimit {
        request: limit
            .request
            .as_ref()
            .map(|from| rate(reader, &from.limit, "bandwidthLimit.request.limit.value")),
        response: limit
            .response
            .as_ref()
            .map(|from| rate(reader, &from.limit, "bandwidthLimit.response.limit.value")),
        trailer_prefix: limit
            .response
            .as_ref()
            .and_then(|from| from.response_trailers.as_ref())
            .map(|trailers| trailers.prefix.clone().unwrap_or_default()),
    });
    policy.compressors = compressors(reader, spec);
    policy.response_overrides =
        response::overrides(reader, from.owner("responseOverride"), &spec.response_override);
    policy.request_buffer = spec
        .request_buffer
        .as_ref()
        .and_then(|buffer| buffer.limit.as_ref())
        .map(|limit| v1::RequestBuffer {
            limit: bytes(reader, limit, "requestBuffer.limit"),
        });
    policy.upgrades = (!spec.http_upgrade.is_empty()).then(|| upgrades(&spec.http_upgrade));
    let tracing = spec
        .telemetry
        .as_ref()
        .and_then(|telemetry| telemetry.tracing.as_ref());
    policy.tracing = tracing.map(|from| {
        for name in telemetry::texts(from).flat_map(|text| sluice_config::operators::unknown(text)) {
            let why = format!("spec.telemetry.tracing: operator %{name}% is not known: it has no value");
            reader.warnings.push(why);
        }
        telemetry::of_route(from)
    });
    let metrics = spec
        .telemetry
        .as_ref()
        .and_then(|telemetry| telemetry.metrics.as_ref());
    if let Some(name) = metrics.and_then(|metrics| metrics.route_stat_name.as_ref()) {
        policy.stat_name = stats::route_name(reader, name);
    }
    policy.admission_control = spec
        .admission_control
        .as_ref()
        .map(|from| admission(reader, from));
}

/// CONNECT is among them, although it is a method and no protocol.
fn upgrades(from: &[ProtocolUpgradeConfig]) -> v1::HttpUpgrades {
    let (connects, others): (Vec<_>, Vec<_>) = from
        .iter()
        .partition(|upgrade| upgrade.type_.eq_ignore_ascii_case("CONNECT"));
    v1::HttpUpgrades {
        protocols: others
            .iter()
            .map(|upgrade| upgrade.type_.to_ascii_lowercase())
            .collect(),
        connect: connects.first().map(|upgrade| {
            let terminate = upgrade.connect.as_ref().and_then(|connect| connect.terminate);
            v1::http_upgrades::Connect {
                terminate: terminate.unwrap_or_default(),
            }
        }),
    }
}

/// When and how a request is sent again.
pub fn retry(reader: &mut Reader<'_, '_, '_>, from: &Retry) -> Option<v1::Retry> {
    let attempts = reader.number(from.num_retries.unwrap_or(RETRIES), "retry.numRetries");
    let on = from.retry_on.clone().unwrap_or_default();
    let mut codes = Vec::new();
    for code in &on.http_status_codes {
        codes.push(reader.number(*code, "retry.retryOn.httpStatusCodes"));
    }
    let mut triggers = Vec::new();
    for trigger in &on.triggers {
        triggers.extend(self::trigger(reader, trigger));
    }
    let by_code = on.triggers.contains(&TriggerEnum::RetriableStatusCodes);
    if triggers.is_empty() && !by_code && codes.is_empty() {
        triggers = [
            Trigger::ConnectFailure,
            Trigger::RefusedStream,
            Trigger::GrpcUnavailable,
            Trigger::GrpcCancelled,
        ]
        .to_vec();
        codes.push(503);
    } else if !by_code && !on.triggers.is_empty() {
        // Codes count only if this trigger is among the others.
        codes.clear();
    } else if by_code && codes.is_empty() {
        codes.push(503);
    }
    let per_retry = from.per_retry.clone().unwrap_or_default();
    let pause = per_retry.back_off.unwrap_or_default();
    let per_priority = from.num_attempts_per_priority.unwrap_or_default();
    (attempts > 0).then(|| v1::Retry {
        codes,
        attempts,
        backoff_ms: pause.base_interval.map(millis).unwrap_or_default(),
        triggers: triggers.into_iter().map(i32::from).collect(),
        max_backoff_ms: pause.max_interval.map(millis).unwrap_or_default(),
        per_try_timeout_ms: per_retry.timeout.map(millis).unwrap_or_default(),
        attempts_per_priority: reader.number(per_priority, "retry.numAttemptsPerPriority"),
    })
}

fn trigger(reader: &mut Reader<'_, '_, '_>, from: &TriggerEnum) -> Option<Trigger> {
    Some(match from {
        TriggerEnum::ServerError => Trigger::Trigger5xx,
        TriggerEnum::GatewayError => Trigger::GatewayError,
        TriggerEnum::Reset => Trigger::Reset,
        TriggerEnum::ResetBeforeRequest => Trigger::ResetBeforeRequest,
        TriggerEnum::ConnectFailure => Trigger::ConnectFailure,
        TriggerEnum::Retriable4xx => Trigger::Retriable4xx,
        TriggerEnum::RefusedStream => Trigger::RefusedStream,
        TriggerEnum::RetriableStatusCodes => return None,
        TriggerEnum::Cancelled => Trigger::GrpcCancelled,
        TriggerEnum::DeadlineExceeded => Trigger::GrpcDeadlineExceeded,
        TriggerEnum::Internal => Trigger::GrpcInternal,
        TriggerEnum::ResourceExhausted => Trigger::GrpcResourceExhausted,
        TriggerEnum::Unavailable => Trigger::GrpcUnavailable,
        TriggerEnum::Other(other) => {
            reader.fault("retry.retryOn.triggers", format_args!("{other:?} is not known"));
            return None;
        }
    })
}

fn fault(reader: &mut Reader<'_, '_, '_>, from: &FaultInjection) -> v1::FaultInjection {
    let delay = from.delay.as_ref().map(|delay| v1::fault_injection::Delay {
        duration_ms: delay.fixed_delay.map(millis).unwrap_or_default(),
        share: millionths(reader, delay.percentage, "faultInjection.delay.percentage"),
    });
    let abort = from.abort.as_ref().map(|abort| {
        if abort.http_status.is_some() == abort.grpc_status.is_some() {
            let why = "exactly one of httpStatus and grpcStatus must be set";
            reader.fault("faultInjection.abort", why);
        }
        v1::fault_injection::Abort {
            http_status: abort
                .http_status
                .map(|status| reader.number(status, "faultInjection.abort.httpStatus"))
                .unwrap_or_default(),
            grpc_status: abort
                .grpc_status
                .map(|status| reader.number(status, "faultInjection.abort.grpcStatus")),
            share: millionths(reader, abort.percentage, "faultInjection.abort.percentage"),
        }
    });
    v1::FaultInjection { delay, abort }
}

fn millionths(reader: &mut Reader<'_, '_, '_>, percent: Option<f64>, field: &str) -> u32 {
    let percent = percent.unwrap_or(100.0);
    if !(0.0..=100.0).contains(&percent) {
        reader.fault(field, format_args!("{percent} is no percentage"));
        return 0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 0 and a million"
    )]
    let share = (percent * PERCENT).round() as u32;
    share
}

fn rate(
    reader: &mut Reader<'_, '_, '_>,
    from: &BandwidthLimitValue,
    field: &str,
) -> v1::bandwidth_limit::Rate {
    let per_ms = match &from.unit {
        BandwidthLimitUnit::Second => 1_000,
        BandwidthLimitUnit::Minute => 60_000,
        BandwidthLimitUnit::Hour => 3_600_000,
        BandwidthLimitUnit::Other(other) => {
            reader.fault(field, format_args!("unit {other:?} is not known"));
            1_000
        }
    };
    v1::bandwidth_limit::Rate {
        bytes: bytes(reader, &from.value, field),
        per_ms,
    }
}

fn compressors(reader: &mut Reader<'_, '_, '_>, spec: &BackendTrafficPolicySpec) -> Vec<v1::Compressor> {
    let mut all = Vec::new();
    let mut add = |field: &str, list: &[Compression]| {
        for from in list {
            let kind = match &from.type_ {
                CompressorType::Gzip => v1::compressor::Kind::Gzip,
                CompressorType::Brotli => v1::compressor::Kind::Brotli,
                CompressorType::Zstd => v1::compressor::Kind::Zstd,
                CompressorType::Other(other) => {
                    reader.fault(
                        format_args!("{field}[].type"),
                        format_args!("{other:?} is not known"),
                    );
                    continue;
                }
            };
            all.push(v1::Compressor {
                kind: kind.into(),
                min_content_length: from
                    .min_content_length
                    .as_ref()
                    .map(|length| bytes(reader, length, &format!("{field}[].minContentLength")))
                    .unwrap_or_default(),
            });
        }
    };
    add("compression", &spec.compression);
    add("compressor", &spec.compressor);
    all
}

fn admission(reader: &mut Reader<'_, '_, '_>, from: &AdmissionControl) -> v1::AdmissionControl {
    let criteria = from.success_criteria.clone().unwrap_or_default();
    let mut http_success = Vec::new();
    for status in criteria.http.map(|http| http.status_codes).unwrap_or_default() {
        let status = reader.number(status, "admissionControl.successCriteria.http.statusCodes");
        http_success.push(v1::StatusRange {
            first: status,
            last: status,
        });
    }
    let mut grpc_success = Vec::new();
    for code in criteria.grpc.map(|grpc| grpc.status_codes).unwrap_or_default() {
        let field = "admissionControl.successCriteria.grpc.statusCodes";
        match grpc_code(&code) {
            Some(code) => grpc_success.push(code),
            None => reader.fault(field, format_args!("{code:?} is not known")),
        }
    }
    let percent = |value: Option<i64>, default: u32| {
        f64::from(
            value
                .and_then(|value| u32::try_from(value).ok())
                .unwrap_or(default),
        )
    };
    v1::AdmissionControl {
        window_ms: from.sampling_window.map_or(30_000, millis).max(1_000),
        min_success_percent: percent(from.min_success_rate, 95),
        aggression: percent(from.rejection_aggression, 1).max(1.0),
        min_requests_per_second: reader.number(
            from.min_request_rate.unwrap_or_default(),
            "admissionControl.minRequestRate",
        ),
        max_rejection_percent: percent(from.max_rejection_percent, 80),
        http_success,
        grpc_success,
    }
}

fn grpc_code(code: &GRPCSuccessCode) -> Option<u32> {
    const NAMES: [&str; 17] = [
        "Ok",
        "Cancelled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    let position = NAMES.iter().position(|name| *name == code.as_str())?;
    u32::try_from(position).ok()
}

/// Bytes of a quantity: a whole number, perhaps with a suffix (`32Ki`, `1M`).
pub fn bytes(reader: &mut Reader<'_, '_, '_>, from: &IntOrString, field: &str) -> u64 {
    quantity(from).unwrap_or_else(|| {
        reader.fault(field, "it is not a quantity of bytes");
        0
    })
}

fn quantity(from: &IntOrString) -> Option<u64> {
    const SUFFIXES: [(&str, u64); 12] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
    ];
    match from {
        IntOrString::Int(number) => u64::try_from(*number).ok(),
        IntOrString::String(text) => {
            let suffix = SUFFIXES
                .iter()
                .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)));
            let (digits, unit) = suffix.unwrap_or((text, 1));
            digits.parse::<u64>().ok()?.checked_mul(unit)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        let of = |text: &str| quantity(&IntOrString::String(text.to_owned()));
        assert_eq!(of("32Ki"), Some(32_768));
        assert_eq!(of("1M"), Some(1_000_000));
        assert_eq!(of("7"), Some(7));
        assert_eq!(of("1.5M"), None);
        assert_eq!(of("99999999999E"), None);
        assert_eq!(quantity(&IntOrString::Int(-1)), None);
    }

    #[test]
    fn grpc_codes_have_the_numbers_of_the_protocol() {
        assert_eq!(grpc_code(&GRPCSuccessCode::Unavailable), Some(14));
        assert_eq!(grpc_code(&GRPCSuccessCode::Unauthenticated), Some(16));
        assert_eq!(grpc_code(&GRPCSuccessCode::Other("Odd".to_owned())), None);
    }
}
