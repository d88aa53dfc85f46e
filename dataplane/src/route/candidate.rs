//! One match of one rule: what a request has to be like, and its place among the others.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use http::header::{HOST, HeaderName};
use http::request::Parts;
use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use regex::bytes::{Regex, RegexBuilder};
use sluice_config::v1;
use sluice_config::v1::path_match::Kind;

use crate::filter::carrier::cookie;
use crate::rule::Rule;

/// Bytes that a compiled regular expression may take, and the cache it searches with.
pub(crate) const REGEX_SIZE: usize = 1 << 20;
pub(crate) const REGEX_CACHE: usize = 1 << 18;

/// The path that a match asks for.
#[derive(Debug, Clone)]
pub enum Path {
    /// This path.
    Exact(Arc<str>),
    /// This path or anything below it, by path element. Without a slash at its end; the empty one covers everything.
    Prefix(Arc<str>),
    /// A whole path that this expression matches.
    Regex(Regex),
}

/// Place among the matches of equal paths on a host. The smaller one is tried first: with a method, with more headers,
/// with more query parameters, then by the route's age, its name, and the place within it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    any_method: bool,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    route: RouteOrder,
    rule: usize,
    number: usize,
}

/// Place among routes: the older first, then by `namespace/name`; the key tells apart what is still equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteOrder {
    /// Unix seconds.
    pub created: i64,
    /// `namespace/name`.
    pub name: Arc<str>,
    /// The resource's key.
    pub key: Arc<str>,
}

/// A compiled match.
#[derive(Debug)]
pub struct Candidate {
    /// The path.
    pub path: Path,
    /// Its place.
    pub order: Order,
    /// What it leads to.
    pub rule: Arc<Rule>,
    /// It is tried in its place in the route, however specific it is.
    pub in_order: bool,
    method: Option<Method>,
    headers: Box<[(HeaderName, Test)]>,
    query: Box<[(Box<str>, Test)]>,
    cookies: Box<[(Box<str>, Test)]>,
}

impl Order {
    /// Place among the matches that are tried in the order of their routes.
    pub fn in_route(&self) -> (&RouteOrder, usize, usize) {
        (&self.route, self.rule, self.number)
    }
}

#[derive(Debug)]
enum Test {
    Exact(Box<[u8]>),
    Regex(Regex),
}

impl Candidate {
    /// Compiles match `number` of rule `at`.
    ///
    /// # Errors
    /// `field: reason` of what cannot be honoured.
    pub fn compile(
        config: &v1::HttpMatch,
        rule: &Arc<Rule>,
        route: &RouteOrder,
        (at, number): (usize, usize),
    ) -> Result<Self, String> {
        let method = match config.method.as_str() {
            "" => None,
            name => Some(
                Method::from_bytes(name.as_bytes()).map_err(|_| format!("method: `{name}` is not one"))?,
            ),
        };
        let header = |(i, test): (usize, &v1::ValueMatch)| {
            let name = HeaderName::from_bytes(test.name.as_bytes())
                .map_err(|_| format!("headers[{i}].name: `{}` is not a header's name", test.name))?;
            Ok::<_, String>((
                name,
                Test::compile(test).map_err(|e| format!("headers[{i}].value: {e}"))?,
            ))
        };
        let parameter = |(i, test): (usize, &v1::ValueMatch)| {
            let compiled = Test::compile(test).map_err(|e| format!("query[{i}].value: {e}"))?;
            Ok::<_, String>((test.name.as_str().into(), compiled))
        };
        let cookie = |(i, test): (usize, &v1::ValueMatch)| {
            let compiled = Test::compile(test).map_err(|e| format!("cookies[{i}].value: {e}"))?;
            Ok::<_, String>((test.name.as_str().into(), compiled))
        };
        Ok(Self {
            path: Path::compile(config.path.as_ref()).map_err(|e| format!("path.{e}"))?,
            order: Order {
                any_method: method.is_none(),
                // A cookie is a part of a header.
                headers: Reverse(config.headers.len() + config.cookies.len()),
                query: Reverse(config.query.len()),
                route: route.clone(),
                rule: at,
                number,
            },
            rule: Arc::clone(rule),
            in_order: false,
            method,
            headers: config
                .headers
                .iter()
                .enumerate()
                .map(header)
                .collect::<Result<_, _>>()?,
            query: config
                .query
                .iter()
                .enumerate()
                .map(parameter)
                .collect::<Result<_, _>>()?,
            cookies: config
                .cookies
                .iter()
                .enumerate()
                .map(cookie)
                .collect::<Result<_, _>>()?,
        })
    }

    /// The key of its route.
    pub fn route(&self) -> &Arc<str> {
        &self.order.route.key
    }

    /// True if everything but the path is as wanted.
    pub fn accepts(&self, head: &Parts) -> bool {
        self.method.as_ref().is_none_or(|method| head.method == *method)
            && self
                .headers
                .iter()
                .all(|(name, test)| header_value(head, name).is_some_and(|v| test.accepts(&v)))
            && (self.query.is_empty() || {
                let query = head.uri.query().unwrap_or_default();
                self.query
                    .iter()
                    .all(|(name, test)| parameter_matches(query, name, test))
            })
            && self
                .cookies
                .iter()
                .all(|(name, test)| cookie(head, name).is_some_and(|value| test.accepts(value.as_bytes())))
    }
}

impl Path {
    /// Length of the prefix, if it is one.
    pub fn prefix(&self) -> Option<usize> {
        match self {
            Self::Prefix(prefix) => Some(prefix.len()),
            Self::Exact(_) | Self::Regex(_) => None,
        }
    }

    /// Reads the resource; `None` covers everything.
    ///
    /// # Errors
    /// `field: reason` of what cannot be honoured.
    pub fn compile(config: Option<&v1::PathMatch>) -> Result<Self, String> {
        let Some(config) = config else {
            return Ok(Self::Prefix("".into()));
        };
        let value = config.value.as_str();
        let rooted = || {
            if value.starts_with('/') {
                Ok(())
            } else {
                Err(format!("value: `{value}` does not begin with `/`"))
            }
        };
        match config.kind() {
            Kind::Exact => rooted().map(|()| Self::Exact(value.into())),
            Kind::Prefix => rooted().map(|()| Self::Prefix(value.trim_end_matches('/').into())),
            Kind::Regex => whole(value).map(Self::Regex).map_err(|e| format!("value: {e}")),
            Kind::Unspecified => Err("kind: not set, or one that this version does not know".into()),
        }
    }

    /// True if this path is one of those.
    pub fn covers(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *path,
            Self::Prefix(prefix) => path
                .strip_prefix(&**prefix)
                .is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('/')),
            Self::Regex(regex) => regex.is_match(path.as_bytes()),
        }
    }
}

impl Test {
    fn compile(config: &v1::ValueMatch) -> Result<Self, String> {
        if config.regex {
            whole(&config.value).map(Self::Regex)
        } else {
            Ok(Self::Exact(config.value.as_bytes().into()))
        }
    }

    fn accepts(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => **wanted == *value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// An expression that has to match the whole value.
pub(crate) fn whole(pattern: &str) -> Result<Regex, String> {
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(REGEX_SIZE)
            .dfa_size_limit(REGEX_CACHE)
            .build()
            .map_err(|error| {
                // The error shows the expression over several lines; the last one says what is wrong.
                let text = error.to_string();
                let reason = text
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim_start_matches("error: ")
                    .to_owned();
                format!("`{pattern}` is not a regular expression: {reason}")
            })
    };
    // On its own first: `a)|(b` must not become whole by the parentheses around it.
    build(pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
}

/// The value of a header; several are joined by commas (RFC 9110, 5.2).
pub(crate) fn header_value<'a>(head: &'a Parts, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = head.headers.get_all(name).iter();
    let Some(first) = values.next() else {
        // HTTP/2 has the host in a pseudo header.
        return (name == HOST)
            .then(|| head.uri.authority())
            .flatten()
            .map(|host| host.as_str().as_bytes().into());
    };
    Some(joined(first.as_bytes(), &head.headers, name))
}

fn joined<'a>(first: &'a [u8], headers: &HeaderMap, name: &HeaderName) -> Cow<'a, [u8]> {
    let mut more = headers.get_all(name).iter().skip(1).peekable();
    if more.peek().is_none() {
        return first.into();
    }
    let mut all = first.to_vec();
    for value in more {
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    all.into()
}

/// True if the first parameter of this name is as wanted, as it is written or decoded.
fn parameter_matches(query: &str, name: &str, test: &Test) -> bool {
    let mut pairs = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let found = pairs.find(|(key, _)| *key == name || *decoded(key) == *name.as_bytes());
    found.is_some_and(|(_, value)| test.accepts(value.as_bytes()) || test.accepts(&decoded(value)))
}

/// Form decoding (`+` is a space). Borrows if there is nothing to decode.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return percent_decode_str(&spaced).collect::<Vec<u8>>().into();
    }
    percent_decode_str(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(value: &str, regex: bool) -> Test {
        Test::compile(&v1::ValueMatch {
            name: "n".into(),
            value: value.into(),
            regex,
        })
        .unwrap()
    }

    #[test]
    fn expressions_match_the_whole() {
        assert!(test("a|ab", true).accepts(b"ab"));
        assert!(!test("a|b", true).accepts(b"xa"));
        assert!(!test("a", true).accepts(b"a\n"));
        assert!(whole("a)|(b").unwrap_err().contains("not a regular expression"));
        assert!(whole("(a{1000}){1000}").is_err());
    }

    #[test]
    fn query_parameters() {
        let matches = |query, value: &str| parameter_matches(query, "n", &test(value, false));
        assert!(matches("a=b&n=x", "x"));
        assert!(matches("n=a%20b", "a b") && matches("n=a+b", "a b") && matches("n=a%20b", "a%20b"));
        assert!(matches("%6E=x", "x"));
        assert!(matches("n", ""));
        assert!(!matches("n=y&n=x", "x"), "the first one counts");
        assert!(!matches("", ""));
    }

    #[test]
    fn header_values_are_joined() {
        let request = |builder: http::request::Builder| builder.body(()).unwrap().into_parts().0;
        let name = HeaderName::from_static("n");
        let two = request(http::Request::builder().header("n", "a").header("n", "b"));
        assert_eq!(header_value(&two, &name).unwrap(), b"a,b".as_slice());
        let host = request(http::Request::builder().uri("http://example.com/"));
        assert_eq!(header_value(&host, &HOST).unwrap(), b"example.com".as_slice());
        assert!(header_value(&host, &name).is_none());
    }
}
