//! Order of the filters that requests pass.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cel::Cel;

/// Names of Envoy's HTTP filters, in the order in which requests pass them by default.
const FILTERS: [&str; 27] = [
    "envoy.filters.http.custom_response",
    "envoy.filters.http.health_check",
    "envoy.filters.http.fault",
    "envoy.filters.http.cors",
    "envoy.filters.http.csrf",
    "envoy.filters.http.header_mutation",
    "envoy.filters.http.ext_authz",
    "envoy.filters.http.api_key_auth",
    "envoy.filters.http.basic_auth",
    "envoy.filters.http.oauth2",
    "envoy.filters.http.jwt_authn",
    "envoy.filters.http.stateful_session",
    "envoy.filters.http.buffer",
    "envoy.filters.http.lua",
    "envoy.filters.http.ext_proc",
    "envoy.filters.http.wasm",
    "envoy.filters.http.dynamic_modules",
    "envoy.filters.http.geoip",
    "envoy.filters.http.rbac",
    "envoy.filters.http.local_ratelimit",
    "envoy.filters.http.ratelimit",
    "envoy.filters.http.bandwidth_limit",
    "envoy.filters.http.grpc_web",
    "envoy.filters.http.grpc_stats",
    "envoy.filters.http.credential_injector",
    "envoy.filters.http.compressor",
    "envoy.filters.http.dynamic_forward_proxy",
];

/// Place of one of Envoy's HTTP filters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[(
    "has(self.before) != has(self.after)",
    "exactly one of before and after must be set",
)]))]
#[serde(rename_all = "camelCase")]
pub struct FilterPosition {
    /// The filter that is put elsewhere.
    #[schemars(extend("enum" = FILTERS))]
    pub name: String,
    /// Requests pass it right before this one.
    #[schemars(extend("enum" = FILTERS))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Requests pass it right after this one.
    #[schemars(extend("enum" = FILTERS))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}
