//! Attributes as values of expressions.

use std::collections::HashMap;
use std::sync::Arc;

use cel::common::types::CelString;
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::objects::{Key, Map, Value};
use http::HeaderMap;

use super::bounds::ENTRIES;
use super::{Attribute, Attributes, ROOTS};

/// How deep a value of JSON may be nested.
const DEEPEST: usize = 16;

/// Looks attributes up when an expression asks for them.
pub(super) struct Resolver<'a>(pub(super) &'a dyn Attributes);

impl VariableResolver for Resolver<'_> {
    // The evaluator asks for the longest name first: `a.b.c`, `a.b`, `a`.
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(attribute) = self.0.attribute(variable) {
            return match attribute {
                Attribute::Text(text) => Some(CowVal::owned(CelString::from(text))),
                other => cowed(value(other)?),
            };
        }
        // What begins so, as a map.
        if !ROOTS.contains(&variable) {
            return None;
        }
        let mut whole = HashMap::new();
        for name in self.0.names() {
            let Some(last) = name
                .strip_prefix(variable)
                .and_then(|rest| rest.strip_prefix('.'))
            else {
                continue;
            };
            if let Some(held) = self.0.attribute(name).and_then(value) {
                whole.insert(Key::from(last), held);
            }
        }
        cowed(Value::Map(Map { map: Arc::new(whole) }))
    }
}

fn cowed<'b>(value: Value) -> Option<CowVal<'b, 'b>> {
    value.try_into().ok().map(CowVal::Owned)
}

fn value(attribute: Attribute<'_>) -> Option<Value> {
    Some(match attribute {
        Attribute::Text(text) => Value::from(text.into_owned()),
        Attribute::Int(number) => Value::Int(number),
        Attribute::Uint(number) => Value::UInt(number),
        Attribute::Bool(is) => Value::Bool(is),
        Attribute::Time(time) => Value::Timestamp(chrono::DateTime::<chrono::Utc>::from(time).fixed_offset()),
        Attribute::Duration(duration) => Value::Duration(chrono::Duration::from_std(duration).ok()?),
        Attribute::Fields { headers, more } => {
            let mut map = fields(headers)?;
            map.extend(
                more.into_iter()
                    .map(|(name, value)| (name.into(), Value::from(value.into_owned()))),
            );
            Value::Map(Map { map: Arc::new(map) })
        }
        Attribute::Json(json) => of_json(json, DEEPEST)?,
    })
}

/// Fields by their names, several of one name joined. `None`: there are too many.
fn fields(headers: &HeaderMap) -> Option<HashMap<Key, Value>> {
    if headers.keys_len() > ENTRIES {
        return None;
    }
    let joined = headers.keys().map(|name| {
        let mut joined = String::new();
        for (i, value) in headers.get_all(name).iter().enumerate() {
            if i > 0 {
                joined.push(',');
            }
            joined.push_str(&String::from_utf8_lossy(value.as_bytes()));
        }
        (Key::from(name.as_str()), Value::from(joined))
    });
    Some(joined.collect())
}

/// A value of JSON. `None`: it is too large.
fn of_json(json: serde_json::Value, depth: usize) -> Option<Value> {
    use serde_json::Value as J;
    let depth = depth.checked_sub(1)?;
    Some(match json {
        J::Null => Value::Null,
        J::Bool(is) => Value::Bool(is),
        // As Envoy has them: JSON knows one kind of number.
        J::Number(number) => Value::Float(number.as_f64()?),
        J::String(text) => Value::from(text),
        J::Array(list) => {
            if list.len() > ENTRIES {
                return None;
            }
            let items: Option<Vec<_>> = list.into_iter().map(|item| of_json(item, depth)).collect();
            Value::List(Arc::new(items?))
        }
        J::Object(map) => {
            if map.len() > ENTRIES {
                return None;
            }
            let items: Option<HashMap<_, _>> = map
                .into_iter()
                .map(|(name, item)| Some((Key::from(name), of_json(item, depth)?)))
                .collect();
            Value::Map(Map {
                map: Arc::new(items?),
            })
        }
    })
}

/// A value as JSON. `None`: it has no such form.
pub(super) fn json(value: &Value) -> Option<serde_json::Value> {
    Some(match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(is) => (*is).into(),
        Value::Int(number) => (*number).into(),
        Value::UInt(number) => (*number).into(),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it is checked to be whole and small"
        )]
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => (*number as i64).into(),
        Value::Float(number) => serde_json::Number::from_f64(*number)?.into(),
        Value::String(text) => text.as_str().into(),
        Value::Timestamp(time) => time.to_rfc3339().into(),
        Value::Duration(duration) => format!("{}s", duration.as_seconds_f64()).into(),
        Value::List(items) => items.iter().map(json).collect::<Option<Vec<_>>>()?.into(),
        Value::Map(map) => {
            let entry = |(name, value): (&Key, &Value)| Some((name.to_string(), json(value)?));
            let entries: Option<serde_json::Map<_, _>> = map.map.iter().map(entry).collect();
            entries?.into()
        }
        _ => return None,
    })
}
