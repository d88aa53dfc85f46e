//! Parts of an object that are read only when they are used.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::kubernetes_schema;

/// JSON that stands for a `T`, as the manifest has it.
///
/// The API server holds it to the schema of a `T`, but not what was stored before, and a newer CRD may admit more:
/// reading it late keeps a mistake in one object from stopping the watch of all, and lets the error name the field.
pub struct Raw<T> {
    /// The JSON.
    pub value: Value,
    type_: PhantomData<fn() -> T>,
}

impl<T> Raw<T> {
    /// Wraps JSON.
    pub fn new(value: Value) -> Self {
        Self {
            value,
            type_: PhantomData,
        }
    }
}

impl<T: DeserializeOwned> Raw<T> {
    /// Reads it.
    ///
    /// # Errors
    /// If the JSON does not have the shape of a `T`.
    pub fn parse(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.value)
    }
}

impl<T> Clone for Raw<T> {
    fn clone(&self) -> Self {
        Self::new(self.value.clone())
    }
}

impl<T> PartialEq for Raw<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T> fmt::Debug for Raw<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T> Serialize for Raw<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Raw<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::new)
    }
}

impl<T: JsonSchema> JsonSchema for Raw<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Raw_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        if kubernetes_schema::is_of_kubernetes::<T>() {
            return kubernetes_schema::of::<T>();
        }
        let schema = generator.subschema_for::<T>();
        if schema.as_bool() == Some(true) {
            json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
        } else {
            schema
        }
    }

    fn inline_schema() -> bool {
        true
    }
}
