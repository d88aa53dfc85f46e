//! Metadata of a request: what processors, authorizers and tokens have said of it, for logs, limits and others to read.
//!
//! Owns the values, by namespace and name as Envoy has them. A request of which nothing is said has none of this.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as Proto};
use serde_json::{Map, Number, Value};
use sluice_config::v1;

use super::tokens::Tokens;

/// Where the claims of tokens are, by their providers.
const TOKENS: &str = "envoy.filters.http.jwt_authn";
/// Where authorizers say what they say.
pub const AUTHORIZER: &str = "envoy.filters.http.ext_authz";

/// Metadata of one request.
#[derive(Default)]
pub struct Metadata {
    /// Verified tokens.
    pub tokens: Tokens,
    /// What others have said.
    said: BTreeMap<String, Map<String, Value>>,
}

/// A place in metadata, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    namespace: Box<str>,
    path: Box<[Box<str>]>,
}

impl Place {
    /// A namespace and the names in it from the outside in.
    pub fn new<'n>(namespace: &str, path: impl IntoIterator<Item = &'n str>) -> Self {
        Self {
            namespace: namespace.into(),
            path: path.into_iter().map(Into::into).collect(),
        }
    }

    /// Reads the resource.
    pub fn of(config: &v1::MetadataKey) -> Self {
        Self::new(&config.namespace, [config.key.as_str()])
    }
}

impl Metadata {
    /// Takes in what is said under a namespace; what has been said under the same names is replaced.
    pub fn say(&mut self, namespace: &str, fields: Struct) {
        let known = self.said.entry(namespace.to_owned()).or_default();
        known.extend(fields.fields.into_iter().map(|(name, value)| (name, json(value))));
    }

    /// True if nothing is known.
    pub fn is_empty(&self) -> bool {
        self.said.is_empty() && self.tokens.is_empty()
    }

    /// What is at a place.
    pub fn get(&self, place: &Place) -> Option<Value> {
        let said = self.said.get(&*place.namespace);
        let Some((first, rest)) = place.path.split_first() else {
            return self.all(&place.namespace).map(Value::Object);
        };
        if let Some(value) = said.and_then(|said| said.get(&**first)) {
            return below(value, rest).cloned();
        }
        if *place.namespace != *TOKENS {
            return None;
        }
        let claims = self.tokens.of(first).next()?;
        match rest.split_first() {
            None => Some(Value::Object(claims.clone())),
            Some((claim, rest)) => below(claims.get(&**claim)?, rest).cloned(),
        }
    }

    /// The number at a place, if it is one that is not negative; texts of digits are numbers.
    pub fn number(&self, place: &Place) -> Option<u64> {
        whole(&self.get(place)?)
    }

    /// All that is said under a namespace.
    fn all(&self, namespace: &str) -> Option<Map<String, Value>> {
        let said = self.said.get(namespace);
        let mut all = said.cloned().unwrap_or_default();
        if namespace == TOKENS {
            for (provider, claims) in self.tokens.all() {
                let claims = || Value::Object(claims.clone());
                all.entry(provider.to_owned()).or_insert_with(claims);
            }
        }
        (!all.is_empty()).then_some(all)
    }

    /// All that is known, by namespaces.
    pub fn whole(&self) -> Value {
        let said = self.said.keys().map(String::as_str);
        let tokens = (!self.tokens.is_empty()).then_some(TOKENS);
        let one = |namespace: &str| Some((namespace.to_owned(), Value::Object(self.all(namespace)?)));
        Value::Object(said.chain(tokens).filter_map(one).collect())
    }

    /// What is said under these namespaces, as messages have it.
    pub fn shown<'n>(&self, namespaces: impl Iterator<Item = &'n str>) -> BTreeMap<String, Struct> {
        let one = |namespace: &str| Some((namespace.to_owned(), fields(self.all(namespace)?)));
        namespaces.filter_map(one).collect()
    }
}

fn below<'v>(value: &'v Value, path: &[Box<str>]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, name| value.get(&**name))
}

/// A number that is whole and not negative, also if it is written as text.
pub fn whole(value: &Value) -> Option<u64> {
    match value {
        // Numbers of messages are floating point.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "casts of floats keep within bounds"
        )]
        Value::Number(number) => number.as_u64().or_else(|| {
            let float = number.as_f64().filter(|float| *float >= 0.0)?;
            Some(float as u64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn json(value: Proto) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => value.into(),
        Some(Kind::StringValue(value)) => value.into(),
        Some(Kind::NumberValue(value)) => number(value),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json).collect(),
        Some(Kind::StructValue(object)) => object
            .fields
            .into_iter()
            .map(|(name, value)| (name, json(value)))
            .collect::<Map<_, _>>()
            .into(),
    }
}

/// Whole numbers are written without a fraction.
fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "it is within bounds")]
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn fields(object: Map<String, Value>) -> Struct {
    Struct {
        fields: object
            .into_iter()
            .map(|(name, value)| (name, proto(value)))
            .collect(),
    }
}

/// A value as messages have it.
pub fn proto(value: Value) -> Proto {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value),
        Value::Array(values) => Kind::ListValue(ListValue {
            values: values.into_iter().map(proto).collect(),
        }),
        Value::Object(object) => Kind::StructValue(fields(object)),
    };
    Proto { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn structure(value: Value) -> Struct {
        match proto(value).kind {
            Some(Kind::StructValue(fields)) => fields,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_said_is_found() {
        let mut metadata = Metadata::default();
        assert!(metadata.is_empty());
        metadata.say(
            "a",
            structure(json!({ "n": 7, "in": { "deep": ["x", 1.5] }, "t": "12" })),
        );
        metadata.say("a", structure(json!({ "n": 8 })));
        let get = |path: &[&str]| metadata.get(&Place::new("a", path.iter().copied()));
        assert_eq!(get(&["n"]), Some(json!(8)));
        assert_eq!(get(&["in", "deep"]), Some(json!(["x", 1.5])));
        assert_eq!(get(&["in", "none"]), None);
        assert_eq!(
            get(&[]),
            Some(json!({ "n": 8, "in": { "deep": ["x", 1.5] }, "t": "12" }))
        );
        assert_eq!(metadata.number(&Place::new("a", ["t"])), Some(12));
        assert_eq!(metadata.number(&Place::new("a", ["in"])), None);
        assert_eq!(metadata.get(&Place::new("b", ["n"])), None);
        let shown = metadata.shown(["a", "b"].into_iter());
        assert_eq!(shown.keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn claims_are_metadata() {
        let mut metadata = Metadata::default();
        let Value::Object(claims) = json!({ "sub": "alice", "org": { "id": 4 } }) else {
            unreachable!()
        };
        metadata.tokens.push(&"p".into(), claims);
        let get = |path: &[&str]| metadata.get(&Place::new(TOKENS, path.iter().copied()));
        assert_eq!(get(&["p", "sub"]), Some(json!("alice")));
        assert_eq!(get(&["p", "org", "id"]), Some(json!(4)));
        assert_eq!(get(&["q", "sub"]), None);
        assert_eq!(
            get(&[]),
            Some(json!({ "p": { "sub": "alice", "org": { "id": 4 } } }))
        );
    }

    #[test]
    fn numbers_that_are_none() {
        for value in [json!(-1), json!("x"), json!(null), json!([1])] {
            assert_eq!(whole(&value), None, "{value}");
        }
        assert_eq!(whole(&json!(2.9)), Some(2));
    }
}
