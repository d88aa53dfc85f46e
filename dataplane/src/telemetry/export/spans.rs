//! Spans as JSON: of Zipkin (version 2 of its API) and of the Datadog agent.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::telemetry::trace::{Attribute, Span};

/// Where Zipkin takes spans.
pub const ZIPKIN: &str = "/api/v2/spans";
/// Where the Datadog agent takes traces.
pub const DATADOG: &str = "/v0.4/traces";

/// A list of spans.
pub fn zipkin(service: &str, spans: &[Span]) -> Value {
    let span = |span: &Span| {
        let trace = match span.context.trace >> 64 {
            0 => format!("{:016x}", span.context.trace),
            _ => span.context.trace_id(),
        };
        let mut tags = tags(span);
        if span.failed {
            tags.insert("error".into(), "true".into());
        }
        json!({
            "traceId": trace,
            "id": span.context.span_id(),
            "parentId": span.context.parent.map(|id| format!("{id:016x}")),
            "shared": span.context.shared.then_some(true),
            "kind": "SERVER",
            "name": span.name,
            "timestamp": micros(span.start),
            "duration": micros(span.end).saturating_sub(micros(span.start)).max(1),
            "localEndpoint": { "serviceName": service },
            "tags": tags,
        })
    };
    let mut all: Vec<Value> = spans.iter().map(span).collect();
    for span in &mut all {
        if let Value::Object(span) = span {
            span.retain(|_, value| !value.is_null());
        }
    }
    all.into()
}

/// A list of traces, each with one span.
pub fn datadog(service: &str, spans: &[Span]) -> Value {
    let trace = |span: &Span| {
        let start = nanos(span.start);
        json!([{
            "trace_id": u64::try_from(span.context.trace & u128::from(u64::MAX)).unwrap_or_default(),
            "span_id": span.context.span,
            "parent_id": span.context.parent.unwrap_or_default(),
            "name": "sluice.request",
            "resource": span.name,
            "service": service,
            "type": "web",
            "start": start,
            "duration": nanos(span.end).saturating_sub(start),
            "error": i32::from(span.failed),
            "meta": tags(span),
            "metrics": { "_sampling_priority_v1": 1 },
        }])
    };
    spans.iter().map(trace).collect()
}

fn tags(span: &Span) -> Map<String, Value> {
    let text = |value: &Attribute| match value {
        Attribute::Text(text) => text.clone(),
        Attribute::Number(number) => number.to_string(),
    };
    let attributes = span.attributes.iter();
    attributes
        .map(|(name, value)| (name.clone(), text(value).into()))
        .collect()
}

fn micros(time: SystemTime) -> u64 {
    nanos(time) / 1000
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
