//! An access log as the configuration asks for it: when a line is written, what it says, and who gets it.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use serde_json::{Value as Json, json};
use sluice_config::v1;

use super::super::export::{Counts, als, otlp};
use super::AccessLog;
use super::sink::Sink;
use super::template::{Kind, Subject, Template, Value};
use crate::filter::Lookup;
use crate::filter::cel::{Attribute, Attributes, Expression, request};
use crate::rule;
use crate::worker::WorkerHandle;

/// Envoy Gateway's default fields.
const DEFAULT: [(&str, &str); 23] = [
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("x-envoy-origin-path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    (
        "upstream_transport_failure_reason",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    (
        "x-envoy-upstream-service-time",
        "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    ),
    ("x-forwarded-for", "%REQ(X-FORWARDED-FOR)%"),
    ("user-agent", "%REQ(USER-AGENT)%"),
    ("x-request-id", "%REQ(X-REQUEST-ID)%"),
    (":authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("route_name", "%ROUTE_NAME%"),
];

/// One log.
#[derive(Debug)]
pub struct Logger {
    /// `None`: the default one.
    format: Option<Format>,
    /// Fields of the default format, for those who cannot take it as a line.
    fields: Vec<(String, Template)>,
    matches: Vec<Match>,
    scope: Scope,
    sinks: Vec<Sink>,
}

/// Of what there are lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Requests and sessions.
    All,
    /// Those that have met a route.
    Routes,
    /// Connections of clients.
    Connections,
    /// Tries of requests.
    Tries,
}

#[derive(Debug)]
struct Format {
    text: Option<Template>,
    json: Vec<(String, Template)>,
}

struct Match(Expression);

impl std::fmt::Debug for Match {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Match")
    }
}

impl Logger {
    /// Reads the resource. `open` opens files; what it cannot open is left out.
    ///
    /// # Errors
    /// `field: reason` of what cannot be honoured.
    pub fn compile(
        config: &v1::AccessLog,
        lookup: &mut dyn Lookup,
        open: &dyn Fn(&str) -> Option<AccessLog>,
    ) -> Result<Self, String> {
        let fields = |json: &BTreeMap<String, String>| {
            json.iter()
                .map(|(name, text)| (name.clone(), Template::compile(text)))
                .collect()
        };
        let format = config.format.as_ref().map(|format| Format {
            text: format.text.as_deref().map(Template::compile),
            json: fields(&format.json),
        });
        // Expressions that are not valid are passed over, as in Envoy Gateway; that they are is told.
        let read = |text: &String| match Expression::compile(text) {
            Ok(expression) => Some(Match(expression)),
            Err(reason) => {
                tracing::warn!(expression = text, reason, "match of an access log is passed over");
                None
            }
        };
        let mut sinks = Vec::new();
        for (i, sink) in config.sinks.iter().enumerate() {
            let sink = Sink::compile(sink, lookup, open).map_err(|e| format!("sinks[{i}].{e}"))?;
            sinks.extend(sink);
        }
        Ok(Self {
            fields: match format {
                Some(_) => Vec::new(),
                None => DEFAULT
                    .iter()
                    .map(|(name, text)| ((*name).to_owned(), Template::compile(text)))
                    .collect(),
            },
            format,
            matches: config.matches.iter().filter_map(read).collect(),
            scope: match (config.tries, config.connections, config.routes_only) {
                (true, ..) => Scope::Tries,
                (_, true, _) => Scope::Connections,
                (.., true) => Scope::Routes,
                (false, false, false) => Scope::All,
            },
            sinks,
        })
    }

    /// True if it is of connections.
    pub fn is_of_connections(&self) -> bool {
        self.scope == Scope::Connections
    }

    /// True if it is of tries.
    pub fn is_of_tries(&self) -> bool {
        self.scope == Scope::Tries
    }

    /// True if it speaks of headers.
    pub fn needs_head(&self) -> bool {
        !self.matches.is_empty()
            || self.templates().any(Template::needs_head)
            || self.sinks.iter().any(|sink| matches!(sink, Sink::Http { .. }))
    }

    /// True if it speaks of trailers of responses.
    pub fn needs_trailers(&self) -> bool {
        self.templates().any(Template::needs_trailers) || self.sinks.iter().any(Sink::needs_trailers)
    }

    fn templates(&self) -> impl Iterator<Item = &Template> {
        let formats = self.format.iter();
        formats
            .flat_map(|f| f.text.iter().chain(f.json.iter().map(|(_, t)| t)))
            .chain(self.fields.iter().map(|(_, t)| t))
    }

    /// Writes a line of what has ended, if it matches.
    pub fn write(&self, counts: &Counts, subject: &Subject<'_>) {
        let is_meant = match self.scope {
            Scope::All => subject.kind == Kind::Request,
            Scope::Routes => subject.kind == Kind::Request && subject.entry.route.is_some(),
            Scope::Connections => subject.kind == Kind::Connection,
            Scope::Tries => subject.kind == Kind::Try,
        };
        if !is_meant || !(self.matches.is_empty() || self.matches.iter().any(|m| m.0.matches(subject))) {
            return;
        }
        for sink in &self.sinks {
            match sink {
                Sink::File(log) => match &self.format {
                    None => log.write(subject.entry),
                    Some(format) => log.append(format.line(subject).as_bytes()),
                },
                Sink::Otlp { sending, .. } => sending.push(counts, self.record(subject)),
                Sink::Http { sending, fields, .. } if !subject.entry.method.is_empty() => {
                    sending.push(counts, als::http(subject, fields));
                }
                Sink::Tcp { sending, .. } if subject.entry.method.is_empty() => {
                    sending.push(counts, als::tcp(subject.entry));
                }
                Sink::Http { .. } | Sink::Tcp { .. } => {}
            }
        }
    }

    fn record(&self, subject: &Subject<'_>) -> LogRecord {
        let (text, fields) = match &self.format {
            Some(format) => (format.text.as_ref(), &format.json),
            None => (None, &self.fields),
        };
        let attribute = |(name, template): &(String, Template)| match template.value(subject) {
            Value::Absent => None,
            Value::Number(number) => Some(otlp::pair(name, otlp::number(number))),
            Value::Text(text) => Some(otlp::pair(name, otlp::text(text))),
            Value::Json(value) => Some(otlp::pair(name, otlp::text(value.to_string()))),
        };
        let id = |part: Option<&str>| -> Vec<u8> {
            let digits = part.unwrap_or_default();
            let pairs = (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16));
            pairs.filter_map(Result::ok).collect()
        };
        LogRecord {
            time_unix_nano: otlp::nanos(subject.entry.start),
            body: text.map(|text| otlp::text(text.render(subject))),
            attributes: fields.iter().filter_map(attribute).collect(),
            trace_id: id(subject.trace.map(|(trace, _)| trace)),
            span_id: id(subject.trace.map(|(_, span)| span)),
            ..Default::default()
        }
    }

    /// Sends what waits.
    pub async fn flush(&self, worker: &WorkerHandle) {
        let sinks = self.sinks.iter().map(|sink| sink.flush(worker));
        futures::future::join_all(sinks).await;
    }
}

impl Format {
    /// A text as it is (with a line's end if it has none), or an object.
    fn line(&self, subject: &Subject<'_>) -> String {
        let mut line = match (&self.text, self.json.is_empty()) {
            (Some(text), true) => text.render(subject),
            (text, _) => {
                let value = |template: &Template| match template.value(subject) {
                    Value::Absent => Json::Null,
                    Value::Number(number) => number.into(),
                    Value::Text(text) => text.into(),
                    Value::Json(value) => value,
                };
                let mut object: serde_json::Map<_, _> = self
                    .json
                    .iter()
                    .map(|(name, template)| (name.clone(), value(template)))
                    .collect();
                if let Some(text) = text {
                    object.insert("text".into(), text.render(subject).into());
                }
                Json::Object(object).to_string()
            }
        };
        if !line.ends_with('\n') {
            line.push('\n');
        }
        line
    }
}

/// What an expression may ask for.
const NAMES: &[&str] = &[
    "request.path",
    "request.url_path",
    "request.query",
    "request.host",
    "request.scheme",
    "request.method",
    "request.headers",
    "request.referer",
    "request.useragent",
    "request.id",
    "request.protocol",
    "request.time",
    "request.duration",
    "request.size",
    "response.code",
    "response.code_details",
    "response.headers",
    "response.size",
    "source.address",
    "destination.address",
    "upstream.address",
    "connection.requested_server_name",
    "metadata.filter_metadata",
    "xds.route_name",
    "xds.cluster_name",
    "xds.route_metadata.filter_metadata",
];

impl Attributes for Subject<'_> {
    fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        let entry = self.entry;
        let text = |text: Option<&'_ str>| text.map(|text| Attribute::text(text.to_owned()));
        let number = |number: u64| Attribute::Int(i64::try_from(number).unwrap_or(i64::MAX));
        match name {
            "request.time" => Some(Attribute::Time(entry.start)),
            "request.duration" => Some(Attribute::Duration(entry.duration)),
            "request.size" => Some(number(entry.received)),
            "response.code" => Some(number(entry.status.into())),
            "response.code_details" => text(Some(entry.details)),
            "response.headers" => Some(Attribute::Fields {
                headers: self.response?,
                more: Vec::new(),
            }),
            "response.size" => Some(number(entry.sent)),
            "source.address" => text(Some(&entry.downstream_remote.to_string())),
            "destination.address" => text(Some(&entry.downstream_local.to_string())),
            "upstream.address" => text(entry.upstream_host),
            "connection.requested_server_name" => text(entry.server_name),
            "xds.route_name" => text(entry.route),
            "xds.cluster_name" => text(entry.upstream_cluster),
            "xds.route_metadata.filter_metadata" => {
                let resources = self.rule?.resources();
                Some(Attribute::Json(
                    json!({ rule::NAMESPACE: { "resources": resources } }),
                ))
            }
            "metadata.filter_metadata" => Some(Attribute::Json(self.metadata?.whole())),
            name => request::of_head(self.head?, self.https, name.strip_prefix("request.")?),
        }
    }

    fn names(&self) -> &'static [&'static str] {
        NAMES
    }
}
