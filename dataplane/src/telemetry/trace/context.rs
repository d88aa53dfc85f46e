//! What goes along with a request from one who traces it to the next: W3C Trace Context, B3, Datadog's headers.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");
const DATADOG_TRACE: HeaderName = HeaderName::from_static("x-datadog-trace-id");
const DATADOG_PARENT: HeaderName = HeaderName::from_static("x-datadog-parent-id");
const DATADOG_PRIORITY: HeaderName = HeaderName::from_static("x-datadog-sampling-priority");

/// In which form a span is told to those who get its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// W3C Trace Context; B3 as well if the request came with it.
    W3c,
    /// B3 in several headers; W3C Trace Context as well if the request came with it.
    B3,
    /// Datadog's headers.
    Datadog,
}

/// Identifiers of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Of the trace; the upper half is zero if it has 64 bits only.
    pub trace: u128,
    /// Of the span.
    pub span: u64,
    /// Of the span that this one is part of.
    pub parent: Option<u64>,
    /// It is told to the collector.
    pub sampled: bool,
    /// Who has sent the request tells its end of the same span.
    pub shared: bool,
}

/// How identifiers are made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identifiers {
    /// New traces have 64 bits.
    pub short: bool,
    /// The span of who has sent the request, if it came by B3, is ours as well.
    pub shared: bool,
}

struct Parent {
    trace: u128,
    span: u64,
    sampled: Option<bool>,
    /// Of the span that this one is part of, for B3.
    above: Option<u64>,
    by_b3: bool,
}

impl Context {
    /// A span of the trace that the headers tell of, or else of a new one. `decide` says whether it is told, by the trace
    /// and by what whoever has sent the request has decided, if anything.
    pub fn next(
        headers: &HeaderMap,
        identifiers: Identifiers,
        decide: impl FnOnce(u128, Option<bool>) -> bool,
    ) -> Self {
        let span = loop {
            match rand::random::<u64>() {
                0 => {}
                id => break id,
            }
        };
        let parent = w3c(headers).or_else(|| b3(headers)).or_else(|| datadog(headers));
        if let Some(parent) = parent {
            let shared = identifiers.shared && parent.by_b3;
            return Self {
                trace: parent.trace,
                span: if shared { parent.span } else { span },
                parent: if shared { parent.above } else { Some(parent.span) },
                sampled: decide(parent.trace, parent.sampled),
                shared,
            };
        }
        let trace = if identifiers.short {
            span.into()
        } else {
            rand::random::<u128>().max(1)
        };
        Self {
            trace,
            span,
            parent: None,
            // Somebody in front may have decided without a trace of his own.
            sampled: decide(trace, b3_decision(headers)),
            shared: false,
        }
    }

    /// Of the trace, in hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// Of the span, in hexadecimal digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span)
    }

    /// Tells it to whoever gets the request.
    pub fn inject(&self, headers: &mut HeaderMap, as_: Propagation) {
        let sampled = u8::from(self.sampled);
        let mut set = |name: HeaderName, value: String| {
            // Digits make a valid value.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        let had_b3 = as_ == Propagation::B3;
        if as_ == Propagation::Datadog {
            let low = u64::try_from(self.trace & u128::from(u64::MAX)).unwrap_or_default();
            set(DATADOG_TRACE, low.to_string());
            set(DATADOG_PARENT, self.span.to_string());
            set(DATADOG_PRIORITY, sampled.to_string());
        }
        if as_ == Propagation::W3c {
            set(
                TRACEPARENT,
                format!("00-{:032x}-{:016x}-{sampled:02x}", self.trace, self.span),
            );
        }
        let trace = match self.trace >> 64 {
            0 => format!("{:016x}", self.trace),
            _ => self.trace_id(),
        };
        if headers.contains_key(B3) {
            let value = format!("{trace}-{:016x}-{sampled}", self.span);
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(B3, value);
            }
        }
        if had_b3 || headers.contains_key(B3_TRACE) {
            let mut set = |name: HeaderName, value: String| {
                if let Ok(value) = HeaderValue::try_from(value) {
                    headers.insert(name, value);
                }
            };
            set(B3_TRACE, trace);
            set(B3_SPAN, self.span_id());
            set(B3_SAMPLED, sampled.to_string());
            match self.parent {
                Some(parent) => set(B3_PARENT, format!("{parent:016x}")),
                None => drop(headers.remove(B3_PARENT)),
            }
        }
        if as_ != Propagation::W3c && headers.contains_key(TRACEPARENT) {
            let value = format!("00-{:032x}-{:016x}-{sampled:02x}", self.trace, self.span);
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(TRACEPARENT, value);
            }
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Digits, of one of these lengths, that are not all zero.
fn hex(text: &str, lengths: &[usize]) -> Option<u128> {
    let digits = lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    u128::from_str_radix(text, 16)
        .ok()
        .filter(|id| digits && *id != 0)
}

fn span(text: &str) -> Option<u64> {
    u64::try_from(hex(text, &[16])?).ok()
}

/// <https://www.w3.org/TR/trace-context/#traceparent-header>
fn w3c(headers: &HeaderMap) -> Option<Parent> {
    let mut parts = text(headers, &TRACEPARENT)?.split('-');
    let version = parts.next().filter(|v| v.len() == 2 && *v != "ff")?;
    let (trace, span) = (hex(parts.next()?, &[32])?, span(parts.next()?)?);
    let flags = u8::from_str_radix(parts.next().filter(|f| f.len() == 2)?, 16).ok()?;
    if version == "00" && parts.next().is_some() {
        return None;
    }
    Some(Parent {
        trace,
        span,
        sampled: Some(flags & 1 == 1),
        above: None,
        by_b3: false,
    })
}

fn decision(text: &str) -> Option<bool> {
    match text {
        "1" | "d" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// <https://github.com/openzipkin/b3-propagation>
fn b3(headers: &HeaderMap) -> Option<Parent> {
    if let Some(single) = text(headers, &B3) {
        let mut parts = single.split('-');
        return Some(Parent {
            trace: hex(parts.next()?, &[16, 32])?,
            span: span(parts.next()?)?,
            sampled: parts.next().and_then(decision),
            above: parts.next().and_then(self::span),
            by_b3: true,
        });
    }
    Some(Parent {
        trace: hex(text(headers, &B3_TRACE)?, &[16, 32])?,
        span: span(text(headers, &B3_SPAN)?)?,
        sampled: b3_decision(headers),
        above: text(headers, &B3_PARENT).and_then(self::span),
        by_b3: true,
    })
}

fn b3_decision(headers: &HeaderMap) -> Option<bool> {
    if text(headers, &B3_FLAGS) == Some("1") {
        return Some(true);
    }
    text(headers, &B3_SAMPLED)
        .or_else(|| text(headers, &B3))
        .and_then(decision)
}

fn datadog(headers: &HeaderMap) -> Option<Parent> {
    let number = |name| text(headers, name)?.parse::<u64>().ok().filter(|id| *id != 0);
    let priority = text(headers, &DATADOG_PRIORITY).and_then(|p| p.parse::<i32>().ok());
    Some(Parent {
        trace: number(&DATADOG_TRACE)?.into(),
        span: number(&DATADOG_PARENT)?,
        sampled: priority.map(|priority| priority > 0),
        above: None,
        by_b3: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    const SHORT: Identifiers = Identifiers {
        short: true,
        shared: false,
    };

    /// Drawn if nobody has decided and `drawn` is true.
    fn next(headers: &HeaderMap, drawn: bool) -> Context {
        Context::next(headers, Identifiers::default(), |_, before| {
            before.unwrap_or(drawn)
        })
    }

    const W3C: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_parent_decides() {
        for (fields, trace, sampled) in [
            (
                vec![("traceparent", W3C)],
                "0af7651916cd43dd8448eb211c80319c",
                true,
            ),
            (
                vec![("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0")],
                "80f198ee56343ba864fe8b2a57d3eff7",
                false,
            ),
            (
                vec![
                    ("x-b3-traceid", "e457b5a2e4d86bd1"),
                    ("x-b3-spanid", "05e3ac9a4f6e3b90"),
                    ("x-b3-sampled", "1"),
                ],
                "0000000000000000e457b5a2e4d86bd1",
                true,
            ),
            (
                vec![
                    ("x-datadog-trace-id", "16"),
                    ("x-datadog-parent-id", "17"),
                    ("x-datadog-sampling-priority", "0"),
                ],
                "00000000000000000000000000000010",
                false,
            ),
        ] {
            let context = next(&headers(&fields), !sampled);
            assert_eq!(
                (context.trace_id().as_str(), context.sampled),
                (trace, sampled),
                "{fields:?}"
            );
            assert!(context.parent.is_some());
        }
    }

    #[test]
    fn what_is_odd_begins_a_trace() {
        for value in [
            "",
            "00-0-0-0",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            let context = next(&headers(&[("traceparent", value)]), true);
            assert_eq!((context.parent, context.sampled), (None, true), "{value}");
        }
        let denied = Context::next(&headers(&[("b3", "0")]), SHORT, |_, before| {
            before.unwrap_or(true)
        });
        assert!(!denied.sampled && denied.trace == u128::from(denied.span));
    }

    #[test]
    fn what_is_told_can_be_read() {
        for as_ in [Propagation::W3c, Propagation::B3, Propagation::Datadog] {
            let mut headers = HeaderMap::new();
            let first = Context::next(&headers, SHORT, |_, before| before.unwrap_or(true));
            first.inject(&mut headers, as_);
            let second = next(&headers, false);
            assert_eq!(
                (second.trace, second.parent, second.sampled),
                (first.trace, Some(first.span), true)
            );
        }
    }

    #[test]
    fn spans_of_b3_can_be_shared() {
        let shared = Identifiers {
            short: true,
            shared: true,
        };
        let next = |fields: &[(&'static str, &str)]| Context::next(&headers(fields), shared, |_, _| true);
        let single = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90";
        let ours = next(&[("b3", single)]);
        assert_eq!(
            (ours.span, ours.parent, ours.shared),
            (0xe457_b5a2_e4d8_6bd1, Some(0x05e3_ac9a_4f6e_3b90), true)
        );
        let (fresh, other) = (next(&[]), next(&[("traceparent", W3C)]));
        assert!(!fresh.shared && !other.shared);
        assert_eq!(other.parent, Some(0xb7ad_6b71_6920_3331));
    }
}
