//! The CRD manifests in the tree, and the chart's copies, are what the types say.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::{env, fs};

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

/// Parts of telemetry that other kinds have too.
const SHARED: [&str; 5] = [
    ".backendRef.",
    ".backendSettings.",
    "amplingFraction.",
    ".spanName.",
    ".compression.",
];

#[test]
fn the_crd_requires_no_field_that_envoy_gateway_leaves_out() {
    let crd = <sluice_crds::envoy::EnvoyProxy as kube::CustomResourceExt>::crd();
    let schema = serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap()).unwrap();
    let mut required = Vec::new();
    collect_required(&schema["openAPIV3Schema"], "", &mut required);
    let patch = |object: &str| format!(".spec.provider.kubernetes.{object}.patch.value");
    let mut expected: Vec<_> = [
        "envoyDaemonSet",
        "envoyDeployment",
        "envoyHpa",
        "envoyPDB",
        "envoyService",
    ]
    .map(patch)
    .to_vec();
    expected.insert(0, ".spec".to_owned());
    let databases = [
        "anonymousIpDbSource",
        "asnDbSource",
        "cityDbSource",
        "countryDbSource",
        "ispDbSource",
    ];
    let path = |database: &str| format!(".spec.geoIP.provider.maxMind.{database}.local.path");
    expected.extend(databases.map(path));
    expected.extend([".spec.geoIP.provider", ".spec.geoIP.provider.type"].map(ToOwned::to_owned));
    expected.push(".spec.backendTLS.clientCertificateRef.name".to_owned());
    let sampler = ".spec.telemetry.tracing.provider.openTelemetry.sampler";
    expected.push(format!("{sampler}.samplingPercentage.numerator"));
    // What telemetry shares with other kinds has what is required there; nothing of its own does.
    required.retain(|path| {
        !path.starts_with(".spec.telemetry.") || !SHARED.iter().any(|part| path.contains(part))
    });
    expected.sort();
    required.sort();
    assert_eq!(required, expected);
}

fn collect_required(schema: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    for name in schema["required"].as_array().into_iter().flatten() {
        found.push(format!("{path}.{}", name.as_str().unwrap()));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        collect_required(property, &format!("{path}.{name}"), found);
    }
}
