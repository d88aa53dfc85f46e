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

use super::kubernetes_schema;
use super::raw::Raw;
use crate::cel::Cel;
use crate::int_or_string::IntOrString;
use crate::open_enum::open_enum;
use crate::shape::MapBy;

/// Image: registry, repository, tag and digest, of which the repository alone must be there.
const IMAGE: &str = "^[a-zA-Z0-9._-]+(:[0-9]+)?(/[a-zA-Z0-9._/-]+)?(:[a-zA-Z0-9._-]+)?(@sha256:[a-z0-9]+)?$";

/// Image without tag and digest.
const IMAGE_REPOSITORY: &str = "^[a-zA-Z0-9._-]+(:[0-9]+)?[a-zA-Z0-9._/-]+$";

/// Address of IPv4.
const IPV4: &str = r"^((25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])$";

/// The objects that are created for a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[(
    "!has(self.envoyDaemonSet) || !has(self.envoyDeployment)",
    "only one of envoyDeployment and envoyDaemonSet may be set",
), (
    "!has(self.envoyDaemonSet) || !has(self.envoyHpa)",
    "envoyHpa has nothing to scale with envoyDaemonSet",
)]))]
#[serde(rename_all = "camelCase")]
pub struct EnvoyProxyKubernetesProvider {
    /// The Deployment; this is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_deployment: Option<KubernetesDeploymentSpec>,
    /// A DaemonSet in place of the Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_daemon_set: Option<KubernetesDaemonSetSpec>,
    /// The Service by which the proxies are reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_service: Option<KubernetesServiceSpec>,
    /// An autoscaler for the Deployment; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_hpa: Option<KubernetesHorizontalPodAutoscalerSpec>,
    /// A budget that keeps drained nodes from taking too many pods at once; none if absent.
    #[serde(rename = "envoyPDB", skip_serializing_if = "Option::is_none")]
    pub envoy_pdb: Option<KubernetesPodDisruptionBudgetSpec>,
    /// The ServiceAccount that the pods have.
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
    /// A change to the object as it would be created; applied last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<KubernetesPatchSpec>,
    /// Replicas; 1 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How pods are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Raw<DeploymentStrategy>>,
    /// The pods, but for their containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<KubernetesPodSpec>,
    /// The proxy's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<KubernetesContainerSpec>,
    /// Containers that run to their end before the proxy's starts.
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
    /// A change to the object as it would be created; applied last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<KubernetesPatchSpec>,
    /// How pods are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Raw<DaemonSetUpdateStrategy>>,
    /// The pods, but for their containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<KubernetesPodSpec>,
    /// The proxy's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<KubernetesContainerSpec>,
    /// Containers that run to their end before the proxy's starts.
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
    /// Annotations of the object, beside those that it has by itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Labels of the object, beside those that it has by itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Users, groups and privileges of all containers of a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<Raw<PodSecurityContext>>,
    /// Which nodes, and which other pods' company, pods look for or keep away from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Raw<Affinity>>,
    /// Taints of nodes that do not keep pods away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Raw<Vec<Toleration>>>,
    /// Volumes that containers can mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Raw<Vec<Volume>>>,
    /// Secrets to pull images with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_secrets: Option<Raw<Vec<LocalObjectReference>>>,
    /// Labels that a pod's node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// How evenly pods are spread over nodes and zones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology_spread_constraints: Option<Raw<Vec<TopologySpreadConstraint>>>,
    /// PriorityClass: who is put out first where nodes are full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// The proxy's container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[(
    "!has(self.image) || !has(self.imageRepository)",
    "only one of image and imageRepository may be set",
)]))]
#[serde(rename_all = "camelCase")]
pub struct KubernetesContainerSpec {
    /// Environment variables, beside those that the proxy is started with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Raw<Vec<EnvVar>>>,
    /// CPU and memory of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// User, group and privileges of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<Raw<SecurityContext>>,
    /// Image of the container. One of Envoy's is not used: the proxy is Sluice's.
    #[schemars(extend("pattern" = IMAGE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Image without its tag, which stays the controller's default.
    #[schemars(extend("pattern" = IMAGE_REPOSITORY))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_repository: Option<String>,
    /// When the image is pulled: `Always`, `IfNotPresent` or `Never`.
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
    /// What the container gets at most, by resource (`cpu`, `memory`): quantities.
    #[schemars(transform = kubernetes_schema::quantities)]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, IntOrString>,
    /// What is kept free for the container on its node, by resource: quantities.
    #[schemars(transform = kubernetes_schema::quantities)]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, IntOrString>,
    /// Claims of the pod that the container uses.
    #[schemars(transform = MapBy("name"))]
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
#[schemars(transform = Cel(&[(
    "!has(self.allocateLoadBalancerNodePorts) || self.type == 'LoadBalancer'",
    "allocateLoadBalancerNodePorts is for type LoadBalancer",
), (
    "!has(self.loadBalancerSourceRanges) || self.type == 'LoadBalancer'",
    "loadBalancerSourceRanges is for type LoadBalancer",
), (
    "!has(self.loadBalancerIP) || self.type == 'LoadBalancer'",
    "loadBalancerIP is for type LoadBalancer",
)]))]
#[serde(rename_all = "camelCase")]
pub struct KubernetesServiceSpec {
    /// Annotations of the object, beside those that it has by itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Labels of the object, beside those that it has by itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How the Service is reached; `LoadBalancer` if absent.
    #[schemars(extend("default" = "LoadBalancer"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ServiceType>,
    /// Who makes the load balancer; the cluster's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_class: Option<String>,
    /// Whether a load balancer's Service has node ports as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// Networks that the load balancer takes traffic from; all if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Address of IPv4 to ask the load balancer for.
    #[schemars(extend("pattern" = IPV4))]
    #[serde(rename = "loadBalancerIP", skip_serializing_if = "Option::is_none")]
    pub load_balancer_ip: Option<String>,
    /// `Local` (the default) keeps the client's address; `Cluster` spreads over all nodes.
    #[schemars(extend("default" = "Local"))]
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
#[schemars(transform = Cel(&[(
    "!has(self.minReplicas) || self.minReplicas <= self.maxReplicas",
    "minReplicas must not be more than maxReplicas",
)]))]
#[serde(rename_all = "camelCase")]
pub struct KubernetesHorizontalPodAutoscalerSpec {
    /// Fewest replicas; 1 if absent.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i32>,
    /// Most replicas, no fewer than `minReplicas`.
    #[schemars(range(min = 1), required)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<i32>,
    /// What to scale by; CPU if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Raw<Vec<MetricSpec>>>,
    /// How fast to scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behavior: Option<Raw<HorizontalPodAutoscalerBehavior>>,
    /// A change to the object as it would be created; applied last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<KubernetesPatchSpec>,
    /// Name; made from the Gateway's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The disruption budget.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[(
    "has(self.minAvailable) != has(self.maxUnavailable)",
    "exactly one of minAvailable and maxUnavailable must be set",
)]))]
#[serde(rename_all = "camelCase")]
pub struct KubernetesPodDisruptionBudgetSpec {
    /// Fewest pods, or percent of them (`50%`), that must stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_available: Option<IntOrString>,
    /// Most pods, or percent of them, that may be away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
    /// A change to the object as it would be created; applied last.
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
    /// How it is applied: `StrategicMerge` (if absent) or `JSONMerge`.
    #[schemars(with = "Option<String>")]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<MergeType>,
    /// The change, of the object's own shape.
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
