//! EnvoyProxy: parameters of a GatewayClass or Gateway.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::geo_ip::EnvoyProxyGeoIP;
use super::kubernetes::EnvoyProxyKubernetesProvider;
use super::patch::JSONPatchOperation;
use super::policy::{BackendTLSConfig, PolicyMergeType};
use super::proxy_telemetry::{ProxyTelemetry, telemetry_schema};
use super::raw::Raw;
use crate::duration::Duration;
use crate::open_enum::open_enum;

/// How the proxies of a Gateway are deployed and run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "gateway.envoyproxy.io",
    version = "v1alpha1",
    kind = "EnvoyProxy",
    plural = "envoyproxies",
    shortname = "eproxy",
    category = "envoy-gateway",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    doc = "Parameters of a GatewayClass or Gateway: how its proxies are deployed and run.",
    schema = "derived"
)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyProxySpec {
    /// Where the proxies run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<EnvoyProxyProvider>,
    /// Log levels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<EnvoyProxyLogging>,
    /// Access log, metrics and tracing.
    #[schemars(schema_with = "telemetry_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Raw<ProxyTelemetry>>,
    /// Envoy's own bootstrap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<ProxyBootstrap>,
    /// Worker threads; one a CPU if absent.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<i32>,
    /// How Services are reached: by their endpoints (the default) or by their ClusterIP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing_type: Option<RoutingType>,
    /// Further arguments for the proxy's command line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
    /// Whether all Gateways of the class share one set of proxies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_gateways: Option<bool>,
    /// How proxies end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<ShutdownConfig>,
    /// Order of Envoy's HTTP filters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter_order: Vec<FilterPosition>,
    /// TLS settings towards backends that a policy has TLS spoken to.
    #[serde(rename = "backendTLS", skip_serializing_if = "Option::is_none")]
    pub backend_tls: Option<BackendTLSConfig>,
    /// IP families of the proxies' listeners and of their endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_family: Option<IPFamily>,
    /// Whether HTTPRoutes keep the order of their rules instead of Gateway API's precedence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preserve_route_order: Option<bool>,
    /// Where clients are looked up.
    #[serde(rename = "geoIP", skip_serializing_if = "Option::is_none")]
    pub geo_ip: Option<EnvoyProxyGeoIP>,
    /// How strictly Lua is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lua_validation: Option<LuaValidation>,
    /// How Lua is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lua: Option<EnvoyProxyLua>,
    /// Libraries that Envoy may load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_modules: Option<Raw<Vec<Value>>>,
    /// Whether routes share Envoy's clusters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_backends: Option<MergeBackends>,
    /// How a Gateway's parameters are laid over its class's; absent: they take their place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_type: Option<PolicyMergeType>,
}

/// Where the proxies run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyProxyProvider {
    /// `Kubernetes`; nothing else is supported.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ProviderType>,
    /// What is created in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<EnvoyProxyKubernetesProvider>,
    /// What runs on the controller's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<EnvoyProxyHostProvider>,
}

/// What runs on the controller's host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyProxyHostProvider {
    /// Version of Envoy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_version: Option<String>,
}

open_enum! {
    /// Where proxies run.
    ProviderType {
        /// In the cluster.
        Kubernetes = "Kubernetes",
        /// On the controller's host.
        Host = "Host",
    }
}

/// Envoy's own bootstrap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyBootstrap {
    /// `Replace`, `Merge` or `JSONPatch`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// YAML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Patches of the default one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub json_patches: Vec<JSONPatchOperation>,
}

/// Place of one of Envoy's HTTP filters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilterPosition {
    /// The filter.
    pub name: String,
    /// It comes before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// It comes after this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// How Lua is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyProxyLua {
    /// How strictly it is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_type: Option<LuaValidation>,
}

open_enum! {
    /// How strictly Lua is checked.
    LuaValidation {
        /// In a sandbox.
        Strict = "Strict",
        /// Its syntax, in a sandbox.
        Syntax = "Syntax",
        /// Its syntax alone.
        InsecureSyntax = "InsecureSyntax",
        /// Not at all.
        Disabled = "Disabled",
    }
}

/// Which routes share Envoy's clusters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MergeBackends {
    /// Labels of the backends that are shared; absent: all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Raw<LabelSelector>>,
}

/// Log levels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyProxyLogging {
    /// Level of each component. `default` counts: the proxy has other components than Envoy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub level: BTreeMap<String, String>,
}

open_enum! {
    /// How Services are reached.
    RoutingType {
        /// By the addresses of their endpoints.
        Endpoint = "Endpoint",
        /// By their ClusterIP.
        Service = "Service",
    }
}

open_enum! {
    /// IP families.
    IPFamily {
        /// IPv4 alone.
        IPv4 = "IPv4",
        /// IPv6 alone.
        IPv6 = "IPv6",
        /// Both.
        DualStack = "DualStack",
    }
}

/// How proxies end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShutdownConfig {
    /// Longest time to wait for open connections; 60 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<Duration>,
    /// Shortest time to keep accepting connections while endpoints are withdrawn; 10 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_drain_duration: Option<Duration>,
    /// How long health checks go on to succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check_failure_delay: Option<Duration>,
}
