//! The configuration files of containerd, the CNI plugins, the kubelet and kube-proxy.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::build::images::PAUSE_IMAGE;
use crate::paths::RUN;

/// The node's name.
pub const NODE: &str = "k3s";
/// All pods' addresses.
pub const PODS: &str = "10.42.0.0/16";
/// The node's share of them.
const NODE_PODS: &str = "10.42.0.0/24";
/// All cluster IPs.
pub const SERVICES: &str = "10.43.0.0/16";
/// The name server's cluster IP.
pub const DNS: &str = "10.43.0.10";
/// The CNI network's name, by which `down` finds what the plugins have left.
pub const CNI_NETWORK: &str = "sluice";
/// `ClusterTrustBundle` may be a CA reference of BackendTLSPolicy and of frontend validation.
pub const FEATURE_GATES: &str = "ClusterTrustBundle=true,ClusterTrustBundleProjection=true";

/// The socket of containerd's CRI service.
pub fn containerd_socket() -> String {
    format!("{RUN}/containerd.sock")
}

/// Writes all files below `state`.
pub fn write(state: &Path) -> Result<()> {
    put(&state.join("cni/10-sluice.conflist"), &cni(state))?;
    put(&state.join("containerd.toml"), &containerd(state))?;
    put(&state.join("kubelet.yaml"), &kubelet(state))?;
    put(&state.join("kube-proxy.yaml"), &kube_proxy(state))
}

fn put(path: &Path, content: &str) -> Result<()> {
    let parent = path.parent().context("a file without a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

fn cni(state: &Path) -> String {
    json!({
        "cniVersion": "1.0.0",
        "name": CNI_NETWORK,
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": NODE_PODS }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                    "dataDir": state.join("cni-ipam"),
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
    .to_string()
}

fn containerd(state: &Path) -> String {
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE no score may be lowered, and a container would not start.
    format!(
        r#"version = 2
root = "{root}"
state = "{RUN}/containerd"
[grpc]
address = "{socket}"
[ttrpc]
address = "{socket}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#,
        root = state.join("containerd").display(),
        socket = containerd_socket(),
        cni = state.join("cni").display(),
    )
}

fn kubelet(state: &Path) -> String {
    let gates: serde_json::Map<String, serde_json::Value> = FEATURE_GATES
        .split(',')
        .filter_map(|gate| gate.split_once('='))
        .map(|(name, on)| (name.to_owned(), json!(on == "true")))
        .collect();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "featureGates": gates,
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": format!("unix://{}", containerd_socket()),
        // The API server presents no client certificate here: the node's namespace is the boundary.
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "failSwapOn": false,
        "resolvConf": "",
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 250,
        "serializeImagePulls": false,
        "podLogsDir": state.join("pod-logs"),
        // Tests change Secrets and ConfigMaps: pods see them at once.
        "configMapAndSecretChangeDetectionStrategy": "Watch",
        "nodeStatusUpdateFrequency": "5s",
    })
    .to_string()
}

fn kube_proxy(state: &Path) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": PODS,
        "clientConnection": { "kubeconfig": state.join("kube-proxy.kubeconfig") },
        "hostnameOverride": NODE,
        // The machine's conntrack limits are not ours to change.
        "conntrack": { "maxPerCore": 0, "min": 0 },
        "iptables": { "minSyncPeriod": "100ms" },
    })
    .to_string()
}
