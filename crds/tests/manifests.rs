//! The CRD manifests in the tree, and the chart's copies, are what the types say.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::{env, fs};

use serde_json::{Value, json};

#[test]
fn manifests_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for directory in [root.join("yaml"), root.join("../charts/sluice/crds")] {
        for (name, yaml) in sluice_crds::manifests().unwrap() {
            let path = directory.join(name);
            if env::var_os("UPDATE_GOLDEN").is_some() {
                fs::create_dir_all(&directory).unwrap();
                fs::write(&path, &yaml).unwrap();
            }
            let stored = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                stored == yaml,
                "{} is out of date: run with UPDATE_GOLDEN=1",
                path.display()
            );
        }
    }
}

/// Schema of EnvoyProxy.
fn envoy_proxy() -> Value {
    let crds = sluice_crds::crds();
    let crd = crds
        .iter()
        .find(|crd| crd.spec.names.kind == "EnvoyProxy")
        .unwrap();
    let schema = serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap()).unwrap();
    schema["openAPIV3Schema"].clone()
}

/// Parts that other kinds have too, and Kubernetes' own.
const SHARED: [&str; 7] = [
    ".backendRef.",
    ".backendSettings.",
    "amplingFraction.",
    ".spanName.",
    ".compression.",
    ".securityContext.",
    ".affinity.",
];

#[test]
fn parameters_of_proxies_need_what_envoy_gateways_need() {
    let mut required = Vec::new();
    collect_required(&envoy_proxy(), "", &mut required);
    required.retain(|path| !path.contains(".geoIP.") && !SHARED.iter().any(|part| path.contains(part)));
    required.sort();
    let kubernetes = ".spec.provider.kubernetes";
    let tracing = ".spec.telemetry.tracing.provider";
    let expected = [
        ".spec".to_owned(),
        ".spec.backendTLS.clientCertificateRef.name".to_owned(),
        format!("{kubernetes}.envoyDaemonSet.patch.value"),
        format!("{kubernetes}.envoyDeployment.patch.value"),
        format!("{kubernetes}.envoyHpa.maxReplicas"),
        format!("{kubernetes}.envoyHpa.patch.value"),
        format!("{kubernetes}.envoyPDB.patch.value"),
        format!("{kubernetes}.envoyService.patch.value"),
        ".spec.provider.type".to_owned(),
        tracing.to_owned(),
        format!("{tracing}.openTelemetry.sampler.samplingPercentage.numerator"),
        format!("{tracing}.openTelemetry.sampler.type"),
        format!("{tracing}.type"),
    ];
    assert_eq!(required, expected);
}

fn collect_required(schema: &Value, path: &str, found: &mut Vec<String>) {
    for name in schema["required"].as_array().into_iter().flatten() {
        found.push(format!("{path}.{}", name.as_str().unwrap()));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        collect_required(property, &format!("{path}.{name}"), found);
    }
}

#[test]
fn kubernetes_own_types_have_defaults_patterns_and_kinds_of_lists() {
    let proxy = envoy_proxy();
    let deployment =
        "/properties/spec/properties/provider/properties/kubernetes/properties/envoyDeployment/properties";
    let at = |path: &str| {
        proxy
            .pointer(&format!("{deployment}/{path}"))
            .unwrap_or(&Value::Null)
            .clone()
    };
    assert_eq!(at("initContainers/x-kubernetes-list-type"), Value::Null);
    let container = |path: &str| at(&format!("initContainers/items/{path}"));
    assert_eq!(container("required"), json!(["name"]));
    assert_eq!(container("description"), Value::Null);
    let keys = json!(["containerPort", "protocol"]);
    assert_eq!(container("properties/ports/x-kubernetes-list-map-keys"), keys);
    let protocol = container("properties/ports/items/properties/protocol/default");
    assert_eq!(protocol, json!("TCP"));
    assert_eq!(
        container("properties/args/x-kubernetes-list-type"),
        json!("atomic")
    );
    let limit = container("properties/resources/properties/limits/additionalProperties");
    assert_eq!(limit["x-kubernetes-int-or-string"], json!(true));
    assert!(limit["pattern"].as_str().unwrap().contains("[KMGTPE]i"));
    let selector = "pod/properties/topologySpreadConstraints/items/properties/labelSelector";
    assert_eq!(at(&format!("{selector}/x-kubernetes-map-type")), json!("atomic"));
    let secret = at("pod/properties/imagePullSecrets/items");
    assert_eq!(
        (&secret["properties"]["name"]["default"], &secret["required"]),
        (&json!(""), &Value::Null)
    );
    // Users have numbers of 64 bits, ports of 32.
    let user = at("pod/properties/securityContext/properties/runAsUser/format");
    let port = container("properties/ports/items/properties/hostPort/format");
    assert_eq!((user, port), (Value::Null, json!("int32")));
    let claim = "pod/properties/volumes/items/properties/ephemeral/properties/volumeClaimTemplate/properties";
    assert_eq!(at(&format!("{claim}/metadata/properties")), Value::Null);
}
