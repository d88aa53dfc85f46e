//! EnvoyProxy: parameters of a GatewayClass or Gateway.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::dynamic_module::DynamicModuleEntry;
use super::filter_position::FilterPosition;
use super::geo_ip::EnvoyProxyGeoIP;
use super::kubernetes::EnvoyProxyKubernetesProvider;
use super::patch::JSONPatchOperation;
use super::policy::{BackendTLSConfig, PolicyMergeType};
use super::proxy_telemetry::ProxyTelemetry;
use super::raw::Raw;
use crate::cel::Cel;
use crate::duration::Duration;
use crate::gateway::ParentReference;
use crate::open_enum::open_enum;
use crate::shape::{self, MapBy};

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
    status = "EnvoyProxyStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Parameters of a GatewayClass or Gateway: how its proxies are deployed and run.",
    schema = "derived"
)]
#[schemars(transform = Cel(&[(
    "!has(self.mergeBackends) || !has(self.mergeGateways) || !self.mergeGateways",
    "mergeBackends must not be set where mergeGateways is true",
)]))]
#[serde(rename_all = "camelCase")]
pub struct EnvoyProxySpec {
    /// Where the proxies run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<EnvoyProxyProvider>,
    /// How much the proxies log; warnings and worse if absent.
    #[schemars(extend("default" = { "level": { "default": "warn" } }))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<EnvoyProxyLogging>,
    /// Access log, metrics and tracing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Raw<ProxyTelemetry>>,
    /// Changes to the configuration that Envoy starts with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<ProxyBootstrap>,
    /// Worker threads of a proxy; one a CPU if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<i32>,
    /// How Services are reached: `Endpoint` (the default) by the addresses of their endpoints, `Service` by their
    /// ClusterIP.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing_type: Option<RoutingType>,
    /// Further arguments for the proxy's command line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
    /// Whether all Gateways of the class share one set of proxies; false if absent. For a class alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_gateways: Option<bool>,
    /// How long proxies that are to end go on with what they have begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<ShutdownConfig>,
    /// Order of Envoy's HTTP filters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter_order: Vec<FilterPosition>,
    /// TLS settings towards backends that a policy has TLS spoken to.
    #[serde(rename = "backendTLS", skip_serializing_if = "Option::is_none")]
    pub backend_tls: Option<BackendTLSConfig>,
    /// IP families of the proxies' Service; the cluster's own choice if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_family: Option<IPFamily>,
    /// Whether HTTPRoutes keep the order of their rules instead of Gateway API's precedence; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preserve_route_order: Option<bool>,
    /// Where clients are looked up.
    #[serde(rename = "geoIP", skip_serializing_if = "Option::is_none")]
    pub geo_ip: Option<EnvoyProxyGeoIP>,
    /// How strictly Lua is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lua_validation: Option<LuaValidation>,
    /// Libraries that Envoy may load.
    #[schemars(length(max = 16), transform = MapBy("name"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_modules: Option<Raw<Vec<DynamicModuleEntry>>>,
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
    #[schemars(required)]
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
    /// Version of Envoy that is run.
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

/// Changes to the configuration that Envoy starts with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[(
    "self.type == 'JSONPatch' ? has(self.jsonPatches) && self.jsonPatches.size() > 0 : has(self.value)",
    "value must be set, or jsonPatches with type JSONPatch",
)]))]
#[serde(rename_all = "camelCase")]
pub struct ProxyBootstrap {
    /// What becomes of the default configuration: `Replace` (if absent), `Merge` or `JSONPatch`.
    #[schemars(extend("default" = "Replace", "enum" = ["Merge", "Replace", "JSONPatch"]))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// Configuration as YAML, for `Replace` and `Merge`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Patches of the default configuration, for `JSONPatch`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub json_patches: Vec<JSONPatchOperation>,
}

open_enum! {
    /// How strictly Lua is checked.
    LuaValidation {
        /// In a sandbox.
        Strict = "Strict",
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

/// How much the proxies log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyProxyLogging {
    /// Least level that is logged, by component. `default` counts: the proxy has other components than Envoy.
    #[schemars(extend("default" = { "default": "warn" }))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub level: BTreeMap<String, ProxyLogLevel>,
}

open_enum! {
    /// How bad a thing must be to be logged.
    ProxyLogLevel {
        /// Every step.
        Trace = "trace",
        /// What helps to find faults.
        Debug = "debug",
        /// What happens.
        Info = "info",
        /// What may be wrong.
        Warn = "warn",
        /// What has failed.
        Error = "error",
        /// What ends the proxy.
        Critical = "critical",
        /// Nothing is.
        Off = "off",
    }
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
    /// How long health checks of a proxy that is to end go on to succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check_failure_delay: Option<Duration>,
}

/// What controllers say of parameters; Sluice says it of the Gateway or GatewayClass that they are for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyProxyStatus {
    /// What is said of the parameters where they are used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<EnvoyProxyAncestorStatus>,
}

/// What is said of parameters where they are used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyProxyAncestorStatus {
    /// The Gateway or GatewayClass.
    pub ancestor_ref: ParentReference,
    /// Conditions, at most one of a type.
    #[schemars(transform = shape::conditions, transform = any_number)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A list without a bound.
fn any_number(schema: &mut Schema) {
    schema.remove("maxItems");
}
