//! Parts of an object that are read only when they are used.

use std::fmt;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// JSON that stands for a `T`, as the manifest has it.
///
/// The CRD does not describe these subtrees, so a user can write anything there; reading them late keeps a mistake in
/// one object from stopping the watch of all, and lets the error name the field.
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

impl<T> schemars::JsonSchema for Raw<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Raw".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
    }

    fn inline_schema() -> bool {
        true
    }
}
