//! Golden tests of the objects that are made for a Gateway: `infra/NAME.yaml` in, `infra/NAME.out.yaml` out.
//! `UPDATE_GOLDEN=1` rewrites the latter.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use sluice_controller::engine::{GatewayRef, Infra, InfraPort};
use sluice_controller::infra::{RenderError, Settings, check, render};
use sluice_crds::envoy::EnvoyProxySpec;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Input {
    gateway: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    /// `80/tcp`: bound as 10080.
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    cluster_only: bool,
    #[serde(default)]
    envoy_proxy: EnvoyProxySpec,
}

fn infra(input: Input) -> Infra {
    let port = |text: &String| {
        let (port, protocol) = text.split_once('/').unwrap();
        let port: u16 = port.parse().unwrap();
        let bind_port = if port < 1024 { port + 10000 } else { port };
        InfraPort {
            port,
            bind_port,
            udp: protocol == "udp",
        }
    };
    Infra {
        gateway: GatewayRef::new("shop", input.gateway),
        uid: "0b5a7f4e-0000-0000-0000-000000000000".to_owned(),
        class: "sluice".into(),
        labels: input.labels,
        annotations: input.annotations,
        ports: input.ports.iter().map(port).collect(),
        addresses: input.addresses,
        cluster_only: input.cluster_only,
        proxy: Arc::new(input.envoy_proxy),
    }
}

fn settings() -> Settings {
    Settings {
        controller_name: "sluice.dev/gateway-controller".to_owned(),
        image: "registry.example/sluice:1.2.3".to_owned(),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        controller_url: "https://sluice-controller.sluice-system.svc:18000".to_owned(),
        ca_bundle: "CA\n".to_owned(),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/infra")
}

#[test]
fn objects_are_as_recorded() {
    let mut cases = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(case) = name
            .strip_suffix(".yaml")
            .filter(|case| case.strip_suffix(".out").is_none())
        else {
            continue;
        };
        cases += 1;
        let input: Input = serde_yaml_ng::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let mut text = String::new();
        for child in render(&infra(input), &settings()).unwrap() {
            write!(text, "---\n{}", serde_yaml_ng::to_string(&child.object).unwrap()).unwrap();
        }
        let golden = folder().join(format!("{case}.out.yaml"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert!(
            text == expected,
            "{name}: objects differ from the golden file (UPDATE_GOLDEN=1 rewrites it)\n{text}"
        );
    }
    assert!(cases > 0, "no cases");
}

fn refused(yaml: &str) -> RenderError {
    check(&serde_yaml_ng::from_str(yaml).unwrap()).unwrap_err()
}

#[test]
fn what_cannot_be_used_is_named() {
    let field = |yaml| refused(yaml).field;
    assert_eq!(field("provider: {type: Host}"), "provider.type");
    assert_eq!(
        field("provider: {kubernetes: {envoyService: {type: ExternalName}}}"),
        "provider.kubernetes.envoyService.type"
    );
    assert_eq!(
        field("provider: {kubernetes: {envoyDeployment: {pod: {tolerations: 7}}}}"),
        "pod.tolerations"
    );
    assert_eq!(
        field("provider: {kubernetes: {envoyService: {patch: {value: 7}}}}"),
        "provider.kubernetes.envoyService.patch"
    );
    assert!(
        refused("provider: {kubernetes: {envoyHpa: {}}}")
            .reason
            .contains("maxReplicas")
    );
    check(&EnvoyProxySpec::default()).unwrap();
}
