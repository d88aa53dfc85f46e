//! Setting, adding and removing header fields.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use sluice_config::v1;

use super::text::TextMatch;
use crate::listen::Fingerprints;

/// Changes to a set of header fields: removals first, then `set`, `add` and `add_if_absent`.
#[derive(Debug, Default)]
pub struct HeaderModifier {
    set: Vec<(HeaderName, Value)>,
    add: Vec<(HeaderName, Value)>,
    remove: Vec<HeaderName>,
    add_if_absent: Vec<(HeaderName, Value)>,
    remove_on_match: Vec<TextMatch>,
}

/// What a field is given.
#[derive(Debug)]
enum Value {
    Plain(HeaderValue),
    Ja3,
    Ja4,
}

impl Value {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "%TLS_JA3_FINGERPRINT%" => Self::Ja3,
            "%TLS_JA4_FINGERPRINT%" => Self::Ja4,
            text => Self::Plain(value(text)?),
        })
    }

    fn of(&self, fingerprints: Option<&Fingerprints>) -> Option<HeaderValue> {
        match self {
            Self::Plain(value) => Some(value.clone()),
            Self::Ja3 => fingerprints?.ja3.clone(),
            Self::Ja4 => fingerprints?.ja4.clone(),
        }
    }
}

impl HeaderModifier {
    /// Parses names and values.
    ///
    /// # Errors
    /// Names the first that is none.
    pub fn compile(config: &v1::HeaderModifier) -> Result<Self, String> {
        let pairs = |headers: &[v1::Header]| {
            headers
                .iter()
                .map(|h| Ok((name(&h.name)?, Value::parse(&h.value)?)))
                .collect::<Result<_, String>>()
        };
        Ok(Self {
            set: pairs(&config.set)?,
            add: pairs(&config.add)?,
            remove: config.remove.iter().map(|n| name(n)).collect::<Result<_, _>>()?,
            add_if_absent: pairs(&config.add_if_absent)?,
            remove_on_match: config
                .remove_on_match
                .iter()
                .map(TextMatch::compile)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Applies the changes where nothing is known of the client's TLS.
    pub fn apply(&self, headers: &mut HeaderMap) {
        self.apply_with(headers, None);
    }

    /// Applies the changes. A field that is to say a fingerprint which is not known is not there afterwards.
    pub fn apply_with(&self, headers: &mut HeaderMap, fingerprints: Option<&Fingerprints>) {
        for name in &self.remove {
            headers.remove(name);
        }
        if !self.remove_on_match.is_empty() {
            self.remove_matching(headers);
        }
        for (name, value) in &self.set {
            match value.of(fingerprints) {
                Some(value) => drop(headers.insert(name, value)),
                None => drop(headers.remove(name)),
            }
        }
        for (name, value) in &self.add {
            if let Some(value) = value.of(fingerprints) {
                headers.append(name, value);
            }
        }
        for (name, value) in &self.add_if_absent {
            if !headers.contains_key(name)
                && let Some(value) = value.of(fingerprints)
            {
                headers.insert(name, value);
            }
        }
    }

    /// The host stays: without it there is no request.
    fn remove_matching(&self, headers: &mut HeaderMap) {
        let matches = |name: &HeaderName| {
            name != http::header::HOST
                && self
                    .remove_on_match
                    .iter()
                    .any(|pattern| pattern.accepts(name.as_str()))
        };
        let named: Vec<_> = headers.keys().filter(|name| matches(name)).cloned().collect();
        for name in named {
            headers.remove(name);
        }
    }
}

/// Parses a header name; the empty one is none.
pub(super) fn optional_name(text: &str) -> Result<Option<HeaderName>, String> {
    if text.is_empty() {
        Ok(None)
    } else {
        name(text).map(Some)
    }
}

/// Parses a header name.
pub(super) fn name(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a header name"))
}

/// Parses a header value.
pub(super) fn value(value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value).map_err(|_| format!("`{}` is not a header value", value.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> v1::Header {
        v1::Header {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn set_replaces_add_appends_remove_removes() {
        let modifier = HeaderModifier::compile(&v1::HeaderModifier {
            set: vec![header("X-Set", "new")],
            add: vec![header("X-Add", "2")],
            remove: vec!["X-Remove".into()],
            add_if_absent: vec![header("X-Set", "kept out"), header("X-Absent", "1")],
            remove_on_match: vec![v1::StringMatch {
                kind: v1::string_match::Kind::Prefix.into(),
                value: "x-internal-".into(),
            }],
        })
        .unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-set", "old"),
            ("x-set", "older"),
            ("x-add", "1"),
            ("x-remove", "gone"),
            ("x-internal-a", "gone"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        modifier.apply(&mut headers);
        assert_eq!(headers.get_all("x-set").iter().collect::<Vec<_>>(), ["new"]);
        assert_eq!(headers.get_all("x-add").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert!(!headers.contains_key("x-remove"));
        assert!(!headers.contains_key("x-internal-a"));
        assert_eq!(headers["x-absent"], "1");
    }

    #[test]
    fn fingerprints_are_said_where_they_are_known() {
        let modifier = HeaderModifier::compile(&v1::HeaderModifier {
            set: vec![header("x-ja4", "%TLS_JA4_FINGERPRINT%")],
            add_if_absent: vec![header("x-ja3", "%TLS_JA3_FINGERPRINT%")],
            ..Default::default()
        })
        .unwrap();
        let known = Fingerprints {
            ja3: None,
            ja4: Some(HeaderValue::from_static("t13d")),
        };
        for (known, expected) in [(Some(&known), Some("t13d")), (None, None)] {
            let mut headers = HeaderMap::new();
            headers.insert("x-ja4", HeaderValue::from_static("forged"));
            modifier.apply_with(&mut headers, known);
            assert_eq!(
                headers.get("x-ja4").map(|value| value.to_str().unwrap()),
                expected
            );
            assert!(!headers.contains_key("x-ja3"));
        }
    }

    #[test]
    fn names_what_is_wrong() {
        let bad = v1::HeaderModifier {
            set: vec![header("a b", "1")],
            ..Default::default()
        };
        assert!(HeaderModifier::compile(&bad).unwrap_err().contains("`a b`"));
        let bad = v1::HeaderModifier {
            set: vec![header("a", "1\n2")],
            ..Default::default()
        };
        assert!(
            HeaderModifier::compile(&bad)
                .unwrap_err()
                .contains("not a header value")
        );
    }
}
