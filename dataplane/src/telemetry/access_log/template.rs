//! Formats of access logs and names of spans: texts with Envoy's command operators, compiled.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use http::header::HeaderName;
use http::request::Parts;
use sluice_config::operators::{Part, parts};

use super::entry::{Entry, civil, to_the_second};

/// What a text may speak of.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The request, or the session.
    pub entry: &'a Entry<'a>,
    /// The request's head as it was routed; `None`: it was not kept, or there is none.
    pub head: Option<&'a Parts>,
    /// Headers of the response.
    pub response: Option<&'a HeaderMap>,
    /// The client speaks TLS.
    pub https: bool,
    /// Identifiers of trace and span.
    pub trace: Option<(&'a str, &'a str)>,
}

/// A compiled text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Operator(Operator, Option<usize>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    UpstreamLocal,
    UpstreamRemote,
    DownstreamLocal,
    DownstreamRemote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Whole,
    Ip,
    Port,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    Request {
        names: Vec<Name>,
        without_query: bool,
    },
    Response(Vec<HeaderName>),
    StartTime(Option<Box<str>>),
    Duration,
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    TransportFailure,
    BytesReceived,
    BytesSent,
    UpstreamCluster,
    UpstreamTime,
    Address(Side, Shown),
    ServerName,
    Route,
    TraceId,
    SpanId,
    Hostname(Box<str>),
    /// Has no value here, or is not known.
    Absent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Path,
    Method,
    Authority,
    Scheme,
    Header(HeaderName),
}

/// The value of an operator.
#[derive(Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// There is none.
    Absent,
    /// A number.
    Number(u64),
    /// A text.
    Text(Cow<'a, str>),
}

impl Template {
    /// Reads a text. Operators that are not known have no value.
    pub fn compile(text: &str) -> Self {
        let piece = |part| match part {
            Part::Text(text) => Piece::Text(text.into()),
            Part::Operator {
                name,
                arguments,
                limit,
            } => Piece::Operator(operator(name, arguments), limit),
        };
        Self(parts(text).into_iter().map(piece).collect())
    }

    /// The whole as one text; what is absent is a dash.
    pub fn render(&self, subject: &Subject<'_>) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Operator(operator, limit) => match cut(operator.value(subject), *limit) {
                    Value::Absent => out.push('-'),
                    Value::Number(number) => out.push_str(&number.to_string()),
                    Value::Text(text) => out.push_str(&text),
                },
            }
        }
        out
    }

    /// The value of the only operator, or the whole as one text.
    pub fn value<'s>(&self, subject: &Subject<'s>) -> Value<'s> {
        match self.0.as_slice() {
            [Piece::Operator(operator, limit)] => cut(operator.value(subject), *limit),
            _ => Value::Text(self.render(subject).into()),
        }
    }

    /// True if it speaks of headers that must be kept for it.
    pub fn needs_head(&self) -> bool {
        self.0.iter().any(|piece| {
            matches!(
                piece,
                Piece::Operator(
                    Operator::Request { .. } | Operator::Response(_) | Operator::UpstreamTime,
                    _
                )
            )
        })
    }
}

fn cut(value: Value<'_>, limit: Option<usize>) -> Value<'_> {
    match (value, limit) {
        (Value::Text(text), Some(limit)) if text.len() > limit => {
            let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at));
            Value::Text(text[..end.unwrap_or_default()].to_owned().into())
        }
        (value, _) => value,
    }
}

fn operator(name: &str, arguments: &str) -> Operator {
    if let Some(address) = address(name) {
        return address;
    }
    match name {
        "REQ" | "REQ_WITHOUT_QUERY" => Operator::Request {
            names: arguments.split('?').filter_map(self::name).collect(),
            without_query: name == "REQ_WITHOUT_QUERY",
        },
        "RESP" if arguments.eq_ignore_ascii_case("x-envoy-upstream-service-time") => Operator::UpstreamTime,
        "RESP" => Operator::Response(
            arguments
                .split('?')
                .filter_map(|name| name.parse().ok())
                .collect(),
        ),
        "START_TIME" => Operator::StartTime((!arguments.is_empty()).then(|| arguments.into())),
        "DURATION" => Operator::Duration,
        "PROTOCOL" => Operator::Protocol,
        "RESPONSE_CODE" => Operator::ResponseCode,
        "RESPONSE_CODE_DETAILS" => Operator::ResponseCodeDetails,
        "RESPONSE_FLAGS" => Operator::ResponseFlags,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::TransportFailure,
        "BYTES_RECEIVED" => Operator::BytesReceived,
        "BYTES_SENT" => Operator::BytesSent,
        "UPSTREAM_CLUSTER" => Operator::UpstreamCluster,
        "REQUESTED_SERVER_NAME" => Operator::ServerName,
        "ROUTE_NAME" => Operator::Route,
        "TRACE_ID" => Operator::TraceId,
        "SPAN_ID" => Operator::SpanId,
        "HOSTNAME" => Operator::Hostname(std::env::var("HOSTNAME").unwrap_or_default().into()),
        _ => Operator::Absent,
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

impl Operator {
    fn value<'s>(&self, subject: &Subject<'s>) -> Value<'s> {
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
            Self::Response(names) => {
                let found = names.iter().find_map(|name| subject.response?.get(name));
                found.map_or(Value::Absent, |value| {
                    Value::Text(String::from_utf8_lossy(value.as_bytes()))
                })
            }
            Self::StartTime(format) => Value::Text(time(entry, format.as_deref()).into()),
            Self::Duration => Value::Number(millis(entry.duration)),
            Self::Protocol => filled(entry.protocol),
            Self::ResponseCode => Value::Number(entry.status.into()),
            Self::ResponseCodeDetails => filled(entry.details),
            Self::ResponseFlags if entry.flags.is_empty() => Value::Text("-".into()),
            Self::ResponseFlags => filled(entry.flags),
            Self::TransportFailure => text_of(entry.transport_failure),
            Self::BytesReceived => Value::Number(entry.received),
            Self::BytesSent => Value::Number(entry.sent),
            Self::UpstreamCluster => text_of(entry.upstream_cluster),
            Self::UpstreamTime => entry
                .upstream_time
                .map_or(Value::Absent, |time| Value::Text(millis(time).to_string().into())),
            Self::Address(side, shown) => address_of(entry, *side, *shown),
            Self::ServerName => text_of(entry.server_name),
            Self::Route => text_of(entry.route),
            Self::TraceId => text_of(subject.trace.map(|(trace, _)| trace)),
            Self::SpanId => text_of(subject.trace.map(|(_, span)| span)),
            Self::Hostname(name) if !name.is_empty() => Value::Text(name.to_string().into()),
            Self::Hostname(_) | Self::Absent => Value::Absent,
        }
    }
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

fn address_of<'s>(entry: &Entry<'s>, side: Side, shown: Shown) -> Value<'s> {
    let address: Option<SocketAddr> = match side {
        Side::UpstreamRemote => match (entry.upstream_host, shown) {
            (host, Shown::Whole) => return text_of(host),
            (host, _) => host.and_then(|host| host.parse().ok()),
        },
        Side::UpstreamLocal => entry.upstream_local,
        Side::DownstreamLocal => Some(entry.downstream_local),
        Side::DownstreamRemote => Some(entry.downstream_remote),
    };
    match (address, shown) {
        (None, _) => Value::Absent,
        (Some(address), Shown::Whole) => Value::Text(address.to_string().into()),
        (Some(address), Shown::Ip) => Value::Text(address.ip().to_canonical().to_string().into()),
        (Some(address), Shown::Port) => Value::Number(address.port().into()),
    }
}

/// As strftime has it, with %3f, %6f and %9f for parts of a second and %s for seconds since 1970; RFC 3339 if there is no format.
fn time(entry: &Entry<'_>, format: Option<&str>) -> String {
    let since = entry.start.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let Some(format) = format else {
        let to_the_second = to_the_second(seconds);
        let text = String::from_utf8_lossy(&to_the_second);
        return format!("{text}{:03}Z", since.subsec_millis());
    };
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let nanos = format!("{:09}", since.subsec_nanos());
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        // Writing to a String cannot fail.
        let _ = match rest.next() {
            Some('Y') => write!(out, "{year:04}"),
            Some('m') => write!(out, "{month:02}"),
            Some('d') => write!(out, "{day:02}"),
            Some('e') => write!(out, "{day:2}"),
            Some('H') => write!(out, "{hour:02}"),
            Some('M') => write!(out, "{minute:02}"),
            Some('S') => write!(out, "{second:02}"),
            Some('F') => write!(out, "{year:04}-{month:02}-{day:02}"),
            Some('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            Some('s') => write!(out, "{seconds}"),
            Some('z') => out.write_str("+0000"),
            Some('Z') => out.write_str("UTC"),
            Some('f') => out.write_str(&nanos),
            Some('%') | None => out.write_char('%'),
            Some(digits @ '1'..='9') if rest.as_str().starts_with('f') => {
                rest.next();
                let count = digits.to_digit(10).unwrap_or(9) as usize;
                out.write_str(&nanos[..count])
            }
            Some(other) => write!(out, "%{other}"),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::entry;
    use super::*;

    #[test]
    fn operators_are_rendered() {
        let (head, ()) = http::Request::get("/a?b=c")
            .header("x-id", "12345")
            .body(())
            .unwrap()
            .into_parts();
        let mut response = HeaderMap::new();
        response.insert("x-made-by", "us".parse().unwrap());
        let mut entry = entry(b"/a?b=c");
        entry.start = UNIX_EPOCH + Duration::from_millis(1_709_210_096_123);
        let subject = Subject {
            entry: &entry,
            head: Some(&head),
            response: Some(&response),
            https: true,
            trace: Some(("abc", "de")),
        };
        for (text, expected) in [
            ("%REQ(X-ID):3%|%REQ(none?X-ID)%|%REQ(none)%", "123|12345|-"),
            (
                "%REQ(:PATH)% %REQ_WITHOUT_QUERY(:path)% %REQ(:scheme)%",
                "/a?b=c /a https",
            ),
            ("%RESP(x-made-by)% %TRACE_ID%/%SPAN_ID%", "us abc/de"),
            ("%START_TIME%", "2024-02-29T12:34:56.123Z"),
            (
                "[%START_TIME(%Y/%m/%dT%H:%M:%S.%3f%z %s)%]",
                "[2024/02/29T12:34:56.123+0000 1709210096]",
            ),
            ("%FOO(1)% 5%", "- 5%"),
        ] {
            assert_eq!(Template::compile(text).render(&subject), expected, "{text}");
        }
        assert_eq!(
            Template::compile("%RESPONSE_CODE%").value(&subject),
            Value::Number(entry.status.into())
        );
        assert_eq!(Template::compile("%REQ(none)%").value(&subject), Value::Absent);
    }

    #[test]
    fn every_operator_that_is_said_to_be_known_is() {
        // What never has a value here.
        let never = ["CONNECTION_TERMINATION_DETAILS"];
        for name in sluice_config::operators::OPERATORS {
            assert_eq!(
                operator(name, "x") == Operator::Absent,
                never.contains(name),
                "{name}"
            );
        }
    }
}
