//! OTLP messages: of log records, spans and metrics.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan, Status};

use crate::telemetry::trace::{Attribute, Span};

/// The gRPC method that takes logs.
pub const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// The one that takes spans.
pub const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// The one that takes metrics.
pub const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// A server span.
const KIND_SERVER: i32 = 2;
const STATUS_ERROR: i32 = 2;
/// Flags of a span: its trace is sampled.
const SAMPLED: u32 = 1;

/// A text.
pub fn text(text: impl Into<String>) -> AnyValue {
    AnyValue {
        value: Some(any_value::Value::StringValue(text.into())),
    }
}

/// A number.
pub fn number(number: u64) -> AnyValue {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    AnyValue {
        value: Some(any_value::Value::IntValue(number)),
    }
}

/// A named value.
pub fn pair(key: impl Into<String>, value: AnyValue) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(value),
        ..Default::default()
    }
}

/// What is said of the proxy itself.
pub fn resource(attributes: &BTreeMap<String, String>) -> Resource {
    Resource {
        attributes: attributes.iter().map(|(k, v)| pair(k, text(v))).collect(),
        ..Default::default()
    }
}

/// Who says it.
pub fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "sluice".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    }
}

/// Nanoseconds since 1970.
pub fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Log records.
pub fn logs(attributes: &BTreeMap<String, String>, records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource(attributes)),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records: records,
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

/// Spans.
pub fn traces(attributes: &BTreeMap<String, String>, spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource(attributes)),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope()),
                spans: spans.into_iter().map(span).collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

fn span(span: Span) -> OtlpSpan {
    let value = |value| match value {
        Attribute::Text(value) => text(value),
        Attribute::Number(value) => number(value),
    };
    OtlpSpan {
        trace_id: span.context.trace.to_be_bytes().to_vec(),
        span_id: span.context.span.to_be_bytes().to_vec(),
        parent_span_id: span
            .context
            .parent
            .map(|id| id.to_be_bytes().to_vec())
            .unwrap_or_default(),
        flags: SAMPLED,
        name: span.name,
        kind: KIND_SERVER,
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: span
            .attributes
            .into_iter()
            .map(|(name, of)| pair(name, value(of)))
            .collect(),
        status: span.failed.then(|| Status {
            code: STATUS_ERROR,
            ..Default::default()
        }),
        ..Default::default()
    }
}
