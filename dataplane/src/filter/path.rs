//! Changing the path, for rewrites and for redirects, and the host.

use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use sluice_config::v1;

use super::headers;

/// How a path is replaced. The query stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathModifier {
    /// The whole path.
    Full(Box<str>),
    /// The part that the rule's prefix matched; kept without a slash at its end.
    Prefix(Box<str>),
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
            Some(Modifier::ReplaceRegexMatch(_)) => return Err("path: of a kind that this version does not know".into()),
            Some(Modifier::ReplacePrefixMatch(path)) => {
                Some(Self::Prefix(check(path)?.trim_end_matches('/').into()))
            }
        })
    }

    /// The new path. `prefix` is the length of what the rule's prefix matched; without it a prefix is left alone.
    pub fn apply(&self, path: &str, prefix: Option<usize>) -> String {
        match self {
            Self::Full(new) => new.to_string(),
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
        Ok(Self { host, path })
    }

    /// Rewrites the request. `path` is the path that was routed on, `prefix` what was matched of it.
    pub fn apply(&self, head: &mut Parts, path: &str, prefix: Option<usize>) {
        if let Some(host) = &self.host {
            head.headers.insert(HOST, host.clone());
        }
        if let Some(modifier) = &self.path {
            set_path(head, &modifier.apply(path, prefix));
        }
    }
}

/// Replaces the path; the query stays.
pub fn set_path(head: &mut Parts, path: &str) {
    let target = match head.uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    // Both halves have been part of a valid URI, so this holds; if not, the request keeps its path.
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
    }
}
