//! Objects to send, kept as what they are changed from and how.

use std::rc::Rc;

use serde_json::Value;

use super::schema::Path;
use super::texts;

/// A change of an object: nothing instead of a value takes the field away.
pub type Edit = (Path, Option<Value>);

/// One object to send.
#[derive(Clone, Debug)]
pub struct Case {
    /// Position of the kind.
    pub kind: usize,
    pub base: Rc<Value>,
    pub edits: Vec<Edit>,
}

impl Case {
    /// Whether it can wait: it is one odd string, of many that are tried in each place.
    pub fn can_wait(&self) -> bool {
        let [(_, Some(Value::String(text)))] = &self.edits[..] else {
            return false;
        };
        !text.is_empty() && texts::ODD.contains(&text.as_str())
    }

    /// The object.
    pub fn object(&self) -> Value {
        let mut object = (*self.base).clone();
        for (path, value) in &self.edits {
            path.put(&mut object, value.clone());
        }
        object
    }
}

/// Puts the fields of one object into another; what both have stays.
pub fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                match into.get_mut(name) {
                    Some(there) => merge(there, value),
                    None => drop(into.insert(name.clone(), value.clone())),
                }
            }
        }
        (Value::Array(into), Value::Array(from)) => {
            if let (Some(into), Some(from)) = (into.first_mut(), from.first()) {
                merge(into, from);
            } else {
                into.extend(from.iter().cloned());
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_case_is_its_base_with_the_edits() {
        let base = Rc::new(json!({"spec": {"a": 1, "b": 2}}));
        let edits = vec![
            (Path::parse("spec.a"), None),
            (Path::parse("spec.c.d"), Some(json!(3))),
        ];
        let case = Case { kind: 0, base, edits };
        assert_eq!(case.object(), json!({"spec": {"b": 2, "c": {"d": 3}}}));
    }

    #[test]
    fn merging_adds_what_is_missing() {
        let mut object = json!({"a": {"b": 1}, "l": [{"x": 1}]});
        merge(
            &mut object,
            &json!({"a": {"b": 2, "c": 3}, "l": [{"y": 2}], "d": []}),
        );
        assert_eq!(
            object,
            json!({"a": {"b": 1, "c": 3}, "l": [{"x": 1, "y": 2}], "d": []})
        );
    }
}
