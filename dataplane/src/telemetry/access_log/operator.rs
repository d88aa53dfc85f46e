//! Envoy's command operators in access logs and traces: what each asks for, and its value.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::HeaderName;

use super::template::{Subject, Value};
use super::written::{GrpcForm, Shown, Side, address_of, grpc_status, long, time};
use crate::filter::carrier;
use crate::filter::cel::Expression;
use crate::filter::metadata::Place;
use crate::rule;

/// A point in a request's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Its first byte has come.
    Begin,
    /// It has been begun to be sent to the backend, for the last time.
    UpstreamSent,
    /// The head of the backend's response has come.
    UpstreamAnswered,
    /// The response has been begun to be sent to the client.
    Responded,
    /// All is over.
    End,
    /// None that is known.
    Unknown,
}

/// In what a length of time is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Millis,
    Micros,
    Nanos,
}

/// What a client's certificate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerField {
    Subject,
    DnsSan,
    UriSan,
    Sha256,
}

#[derive(Debug, Clone)]
pub enum Operator {
    Request {
        names: Vec<Name>,
        without_query: bool,
    },
    Response(Vec<HeaderName>),
    Trailer(Vec<HeaderName>),
    Query(Box<str>),
    StartTime(Option<Box<str>>),
    EmitTime(Option<Box<str>>),
    Duration,
    Between(Point, Point, Precision),
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ResponseFlagsLong,
    GrpcStatus(GrpcForm),
    TransportFailure,
    BytesReceived,
    BytesSent,
    UpstreamCluster,
    UpstreamName,
    UpstreamTime,
    Attempts,
    Address(Side, Shown),
    ServerName,
    /// The one at this place of the entry's fingerprints.
    Fingerprint(usize),
    TlsVersion,
    Peer(PeerField),
    Route,
    TraceId,
    SpanId,
    RequestId,
    Metadata(Place),
    RouteMetadata(Box<[Box<str>]>),
    Cel(Arc<Expression>),
    LogType,
    /// Known beforehand.
    Fixed(Box<str>),
    /// Has no value here, or is not known.
    Absent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    Path,
    Method,
    Authority,
    Scheme,
    Header(HeaderName),
}

impl Operator {
    /// The operator of this name; one that is not known has no value.
    pub fn compile(name: &str, arguments: &str) -> Self {
        if let Some(address) = address(name) {
            return address;
        }
        let format = || (!arguments.is_empty()).then(|| arguments.into());
        match name {
            "REQ" | "REQ_WITHOUT_QUERY" => Self::Request {
                names: arguments.split('?').filter_map(self::name).collect(),
                without_query: name == "REQ_WITHOUT_QUERY",
            },
            "PATH" => Self::Request {
                names: vec![Name::Path],
                without_query: arguments.split(':').next() == Some("NQ"),
            },
            "RESP" if arguments.eq_ignore_ascii_case("x-envoy-upstream-service-time") => Self::UpstreamTime,
            "RESP" => Self::Response(headers(arguments)),
            "TRAILER" => Self::Trailer(headers(arguments)),
            "QUERY_PARAM" => Self::Query(arguments.into()),
            "START_TIME" => Self::StartTime(format()),
            "EMIT_TIME" => Self::EmitTime(format()),
            "DURATION" => Self::Duration,
            "COMMON_DURATION" => between(arguments),
            "RESPONSE_DURATION" => Self::Between(Point::Begin, Point::UpstreamAnswered, Precision::Millis),
            "RESPONSE_TX_DURATION" => Self::Between(Point::UpstreamAnswered, Point::End, Precision::Millis),
            "PROTOCOL" => Self::Protocol,
            "RESPONSE_CODE" => Self::ResponseCode,
            "RESPONSE_CODE_DETAILS" => Self::ResponseCodeDetails,
            "RESPONSE_FLAGS" => Self::ResponseFlags,
            "RESPONSE_FLAGS_LONG" => Self::ResponseFlagsLong,
            "GRPC_STATUS" => Self::GrpcStatus(match arguments {
                "SNAKE_STRING" => GrpcForm::Snake,
                "NUMBER" => GrpcForm::Number,
                _ => GrpcForm::Camel,
            }),
            "GRPC_STATUS_NUMBER" => Self::GrpcStatus(GrpcForm::Number),
            "UPSTREAM_TRANSPORT_FAILURE_REASON" => Self::TransportFailure,
            "BYTES_RECEIVED" => Self::BytesReceived,
            "BYTES_SENT" => Self::BytesSent,
            "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => Self::UpstreamCluster,
            "UPSTREAM_HOST_NAME" | "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Self::UpstreamName,
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Self::Attempts,
            "REQUESTED_SERVER_NAME" => Self::ServerName,
            "TLS_JA3_FINGERPRINT" => Self::Fingerprint(0),
            "TLS_JA4_FINGERPRINT" => Self::Fingerprint(1),
            "DOWNSTREAM_TLS_VERSION" => Self::TlsVersion,
            "DOWNSTREAM_PEER_SUBJECT" => Self::Peer(PeerField::Subject),
            "DOWNSTREAM_PEER_DNS_SAN" => Self::Peer(PeerField::DnsSan),
            "DOWNSTREAM_PEER_URI_SAN" => Self::Peer(PeerField::UriSan),
            "DOWNSTREAM_PEER_FINGERPRINT_256" => Self::Peer(PeerField::Sha256),
            "ROUTE_NAME" => Self::Route,
            "TRACE_ID" => Self::TraceId,
            "SPAN_ID" => Self::SpanId,
            "STREAM_ID" => Self::RequestId,
            "DYNAMIC_METADATA" => {
                let mut parts = arguments.split(':');
                Self::Metadata(Place::new(parts.next().unwrap_or_default(), parts))
            }
            "METADATA" => metadata(arguments),
            "CEL" => match Expression::compile(arguments) {
                Ok(expression) => Self::Cel(Arc::new(expression)),
                Err(reason) => {
                    tracing::warn!(expression = arguments, reason, "operator CEL has no value");
                    Self::Absent
                }
            },
            "HOSTNAME" => fixed(std::env::var("HOSTNAME")),
            "ENVIRONMENT" => fixed(std::env::var(arguments)),
            "ACCESS_LOG_TYPE" => Self::LogType,
            _ => Self::Absent,
        }
    }

    /// True if it speaks of headers that must be kept for it.
    pub fn needs_head(&self) -> bool {
        matches!(
            self,
            Self::Request { .. }
                | Self::Response(_)
                | Self::UpstreamTime
                | Self::Query(_)
                | Self::GrpcStatus(_)
                | Self::Cel(_)
        )
    }

    /// True if it speaks of trailers of the response.
    pub fn needs_trailers(&self) -> bool {
        matches!(self, Self::Trailer(_) | Self::GrpcStatus(_))
    }

    /// Its value.
    pub fn value<'s>(&self, subject: &Subject<'s>) -> Value<'s> {
        let entry = subject.entry;
        let filled = |text: &'s str| text_of(Some(text).filter(|text| !text.is_empty()));
        match self {
            Self::Request { names, without_query } => {
                let found = names.iter().find_map(|name| name.of(subject));
                match found {
                    Some(Cow::Borrowed(path)) if *without_query => {
                        text_of(Some(path.split('?').next().unwrap_or(path)))
                    }
                    Some(found) => Value::Text(found),
                    None => Value::Absent,
                }
            }
            Self::Response(names) => field(subject.response, names),
            Self::Trailer(names) => field(subject.trailers, names),
            Self::Query(name) => {
                let found = subject.head.and_then(|head| carrier::query(head, name));
                found.map_or(Value::Absent, Value::Text)
            }
            Self::StartTime(format) => Value::Text(time(entry.start, format.as_deref()).into()),
            Self::EmitTime(format) => Value::Text(time(SystemTime::now(), format.as_deref()).into()),
            Self::Duration => Value::Number(millis(entry.duration)),
            Self::Between(from, to, precision) => {
                let passed = from
                    .of(subject)
                    .zip(to.of(subject))
                    .and_then(|(from, to)| to.checked_sub(from));
                passed.map_or(Value::Absent, |passed| Value::Number(precision.of(passed)))
            }
            Self::Protocol => filled(entry.protocol),
            Self::ResponseCode => Value::Number(entry.status.into()),
            Self::ResponseCodeDetails => filled(entry.details),
            Self::ResponseFlags | Self::ResponseFlagsLong if entry.flags.is_empty() => {
                Value::Text("-".into())
            }
            Self::ResponseFlags => filled(entry.flags),
            Self::ResponseFlagsLong => filled(long(entry.flags)),
            Self::GrpcStatus(form) => grpc_status(subject, *form),
            Self::TransportFailure => text_of(entry.transport_failure),
            Self::BytesReceived => Value::Number(entry.received),
            Self::BytesSent => Value::Number(entry.sent),
            Self::UpstreamCluster => text_of(entry.upstream_cluster),
            Self::UpstreamName => text_of(subject.upstream_name.or(entry.upstream_host)),
            Self::UpstreamTime => entry
                .upstream_time
                .map_or(Value::Absent, |time| Value::Text(millis(time).to_string().into())),
            Self::Attempts => Value::Number(subject.times.attempts.into()),
            Self::Address(side, shown) => address_of(entry, *side, *shown),
            Self::ServerName => text_of(entry.server_name),
            Self::Fingerprint(place) => text_of(entry.fingerprints.get(*place).copied().flatten()),
            Self::TlsVersion => text_of(subject.tls.and_then(|tls| tls.version)),
            Self::Peer(field) => text_of(peer(subject, *field)),
            Self::Route => text_of(entry.route),
            Self::TraceId => text_of(subject.trace.map(|(trace, _)| trace)),
            Self::SpanId => text_of(subject.trace.map(|(_, span)| span)),
            Self::RequestId => entry
                .request_id
                .map_or(Value::Absent, |id| Value::Text(String::from_utf8_lossy(id))),
            Self::Metadata(place) => json(subject.metadata.and_then(|metadata| metadata.get(place))),
            Self::RouteMetadata(path) => json(route_metadata(subject, path)),
            Self::LogType => Value::Text(subject.kind.name().into()),
            Self::Cel(expression) => json(expression.value(subject)),
            Self::Fixed(text) => Value::Text(text.to_string().into()),
            Self::Absent => Value::Absent,
        }
    }
}

fn fixed(value: Result<String, std::env::VarError>) -> Operator {
    match value {
        Ok(value) if !value.is_empty() => Operator::Fixed(value.into()),
        _ => Operator::Absent,
    }
}

fn headers(arguments: &str) -> Vec<HeaderName> {
    arguments
        .split('?')
        .filter_map(|name| name.parse().ok())
        .collect()
}

fn between(arguments: &str) -> Operator {
    let mut parts = arguments.split(':');
    let mut point = || match parts.next() {
        Some("DS_RX_BEG") => Point::Begin,
        Some("US_TX_BEG") => Point::UpstreamSent,
        Some("US_RX_BEG") => Point::UpstreamAnswered,
        Some("DS_TX_BEG") => Point::Responded,
        Some("DS_TX_END") => Point::End,
        _ => Point::Unknown,
    };
    let (from, to) = (point(), point());
    let precision = match parts.next() {
        Some("us") => Precision::Micros,
        Some("ns") => Precision::Nanos,
        _ => Precision::Millis,
    };
    Operator::Between(from, to, precision)
}

/// `TYPE:NAMESPACE:KEY...`: of what there is metadata, requests and routes.
fn metadata(arguments: &str) -> Operator {
    let mut parts = arguments.split(':');
    match (parts.next(), parts.next()) {
        (Some("DYNAMIC"), Some(namespace)) => Operator::Metadata(Place::new(namespace, parts)),
        (Some("ROUTE"), Some(rule::NAMESPACE)) => Operator::RouteMetadata(parts.map(Into::into).collect()),
        _ => Operator::Absent,
    }
}

fn route_metadata(subject: &Subject<'_>, path: &[Box<str>]) -> Option<serde_json::Value> {
    let whole = serde_json::json!({ "resources": subject.rule?.resources() });
    let found = path.iter().try_fold(&whole, |value, name| value.get(&**name));
    found.cloned()
}

fn json(value: Option<serde_json::Value>) -> Value<'static> {
    match value {
        None | Some(serde_json::Value::Null) => Value::Absent,
        Some(serde_json::Value::String(text)) => Value::Text(text.into()),
        Some(value) => match value.as_u64() {
            Some(number) => Value::Number(number),
            None => Value::Json(value),
        },
    }
}

fn field<'s>(headers: Option<&'s HeaderMap>, names: &[HeaderName]) -> Value<'s> {
    let found = names.iter().find_map(|name| headers?.get(name));
    found.map_or(Value::Absent, |value| {
        Value::Text(String::from_utf8_lossy(value.as_bytes()))
    })
}

fn peer<'s>(subject: &Subject<'s>, field: PeerField) -> Option<&'s str> {
    let peer = subject.tls?.peer?;
    match field {
        PeerField::Subject => Some(&peer.subject),
        PeerField::DnsSan => peer.dns_san.as_deref(),
        PeerField::UriSan => peer.uri_san.as_deref(),
        PeerField::Sha256 => Some(&peer.sha256),
    }
}

impl Point {
    /// How long after the request's beginning it is.
    fn of(self, subject: &Subject<'_>) -> Option<Duration> {
        match self {
            Self::Begin => Some(Duration::ZERO),
            Self::UpstreamSent => subject.times.upstream_sent,
            Self::UpstreamAnswered => {
                let sent = subject.times.upstream_sent?;
                Some(sent + subject.entry.upstream_time?)
            }
            Self::Responded => subject.times.responded,
            Self::End => Some(subject.entry.duration),
            Self::Unknown => None,
        }
    }
}

impl Precision {
    fn of(self, duration: Duration) -> u64 {
        let units = match self {
            Self::Millis => duration.as_millis(),
            Self::Micros => duration.as_micros(),
            Self::Nanos => duration.as_nanos(),
        };
        u64::try_from(units).unwrap_or(u64::MAX)
    }
}

fn address(name: &str) -> Option<Operator> {
    let (name, shown) = if let Some(name) = name.strip_suffix("_ADDRESS_WITHOUT_PORT") {
        (name, Shown::Ip)
    } else if let Some(name) = name.strip_suffix("_ADDRESS") {
        (name, Shown::Whole)
    } else {
        (name.strip_suffix("_PORT").unwrap_or(name), Shown::Port)
    };
    let side = match name {
        "UPSTREAM_HOST" => return Some(Operator::Address(Side::UpstreamRemote, Shown::Whole)),
        "UPSTREAM_LOCAL" => Side::UpstreamLocal,
        "UPSTREAM_REMOTE" => Side::UpstreamRemote,
        "DOWNSTREAM_LOCAL" => Side::DownstreamLocal,
        "DOWNSTREAM_REMOTE" | "DOWNSTREAM_DIRECT_REMOTE" => Side::DownstreamRemote,
        _ => return None,
    };
    Some(Operator::Address(side, shown))
}

fn name(name: &str) -> Option<Name> {
    Some(match name.to_ascii_lowercase().as_str() {
        ":path" | "x-envoy-original-path" => Name::Path,
        ":method" => Name::Method,
        ":authority" | "host" => Name::Authority,
        ":scheme" => Name::Scheme,
        name => Name::Header(name.parse().ok()?),
    })
}

impl Name {
    fn of<'s>(&self, subject: &Subject<'s>) -> Option<Cow<'s, str>> {
        let entry = subject.entry;
        let filled = |bytes: &'s [u8]| (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes));
        match self {
            Self::Path => filled(entry.path),
            Self::Method => filled(entry.method.as_bytes()),
            Self::Authority => filled(entry.authority),
            Self::Scheme if entry.method.is_empty() => None,
            Self::Scheme => Some(if subject.https { "https" } else { "http" }.into()),
            Self::Header(name) => filled(subject.head?.headers.get(name)?.as_bytes()),
        }
    }
}

fn text_of(text: Option<&str>) -> Value<'_> {
    text.map_or(Value::Absent, |text| Value::Text(text.into()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
