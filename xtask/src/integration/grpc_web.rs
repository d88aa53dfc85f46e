//! gRPC-Web with a client that is not ours, before a backend that speaks gRPC.

use anyhow::Result;

use super::world::World;
use crate::build::programs::GRPC_WEB;
use crate::cmd::Run;
use crate::host;
use crate::process::bound;

/// Calls, calls that fail, and a stream of messages.
pub fn connect(world: &World) -> Result<()> {
    let [port, backend] = host::free_ports()?;
    let program = GRPC_WEB.ensure()?;
    let address = format!("127.0.0.1:{backend}");
    let _backend = world.start("backend", bound(&program).args(["backend", &address]), backend)?;
    let _sluice = world.sluice(&manifests(port, backend), port)?;
    let front = format!("127.0.0.1:{port}");
    bound(&program).args(["check", &front]).text()?;
    Ok(())
}

fn manifests(port: u16, backend: u16) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  gatewayClassName: sluice
  listeners: [{{name: http, port: {port}, protocol: HTTP}}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {{name: grpc-web}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: edge}}]
  grpc: {{enableWeb: true}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: health}}
spec:
  parentRefs: [{{name: edge}}]
  rules: [{{backendRefs: [{{name: health, port: 80}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: health}}
spec: {{ports: [{{name: grpc, port: 80, targetPort: {backend}, appProtocol: kubernetes.io/h2c}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: health-1, labels: {{kubernetes.io/service-name: health}}}}
addressType: IPv4
ports: [{{name: grpc, port: {backend}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"
    )
}
