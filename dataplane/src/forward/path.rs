//! The normal form of a request's path, as Envoy Gateway has it by default: dot segments are resolved, slashes merged,
//! and a path with escaped slashes is not served but redirected to the unescaped one, since proxies and backends
//! disagree on what it names.

/// What has become of a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Normal {
    /// It is in normal form.
    Same,
    /// Its normal form.
    Rewritten(String),
    /// It had escaped slashes; its normal form without them.
    Unescaped(String),
}

/// Brings a path that begins with a slash into normal form.
/// Escaped slashes may be left as they are (`keep_escaped`), and adjacent ones need not be merged.
pub(super) fn normalise(path: &str, keep_escaped: bool, merge: bool) -> Normal {
    if is_normal(path.as_bytes()) {
        return Normal::Same;
    }
    let unescaped = if keep_escaped {
        path.to_owned()
    } else {
        unescape_slashes(path)
    };
    let had_escapes = unescaped.len() != path.len();
    let normal = resolve(&unescaped.replace('\\', "/"), merge);
    if had_escapes {
        Normal::Unescaped(normal)
    } else if normal == path {
        Normal::Same
    } else {
        Normal::Rewritten(normal)
    }
}

/// True if the path certainly needs no change; a look at each byte, no more.
fn is_normal(path: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in path {
        match byte {
            b'/' | b'.' if previous == b'/' => return false,
            b'%' | b'\\' => return false,
            _ => previous = byte,
        }
    }
    true
}

fn unescape_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let (slash, len) = match escape.as_bytes() {
            [_, b'2', b'f' | b'F', ..] => ("/", 3),
            [_, b'5', b'c' | b'C', ..] => ("\\", 3),
            _ => ("%", 1),
        };
        out.push_str(slash);
        rest = &escape[len..];
    }
    out.push_str(rest);
    out
}

/// Removes dot segments (RFC 3986 section 5.2.4), then empty ones if they are to be merged. Dots may be escaped.
fn resolve(path: &str, merge: bool) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_slash = false;
    for segment in path.split('/').skip(1) {
        ends_in_slash = true;
        match dots(segment) {
            1 => {}
            2 => {
                kept.pop();
            }
            _ => {
                kept.push(segment);
                ends_in_slash = segment.is_empty();
            }
        }
    }
    let mut out = String::with_capacity(path.len());
    if !merge && ends_in_slash && kept.last().is_some_and(|last| last.is_empty()) {
        // The slash at the end is this one.
        kept.pop();
    }
    for segment in kept.iter().filter(|segment| !merge || !segment.is_empty()) {
        out.push('/');
        out.push_str(segment);
    }
    if ends_in_slash || out.is_empty() {
        out.push('/');
    }
    out
}

/// How many dots a segment is, if it is nothing else.
fn dots(segment: &str) -> usize {
    let mut rest = segment;
    let mut count = 0;
    while !rest.is_empty() {
        rest = match rest.as_bytes() {
            [b'.', ..] => &rest[1..],
            [b'%', b'2', b'e' | b'E', ..] => &rest[3..],
            _ => return 0,
        };
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_may_keep_what_is_odd() {
        let keep = |path| normalise(path, true, false);
        for same in ["/a//b", "/a//", "//", "/a%2Fb", "/a/%5c"] {
            assert_eq!(keep(same), Normal::Same, "{same}");
        }
        for (path, expected) in [
            ("/a//./b", "/a//b"),
            ("/a//../b", "/a/b"),
            ("/a/../", "/"),
            ("/a\\b//", "/a/b//"),
        ] {
            assert_eq!(keep(path), Normal::Rewritten(expected.into()), "{path}");
        }
    }

    #[test]
    fn paths() {
        for same in [
            "/",
            "/a",
            "/a/",
            "/a/b.c",
            "/a%20b",
            "/a..b/..c",
            "/%41",
            "/a/...",
        ] {
            assert_eq!(normalise(same, false, true), Normal::Same, "{same}");
        }
        for (path, expected) in [
            ("//", "/"),
            ("/a//b", "/a/b"),
            ("/a///", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/../../a", "/a"),
            ("/a/%2e%2E/b", "/b"),
            ("/a//../b", "/a/b"),
            ("/a\\b", "/a/b"),
        ] {
            assert_eq!(
                normalise(path, false, true),
                Normal::Rewritten(expected.into()),
                "{path}"
            );
        }
        for (path, expected) in [
            ("/a%2Fb", "/a/b"),
            ("/a%5cb", "/a/b"),
            ("/a%2f..%2fb", "/b"),
            ("/%2F", "/"),
        ] {
            assert_eq!(
                normalise(path, false, true),
                Normal::Unescaped(expected.into()),
                "{path}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn a_normal_form_is_final(path in "/[a./%2eF\\\\]{0,20}") {
            let (Normal::Rewritten(normal) | Normal::Unescaped(normal)) = normalise(&path, false, true) else { return Ok(()) };
            proptest::prop_assert!(normal.starts_with('/'));
            proptest::prop_assert!(!normal.contains("//"));
            proptest::prop_assert!(normal.split('/').all(|segment| !matches!(dots(segment), 1 | 2)));
        }
    }
}
