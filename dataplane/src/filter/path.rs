//! Changing the path, for rewrites and for redirects, and the host.

use std::fmt::Write;

use http::header::{HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use regex::{Regex, RegexBuilder};
use sluice_config::v1;

use super::headers;
use crate::route::{REGEX_CACHE, REGEX_SIZE};

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How a path is replaced. The query stays as it is.
#[derive(Debug, Clone)]
pub enum PathModifier {
    /// The whole path.
    Full(Box<str>),
    /// The part that the rule's prefix matched; kept without a slash at its end.
    Prefix(Box<str>),
    /// Every part that the expression matches, by a text in which `${1}` stands for a group.
    Regex(Box<Regex>, Box<str>),
}

impl PathModifier {
    /// Reads the resource.
    ///
    /// # Errors
    /// If the replacement cannot stand in a URL.
    pub fn compile(config: &v1::PathModifier) -> Result<Option<Self>, String> {
        use v1::path_modifier::Modifier;
        let check = |path: &str| {
            let rooted = if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            };
            PathAndQuery::try_from(rooted.as_str()).map_err(|_| format!("path: `{path}` is not a path"))?;
            Ok::<_, String>(rooted)
        };
        Ok(match &config.modifier {
            None => None,
            Some(Modifier::ReplaceFullPath(path)) => Some(Self::Full(check(path)?.into())),
            Some(Modifier::ReplaceRegexMatch(rewrite)) => Some(Self::compile_regex(rewrite)?),
            Some(Modifier::ReplacePrefixMatch(path)) => {
                Some(Self::Prefix(check(path)?.trim_end_matches('/').into()))
            }
        })
    }

    fn compile_regex(config: &v1::RegexRewrite) -> Result<Self, String> {
        let regex = RegexBuilder::new(&config.pattern)
            .size_limit(REGEX_SIZE)
            .dfa_size_limit(REGEX_CACHE)
            .build()
            .map_err(|_| format!("path: `{}` is not a regular expression", config.pattern))?;
        let mut template = String::new();
        let mut characters = config.substitution.chars();
        while let Some(character) = characters.next() {
            match character {
                '$' => template.push_str("$$"),
                '\\' => match characters.next() {
                    Some('\\') => template.push('\\'),
                    Some(digit @ '0'..='9') => {
                        let group = digit as usize - '0' as usize;
                        if group >= regex.captures_len() {
                            return Err(format!("path: there is no group {group} in `{}`", config.pattern));
                        }
                        // Writing to a text cannot fail.
                        let _ = write!(template, "${{{group}}}");
                    }
                    _ => return Err(format!("path: `{}` is not a substitution", config.substitution)),
                },
                other => template.push(other),
            }
        }
        Ok(Self::Regex(Box::new(regex), template.into()))
    }

    /// The new path. `prefix` is the length of what the rule's prefix matched; without it a prefix is left alone.
    pub fn apply(&self, path: &str, prefix: Option<usize>) -> String {
        match self {
            Self::Full(new) => new.to_string(),
            Self::Regex(regex, template) => regex.replace_all(path, &**template).into_owned(),
            Self::Prefix(new) => {
                let Some(matched) = prefix.and_then(|n| path.get(..n)) else {
                    return path.to_owned();
                };
                let rest = &path[matched.trim_end_matches('/').len()..];
                let joined = format!("{new}{rest}");
                if joined.starts_with('/') {
                    joined
                } else {
                    format!("/{joined}")
                }
            }
        }
    }
}

/// Rewrites host and path of a request before it is forwarded.
#[derive(Debug)]
pub struct UrlRewrite {
    host: Option<HeaderValue>,
    host_from: Option<HeaderName>,
    /// What the path becomes by this is the new host.
    host_from_path: Option<PathModifier>,
    append_forwarded_host: bool,
    /// True: the new host is the endpoint's own name.
    pub host_of_backend: bool,
    path: Option<PathModifier>,
}

impl UrlRewrite {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::UrlRewrite) -> Result<Self, String> {
        let host = match config.hostname.as_str() {
            "" => None,
            host => Some(headers::value(host).map_err(|e| format!("hostname: {e}"))?),
        };
        let path = config
            .path
            .as_ref()
            .map(PathModifier::compile)
            .transpose()?
            .flatten();
        Ok(Self {
            host,
            host_from: headers::optional_name(&config.hostname_from_header)
                .map_err(|e| format!("hostname_from_header: {e}"))?,
            host_from_path: config
                .hostname_from_path
                .as_ref()
                .map(PathModifier::compile_regex)
                .transpose()
                .map_err(|e| format!("hostname_from_path.{e}"))?,
            append_forwarded_host: config.append_x_forwarded_host,
            host_of_backend: config.hostname_from_backend,
            path,
        })
    }

    /// Rewrites the request. `path` is the path that was routed on, `prefix` what was matched of it.
    pub fn apply(&self, head: &mut Parts, path: &str, prefix: Option<usize>) {
        let from_path = || {
            let Some(PathModifier::Regex(regex, template)) = &self.host_from_path else {
                return None;
            };
            let host = regex
                .is_match(path)
                .then(|| regex.replace_all(path, &**template))?;
            as_host(&HeaderValue::from_str(&host).ok()?)
        };
        let host = self
            .host
            .clone()
            .or_else(from_path)
            .or_else(|| as_host(head.headers.get(self.host_from.as_ref()?)?));
        if let Some(host) = host {
            self.set_host(head, host);
        }
        if let Some(modifier) = &self.path {
            set_path(head, &modifier.apply(path, prefix));
        }
    }

    /// Rewrites the host to that of an endpoint, if it has a name.
    pub fn apply_backend(&self, head: &mut Parts, hostname: &str) {
        if let Ok(host) = HeaderValue::try_from(hostname)
            && !host.is_empty()
        {
            self.set_host(head, host);
        }
    }

    fn set_host(&self, head: &mut Parts, host: HeaderValue) {
        let before = head.headers.insert(HOST, host);
        if self.append_forwarded_host
            && let Some(before) = before
        {
            append(head, X_FORWARDED_HOST, &before);
        }
    }
}

/// The value, if it is a host, perhaps with a port: nobody is named before it.
fn as_host(value: &HeaderValue) -> Option<HeaderValue> {
    let authority = Authority::try_from(value.as_bytes()).ok()?;
    (!authority.as_str().contains('@')).then(|| value.clone())
}

/// Appends to a header that is a list.
fn append(head: &mut Parts, name: HeaderName, value: &HeaderValue) {
    let joined = match head.headers.get(&name) {
        Some(list) => [list.as_bytes(), value.as_bytes()].join(&b","[..]),
        None => value.as_bytes().to_vec(),
    };
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        head.headers.insert(name, joined);
    }
}

/// Replaces the path; the query stays.
pub fn set_path(head: &mut Parts, path: &str) {
    let target = match head.uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    // Most halves have been part of a valid URI, so this holds; where it does not, the request keeps its path.
    if let Ok(target) = target {
        head.uri = http::Uri::from(target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(replacement: &str) -> PathModifier {
        let modifier = Some(v1::path_modifier::Modifier::ReplacePrefixMatch(
            replacement.into(),
        ));
        PathModifier::compile(&v1::PathModifier { modifier })
            .unwrap()
            .unwrap()
    }

    #[test]
    fn a_host_may_come_from_the_path() {
        let host = |path: &str, substitution: &str| {
            let rewrite = UrlRewrite::compile(&v1::UrlRewrite {
                hostname_from_path: Some(v1::RegexRewrite {
                    pattern: "^/tenant/([^/]+)/.*".into(),
                    substitution: substitution.into(),
                }),
                ..Default::default()
            })
            .unwrap();
            let request = http::Request::builder().uri(path).header(HOST, "before");
            let (mut head, ()) = request.body(()).unwrap().into_parts();
            rewrite.apply(&mut head, path, None);
            head.headers[HOST].to_str().unwrap().to_owned()
        };
        assert_eq!(host("/tenant/acme/x", "\\1.example"), "acme.example");
        assert_eq!(host("/elsewhere", "\\1.example"), "before");
        assert_eq!(host("/tenant/a%20b@c/x", "\\1"), "before", "that is no host");
    }

    /// The table in the documentation of HTTPPathModifier.
    #[test]
    fn replaces_prefixes_as_documented() {
        for (path, matched, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo", "/", "/xyz", "/xyz/foo"),
            ("/", "/", "/xyz", "/xyz/"),
        ] {
            assert_eq!(
                prefix(replacement).apply(path, Some(matched.len())),
                expected,
                "{path} {matched} {replacement}"
            );
        }
        assert_eq!(prefix("/xyz").apply("/foo", None), "/foo");
    }

    #[test]
    fn rewriting_keeps_the_query() {
        let rewrite = UrlRewrite::compile(&v1::UrlRewrite {
            hostname: "two.example".into(),
            path: Some(v1::PathModifier {
                modifier: Some(v1::path_modifier::Modifier::ReplaceFullPath("/new".into())),
            }),
            append_x_forwarded_host: true,
            ..Default::default()
        })
        .unwrap();
        let (mut head, ()) = http::Request::get("/old?a=b")
            .header(HOST, "one.example")
            .body(())
            .unwrap()
            .into_parts();
        rewrite.apply(&mut head, "/old", None);
        assert_eq!(head.uri, "/new?a=b");
        assert_eq!(head.headers[HOST], "two.example");
        assert_eq!(head.headers[X_FORWARDED_HOST], "one.example");
        rewrite.apply(&mut head, "/old", None);
        assert_eq!(head.headers[X_FORWARDED_HOST], "one.example,two.example");
    }

    /// The table in the documentation of Envoy Gateway's ReplaceRegexMatch.
    #[test]
    fn replaces_by_expressions() {
        let compile = |pattern: &str, substitution: &str| {
            PathModifier::compile(&v1::PathModifier {
                modifier: Some(v1::path_modifier::Modifier::ReplaceRegexMatch(v1::RegexRewrite {
                    pattern: pattern.into(),
                    substitution: substitution.into(),
                })),
            })
        };
        for (pattern, substitution, path, expected) in [
            (
                r"^/service/([^/]+)(/.*)$",
                r"\2/instance/\1",
                "/service/foo/v1/api",
                "/v1/api/instance/foo",
            ),
            ("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
            (
                r"^(.*?)one(.*)$",
                r"\1two\2",
                "/xxx/one/yyy/one/zzz",
                "/xxx/two/yyy/one/zzz",
            ),
            ("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"),
            ("a", r"$1\\", "/a", r"/$1\"),
        ] {
            let modifier = compile(pattern, substitution).unwrap().unwrap();
            assert_eq!(modifier.apply(path, None), expected, "{pattern}");
        }
        for (pattern, substitution) in [("(", ""), ("(a)", r"\2"), ("a", r"\x"), ("a", r"\")] {
            assert!(
                compile(pattern, substitution).is_err(),
                "{pattern} {substitution}"
            );
        }
    }
}
