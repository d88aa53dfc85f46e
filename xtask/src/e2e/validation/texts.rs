//! Strings: a table of odd ones, such as match a pattern, such as almost do.

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use regex::Regex;
use regex_syntax::hir::{Class, Hir, HirKind};

/// Strings of the kinds that fields are for, and some that fit nowhere.
pub const ODD: &[&str] = &[
    "a",
    "example",
    "A",
    "",
    "a.b",
    "foo.example.com",
    "*.example.com",
    "*.com",
    "foo.*.com",
    "example.com.",
    "-x",
    "x-",
    "a_b",
    "a b",
    " a",
    "a ",
    "a-b",
    "X-Header",
    "x-header",
    ":path",
    ":authority",
    "_",
    ".",
    "..",
    "/",
    "/a",
    "/a/b",
    "/a?b#c",
    "//",
    "a/b",
    "a/b/c",
    "ns/name",
    "*",
    "**",
    "System",
    "0",
    "1",
    "00",
    "01",
    "-1",
    "65536",
    "8080",
    "100",
    "101%",
    "50%",
    "1.5",
    "0.5",
    "10s",
    "0s",
    "1h",
    "1m",
    "100ms",
    "1h30m",
    "1d",
    "s",
    "1.5s",
    "10",
    "-1s",
    "999999h",
    "1Gi",
    "1G",
    "32Ki",
    "0Ki",
    "500m",
    "1e3",
    "Gi",
    "10.0.0.0/8",
    "10.0.0.0/33",
    "10.0.0.0",
    "1.2.3.4",
    "1.2.3.256",
    "01.2.3.4",
    "::1",
    "::",
    "::1/128",
    "2001:db8::/32",
    "fe80::1%eth0",
    "::ffff:1.2.3.4",
    "http://a.b/c",
    "https://a.b/c",
    "https://a.b",
    "https://a.b:8443/c?d=e",
    "http://a.b/c#d",
    "https://user@a.b/",
    "ftp://a.b",
    "a://b",
    "https://",
    "HTTP://a.b",
    "GET",
    "get",
    "true",
    "false",
    "null",
    "None",
    "gateway.networking.k8s.io",
    "gateway.envoyproxy.io",
    "Gateway",
    "HTTPRoute",
    "Service",
    "Secret",
    "Backend",
    "${a}",
    "%a%",
    "%REQ(:path)%",
    "a,b",
    "a=b",
    "a;b",
    "a:b",
    "a\nb",
    "a\tb",
    "a\u{0}b",
    "é",
    "日本",
    "YWJj",
    "YQ==",
    "a\\b",
    "[",
    "(",
    "^a$",
    ".*",
    "2024-01-01T00:00:00Z",
    "2024-01-01",
    "550e8400-e29b-41d4-a716-446655440000",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// Strings in which a pattern is found: always the same ones for the same pattern.
pub fn matching(pattern: &str) -> Vec<String> {
    let (Ok(hir), Ok(compiled)) = (regex_syntax::parse(pattern), Regex::new(pattern)) else {
        return Vec::new();
    };
    let mut rng = StdRng::seed_from_u64(pattern.len() as u64);
    let mut found = Vec::new();
    for _ in 0..40 {
        let mut text = String::new();
        write(&hir, &mut rng, &mut text);
        if compiled.is_match(&text) && !found.contains(&text) {
            found.push(text);
        }
        if found.len() == 4 {
            break;
        }
    }
    found
}

fn write(hir: &Hir, rng: &mut StdRng, text: &mut String) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.push_str(&String::from_utf8_lossy(&literal.0)),
        HirKind::Class(class) => text.extend(member(class, rng)),
        HirKind::Repetition(repetition) => {
            let most = repetition.max.unwrap_or(u32::MAX).min(repetition.min + 3);
            for _ in 0..rng.random_range(repetition.min..=most) {
                write(&repetition.sub, rng, text);
            }
        }
        HirKind::Capture(capture) => write(&capture.sub, rng, text),
        HirKind::Concat(parts) => parts.iter().for_each(|part| write(part, rng, text)),
        HirKind::Alternation(parts) => write(&parts[rng.random_range(0..parts.len())], rng, text),
    }
}

/// A character of a class, a graphic one if there is one.
fn member(class: &Class, rng: &mut StdRng) -> Option<char> {
    let ranges: Vec<(u32, u32)> = match class {
        Class::Unicode(class) => class
            .iter()
            .map(|range| (range.start().into(), range.end().into()))
            .collect(),
        Class::Bytes(class) => class
            .iter()
            .map(|range| (range.start().into(), range.end().into()))
            .collect(),
    };
    let graphic: Vec<(u32, u32)> = ranges
        .iter()
        .map(|(start, end)| ((*start).max(0x21), (*end).min(0x7e)))
        .filter(|(start, end)| start <= end)
        .collect();
    let from = if graphic.is_empty() { ranges } else { graphic };
    let (start, end) = *from.get(rng.random_range(0..from.len().max(1)))?;
    char::from_u32(rng.random_range(start..=end))
}

/// A text with one thing wrong or other.
pub fn spoilt(text: &str, rng: &mut StdRng) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    let position = rng.random_range(0..=characters.len());
    match rng.random_range(0..4) {
        0 if position < characters.len() => drop(characters.remove(position)),
        1 if position < characters.len() => characters[position] = characters[position].to_ascii_uppercase(),
        2 => characters.push(' '),
        _ => characters.insert(
            position,
            ['-', '.', '/', ' ', '_', ':', '0', 'A', '@', '\n'][rng.random_range(0..10)],
        ),
    }
    characters.into_iter().collect()
}

/// A text made longer or shorter, by more of its first letters or fewer.
pub fn stretched(text: &str, length: usize) -> String {
    let first = text.chars().next().unwrap_or('a');
    let there = text.chars().count();
    if length < there {
        return text.chars().skip(there - length).collect();
    }
    let mut stretched = String::from(first).repeat(length - there);
    stretched.push_str(text);
    stretched
}

/// Whether a text has one of OpenAPI's formats, so far as the ones at hand go.
pub fn has_format(format: &str, text: &str) -> bool {
    match format {
        "byte" => matches!(text, "YWJj" | "YQ=="),
        "date-time" => text == "2024-01-01T00:00:00Z",
        "date" => text == "2024-01-01",
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text == "10.0.0.0/8",
        "uuid" => text.len() == 36,
        "uri" => text == "https://a.b/c",
        "hostname" => text == "foo.example.com",
        "duration" => text == "10s",
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_strings_match() {
        for pattern in [
            r"^([0-9]{1,5}(h|m|s|ms)){1,4}$",
            r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]+)*$",
            r"^[^\x00\n\r]*$",
            r"^(a|(b[.]\d{2}))/x$",
        ] {
            let all = matching(pattern);
            assert!(!all.is_empty(), "{pattern}");
            assert!(all.iter().all(|text| Regex::new(pattern).unwrap().is_match(text)));
        }
        assert!(matching("(").is_empty());
    }

    #[test]
    fn texts_get_the_length_that_is_wanted() {
        assert_eq!(stretched("/ab", 5), "///ab");
        assert_eq!(stretched("/ab", 2), "ab");
        assert_eq!(stretched("", 2), "aa");
    }

    #[test]
    fn a_spoilt_text_is_near_to_it() {
        let mut rng = StdRng::seed_from_u64(3);
        for _ in 0..50 {
            let length = spoilt("abc", &mut rng).len();
            assert!((2..=4).contains(&length));
        }
        assert_eq!(spoilt("", &mut rng).len(), 1);
    }
}
