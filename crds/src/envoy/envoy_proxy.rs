//! EnvoyProxy: parameters of a GatewayClass or Gateway.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::geo_ip::EnvoyProxyGeoIP;
use super::kubernetes::EnvoyProxyKubernetesProvider;
use super::proxy_telemetry::ProxyTelemetry;
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Raw<ProxyTelemetry>>,
    /// Envoy's own bootstrap. Not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Raw<Value>>,
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
    /// Order of Envoy's HTTP filters. Not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_order: Option<Raw<Vec<Value>>>,
    /// TLS settings towards every backend.
    #[serde(rename = "backendTLS", skip_serializing_if = "Option::is_none")]
    pub backend_tls: Option<Raw<Value>>,
    /// IP families of the proxies' listeners and of their endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_family: Option<IPFamily>,
    /// Whether routes keep their order instead of Gateway API's precedence. Not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preserve_route_order: Option<bool>,
    /// Where clients are looked up.
    #[serde(rename = "geoIP", skip_serializing_if = "Option::is_none")]
    pub geo_ip: Option<EnvoyProxyGeoIP>,
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

/// Log levels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyProxyLogging {
    /// Level of each component; `default` stands for all that are not named.
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
}
