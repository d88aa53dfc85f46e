//! The catalogue of Go programs. Versions live in the go.mod files under e2e/, never here.

use std::path::PathBuf;

use anyhow::Result;

use super::go::{self, Kind, Program};
use crate::paths;

const KUBERNETES: &str = "e2e/modules/kubernetes";
const ENVOY_GATEWAY_MODULE: &str = "e2e/modules/envoygateway";
const IMAGES: &str = "e2e/modules/images";

const fn kubernetes(name: &'static str, package: &'static str) -> Program {
    Program {
        name,
        module: KUBERNETES,
        package,
        kind: Kind::Kubernetes,
    }
}

const fn plain(name: &'static str, module: &'static str, package: &'static str) -> Program {
    Program {
        name,
        module,
        package,
        kind: Kind::Binary,
    }
}

pub const APISERVER: Program = kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver");
pub const CONTROLLER_MANAGER: Program = kubernetes(
    "kube-controller-manager",
    "k8s.io/kubernetes/cmd/kube-controller-manager",
);
pub const SCHEDULER: Program = kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler");
pub const KUBELET: Program = kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet");
pub const KUBE_PROXY: Program = kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy");
pub const KUBECTL: Program = kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl");
pub const ETCD: Program = plain("etcd", "e2e/modules/etcd", "go.etcd.io/etcd/server/v3");
pub const PAUSE: Program = plain("pause", IMAGES, "./pause");
pub const ECHO_BASIC: Program = plain(
    "echo-basic",
    IMAGES,
    "sigs.k8s.io/gateway-api-conformance-images/echo-basic",
);
pub const AUTHZ: Program = plain("authz", "e2e/modules/authz", ".");
pub const EXTPROC: Program = plain("extproc", "e2e/modules/extproc", ".");
pub const GEOIP: Program = plain("geoip", "e2e/modules/geoip", ".");
pub const GRPC_WEB: Program = plain("grpcweb", "e2e/modules/grpcweb", ".");
pub const HTTP3: Program = plain("http3", "e2e/modules/http3", ".");
pub const OTELCOL: Program = plain("otelcol", "e2e/modules/otelcol", ".");
pub const RATELIMIT: Program = plain(
    "ratelimit",
    "e2e/modules/ratelimit",
    "github.com/envoyproxy/ratelimit/src/service_cmd",
);
pub const ENVOY_GATEWAY: Program = plain(
    "envoy-gateway",
    ENVOY_GATEWAY_MODULE,
    "github.com/envoyproxy/gateway/cmd/envoy-gateway",
);
pub const COREDNS: Program = plain("coredns", "e2e", "github.com/coredns/coredns");
pub const HELM: Program = plain("helm", "e2e", "helm.sh/helm/v3/cmd/helm");
pub const CONFORMANCE: Program = Program {
    name: "conformance.test",
    module: "e2e",
    package: ".",
    kind: Kind::TestBinary,
};

/// What a cluster consists of.
pub const CLUSTER: [&Program; 10] = [
    &ETCD,
    &PAUSE,
    &ECHO_BASIC,
    &APISERVER,
    &CONTROLLER_MANAGER,
    &SCHEDULER,
    &KUBELET,
    &KUBE_PROXY,
    &KUBECTL,
    &COREDNS,
];

/// The Gateway API's CustomResourceDefinitions, experimental channel, from the Go module.
pub fn gateway_api_crds() -> Result<PathBuf> {
    let directory = go::module_directory(&paths::root().join("e2e"), "sigs.k8s.io/gateway-api")?;
    Ok(directory.join("config/crd/experimental"))
}

/// Envoy Gateway's helm chart, from the Go module.
pub fn envoy_gateway_chart() -> Result<PathBuf> {
    Ok(envoy_gateway()?.join("charts/gateway-helm"))
}

/// Envoy Gateway's CustomResourceDefinitions, from the Go module: templates of a chart.
pub fn envoy_gateway_crds() -> Result<PathBuf> {
    Ok(envoy_gateway()?.join("charts/gateway-crds-helm/templates/generated"))
}

fn envoy_gateway() -> Result<PathBuf> {
    let module = paths::root().join(ENVOY_GATEWAY_MODULE);
    go::module_directory(&module, "github.com/envoyproxy/gateway")
}
