//! Libraries that Envoy may load.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cel::Cel;
use crate::open_enum::open_enum;

/// A library that Envoy may load; policies refer to it by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DynamicModuleEntry {
    /// Name that policies use.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Where the library is.
    pub source: DynamicModuleSource,
    /// Whether the library stays loaded when nothing uses it any more; false if absent.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub do_not_close: Option<bool>,
    /// Whether libraries that are loaded later can use its symbols; false if absent.
    #[schemars(extend("default" = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_globally: Option<bool>,
}

/// Where a library is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[(
    "has(self.local) == (self.type == 'Local') && has(self.remote) == (self.type == 'Remote')",
    "local must be set with type Local alone, remote with type Remote alone",
)]))]
#[serde(rename_all = "camelCase")]
pub struct DynamicModuleSource {
    /// Which of the fields says it; `Local` if absent.
    #[schemars(extend("default" = "Local"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<DynamicModuleSourceType>,
    /// In the proxy's file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalDynamicModuleSource>,
    /// On a web server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteDynamicModuleSource>,
}

open_enum! {
    /// Where a library is.
    DynamicModuleSourceType {
        /// In the proxy's file system.
        Local = "Local",
        /// On a web server.
        Remote = "Remote",
    }
}

/// A library in the proxy's file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalDynamicModuleSource {
    /// Its absolute path.
    #[schemars(length(min = 1, max = 4096))]
    pub path: String,
}

/// A library on a web server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteDynamicModuleSource {
    /// Its URL of scheme `http` or `https`.
    #[schemars(length(min = 1, max = 4096), regex(pattern = r"^https?://[^/?#]+([/?#].*)?$"))]
    pub url: String,
    /// SHA-256 of the library, in lower case hexadecimal.
    #[schemars(regex(pattern = "^[a-f0-9]{64}$"))]
    pub sha256: String,
}
