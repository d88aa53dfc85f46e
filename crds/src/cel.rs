//! Validation rules of a schema in CEL: what the API server refuses before anybody reads it.

use schemars::Schema;
use schemars::transform::Transform;
use serde_json::{Value, json};

/// What must be true, and the message if it is not.
pub(crate) type Rule = (&'static str, &'static str);

/// Adds `(rule, message)` pairs to the schema of a type or a field, after those that it has from flattened parts.
///
/// Of several flattened parts the rules of the first are kept alone, which is schemars' way; name those of the others
/// where they are flattened.
pub(crate) struct Cel(pub(crate) &'static [Rule]);

impl Transform for Cel {
    fn transform(&mut self, schema: &mut Schema) {
        let rules = schema
            .ensure_object()
            .entry("x-kubernetes-validations")
            .or_insert_with(|| json!([]));
        if let Value::Array(rules) = rules {
            rules.extend(
                self.0
                    .iter()
                    .map(|(rule, message)| json!({ "rule": rule, "message": message })),
            );
        }
    }
}
