//! HTTP/3 with a client that is not ours, found by Alt-Svc as browsers find it.

use std::fs;

use anyhow::{Context, Result, ensure};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;

use super::world::World;
use crate::build::programs::HTTP3;
use crate::cmd::Run;
use crate::host;
use crate::process::bound;

const HOST: &str = "www.example.com";

/// What the client asks for arrives and comes back: bodies both ways, trailers, many requests at once, early answers.
pub fn quic_go(world: &World) -> Result<()> {
    let [port, backend] = host::free_ports()?;
    let program = HTTP3.ensure()?;
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec![HOST.to_owned()])?;
    let ca = world.directory().join("ca.crt");
    fs::write(&ca, cert.pem()).context("cannot write the certificate")?;
    let address = format!("127.0.0.1:{backend}");
    let _backend = world.start("backend", bound(&program).args(["backend", &address]), backend)?;
    let manifests = manifests(port, backend, &cert.pem(), &signing_key.serialize_pem());
    let _sluice = world.sluice(&manifests, port)?;
    let front = format!("127.0.0.1:{port}");
    bound(&program).args(["check", &front, HOST]).arg(&ca).text()?;
    let log = world.read("access.log")?;
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let over_http3 = lines.filter(|line| line["protocol"] == "HTTP/3").count();
    ensure!(
        over_http3 >= 20,
        "{over_http3} requests of HTTP/3 in the access log"
    );
    Ok(())
}

/// As in Envoy Gateway's guide, with the backend beside them.
fn manifests(port: u16, backend: u16, certificate: &str, key: &str) -> String {
    let indented = |pem: &str| pem.trim().replace('\n', "\n    ");
    format!(
        "\
apiVersion: v1
kind: Secret
metadata: {{name: example-cert}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {certificate}
  tls.key: |
    {key}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: eg}}
spec:
  gatewayClassName: sluice
  listeners:
  - name: https
    protocol: HTTPS
    port: {port}
    tls:
      mode: Terminate
      certificateRefs: [{{kind: Secret, group: \"\", name: example-cert}}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {{name: enable-http3}}
spec:
  http3: {{}}
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: eg}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: backend}}
spec:
  parentRefs: [{{name: eg}}]
  hostnames: [{HOST}]
  rules: [{{backendRefs: [{{name: backend, port: 3000}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: backend}}
spec: {{ports: [{{name: http, port: 3000, targetPort: {backend}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: backend-1, labels: {{kubernetes.io/service-name: backend}}}}
addressType: IPv4
ports: [{{name: http, port: {backend}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
",
        certificate = indented(certificate),
        key = indented(key),
    )
}
