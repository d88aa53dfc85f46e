//! What the schemas of fields share besides rules: lengths and patterns of names, kinds of lists, sizes of integers.
//!
//! All are transforms: `#[schemars(transform = shape::name)]`.

use schemars::generate::SchemaGenerator;
use schemars::transform::Transform;
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::{Value, json};

use crate::patterns;

/// API group; empty for the core group.
pub(crate) fn group(schema: &mut Schema) {
    text(schema, None, 253, Some(patterns::GROUP));
}

/// Kind of an object.
pub(crate) fn kind(schema: &mut Schema) {
    text(schema, Some(1), 63, Some(patterns::KIND));
}

/// Name of an object.
pub(crate) fn name(schema: &mut Schema) {
    text(schema, Some(1), 253, None);
}

/// Namespace.
pub(crate) fn namespace(schema: &mut Schema) {
    text(schema, Some(1), 63, Some(patterns::DNS_LABEL));
}

/// Name in the DNS, or of a section of an object.
pub(crate) fn dns_name(schema: &mut Schema) {
    text(schema, Some(1), 253, Some(patterns::DNS_NAME));
}

/// Name of an HTTP field.
pub(crate) fn header_name(schema: &mut Schema) {
    text(schema, Some(1), 256, Some(patterns::HEADER_NAME));
}

/// Value of an HTTP field.
pub(crate) fn header_value(schema: &mut Schema) {
    text(schema, Some(1), 4096, None);
}

/// Name of a controller.
pub(crate) fn controller(schema: &mut Schema) {
    text(schema, Some(1), 253, Some(patterns::CONTROLLER));
}

/// Name of a set of CA certificates.
pub(crate) fn well_known_ca(schema: &mut Schema) {
    text(schema, Some(1), 253, Some(patterns::WELL_KNOWN_CA));
}

/// A text of `min` to `max` characters that matches a regular expression, if there is one.
fn text(schema: &mut Schema, min: Option<usize>, max: usize, pattern: Option<&str>) {
    if let Some(min) = min {
        schema.insert("minLength".to_owned(), json!(min));
    }
    schema.insert("maxLength".to_owned(), json!(max));
    if let Some(pattern) = pattern {
        schema.insert("pattern".to_owned(), json!(pattern));
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
