//! HTTP/3 with a client that is not ours, found by Alt-Svc as browsers find it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;

use super::world::{World, echo_service};
use crate::build::programs::HTTP3;
use crate::cmd::Run;
use crate::host;
use crate::process::bound;
use crate::progress;

const HOST: &str = "www.example.com";
/// How long a line of the access log may take to be written.
const LOGGED: Duration = Duration::from_secs(10);

/// What the client asks for arrives and comes back: bodies both ways, trailers, many requests at once, early answers,
/// WebSockets, tunnels.
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

/// Two Gateways that share their proxies serve HTTP/3 on one port, each its own host.
pub fn merged(world: &World) -> Result<()> {
    let [port, backend] = host::free_ports()?;
    let program = HTTP3.ensure()?;
    let hosts = ["a.example.com", "b.example.com"];
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(hosts.map(ToOwned::to_owned).to_vec())?;
    let ca = world.directory().join("ca.crt");
    fs::write(&ca, cert.pem()).context("cannot write the certificate")?;
    let mut manifests = format!(
        "{MERGED}---\n{}",
        secret(&cert.pem(), &signing_key.serialize_pem())
    );
    for host in hosts {
        manifests.push_str(&merged_gateway(host, port));
    }
    manifests.push_str(&echo_service(backend));
    let _sluice = world.sluice(&manifests, port)?;
    let front = format!("127.0.0.1:{port}");
    for host in hosts {
        // Over TCP, and then over QUIC, as it is announced there.
        let seen = bound(&program).args(["get", &front, host]).arg(&ca).text()?;
        let expected = format!("through-{}", &host[..1]);
        ensure!(seen.contains(&expected), "{host} was answered with {seen}");
    }
    // The log is written behind the requests.
    progress::wait_for("requests of HTTP/3 in the access log", LOGGED, || {
        let log = world.read("access.log")?;
        let lines: Vec<Value> = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        for host in hosts {
            let served = lines
                .iter()
                .any(|line| line["protocol"] == "HTTP/3" && line["requested_server_name"] == host);
            ensure!(served, "none for {host}: {log}");
        }
        Ok(Some(()))
    })
}

const MERGED: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: merged}
spec:
  controllerName: sluice.dev/gateway-controller
  parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: merged, namespace: default}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: merged}
spec: {mergeGateways: true}
";

/// A Gateway of that class, named for its host's first letter, whose route says so to the backend.
fn merged_gateway(host: &str, port: u16) -> String {
    let name = &host[..1];
    format!(
        "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  gatewayClassName: merged
  listeners:
  - name: https
    protocol: HTTPS
    port: {port}
    hostname: {host}
    tls: {{certificateRefs: [{{name: example-cert}}]}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {{name: {name}}}
spec:
  http3: {{}}
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: {name}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: {name}}}]
  rules:
  - filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {{set: [{{name: x-route, value: through-{name}}}]}}
    backendRefs: [{{name: echo, port: 80}}]
"
    )
}

fn secret(certificate: &str, key: &str) -> String {
    let indented = |pem: &str| pem.trim().replace('\n', "\n    ");
    format!(
        "\
apiVersion: v1
kind: Secret
metadata: {{name: example-cert}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {}
  tls.key: |
    {}
",
        indented(certificate),
        indented(key)
    )
}

/// As in Envoy Gateway's guide, with the backend beside them.
fn manifests(port: u16, backend: u16, certificate: &str, key: &str) -> String {
    let secret = secret(certificate, key);
    format!(
        "\
{secret}---
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
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: tunnels}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: backend}}]
  httpUpgrade: [{{type: websocket}}, {{type: CONNECT, connect: {{terminate: true}}}}]
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
"
    )
}
