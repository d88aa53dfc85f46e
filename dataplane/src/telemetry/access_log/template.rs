//! Formats of access logs and names of spans: texts with Envoy's command operators, compiled.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderMap;
use http::request::Parts;
use sluice_config::operators::{Part, parts};

use super::entry::Entry;
use super::operator::Operator;
use crate::filter::cel::request::Tls;
use crate::filter::metadata::Metadata;
use crate::rule::Rule;

/// What a text may speak of.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// What has ended.
    pub entry: &'a Entry<'a>,
    /// What that is.
    pub kind: Kind,
    /// The request's head as it was routed; `None`: it was not kept, or there is none.
    pub head: Option<&'a Parts>,
    /// Headers of the response.
    pub response: Option<&'a HeaderMap>,
    /// Trailers of the response; `None`: they were not kept, or there are none.
    pub trailers: Option<&'a HeaderMap>,
    /// The client speaks TLS.
    pub https: bool,
    /// What is known of that; `None`: nothing.
    pub tls: Option<Tls<'a>>,
    /// What has been said of the request.
    pub metadata: Option<&'a Metadata>,
    /// The rule that it has met.
    pub rule: Option<&'a Rule>,
    /// Name of the endpoint, if it has one.
    pub upstream_name: Option<&'a str>,
    /// When what has happened.
    pub times: Times,
    /// Identifiers of trace and span.
    pub trace: Option<(&'a str, &'a str)>,
}

impl<'a> Subject<'a> {
    /// One of which nothing else is known.
    pub fn new(entry: &'a Entry<'a>) -> Self {
        Self {
            entry,
            kind: Kind::Request,
            head: None,
            response: None,
            trailers: None,
            https: false,
            tls: None,
            metadata: None,
            rule: None,
            upstream_name: None,
            times: Times::default(),
            trace: None,
        }
    }
}

/// What there may be a line of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request, or a session.
    Request,
    /// A connection of a client.
    Connection,
    /// A try of a request at a backend.
    Try,
}

impl Kind {
    /// Envoy's name for logs of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "DownstreamEnd",
            Self::Connection => "NotSet",
            Self::Try => "UpstreamEnd",
        }
    }
}

/// Points in a request's time, after its beginning.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// It has been begun to be sent to the backend, for the last time.
    pub upstream_sent: Option<Duration>,
    /// The response has been begun to be sent.
    pub responded: Option<Duration>,
    /// How often it has been sent.
    pub attempts: u32,
}

/// A compiled text.
#[derive(Debug, Clone)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone)]
enum Piece {
    Text(Box<str>),
    Operator(Operator, Option<usize>),
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
    /// Anything else.
    Json(serde_json::Value),
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
            } => Piece::Operator(Operator::compile(name, arguments), limit),
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
                    Value::Json(value) => out.push_str(&value.to_string()),
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
        self.operators().any(Operator::needs_head)
    }

    /// True if it speaks of trailers of the response.
    pub fn needs_trailers(&self) -> bool {
        self.operators().any(Operator::needs_trailers)
    }

    fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Operator(operator, _) => Some(operator),
            Piece::Text(_) => None,
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

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use prost_types::value::Kind;
    use prost_types::{Struct, Value as Proto};

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
        entry.fingerprints = [Some("a1b2"), None];
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "4".parse().unwrap());
        let mut metadata = Metadata::default();
        let number = Proto {
            kind: Some(Kind::NumberValue(7.0)),
        };
        let fields = [("n".to_owned(), number)].into();
        metadata.say("a.b", Struct { fields });
        let subject = Subject {
            head: Some(&head),
            response: Some(&response),
            trailers: Some(&trailers),
            https: true,
            metadata: Some(&metadata),
            times: Times {
                upstream_sent: Some(Duration::from_micros(400)),
                responded: None,
                attempts: 2,
            },
            trace: Some(("abc", "de")),
            ..Subject::new(&entry)
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
            ("%TRAILER(GRPC-STATUS)% %TRAILER(none)%", "4 -"),
            (
                "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER%",
                "DeadlineExceeded DEADLINE_EXCEEDED 4",
            ),
            (
                "%DYNAMIC_METADATA(a.b:n)% %DYNAMIC_METADATA(a.b)% %METADATA(DYNAMIC:a.b:n)% %METADATA(CLUSTER:a:b)%",
                "7 {\"n\":7} 7 -",
            ),
            (
                "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)% %COMMON_DURATION(DS_RX_BEG:US_TX_BEG:ns)%",
                "2000 400000",
            ),
            (
                "%COMMON_DURATION(DS_RX_BEG:DS_TX_BEG)% %COMMON_DURATION(x)%",
                "- -",
            ),
            (
                "%CEL(request.path)% %CEL(size(request.headers) > 0)% %CEL(metadata.filter_metadata['a.b'].n)% %CEL(none)%",
                "/a?b=c true 7 -",
            ),
            (
                "%QUERY_PARAM(b)% %PATH(NQ)% %UPSTREAM_REQUEST_ATTEMPT_COUNT%",
                "c /a 2",
            ),
            ("%TLS_JA3_FINGERPRINT% %TLS_JA4_FINGERPRINT%", "a1b2 -"),
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
        // What never has a value here, or not with such an argument.
        let never = [
            "CEL",
            "CONNECTION_TERMINATION_DETAILS",
            "ENVIRONMENT",
            "HOSTNAME",
            "METADATA",
        ];
        for name in sluice_config::operators::OPERATORS {
            let is_known = !matches!(Operator::compile(name, "x"), Operator::Absent);
            assert!(is_known || never.contains(name), "{name}");
        }
    }
}
