//! External processing by a program that speaks the published protocol.

use anyhow::{Result, ensure};
use std::fmt::Write as _;

use super::world::World;
use crate::build::programs::EXTPROC;
use crate::process::bound;
use crate::{curl, host};

/// Heads and bodies are changed in every mode, and the processor answers a request itself.
pub fn modes(world: &World) -> Result<()> {
    let [port, echo, processor] = host::free_ports()?;
    let address = format!("127.0.0.1:{processor}");
    let _processor = world.start("extproc", bound(EXTPROC.ensure()?).arg(&address), processor)?;
    let _sluice = world.sluice(&manifests(port, echo, processor), port)?;
    let ask = |path: &str| {
        let url = format!("http://127.0.0.1:{port}{path}");
        curl::local(&url, &["--data", "some text"])
    };
    let got = ask("/heads")?;
    ensure!(got.status == 200, "heads: {got:?}");
    ensure!(got.header("x-processed-status") == Some("200"), "{got:?}");
    ensure!(
        got.body.contains("/heads") && got.body.to_lowercase().contains("x-processed-path"),
        "{got:?}"
    );
    let got = ask("/buffered")?;
    ensure!(got.body.starts_with("processed:"), "{got:?}");
    let length = got.header("content-length").map(str::to_owned);
    ensure!(length == Some(got.body.len().to_string()), "{got:?}");
    let got = ask("/streamed")?;
    ensure!(
        got.body.contains("/STREAMED") && !got.body.contains("/streamed"),
        "{got:?}"
    );
    let got = ask("/duplex")?;
    ensure!(got.status == 200 && got.body.contains("/duplex"), "{got:?}");
    let got = ask("/immediate")?;
    ensure!(
        got.status == 423 && got.body == "answered by the processor",
        "{got:?}"
    );
    ensure!(got.header("x-processor") == Some("immediate"), "{got:?}");
    let got = ask("/away")?;
    ensure!(got.status == 500, "{got:?}");
    let got = ask("/open")?;
    ensure!(got.status == 200, "{got:?}");
    Ok(())
}

fn manifests(port: u16, echo: u16, processor: u16) -> String {
    let mut text = format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  gatewayClassName: sluice
  listeners: [{{name: http, port: {port}, protocol: HTTP}}]
"
    );
    let body = |mode: &str| {
        format!(
            "processingMode: {{request: {{body: {mode}}}, response: {{body: {mode}}}}}, backendRefs: [{{name: processor, port: 80}}]"
        )
    };
    let heads =
        "processingMode: {request: {}, response: {}}, backendRefs: [{name: processor, port: 80}]".to_owned();
    let away = "processingMode: {request: {}}, backendRefs: [{name: away, port: 80}]";
    for (name, ext_proc) in [
        ("heads", heads.clone()),
        ("immediate", heads),
        ("buffered", body("Buffered")),
        ("streamed", body("Streamed")),
        ("duplex", body("FullDuplexStreamed")),
        ("away", away.to_owned()),
        ("open", format!("failOpen: true, {away}")),
    ] {
        let _ = write!(
            text,
            "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: edge}}]
  rules: [{{matches: [{{path: {{value: /{name}}}}}], backendRefs: [{{name: echo, port: 80}}]}}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyExtensionPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: {name}}}]
  extProc: [{{messageTimeout: 10s, {ext_proc}}}]
"
        );
    }
    // Nobody listens at port 1.
    for (name, port, annotations) in [
        ("echo", echo, "{sluice.dev/echo: \"true\"}"),
        ("processor", processor, "{}"),
        ("away", 1, "{}"),
    ] {
        let _ = write!(
            text,
            "\
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{name: main, port: 80, targetPort: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}, annotations: {annotations}}}
addressType: IPv4
ports: [{{name: main, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"
        );
    }
    text
}
