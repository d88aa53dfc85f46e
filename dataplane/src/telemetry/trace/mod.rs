//! Spans: which requests are traced, under which names, and what a span says.
//!
//! Owns the content of spans; [`sampling`] has the rules of sampling, [`context`] reads and writes what goes along in
//! headers. Sends nothing itself.

pub mod context;
mod sampling;

use std::time::SystemTime;

use http::request::Parts;
use sluice_config::v1;

use super::access_log::Entry;
use super::access_log::template::{Subject, Template, Value};
use context::Identifiers;
pub use context::{Context, Propagation};
use sampling::{Decisions, Sampling};

/// Something that is said of each request.
#[derive(Debug, Clone)]
pub struct Tag {
    name: Box<str>,
    value: Template,
    default: Box<str>,
}

impl Tag {
    /// Reads the resource.
    pub fn compile(config: &v1::SpanTag) -> Self {
        use v1::span_tag::Value;
        let literal = |text: &str| Template::compile(&text.replace('%', "%%"));
        let value = match &config.value {
            Some(Value::Text(text)) => Template::compile(text),
            Some(Value::Environment(name)) => literal(&std::env::var(name).unwrap_or_default()),
            Some(Value::RequestHeader(name)) => Template::compile(&format!("%REQ({name})%")),
            None => literal(""),
        };
        Self {
            name: config.name.as_str().into(),
            value,
            default: config.default_value.as_str().into(),
        }
    }

    /// Name and value, if it has one.
    fn of(&self, subject: &Subject<'_>) -> Option<(String, Attribute)> {
        let value = match self.value.value(subject) {
            Value::Number(number) => number.to_string(),
            Value::Json(value) => value.to_string(),
            Value::Text(text) if !text.is_empty() => text.into_owned(),
            Value::Text(_) | Value::Absent => self.default.to_string(),
        };
        (!value.is_empty()).then(|| (self.name.to_string(), Attribute::Text(value)))
    }
}

/// What a rule asks for in the place of the settings.
#[derive(Debug, Clone)]
pub struct RouteTracing {
    sampling: Option<Sampling>,
    tags: Vec<Tag>,
    span_name: Option<Template>,
}

impl RouteTracing {
    /// Reads the resource.
    pub fn compile(config: &v1::RouteTracing) -> Self {
        Self {
            sampling: config.sampling.as_ref().map(|s| Sampling::compile(Some(s))),
            tags: config.tags.iter().map(Tag::compile).collect(),
            span_name: name(&config.span_name),
        }
    }
}

fn name(text: &str) -> Option<Template> {
    (!text.is_empty()).then(|| Template::compile(text))
}

/// What spans are made by.
#[derive(Debug, Clone)]
pub struct Tracer {
    propagation: Propagation,
    decisions: Decisions,
    tags: Vec<Tag>,
    span_name: Option<Template>,
    identifiers: Identifiers,
}

impl Tracer {
    /// Reads the resource.
    pub fn compile(config: &v1::Tracing, propagation: Propagation) -> Self {
        Self {
            propagation,
            decisions: Decisions::compile(config),
            tags: config.tags.iter().map(Tag::compile).collect(),
            span_name: name(&config.span_name),
            identifiers: Identifiers {
                short: config.short_trace_ids,
                shared: config.shared_spans,
            },
        }
    }

    /// Begins the span of a request, and says so to whoever gets the request.
    pub fn begin(&self, head: &mut Parts, route: Option<&RouteTracing>) -> Context {
        let of_route = route.and_then(|route| route.sampling);
        let mut note = None;
        let context = Context::next(&head.headers, self.identifiers, |trace, before| {
            let decided = self.decisions.decide(&head.headers, of_route, trace, before);
            note = decided.note;
            decided.traced
        });
        if let Some(note) = note {
            note.put(&mut head.headers);
        }
        context.inject(&mut head.headers, self.propagation);
        context
    }

    /// What a span says once its request has ended.
    pub fn end(&self, context: &Context, route: Option<&RouteTracing>, subject: &Subject<'_>) -> Span {
        let entry = subject.entry;
        let template = route
            .and_then(|route| route.span_name.as_ref())
            .or(self.span_name.as_ref());
        let mut attributes = attributes(entry, subject);
        let tags = route.iter().flat_map(|route| &route.tags).chain(&self.tags);
        for (name, value) in tags.filter_map(|tag| tag.of(subject)) {
            if !attributes.iter().any(|(other, _)| *other == name) {
                attributes.push((name, value));
            }
        }
        Span {
            context: context.clone(),
            name: match (template, entry.route) {
                (Some(template), _) => template.render(subject),
                (None, Some(route)) => format!("{} {route}", entry.method),
                (None, None) => entry.method.to_owned(),
            },
            start: entry.start,
            end: entry.start + entry.duration,
            attributes,
            failed: entry.status == 0 || entry.status >= 500,
        }
    }
}

/// A value in a span.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

/// A span that has ended.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its identifiers.
    pub context: Context,
    /// Its name.
    pub name: String,
    /// When the request's head had been read.
    pub start: SystemTime,
    /// When the response had ended.
    pub end: SystemTime,
    /// What it says.
    pub attributes: Vec<(String, Attribute)>,
    /// The request had no answer, or one that says that the server failed.
    pub failed: bool,
}

/// OpenTelemetry's semantic conventions for HTTP servers, and Envoy's own tags.
fn attributes(entry: &Entry<'_>, subject: &Subject<'_>) -> Vec<(String, Attribute)> {
    let text = |bytes: &[u8]| Attribute::Text(String::from_utf8_lossy(bytes).into_owned());
    let path = entry.path.split(|b| *b == b'?').next().unwrap_or_default();
    let query = entry.path.get(path.len() + 1..);
    let protocol = entry.protocol.strip_prefix("HTTP/").unwrap_or(entry.protocol);
    let mut all: Vec<(&str, Attribute)> = vec![
        ("http.request.method", text(entry.method.as_bytes())),
        ("url.scheme", text(if subject.https { b"https" } else { b"http" })),
        ("url.path", text(path)),
        ("server.address", text(entry.authority)),
        (
            "server.port",
            Attribute::Number(entry.downstream_local.port().into()),
        ),
        ("network.protocol.version", text(protocol.as_bytes())),
        (
            "network.peer.address",
            Attribute::Text(entry.downstream_remote.ip().to_canonical().to_string()),
        ),
        ("request_size", Attribute::Number(entry.received)),
        ("response_size", Attribute::Number(entry.sent)),
        (
            "response_flags",
            text(if entry.flags.is_empty() {
                b"-"
            } else {
                entry.flags.as_bytes()
            }),
        ),
    ];
    if entry.status != 0 {
        all.push((
            "http.response.status_code",
            Attribute::Number(entry.status.into()),
        ));
    }
    let optional = [
        ("url.query", query),
        ("user_agent.original", entry.user_agent),
        ("guid:x-request-id", entry.request_id),
        ("upstream_cluster", entry.upstream_cluster.map(str::as_bytes)),
        ("upstream_address", entry.upstream_host.map(str::as_bytes)),
        ("route_name", entry.route.map(str::as_bytes)),
    ];
    all.extend(
        optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, text(value?)))),
    );
    all.into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
