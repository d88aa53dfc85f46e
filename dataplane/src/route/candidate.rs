//! One match of one rule, compiled.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use http::{HeaderName, Method, request};
use regex::Regex;
use sluice_config::v1;

use super::tables::Precedence;
use crate::rule::Rule;

/// Anchored to the whole text.
pub(super) fn regex(pattern: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(1 << 20)
        .build()
        .map_err(|e| format!("`{pattern}` is not a regular expression: {}", e.to_string().replace('\n', " ")))
}

#[derive(Debug)]
enum Value {
    Exact(Box<str>),
    Regex(Regex),
}

impl Value {
    fn compile(config: &v1::ValueMatch) -> Result<Self, String> {
        if config.regex { regex(&config.value).map(Self::Regex) } else { Ok(Self::Exact(config.value.as_str().into())) }
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// Everything of a match but its path and host, with the rule that it leads to.
#[derive(Debug)]
pub struct Candidate {
    method: Option<Method>,
    headers: Vec<(HeaderName, Value)>,
    query: Vec<(Box<str>, Value)>,
    precedence: Arc<Precedence>,
    /// Places of the rule in its route and of the match in the rule.
    place: (u32, u32),
    /// Set if the path is one.
    pub(super) path_regex: Option<Regex>,
    pub(super) rule: Arc<Rule>,
}

impl Candidate {
    /// Compiles a match.
    ///
    /// # Errors
    /// `field: reason` of what cannot be honoured.
    pub fn compile(
        config: &v1::HttpMatch,
        rule: &Arc<Rule>,
        precedence: &Arc<Precedence>,
        place: (u32, u32),
    ) -> Result<Self, String> {
        let method = match config.method.as_str() {
            "" => None,
            name => Some(name.parse().map_err(|_| format!("method: `{name}` is not a method"))?),
        };
        let mut headers = Vec::with_capacity(config.headers.len());
        for (i, header) in config.headers.iter().enumerate() {
            let name = HeaderName::try_from(header.name.as_str())
                .map_err(|_| format!("headers[{i}].name: `{}` is not a header name", header.name))?;
            headers.push((name, Value::compile(header).map_err(|e| format!("headers[{i}].value: {e}"))?));
        }
        let mut query = Vec::with_capacity(config.query.len());
        for (i, parameter) in config.query.iter().enumerate() {
            let value = Value::compile(parameter).map_err(|e| format!("query[{i}].value: {e}"))?;
            query.push((parameter.name.as_str().into(), value));
        }
        let path_regex = match config.path.as_ref().filter(|p| p.kind() == v1::path_match::Kind::Regex) {
            Some(path) => Some(regex(&path.value).map_err(|e| format!("path.value: {e}"))?),
            None => None,
        };
        Ok(Self {
            method,
            headers,
            query,
            precedence: Arc::clone(precedence),
            place,
            path_regex,
            rule: Arc::clone(rule),
        })
    }

    /// True if method, headers and query parameters match.
    pub fn matches(&self, head: &request::Parts) -> bool {
        self.method.as_ref().is_none_or(|method| *method == head.method)
            && self.headers.iter().all(|(name, value)| header_matches(head, name, value))
            && self.query.iter().all(|(name, value)| query_matches(head.uri.query(), name, value))
    }

    /// Key of the route that it belongs to.
    pub(super) fn owner(&self) -> &str {
        &self.precedence.owner
    }

    /// Less: takes precedence. Paths are equal.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let more = |mine: usize, theirs: usize| theirs.cmp(&mine);
        more(self.method.iter().len(), other.method.iter().len())
            .then_with(|| more(self.headers.len(), other.headers.len()))
            .then_with(|| more(self.query.len(), other.query.len()))
            .then_with(|| self.precedence.cmp(&other.precedence))
            .then_with(|| self.place.cmp(&other.place))
    }

    /// As [`Candidate::compare`], for two regular expressions: the longer one first.
    pub(super) fn compare_regex(&self, other: &Self) -> Ordering {
        let length = |candidate: &Self| candidate.path_regex.as_ref().map_or(0, |r| r.as_str().len());
        length(other).cmp(&length(self)).then_with(|| self.compare(other))
    }
}

fn header_matches(head: &request::Parts, name: &HeaderName, wanted: &Value) -> bool {
    let mut values = head.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let Some(first) = values.next() else { return false };
    // Several fields of one name are one list (RFC 9110 section 5.3).
    let joined = values.fold(first, |list, value| Cow::Owned(format!("{list},{value}")));
    wanted.matches(&joined)
}

fn query_matches(query: Option<&str>, name: &str, wanted: &Value) -> bool {
    // Of several parameters with one name the first counts.
    let first = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).find(|(n, _)| n == name);
    first.is_some_and(|(_, value)| wanted.matches(&value))
}
