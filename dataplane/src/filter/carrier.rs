//! Where a request carries a key or a token: a header, a query parameter, a cookie.

use std::borrow::Cow;

use http::header::{COOKIE, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;
use sluice_config::v1;

use super::headers;

/// One place in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    /// What comes after the prefix in a header.
    Header(HeaderName, Box<str>),
    /// A query parameter.
    Query(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
}

impl Carrier {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names what is missing or no name.
    pub fn compile(config: &v1::ValueSource) -> Result<Self, String> {
        use v1::value_source::Source;
        let named = |name: &str| {
            if name.is_empty() {
                Err("has no name".to_owned())
            } else {
                Ok(name.into())
            }
        };
        Ok(match config.source.as_ref().ok_or("not set")? {
            Source::Header(header) => {
                Self::Header(headers::name(&header.name)?, header.prefix.as_str().into())
            }
            Source::Query(name) => Self::Query(named(name)?),
            Source::Cookie(name) => Self::Cookie(named(name)?),
        })
    }

    /// Reads a list of resources.
    ///
    /// # Errors
    /// As [`Carrier::compile`], with the index in front; also if the list is empty.
    pub fn compile_all(config: &[v1::ValueSource]) -> Result<Box<[Self]>, String> {
        if config.is_empty() {
            return Err("sources: empty".into());
        }
        let compile = |(i, source)| Self::compile(source).map_err(|e| format!("sources[{i}]: {e}"));
        config.iter().enumerate().map(compile).collect()
    }

    /// The value that the request carries here; an empty one is none.
    pub fn read<'h>(&self, head: &'h Parts) -> Option<Cow<'h, str>> {
        let value = match self {
            Self::Header(name, prefix) => head
                .headers
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .find_map(|value| strip_prefix(value, prefix))
                .map(|value| Cow::Borrowed(value.trim()))?,
            Self::Query(name) => query(head, name)?,
            Self::Cookie(name) => Cow::Borrowed(cookie(head, name)?),
        };
        (!value.is_empty()).then_some(value)
    }

    /// Removes it from the request.
    pub fn remove(&self, head: &mut Parts) {
        match self {
            Self::Header(name, _) => drop(head.headers.remove(name)),
            Self::Query(name) => remove_query(head, name),
            Self::Cookie(name) => remove_cookie(head, name),
        }
    }
}

/// Schemes are compared without regard to case (RFC 9110 section 11.1).
fn strip_prefix<'v>(value: &'v str, prefix: &str) -> Option<&'v str> {
    let (start, rest) = value.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The first query parameter of this name, decoded; `None` if it is not UTF-8.
pub fn query<'h>(head: &'h Parts, name: &str) -> Option<Cow<'h, str>> {
    pairs(head.uri.query()?)
        .find(|(key, _)| is_name(key, name))
        .and_then(|(_, value)| percent_decode_str(value).decode_utf8().ok())
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn is_name(written: &str, name: &str) -> bool {
    written == name || percent_decode_str(written).eq(name.bytes())
}

fn remove_query(head: &mut Parts, name: &str) {
    let Some(query) = head.uri.query() else { return };
    let kept: Vec<_> = query
        .split('&')
        .filter(|pair| !is_name(pair.split('=').next().unwrap_or_default(), name))
        .collect();
    let target = if kept.is_empty() {
        head.uri.path().to_owned()
    } else {
        format!("{}?{}", head.uri.path(), kept.join("&"))
    };
    // Parts of a valid URI make a valid one.
    if let Ok(target) = PathAndQuery::try_from(target) {
        head.uri = target.into();
    }
}

/// The cookie of this name (RFC 6265 section 5.4).
pub fn cookie<'h>(head: &'h Parts, name: &str) -> Option<&'h str> {
    cookies(head)
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().trim_matches('"'))
}

fn cookies(head: &Parts) -> impl Iterator<Item = &str> {
    head.headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .map(str::trim)
}

fn remove_cookie(head: &mut Parts, name: &str) {
    let kept: Vec<_> = cookies(head)
        .filter(|pair| pair.split('=').next().is_some_and(|key| key.trim() != name))
        .collect();
    let line = kept.join("; ");
    head.headers.remove(COOKIE);
    if let Ok(line) = HeaderValue::try_from(line)
        && !line.is_empty()
    {
        head.headers.insert(COOKIE, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn values_are_read_and_removed() {
        let mut head = head(
            "/a?x=1&k%65y=a%20b&y=2",
            &[
                ("authorization", "Basic eA=="),
                ("authorization", "bearer abc"),
                ("cookie", "a=1; key=\"quoted\"; b=2"),
            ],
        );
        let header = Carrier::Header(http::header::AUTHORIZATION, "Bearer ".into());
        let query = Carrier::Query("key".into());
        let cookie = Carrier::Cookie("key".into());
        assert_eq!(header.read(&head).as_deref(), Some("abc"));
        assert_eq!(query.read(&head).as_deref(), Some("a b"));
        assert_eq!(cookie.read(&head).as_deref(), Some("quoted"));
        for carrier in [header, query, cookie] {
            carrier.remove(&mut head);
            assert_eq!(carrier.read(&head), None);
        }
        assert_eq!(head.uri, "/a?x=1&y=2");
        assert_eq!(head.headers[COOKIE], "a=1; b=2");
        Carrier::Query("x".into()).remove(&mut head);
        Carrier::Query("y".into()).remove(&mut head);
        assert_eq!(head.uri, "/a");
    }

    #[test]
    fn odd_values_are_none() {
        let odd = head(
            "/?key",
            &[
                ("authorization", "Bear"),
                ("authorization", "B\u{e4}rer x"),
                ("cookie", "key=; =;;keys=1"),
            ],
        );
        for carrier in [
            Carrier::Header(http::header::AUTHORIZATION, "Bearer ".into()),
            Carrier::Query("key".into()),
            Carrier::Cookie("key".into()),
        ] {
            assert_eq!(carrier.read(&odd), None, "{carrier:?}");
        }
        let invalid = head("/?key=%ff", &[]);
        assert_eq!(Carrier::Query("key".into()).read(&invalid), None);
    }
}
