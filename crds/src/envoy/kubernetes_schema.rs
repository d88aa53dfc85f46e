//! Schemas of Kubernetes' own types, with what k8s-openapi does not tell of them: defaults, patterns, kinds of lists.
//!
//! Descriptions are left out. They are Kubernetes' to give, and would be the better part of the CRD: pods alone are
//! described four times.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::patterns;

/// What the names of Kubernetes' types begin with; their package and their own name follow.
const PREFIX: &str = "io.k8s.";

/// Where schemas refer to others.
const DEFINITIONS: &str = "#/$defs/";

/// Objects that are replaced as a whole when manifests are merged.
const ATOMIC: [&str; 15] = [
    "ConfigMapEnvSource",
    "ConfigMapKeySelector",
    "ConfigMapProjection",
    "ConfigMapVolumeSource",
    "FileKeySelector",
    "LabelSelector",
    "LocalObjectReference",
    "NodeSelector",
    "NodeSelectorTerm",
    "ObjectFieldSelector",
    "ResourceFieldSelector",
    "SecretEnvSource",
    "SecretKeySelector",
    "SecretProjection",
    "TypedLocalObjectReference",
];

/// Lists that are merged item by item, and the fields that tell the items apart. All others are replaced as a whole.
const MAPS: [(&str, &str, &[&str]); 5] = [
    ("Container", "env", &["name"]),
    ("Container", "ports", &["containerPort", "protocol"]),
    ("Container", "volumeDevices", &["devicePath"]),
    ("Container", "volumeMounts", &["mountPath"]),
    ("ResourceRequirements", "claims", &["name"]),
];

/// Lists in which nothing occurs twice.
const SETS: [(&str, &str); 1] = [("ContainerRestartRuleOnExitCodes", "values")];

/// Texts that are there when nobody has written them.
const DEFAULTS: [(&str, &str, &str); 17] = [
    ("AzureDiskVolumeSource", "fsType", "ext4"),
    ("ConfigMapEnvSource", "name", ""),
    ("ConfigMapKeySelector", "name", ""),
    ("ConfigMapProjection", "name", ""),
    ("ConfigMapVolumeSource", "name", ""),
    ("ContainerPort", "protocol", "TCP"),
    ("GRPCAction", "service", ""),
    ("ISCSIVolumeSource", "iscsiInterface", "default"),
    ("LocalObjectReference", "name", ""),
    ("RBDVolumeSource", "keyring", "/etc/ceph/keyring"),
    ("RBDVolumeSource", "pool", "rbd"),
    ("RBDVolumeSource", "user", "admin"),
    ("ScaleIOVolumeSource", "fsType", "xfs"),
    ("ScaleIOVolumeSource", "storageMode", "ThinProvisioned"),
    ("SecretEnvSource", "name", ""),
    ("SecretKeySelector", "name", ""),
    ("SecretProjection", "name", ""),
];

/// Switches that are off when nobody has written them.
const OFF: [(&str, &str); 2] = [
    ("AzureDiskVolumeSource", "readOnly"),
    ("FileKeySelector", "optional"),
];

/// Whether `T` is one of Kubernetes' own types, or a list of such.
pub(super) fn is_of_kubernetes<T: JsonSchema>() -> bool {
    T::schema_name().contains(PREFIX)
}

/// Schema of one of Kubernetes' own types, or of a list of such.
pub(super) fn of<T: JsonSchema>() -> Schema {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.subschema_for::<T>();
    let definitions = generator.take_definitions(false);
    if let Some(object) = schema.as_object_mut() {
        settle(object, &definitions);
    }
    schema
}

/// Puts the schemas in that others refer to, and what belongs to each.
fn settle(schema: &mut Map<String, Value>, definitions: &Map<String, Value>) {
    if let Some(Value::String(reference)) = schema.remove("$ref")
        && let Some(name) = reference.strip_prefix(DEFINITIONS)
        && let Some(Value::Object(definition)) = definitions.get(name)
    {
        schema.clone_from(definition);
        complete(schema, name.rsplit('.').next().unwrap_or(name));
    }
    schema.remove("description");
    // Integers of 64 bits need no format; see `manifest.rs`.
    if schema.get("format") == Some(&json!("int64")) {
        schema.remove("format");
    }
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    let parts = properties
        .into_iter()
        .flat_map(|properties| properties.values_mut());
    for part in parts.filter_map(Value::as_object_mut) {
        settle(part, definitions);
    }
    for of_all in ["items", "additionalProperties"] {
        if let Some(part) = schema.get_mut(of_all).and_then(Value::as_object_mut) {
            settle(part, definitions);
        }
    }
}

/// Adds to the schema of a type what k8s-openapi's does not have.
fn complete(schema: &mut Map<String, Value>, type_: &str) {
    match type_ {
        "Quantity" => {
            schema.insert("pattern".to_owned(), json!(patterns::QUANTITY));
        }
        // As in all CRDs: metadata inside of an object is not described, so it is not kept.
        "ObjectMeta" => {
            schema.remove("properties");
        }
        _ => {}
    }
    if ATOMIC.contains(&type_) {
        schema.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    }
    for (_, field, value) in DEFAULTS.iter().filter(|(of, ..)| *of == type_) {
        default(schema, field, json!(value));
    }
    for (_, field) in OFF.iter().filter(|(of, _)| *of == type_) {
        default(schema, field, json!(false));
    }
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (name, field) in properties.into_iter().flatten() {
        if let Some(field) = field
            .as_object_mut()
            .filter(|field| field.get("type") == Some(&json!("array")))
        {
            list(field, type_, name);
        }
    }
}

/// Says how a list is merged.
fn list(schema: &mut Map<String, Value>, type_: &str, field: &str) {
    let keys = MAPS.iter().find(|(of, name, _)| (*of, *name) == (type_, field));
    let kind = match keys {
        Some((.., keys)) => {
            schema.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys));
            "map"
        }
        None if SETS.contains(&(type_, field)) => "set",
        None => "atomic",
    };
    schema.insert("x-kubernetes-list-type".to_owned(), json!(kind));
}

/// Gives a field a default, without which k8s-openapi requires it.
fn default(schema: &mut Map<String, Value>, field: &str, value: Value) {
    let pointer = schema.get_mut("properties").and_then(|all| all.get_mut(field));
    if let Some(Value::Object(property)) = pointer {
        property.insert("default".to_owned(), value);
    }
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| name != field);
        if required.is_empty() {
            schema.remove("required");
        }
    }
}

/// Quantities by resource.
pub(super) fn quantities(schema: &mut Schema) {
    if let Some(Value::Object(values)) = schema.get_mut("additionalProperties") {
        values.insert("pattern".to_owned(), json!(patterns::QUANTITY));
    }
}
