//! What the schemas of fields share besides rules: lengths and patterns of names, kinds of lists, sizes of integers.
//!
//! All are transforms: `#[schemars(transform = shape::NAME)]`.

use schemars::generate::SchemaGenerator;
use schemars::transform::Transform;
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::{Value, json};

use crate::patterns;

/// Texts of `min` to `max` characters that match a regular expression, if there is one.
pub(crate) struct Text {
    min: Option<usize>,
    max: usize,
    pattern: Option<&'static str>,
}

const fn text(min: usize, max: usize, pattern: &'static str) -> Text {
    Text {
        min: Some(min),
        max,
        pattern: Some(pattern),
    }
}

/// API group; empty for the core group.
pub(crate) const GROUP: Text = Text {
    min: None,
    max: 253,
    pattern: Some(patterns::GROUP),
};
/// Kind of an object.
pub(crate) const KIND: Text = text(1, 63, patterns::KIND);
/// Name of an object.
pub(crate) const NAME: Text = Text {
    min: Some(1),
    max: 253,
    pattern: None,
};
/// Namespace.
pub(crate) const NAMESPACE: Text = text(1, 63, patterns::DNS_LABEL);
/// Name in the DNS, or of a section of an object.
pub(crate) const DNS_NAME: Text = text(1, 253, patterns::DNS_NAME);
/// Name of an HTTP field.
pub(crate) const HEADER_NAME: Text = text(1, 256, patterns::HEADER_NAME);
/// Name of a controller.
pub(crate) const CONTROLLER: Text = text(1, 253, patterns::CONTROLLER);
/// Name of a set of CA certificates.
pub(crate) const WELL_KNOWN_CA: Text = text(1, 253, patterns::WELL_KNOWN_CA);
/// Value of an HTTP field.
pub(crate) const HEADER_VALUE: Text = Text {
    min: Some(1),
    max: 4096,
    pattern: None,
};

impl Transform for Text {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(min) = self.min {
            schema.insert("minLength".to_owned(), json!(min));
        }
        schema.insert("maxLength".to_owned(), json!(self.max));
        if let Some(pattern) = self.pattern {
            schema.insert("pattern".to_owned(), json!(pattern));
        }
    }
}

/// A list in which no value of the field occurs twice; the field names the item when manifests are merged.
pub(crate) struct MapBy(pub(crate) &'static str);

impl Transform for MapBy {
    fn transform(&mut self, schema: &mut Schema) {
        schema.insert("x-kubernetes-list-type".to_owned(), json!("map"));
        schema.insert("x-kubernetes-list-map-keys".to_owned(), json!([self.0]));
    }
}

/// A list in which nothing occurs twice.
pub(crate) fn set(schema: &mut Schema) {
    schema.insert("x-kubernetes-list-type".to_owned(), json!("set"));
}

/// A list that is replaced as a whole when manifests are merged.
pub(crate) fn atomic(schema: &mut Schema) {
    schema.insert("x-kubernetes-list-type".to_owned(), json!("atomic"));
}

/// Requirements on labels: lists that are replaced as a whole.
pub(crate) fn label_requirements(schema: &mut Schema) {
    atomic(schema);
    extend_at(
        schema,
        "/items/properties/values",
        &json!({ "x-kubernetes-list-type": "atomic" }),
    );
}

/// A selector of labels, which is replaced as a whole.
pub(crate) fn label_selector(schema: &mut Schema) {
    schema.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    let atomic = json!({ "x-kubernetes-list-type": "atomic" });
    extend_at(schema, "/properties/matchExpressions", &atomic);
    extend_at(
        schema,
        "/properties/matchExpressions/items/properties/values",
        &atomic,
    );
}

/// Conditions of a status, at most one of a type, as `metav1.Condition` bounds them.
pub(crate) fn conditions(schema: &mut Schema) {
    MapBy("type").transform(schema);
    schema.insert("maxItems".to_owned(), json!(8));
    let bounds = [
        ("message", json!({ "maxLength": 32768 })),
        ("observedGeneration", json!({ "format": null, "minimum": 0 })),
        (
            "reason",
            json!({ "minLength": 1, "maxLength": 1024, "pattern": patterns::REASON }),
        ),
        ("status", json!({ "enum": ["True", "False", "Unknown"] })),
        (
            "type",
            json!({ "maxLength": 316, "pattern": patterns::CONDITION }),
        ),
    ];
    for (field, bounds) in bounds {
        extend_at(schema, &format!("/items/properties/{field}"), &bounds);
    }
}

/// Takes the default away that the type's own default is.
pub(crate) fn no_default(schema: &mut Schema) {
    schema.remove("default");
}

/// Fields without which the API server refuses an object, though it could be read.
pub(crate) struct Require(pub(crate) &'static [&'static str]);

impl Transform for Require {
    fn transform(&mut self, schema: &mut Schema) {
        let required = schema
            .ensure_object()
            .entry("required")
            .or_insert_with(|| json!([]));
        if let Value::Array(required) = required {
            required.extend(self.0.iter().map(|field| json!(field)));
        }
    }
}

/// Adds keys to the part of a schema that a JSON pointer names; a null takes the key away.
fn extend_at(schema: &mut Schema, pointer: &str, with: &Value) {
    let part = schema.pointer_mut(pointer).and_then(Value::as_object_mut);
    let (Some(part), Some(with)) = (part, with.as_object()) else {
        return;
    };
    for (key, value) in with {
        if value.is_null() {
            part.remove(key);
        } else {
            part.insert(key.clone(), value.clone());
        }
    }
}

/// An integer of 64 bits, for `#[schemars(with = "...")]`; all others are held to 32 (see `manifest.rs`).
pub(crate) struct Long;

impl JsonSchema for Long {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Long".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer" })
    }

    fn inline_schema() -> bool {
        true
    }
}
