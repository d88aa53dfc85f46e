//! Health checks of BackendTrafficPolicies.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sluice_config::v1;
use sluice_config::v1::active_health_check::{Check, Grpc, Http, Tcp};
use sluice_crds::envoy::{
    ActiveHealthCheck, ActiveHealthCheckPayload, ActiveHealthCheckPayloadType, ActiveHealthCheckerType,
    HealthCheck, PassiveHealthCheck, ProxyHealthCheckLog, ProxyHealthCheckLogEventType,
    ProxyHealthCheckLogSinkType,
};

use super::reader::Reader;
use crate::translate::route::millis;

/// Percentage of healthy endpoints below which health is disregarded unless the policy says otherwise.
const PANIC: u32 = 50;

/// What is asked of a backend's health.
pub fn check(reader: &mut Reader<'_, '_, '_>, from: &HealthCheck) -> v1::HealthCheck {
    v1::HealthCheck {
        active: from.active.as_ref().and_then(|from| active(reader, from)),
        passive: from.passive.as_ref().map(|from| passive(reader, from)),
        panic_threshold_percent: from.panic_threshold.map_or(PANIC, |percent| {
            reader.number(percent, "healthCheck.panicThreshold")
        }),
    }
}

fn active(reader: &mut Reader<'_, '_, '_>, from: &ActiveHealthCheck) -> Option<v1::ActiveHealthCheck> {
    let field = "healthCheck.active";
    let check = match (&from.type_, &from.http, &from.tcp) {
        (ActiveHealthCheckerType::Http, Some(http), _) => {
            let mut statuses = |list: &[i64]| {
                let mut all = Vec::with_capacity(list.len());
                for status in list {
                    all.push(reader.number(*status, format_args!("{field}.http")));
                }
                all
            };
            let (expected_statuses, retriable_statuses) = (
                statuses(&http.expected_statuses),
                statuses(&http.retriable_statuses),
            );
            Check::Http(Http {
                host: http.hostname.clone().unwrap_or_default(),
                path: http.path.clone(),
                method: http.method.clone().unwrap_or_else(|| "GET".to_owned()),
                expected_statuses,
                retriable_statuses,
                expected_response: payload(reader, http.expected_response.as_ref()),
                request_body: payload(reader, http.request_body.as_ref()),
            })
        }
        (ActiveHealthCheckerType::Tcp, _, tcp) => {
            let tcp = tcp.clone().unwrap_or_default();
            Check::Tcp(Tcp {
                send: payload(reader, tcp.send.as_ref()),
                receive: payload(reader, tcp.receive.as_ref()),
            })
        }
        (ActiveHealthCheckerType::Grpc, ..) => Check::Grpc(Grpc {
            service: from
                .grpc
                .as_ref()
                .and_then(|grpc| grpc.service.clone())
                .unwrap_or_default(),
            authority: String::new(),
        }),
        (kind, ..) => {
            reader.fault(
                field,
                format_args!("type {kind} is not known, or its field is missing"),
            );
            return None;
        }
    };
    let port = from.overrides.as_ref().and_then(|overrides| overrides.port);
    Some(v1::ActiveHealthCheck {
        timeout_ms: from.timeout.map_or(1_000, millis),
        interval_ms: from.interval.map_or(3_000, millis),
        initial_jitter_ms: from.initial_jitter.map(millis).unwrap_or_default(),
        unhealthy_threshold: reader.number(
            from.unhealthy_threshold.unwrap_or(3),
            "healthCheck.active.unhealthyThreshold",
        ),
        healthy_threshold: reader.number(
            from.healthy_threshold.unwrap_or(1),
            "healthCheck.active.healthyThreshold",
        ),
        port: port
            .map(|port| reader.number(port, "healthCheck.active.overrides.port"))
            .unwrap_or_default(),
        check: Some(check),
        log: from
            .health_check_log
            .as_ref()
            .map(|from| log(reader, from, "healthCheck.active.healthCheckLog")),
    })
}

fn payload(reader: &mut Reader<'_, '_, '_>, from: Option<&ActiveHealthCheckPayload>) -> Vec<u8> {
    let Some(from) = from else { return Vec::new() };
    match (&from.type_, &from.text, &from.binary) {
        (ActiveHealthCheckPayloadType::Text, Some(text), _) => text.clone().into_bytes(),
        (ActiveHealthCheckPayloadType::Binary, _, Some(binary)) => {
            STANDARD.decode(binary).unwrap_or_else(|_| {
                reader.fault("healthCheck.active", "a payload is not Base64");
                Vec::new()
            })
        }
        _ => {
            reader.fault("healthCheck.active", "a payload lacks the field of its type");
            Vec::new()
        }
    }
}

fn passive(reader: &mut Reader<'_, '_, '_>, from: &PassiveHealthCheck) -> v1::OutlierDetection {
    let mut count = |value: Option<i64>, default: i64, field: &str| {
        reader.number(
            value.unwrap_or(default),
            format_args!("healthCheck.passive.{field}"),
        )
    };
    v1::OutlierDetection {
        interval_ms: from.interval.map_or(3_000, millis),
        base_ejection_ms: from.base_ejection_time.map_or(30_000, millis),
        consecutive_5xx: count(from.consecutive_5xx_errors, 5, "consecutive5XxErrors"),
        consecutive_gateway_errors: count(from.consecutive_gateway_errors, 0, "consecutiveGatewayErrors"),
        consecutive_local_origin_failures: count(
            from.consecutive_local_origin_failures,
            5,
            "consecutiveLocalOriginFailures",
        ),
        max_ejection_percent: count(from.max_ejection_percent, 10, "maxEjectionPercent"),
        split_local_origin: from.split_external_local_origin_errors.unwrap_or_default(),
        failure_percentage_threshold: count(
            from.failure_percentage_threshold,
            0,
            "failurePercentageThreshold",
        ),
        strict_max_ejection: from.always_eject_one_endpoint != Some(true),
    }
}

/// Where outcomes of health checks are written, and which.
pub fn log(reader: &mut Reader<'_, '_, '_>, from: &ProxyHealthCheckLog, field: &str) -> v1::HealthCheckLog {
    let mut written = v1::HealthCheckLog::default();
    match from.sinks.as_slice() {
        [] => {}
        [sink] => match (&sink.type_, &sink.file) {
            (ProxyHealthCheckLogSinkType::File, Some(file)) => file.path.clone_into(&mut written.path),
            (kind, _) => reader.fault(
                format_args!("{field}.sinks"),
                format_args!("type {kind} is not known, or its field is missing"),
            ),
        },
        _ => reader.fault(format_args!("{field}.sinks"), "there may be one"),
    }
    for outcome in &from.matches {
        match outcome {
            ProxyHealthCheckLogEventType::Failure => written.failures = true,
            ProxyHealthCheckLogEventType::FailureSeriesStart => written.failure_starts = true,
            ProxyHealthCheckLogEventType::Success => written.successes = true,
            ProxyHealthCheckLogEventType::HealthyTransition => written.recoveries = true,
            ProxyHealthCheckLogEventType::Other(other) => reader.fault(
                format_args!("{field}.matches"),
                format_args!("{other:?} is not known"),
            ),
        }
    }
    written
}
