//! Places in objects and what the two schemas say of them.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value};

/// The key that a map's entry gets where any would do.
pub const KEY: &str = "key";

/// One step into a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A field of an object.
    Field(String),
    /// The first item of a list.
    Item,
    /// The entry [`KEY`] of a map.
    Key,
}

/// Where a field is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// The path of what a step leads to.
    pub fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// The path of what this is part of.
    pub fn parent(&self) -> Option<Self> {
        let (_, rest) = self.0.split_last()?;
        Some(Self(rest.to_vec()))
    }

    /// Whether this leads to `other` or to something in it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// Reads a path as the API server writes it; a path into a list is one into its first item.
    pub fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        for part in text.split('.') {
            let mut names = part.split('[');
            if let Some(name) = names.next().filter(|name| !name.is_empty()) {
                steps.push(Step::Field(name.to_owned()));
            }
            for index in names {
                let number = index.trim_end_matches(']').parse::<u32>();
                steps.push(number.map_or(Step::Key, |_| Step::Item));
            }
        }
        Self(steps)
    }

    /// The value there.
    pub fn get<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(value, |value, step| match step {
            Step::Field(name) => value.get(name),
            Step::Item => value.get(0),
            Step::Key => value.get(KEY),
        })
    }

    /// Puts a value there, or takes away what is there. What leads to it is made if it is missing.
    pub fn put(&self, value: &mut Value, new: Option<Value>) {
        let Some((last, parents)) = self.0.split_last() else {
            *value = new.unwrap_or_default();
            return;
        };
        let parent = parents.iter().fold(value, enter);
        match (last, new) {
            (Step::Item, None) => {
                if let Value::Array(items) = parent
                    && !items.is_empty()
                {
                    items.remove(0);
                }
            }
            (Step::Field(_) | Step::Key, None) => {
                if let Value::Object(fields) = parent {
                    fields.remove(last.name());
                }
            }
            (_, Some(new)) => *enter(parent, last) = new,
        }
    }
}

impl Step {
    fn name(&self) -> &str {
        match self {
            Self::Field(name) => name,
            Self::Item => "0",
            Self::Key => KEY,
        }
    }
}

fn enter<'v>(value: &'v mut Value, step: &Step) -> &'v mut Value {
    if *step == Step::Item {
        if value.as_array().is_none_or(Vec::is_empty) {
            *value = Value::Array(vec![Value::Null]);
        }
        return &mut value[0];
    }
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    &mut value[step.name()]
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if position == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Item => f.write_str("[]")?,
                Step::Key => f.write_str("{}")?,
            }
        }
        Ok(())
    }
}

/// What the peer's schema and ours say of one place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Node<'a> {
    pub theirs: Option<&'a Value>,
    pub ours: Option<&'a Value>,
}

impl<'a> Node<'a> {
    /// The schema that samples are made by: theirs, where they have one.
    pub fn main(self) -> Option<&'a Value> {
        self.theirs.or(self.ours)
    }

    fn map(self, part: impl Fn(&'a Value) -> Option<&'a Value>) -> Self {
        Self {
            theirs: self.theirs.and_then(&part),
            ours: self.ours.and_then(part),
        }
    }

    fn both(self) -> impl Iterator<Item = &'a Value> {
        [self.theirs, self.ours].into_iter().flatten()
    }

    /// What a step leads to; without schemas if it leads nowhere.
    pub fn step(self, step: &Step) -> Self {
        match step {
            Step::Field(name) => self.map(|schema| schema.get("properties")?.get(name)),
            Step::Item => self.map(|schema| schema.get("items")),
            Step::Key => self.map(|schema| schema.get("additionalProperties").filter(|all| all.is_object())),
        }
    }

    /// What a path leads to.
    pub fn at(self, path: &Path) -> Self {
        path.0.iter().fold(self, Self::step)
    }

    /// The names of all fields.
    pub fn names(self) -> BTreeSet<&'a str> {
        self.both()
            .filter_map(|schema| schema.get("properties")?.as_object())
            .flat_map(|fields| fields.keys().map(String::as_str))
            .collect()
    }

    /// The fields that samples cannot do without.
    pub fn required(self) -> Vec<&'a str> {
        let all = self.main().and_then(|schema| schema.get("required")?.as_array());
        all.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// What a keyword has for values, in both schemas and in what they are put together from.
    pub fn all(self, keyword: &str) -> Vec<&'a Value> {
        let mut found = Vec::new();
        for schema in self.both() {
            collect(schema, keyword, &mut found);
        }
        found
    }

    /// The same, in the schema alone that samples are made by.
    pub fn main_only(self) -> Self {
        Self {
            theirs: self.main(),
            ours: None,
        }
    }

    /// The values of an enumeration, of both.
    pub fn choices(self) -> Vec<&'a Value> {
        let mut all: Vec<&Value> = Vec::new();
        for value in self.all("enum").into_iter().filter_map(Value::as_array).flatten() {
            if !all.contains(&value) {
                all.push(value);
            }
        }
        all
    }

    /// Whether a value may be of a type.
    pub fn is(self, kind: &str) -> bool {
        self.all("type").iter().any(|name| *name == kind)
    }

    /// The rules that stand at this place.
    pub fn rules(self) -> Vec<&'a str> {
        self.all("x-kubernetes-validations")
            .into_iter()
            .filter_map(Value::as_array)
            .flatten()
            .filter_map(|rule| rule["rule"].as_str())
            .collect()
    }

    /// The same for places of which both schemas say the same.
    pub fn digest(self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for schema in [self.theirs, self.ours] {
            schema.map(|schema| plain(schema).to_string()).hash(&mut hasher);
        }
        hasher.finish()
    }
}

fn collect<'a>(schema: &'a Value, keyword: &str, found: &mut Vec<&'a Value>) {
    found.extend(schema.get(keyword));
    for together in ["allOf", "anyOf", "oneOf"] {
        for part in schema
            .get(together)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            collect(part, keyword, found);
        }
    }
}

/// A schema without its texts.
fn plain(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(name, value)| !(*name == "description" && value.is_string()))
                .map(|(name, value)| (name.clone(), plain(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_read_as_the_server_writes_them() {
        let path = Path::parse("spec.rules[3].labels[app]");
        assert_eq!(path.to_string(), "spec.rules[].labels{}");
        assert_eq!(path.parent().unwrap().to_string(), "spec.rules[].labels");
        assert!(path.is_within(&Path::parse("spec.rules")) && !path.is_within(&Path::parse("spec.x")));
    }

    #[test]
    fn values_are_put_and_taken_away() {
        let mut value = json!({"a": 1});
        Path::parse("b.c[0].d").put(&mut value, Some(json!(2)));
        assert_eq!(value, json!({"a": 1, "b": {"c": [{"d": 2}]}}));
        assert_eq!(Path::parse("b.c[0].d").get(&value), Some(&json!(2)));
        Path::parse("b.c[0]").put(&mut value, None);
        Path::parse("a").put(&mut value, None);
        assert_eq!(value, json!({"b": {"c": []}}));
    }

    #[test]
    fn a_node_knows_both_schemas_and_their_parts() {
        let theirs =
            json!({"properties": {"a": {"type": "string", "allOf": [{"maxLength": 3}, {"maxLength": 5}]}}});
        let ours = json!({"properties": {"a": {"type": "string", "maxLength": 4}, "b": {}}});
        let node = Node {
            theirs: Some(&theirs),
            ours: Some(&ours),
        };
        assert_eq!(node.names(), BTreeSet::from(["a", "b"]));
        let field = node.step(&Step::Field("a".to_owned()));
        assert_eq!(field.all("maxLength"), [&json!(3), &json!(5), &json!(4)]);
        assert!(field.is("string") && field.main_only().all("maxLength").len() == 2);
    }

    #[test]
    fn texts_make_no_difference_but_fields_of_that_name_do() {
        let digest = |schema: Value| {
            Node {
                theirs: Some(&schema),
                ours: None,
            }
            .digest()
        };
        assert_eq!(
            digest(json!({"description": "a"})),
            digest(json!({"description": "b"}))
        );
        let field = |kind: &str| json!({"properties": {"description": {"type": kind}}});
        assert_ne!(digest(field("string")), digest(field("integer")));
    }
}
