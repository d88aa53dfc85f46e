//! `sluice standalone` as a user has it: the binary, a folder, requests over loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic"
)]

mod support;

use std::process::Command;

use support::{CLASS, Sluice, free_port, get, get_from, until};

fn gateway(name: &str, port: u16) -> String {
    format!(
        "{CLASS}---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  gatewayClassName: sluice
  listeners: [{{name: http, port: {port}, protocol: HTTP}}]
"
    )
}

fn route(prefix: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web}}
spec:
  parentRefs: [{{name: gw}}]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: {prefix}}}}}]
    backendRefs: [{{name: echo, port: 80}}]
"
    )
}

fn backend(port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec: {{ports: [{{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: echo-1
  labels: {{kubernetes.io/service-name: echo}}
  annotations: {{sluice.dev/echo: 'true'}}
addressType: IPv4
ports: [{{name: http, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"
    )
}

fn folder(port: u16) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("gateway.yaml"), gateway("gw", port)).unwrap();
    std::fs::write(dir.path().join("route.yaml"), route("/a")).unwrap();
    std::fs::write(dir.path().join("backend.yml"), backend(free_port())).unwrap();
    dir
}

#[test]
fn edits_are_live_and_mistakes_harmless() {
    let port = free_port();
    let dir = folder(port);
    let sluice = Sluice::standalone(dir.path());
    sluice.expect(&["HTTPRoute default/web", "Accepted", "ResolvedRefs"]);
    let (status, body) =
        until(|| get(port, "/a/b?c").filter(|(status, _)| *status == 200)).expect("no answer");
    let seen: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, seen["path"].as_str(), seen["host"].as_str()),
        (200, Some("/a/b?c"), Some("example.com"))
    );
    assert_eq!(seen["headers"]["X-Forwarded-Proto"][0], "http");
    assert_eq!(get(port, "/b").unwrap().0, 404);

    std::fs::write(dir.path().join("route.yaml"), route("/b")).unwrap();
    until(|| get(port, "/b").filter(|(status, _)| *status == 200)).expect("the edit is not live");
    assert_eq!(get(port, "/a").unwrap().0, 404);

    std::fs::write(dir.path().join("route.yaml"), "kind: HTTPRoute\napiVersion: [").unwrap();
    sluice.expect(&["route.yaml, document 1: "]);
    std::fs::write(
        dir.path().join("other.yaml"),
        "kind: Widget\napiVersion: example.com/v1\n",
    )
    .unwrap();
    sluice.expect(&["other.yaml, document 1: ", "Widget"]);
    assert_eq!(get(port, "/b").unwrap().0, 200);

    std::fs::write(
        dir.path().join("route.yaml"),
        route("/c").replace("name: echo", "name: gone"),
    )
    .unwrap();
    sluice.expect(&["HTTPRoute default/web", "ResolvedRefs=False", "BackendNotFound"]);
    assert_eq!(get(port, "/c").unwrap().0, 500);

    std::fs::remove_file(dir.path().join("route.yaml")).unwrap();
    until(|| get(port, "/c").filter(|(status, _)| *status == 404)).expect("the removal is not live");
    assert!(sluice.stop().success());
}

#[test]
fn one_port_has_one_gateway() {
    let port = free_port();
    let dir = folder(port);
    let sluice = Sluice::standalone(dir.path());
    sluice.expect(&["HTTPRoute default/web", "Accepted"]);
    let other = dir.path().join("other.yaml");
    std::fs::write(&other, gateway("other", port)).unwrap();
    sluice.expect(&[
        "Gateway default/other",
        "Programmed=False",
        "taken by Gateway default/gw",
    ]);
    assert_eq!(get(port, "/a").unwrap().0, 200);
    let free = free_port();
    std::fs::write(&other, gateway("other", free)).unwrap();
    until(|| get(free, "/a").filter(|(status, _)| *status == 404)).expect("the other Gateway does not serve");
}

#[test]
fn check_and_translate() {
    let dir = folder(8080);
    let run = |command: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args([command, "--config"])
            .arg(dir.path())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    assert!(run("check").0, "{}", run("check").1);
    let (good, text) = run("translate");
    assert!(good);
    let printed: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap();
    let config = &printed["config"]["default/gw"];
    assert!(!config["listener/Gateway/default/gw/http"].is_null(), "{text}");
    assert!(!config["route/HTTPRoute/default/web"].is_null(), "{text}");
    assert!(!printed["statuses"]["HTTPRoute default/web"].is_null(), "{text}");

    std::fs::write(
        dir.path().join("route.yaml"),
        route("/").replace("name: echo", "name: gone"),
    )
    .unwrap();
    let (good, text) = run("check");
    assert!(!good);
    assert!(
        text.contains("HTTPRoute default/web") && text.contains("ResolvedRefs=False"),
        "{text}"
    );
    std::fs::write(dir.path().join("broken.yaml"), "kind: {").unwrap();
    assert!(run("check").1.contains("broken.yaml, document 1"));
}

#[test]
fn the_quickstart_has_no_mistake() {
    let quickstart = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quickstart");
    let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["check", "--config", quickstart])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// A class with parameters, and two Gateways of it on one port for different hosts.
fn merged(port: u16, merge: bool) -> String {
    use std::fmt::Write as _;

    let mut text = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: merged}}
spec:
  controllerName: sluice.dev/gateway-controller
  parametersRef: {{group: gateway.envoyproxy.io, kind: EnvoyProxy, name: merged, namespace: default}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {{name: merged}}
spec: {{mergeGateways: {merge}}}
"
    );
    for (name, status) in [("a", 301), ("b", 302)] {
        write!(
            text,
            "---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  gatewayClassName: merged
  listeners: [{{name: http, port: {port}, protocol: HTTP, hostname: {name}.example}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: {name}}}]
  rules: [{{filters: [{{type: RequestRedirect, requestRedirect: {{statusCode: {status}}}}}]}}]
"
        )
        .unwrap();
    }
    text
}

#[test]
fn gateways_of_a_class_share_a_port_while_they_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let (file, port) = (dir.path().join("all.yaml"), free_port());
    std::fs::write(&file, merged(port, true)).unwrap();
    let sluice = Sluice::standalone(dir.path());
    let status = |host| get_from(port, host, "/").map(|(status, _)| status);
    let both = |a, b| until(|| (status("a.example") == a && status("b.example") == b).then_some(()));
    both(Some(301), Some(302)).expect("both Gateways answer");
    std::fs::write(&file, merged(port, false)).unwrap();
    sluice.expect(&["Gateway default/b", "is taken by Gateway default/a"]);
    both(Some(301), Some(404)).expect("the port is the first one's");
    std::fs::write(&file, merged(port, true)).unwrap();
    both(Some(301), Some(302)).expect("both Gateways answer again");
    assert!(sluice.stop().success());
}
