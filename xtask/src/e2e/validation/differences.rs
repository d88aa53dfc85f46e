//! What differs between the two sides, each thing once, with the smallest object that shows it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::judge::{Cause, Verdict};

/// Differences that are meant: the kind, the place, and why.
const MEANT: &[(&str, &str, &str)] = &[
    (
        "EnvoyProxy",
        "spec.provider.kubernetes.envoyDaemonSet.initContainers",
        OURS,
    ),
    (
        "EnvoyProxy",
        "spec.provider.kubernetes.envoyDeployment.container.imagePullPolicy",
        OURS,
    ),
    (
        "EnvoyProxy",
        "spec.provider.kubernetes.envoyDaemonSet.container.imagePullPolicy",
        OURS,
    ),
];

const OURS: &str = "a field that Sluice has besides; manifests for Envoy Gateway cannot have it";

/// How many characters of an object are printed.
const SHOWN: usize = 3000;

/// What makes a difference the same as another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: String,
    place: String,
    what: String,
}

/// Where it was seen.
#[derive(Debug)]
struct Seen {
    times: usize,
    object: Value,
}

/// All differences so far.
#[derive(Debug, Default)]
pub struct Differences {
    all: BTreeMap<Key, Seen>,
    /// Objects that both sides treat the same: those they admit, those they refuse.
    pub admitted: usize,
    pub refused: usize,
}

impl Differences {
    /// Compares what became of an object.
    pub fn compare(&mut self, kind: &str, object: &Value, theirs: &Verdict, ours: &Verdict) {
        match (theirs, ours) {
            (Verdict::Refused(_), Verdict::Refused(_)) => self.refused += 1,
            (Verdict::Admitted(theirs), Verdict::Admitted(ours)) => {
                match first(theirs, ours, String::new()) {
                    None => self.admitted += 1,
                    Some((place, what)) => self.add(kind, place, what, object),
                }
            }
            (Verdict::Refused(causes), Verdict::Admitted(_)) => {
                self.refusals(kind, object, "is refused by theirs alone", causes);
            }
            (Verdict::Admitted(_), Verdict::Refused(causes)) => {
                self.refusals(kind, object, "is refused by ours alone", causes);
            }
        }
    }

    fn refusals(&mut self, kind: &str, object: &Value, what: &str, causes: &[Cause]) {
        for cause in causes {
            let what = format!("{what}: {}", general(&cause.message));
            self.add(kind, general_place(&cause.field), what, object);
        }
    }

    fn add(&mut self, kind: &str, place: String, what: String, object: &Value) {
        let key = Key {
            kind: kind.to_owned(),
            place,
            what,
        };
        let seen = self.all.entry(key).or_insert_with(|| Seen {
            times: 0,
            object: object.clone(),
        });
        seen.times += 1;
        if object.to_string().len() < seen.object.to_string().len() {
            seen.object = object.clone();
        }
    }

    /// Those that are not meant.
    pub fn number(&self) -> usize {
        self.all.keys().filter(|key| meant(key).is_none()).count()
    }
}

fn meant(key: &Key) -> Option<&'static str> {
    MEANT
        .iter()
        .find(|(kind, place, _)| key.kind == *kind && key.place == *place)
        .map(|(_, _, reason)| *reason)
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (Key { kind, place, what }, seen) in &self.all {
            let key = Key {
                kind: kind.clone(),
                place: place.clone(),
                what: what.clone(),
            };
            if let Some(reason) = meant(&key) {
                writeln!(f, "{kind} {place}: as meant: {reason}")?;
                continue;
            }
            let object: String = seen.object.to_string().chars().take(SHOWN).collect();
            writeln!(f, "{kind} {place}: {what} ({} times)\n    {object}", seen.times)?;
        }
        Ok(())
    }
}

/// The first place where two values differ, and how.
fn first(theirs: &Value, ours: &Value, place: String) -> Option<(String, String)> {
    match (theirs, ours) {
        (Value::Object(one), Value::Object(other)) => {
            for (name, value) in one {
                let place = if place.is_empty() {
                    name.clone()
                } else {
                    format!("{place}.{name}")
                };
                let found = match other.get(name) {
                    Some(ours) => first(value, ours, place),
                    None => Some((place, format!("theirs has {value}, ours nothing"))),
                };
                if found.is_some() {
                    return found;
                }
            }
            let (name, value) = other.iter().find(|(name, _)| !one.contains_key(*name))?;
            Some((
                format!("{place}.{name}"),
                format!("ours has {value}, theirs nothing"),
            ))
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => one
            .iter()
            .zip(other)
            .find_map(|(theirs, ours)| first(theirs, ours, format!("{place}[]"))),
        _ if theirs == ours => None,
        _ => Some((place, format!("theirs has {theirs}, ours {ours}"))),
    }
}

/// A place without the numbers of items and the keys of maps.
fn general_place(field: &str) -> String {
    static PART: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\[[^\]]*\]").ok());
    PART.as_ref().map_or_else(
        || field.to_owned(),
        |part| part.replace_all(field, "[]").into_owned(),
    )
}

/// A message without the value that it is about.
fn general(message: &str) -> String {
    static VALUE: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r#"(?s)^([A-Z][a-z]+(?: [a-z]+)*): (?:"(?:[^"\\]|\\.)*"|[^:"{]*|\{.*\}|null): "#).ok()
    });
    let text = VALUE.as_ref().map_or_else(
        || message.to_owned(),
        |value| value.replace(message, "$1: ").into_owned(),
    );
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(field: &str, message: &str) -> Verdict {
        Verdict::Refused(vec![Cause {
            field: field.to_owned(),
            message: message.to_owned(),
        }])
    }

    #[test]
    fn a_difference_is_told_once_with_its_smallest_object() {
        let mut all = Differences::default();
        let admitted = Verdict::Admitted(json!({}));
        for (object, value) in [(json!({"a": "long"}), "long"), (json!({"a": "s"}), "s")] {
            let message = format!("Invalid value: \"{value}\": spec.a in body should match '^x$'");
            all.compare("Kind", &object, &refused("spec.a[3].b", &message), &admitted);
        }
        assert_eq!(all.number(), 1);
        let text = all.to_string();
        assert!(
            text.contains("Kind spec.a[].b: is refused by theirs alone"),
            "{text}"
        );
        assert!(
            text.contains("(2 times)") && text.contains(r#"{"a":"s"}"#),
            "{text}"
        );
    }

    #[test]
    fn agreement_is_none() {
        let mut all = Differences::default();
        all.compare("Kind", &json!({}), &refused("a", "one"), &refused("b", "other"));
        all.compare(
            "Kind",
            &json!({}),
            &Verdict::Admitted(json!({"a": 1})),
            &Verdict::Admitted(json!({"a": 1})),
        );
        assert_eq!((all.number(), all.admitted, all.refused), (0, 1, 1));
    }

    #[test]
    fn defaults_that_differ_are_found_where_they_are() {
        let found = |theirs: Value, ours: Value| first(&theirs, &ours, String::new());
        let place = found(
            json!({"spec": {"a": [{"b": 1}]}}),
            json!({"spec": {"a": [{"b": 2}]}}),
        );
        assert_eq!(
            place,
            Some(("spec.a[].b".to_owned(), "theirs has 1, ours 2".to_owned()))
        );
        let place = found(json!({"a": 1}), json!({"a": 1, "b": 2}));
        assert_eq!(place.unwrap().1, "ours has 2, theirs nothing");
    }
}
