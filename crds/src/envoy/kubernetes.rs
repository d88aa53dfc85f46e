//! What an EnvoyProxy says of the objects that are created for a Gateway.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSetUpdateStrategy, DeploymentStrategy};
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerBehavior, MetricSpec};
use k8s_openapi::api::core::v1::{
    Affinity, Container, EnvVar, LocalObjectReference, PodSecurityContext, SecurityContext, Toleration,
    TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::raw::Raw;
use crate::int_or_string::IntOrString;
use crate::open_enum::open_enum;

/// The objects that are created for a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyProxyKubernetesProvider {
    /// The Deployment; this is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_deployment: Option<KubernetesDeploymentSpec>,
    /// A DaemonSet in place of the Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_daemon_set: Option<KubernetesDaemonSetSpec>,
    /// The Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_service: Option<KubernetesServiceSpec>,
    /// An autoscaler for the Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_hpa: Option<KubernetesHorizontalPodAutoscalerSpec>,
    /// A disruption budget.
    #[serde(rename = "envoyPDB", skip_serializing_if = "Option::is_none")]
    pub envoy_pdb: Option<KubernetesPodDisruptionBudgetSpec>,
    /// The ServiceAccount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_service_account: Option<KubernetesServiceAccountSpec>,
    /// Whether containers listen on the listener's very port, even a privileged one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_listener_port_as_container_port: Option<bool>,
}

/// The Deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesDeploymentSpec {
    /// Applied last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<KubernetesPatchSpec>,
    /// Replicas; 1 if absent.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How pods are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Raw<DeploymentStrategy>>,
    /// Pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<KubernetesPodSpec>,
    /// The proxy's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<KubernetesContainerSpec>,
    /// Containers that run first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_containers: Option<Raw<Vec<Container>>>,
    /// Name; made from the Gateway's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The DaemonSet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesDaemonSetSpec {
    /// Applied last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<KubernetesPatchSpec>,
    /// How pods are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Raw<DaemonSetUpdateStrategy>>,
    /// Pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<KubernetesPodSpec>,
    /// The proxy's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<KubernetesContainerSpec>,
    /// Containers that run first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_containers: Option<Raw<Vec<Container>>>,
    /// Name; made from the Gateway's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesPodSpec {
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Security context of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<Raw<PodSecurityContext>>,
    /// Affinity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Raw<Affinity>>,
    /// Tolerations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Raw<Vec<Toleration>>>,
    /// Volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Raw<Vec<Volume>>>,
    /// Secrets to pull images with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_secrets: Option<Raw<Vec<LocalObjectReference>>>,
    /// Labels of nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Spread over nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology_spread_constraints: Option<Raw<Vec<TopologySpreadConstraint>>>,
    /// Priority class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// The proxy's container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesContainerSpec {
    /// Environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Raw<Vec<EnvVar>>>,
    /// Resources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Security context of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<Raw<SecurityContext>>,
    /// Image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Image without its tag, which stays the controller's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_repository: Option<String>,
    /// When the image is pulled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Mounts of the pod's volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_mounts: Option<Raw<Vec<VolumeMount>>>,
}

/// Resources of a container. Quantities may be written as numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRequirements {
    /// At most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, IntOrString>,
    /// Kept free.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, IntOrString>,
    /// Claims of the pod that the container uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ResourceClaim>,
}

/// A claim of a pod that a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceClaim {
    /// Name of the pod's claim.
    pub name: String,
    /// Which of its requests; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

impl ResourceRequirements {
    /// As Kubernetes' own type.
    pub fn to_kubernetes(&self) -> k8s_openapi::api::core::v1::ResourceRequirements {
        let claims = self
            .claims
            .iter()
            .map(|claim| k8s_openapi::api::core::v1::ResourceClaim {
                name: claim.name.clone(),
                request: claim.request.clone(),
            });
        k8s_openapi::api::core::v1::ResourceRequirements {
            limits: quantities(&self.limits),
            requests: quantities(&self.requests),
            claims: (!self.claims.is_empty()).then(|| claims.collect()),
        }
    }
}

fn quantities(map: &BTreeMap<String, IntOrString>) -> Option<BTreeMap<String, Quantity>> {
    let quantity = |value: &IntOrString| match value {
        IntOrString::Int(number) => Quantity(number.to_string()),
        IntOrString::String(text) => Quantity(text.clone()),
    };
    (!map.is_empty()).then(|| {
        map.iter()
            .map(|(name, value)| (name.clone(), quantity(value)))
            .collect()
    })
}

/// The Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesServiceSpec {
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Type; `LoadBalancer` if absent.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ServiceType>,
    /// Load balancer class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_class: Option<String>,
    /// Whether a load balancer's Service has node ports as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// Addresses that the load balancer takes traffic from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Address to ask the load balancer for.
    #[serde(rename = "loadBalancerIP", skip_serializing_if = "Option::is_none")]
    pub load_balancer_ip: Option<String>,
    /// `Local` (the default) keeps the client's address; `Cluster` spreads over all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<ServiceExternalTrafficPolicy>,
    /// Applied last; fixed node ports are set with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<KubernetesPatchSpec>,
    /// Name; made from the Gateway's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

open_enum! {
    /// Type of a Service.
    ServiceType {
        /// Within the cluster alone.
        ClusterIp = "ClusterIP",
        /// By a load balancer.
        LoadBalancer = "LoadBalancer",
        /// By a port of every node.
        NodePort = "NodePort",
    }
}

open_enum! {
    /// Where traffic from outside may go.
    ServiceExternalTrafficPolicy {
        /// Pods of the node that it reached.
        Local = "Local",
        /// Pods of any node.
        Cluster = "Cluster",
    }
}

/// The autoscaler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesHorizontalPodAutoscalerSpec {
    /// Fewest replicas; 1 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i32>,
    /// Most replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<i32>,
    /// What to scale by; CPU if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Raw<Vec<MetricSpec>>>,
    /// How fast to scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behavior: Option<Raw<HorizontalPodAutoscalerBehavior>>,
    /// Applied last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<KubernetesPatchSpec>,
    /// Name; made from the Gateway's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The disruption budget.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesPodDisruptionBudgetSpec {
    /// Fewest pods, or percent of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_available: Option<IntOrString>,
    /// Most pods, or percent of them, that may be away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
    /// Applied last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<KubernetesPatchSpec>,
    /// Name; made from the Gateway's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The ServiceAccount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesServiceAccountSpec {
    /// Name; made from the Gateway's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A change to a created object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesPatchSpec {
    /// How it is applied; `StrategicMerge` if absent.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<MergeType>,
    /// The change.
    pub value: Raw<Value>,
}

open_enum! {
    /// How a patch is applied.
    MergeType {
        /// Kubernetes' own rules: lists merge by their keys.
        StrategicMerge = "StrategicMerge",
        /// RFC 7396: lists are replaced.
        JsonMerge = "JSONMerge",
    }
}
