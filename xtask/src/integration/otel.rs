//! What OpenTelemetry's own collector makes of what the proxy tells it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::world::{World, echo_service};
use crate::build::programs::OTELCOL;
use crate::process::bound;
use crate::{curl, host};

/// How long the collector may take to write what it was told.
const PATIENCE: Duration = Duration::from_mins(1);
/// Trace of the request, as its client has named it.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Traces, logs and metrics by OTLP.
pub fn otlp(world: &World) -> Result<()> {
    let tracing = "type: OpenTelemetry, serviceName: edge";
    let expected = [
        // A span.
        "service.name: Str(edge)",
        "http.response.status_code: Int(200)",
        "user: Str(ann)",
        // A log record.
        "Body: Str(GET /told?x=1 200)",
        "code: Int(200)",
        // A metric.
        "Name: sluice_route_requests",
        "route: Str(HTTPRoute/default/echo)",
    ];
    check(world, tracing, true, &expected)
}

/// Spans as Zipkin's.
pub fn zipkin(world: &World) -> Result<()> {
    let tracing = "type: Zipkin, serviceName: edge, zipkin: {enable128BitTraceId: true}";
    let expected = [
        "service.name: Str(edge)",
        "user: Str(ann)",
        "Kind           : Server",
    ];
    check(world, tracing, false, &expected)
}

fn check(world: &World, tracing: &str, grpc: bool, expected: &[&str]) -> Result<()> {
    let program = OTELCOL.ensure()?;
    let [port, echo, otlp, zipkin] = host::free_ports()?;
    let config = collector(otlp, zipkin);
    let _collector = world.start("otelcol", bound(&program).arg(config), otlp)?;
    let to = if grpc { otlp } else { zipkin };
    let tracing = format!("{tracing}, host: 127.0.0.1, port: {to}");
    let _sluice = world.sluice(&manifests(&tracing, otlp, port, echo), port)?;
    let parent = format!("traceparent: 00-{TRACE}-b7ad6b7169203331-01");
    let url = format!("http://127.0.0.1:{port}/told?x=1");
    let answer = curl::local(&url, &["--header", &parent, "--header", "X-User: ann"])?;
    ensure!(answer.status == 200, "the request gets {}", answer.status);
    let begun = Instant::now();
    loop {
        let told = world.read("otelcol.log")?;
        let missing = |text: &&&str| !told.contains(**text);
        let first = [TRACE].iter().chain(expected).find(missing);
        let Some(first) = first else { return Ok(()) };
        ensure!(
            begun.elapsed() < PATIENCE,
            "the collector is not told {first:?}:\n{told}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn collector(otlp: u16, zipkin: u16) -> String {
    format!(
        "\
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{otlp}'}}}}}}
  zipkin: {{endpoint: '127.0.0.1:{zipkin}'}}
exporters:
  debug: {{verbosity: detailed, sampling_initial: 1000}}
service:
  telemetry: {{metrics: {{level: none}}, logs: {{encoding: console}}}}
  pipelines:
    traces: {{receivers: [otlp, zipkin], exporters: [debug]}}
    logs: {{receivers: [otlp], exporters: [debug]}}
    metrics: {{receivers: [otlp], exporters: [debug]}}
"
    )
}

fn manifests(tracing: &str, otlp: u16, port: u16, echo: u16) -> String {
    let service = echo_service(echo);
    format!(
        "\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {{name: told}}
spec:
  telemetry:
    accessLog:
      settings:
      - format:
          text: '%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE%'
          json: {{code: '%RESPONSE_CODE%'}}
        sinks: [{{type: OpenTelemetry, openTelemetry: {{host: 127.0.0.1, port: {otlp}}}}}]
    tracing:
      provider: {{{tracing}}}
      customTags: {{user: {{type: RequestHeader, requestHeader: {{name: X-User}}}}}}
    metrics:
      sinks: [{{type: OpenTelemetry, openTelemetry: {{host: 127.0.0.1, port: {otlp}}}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  gatewayClassName: sluice
  infrastructure: {{parametersRef: {{group: gateway.envoyproxy.io, kind: EnvoyProxy, name: told}}}}
  listeners: [{{name: http, port: {port}, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: echo}}
spec:
  parentRefs: [{{name: edge}}]
  rules: [{{backendRefs: [{{name: echo, port: 80}}]}}]
{service}"
    )
}
