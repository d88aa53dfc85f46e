//! Numbers that may be written as texts too, with a unit or a percent sign.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::util::intstr;
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize};

/// A number, or a text such as `32Ki` or `50%`.
///
/// The API server admits integers of 64 bits where it takes texts too, a size of 4 GiB without a unit among them;
/// Kubernetes' own type reads 32 bits of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "neither a whole number nor a text")]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// A text.
    String(String),
}

impl Default for IntOrString {
    fn default() -> Self {
        Self::Int(0)
    }
}

impl From<IntOrString> for intstr::IntOrString {
    /// A number that is too big stays one in digits, so that who reads it can say what is wrong.
    fn from(from: IntOrString) -> Self {
        match from {
            IntOrString::Int(number) => {
                i32::try_from(number).map_or_else(|_| Self::String(number.to_string()), Self::Int)
            }
            IntOrString::String(text) => Self::String(text),
        }
    }
}

impl JsonSchema for IntOrString {
    fn schema_name() -> Cow<'static, str> {
        "IntOrString".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true })
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_64_bits_are_read() {
        let read = |text: &str| serde_json::from_str::<IntOrString>(text).ok();
        assert_eq!(read("4294967296"), Some(IntOrString::Int(1 << 32)));
        assert_eq!(read("-1"), Some(IntOrString::Int(-1)));
        assert_eq!(read("\"4Gi\""), Some(IntOrString::String("4Gi".to_owned())));
        assert_eq!(read("true"), None);
    }

    #[test]
    fn kubernetes_gets_what_does_not_fit_as_a_text() {
        let kubernetes = |number| intstr::IntOrString::from(IntOrString::Int(number));
        assert_eq!(kubernetes(2), intstr::IntOrString::Int(2));
        assert_eq!(
            kubernetes(1 << 32),
            intstr::IntOrString::String("4294967296".to_owned())
        );
    }
}
