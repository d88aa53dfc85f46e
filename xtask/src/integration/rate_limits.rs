//! Limits that proxies share: `sluice ratelimit` with a real Redis, and the service of Envoy's project in its place.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::world::{self, World};
use crate::build::programs::RATELIMIT;
use crate::curl::{self, Answer};
use crate::host;
use crate::process::{Process, bound};

/// Routes and what limits them. The unit is a year, so that no window ends while the check runs.
const LIMITED: [(&str, &str); 5] = [
    ("shared", "{limit: {requests: 3, unit: Year}}"),
    (
        "distinct",
        "{limit: {requests: 1, unit: Year}, clientSelectors: [{headers: [{name: x-user, type: Distinct}]}]}",
    ),
    ("shadow", "{limit: {requests: 1, unit: Year}, shadowMode: true}"),
    (
        "cost",
        "{limit: {requests: 10, unit: Year}, cost: {request: {from: Number, number: 5}}}",
    ),
    (
        "response",
        "{limit: {requests: 21, unit: Year}, \
          cost: {request: {from: Number, number: 0}, response: {from: Number, number: 10}}}",
    ),
];
/// Redis asks for one, so that it is known to be shown.
const PASSWORD: &str = "only-a-check";
/// How long something may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// Our own service, and what becomes of requests while Redis is away.
pub fn own(world: &World) -> Result<()> {
    host::install(&[("redis-server", "redis-server")])?;
    let [redis_port, service, metrics, echo, one, two, closed] = host::free_ports()?;
    let redis = redis(world, redis_port)?;
    let mut command = world.program();
    command.arg("ratelimit");
    command.args(["--address", &format!("127.0.0.1:{service}")]);
    command.args(["--metrics-address", &format!("127.0.0.1:{metrics}")]);
    command.args(["--redis-url", &format!("redis://127.0.0.1:{redis_port}/1")]);
    command.env("SLUICE_REDIS_PASSWORD", PASSWORD);
    let _service = world.start("ratelimit", &mut command, service)?;
    ready(metrics, true)?;
    let _proxies = [
        proxy(world, "one", one, echo, service, &[])?,
        proxy(world, "two", two, echo, service, &[])?,
        proxy(
            world,
            "closed",
            closed,
            echo,
            service,
            &["--rate-limit-fail-closed"],
        )?,
    ];
    limited(one, two)?;
    let told = curl::local(&format!("http://127.0.0.1:{metrics}/metrics"), &[])?;
    let counted = r#"sluice_ratelimit_questions_total{outcome="over_limit"}"#;
    ensure!(told.body.contains(counted), "no {counted} in {}", told.body);

    drop(redis);
    ready(metrics, false)?;
    expect(&ask(one, "shared", &[])?, 200)?;
    expect(&ask(closed, "shared", &[])?, 500)?;
    // Its counts began anew.
    let _redis = self::redis(world, redis_port)?;
    ready(metrics, true)?;
    for expected in [200, 200, 200, 429] {
        expect(&ask(closed, "shared", &[])?, expected)?;
    }
    Ok(())
}

/// The service of Envoy's project.
pub fn of_envoy(world: &World) -> Result<()> {
    host::install(&[("redis-server", "redis-server")])?;
    let program = RATELIMIT.ensure()?;
    let [redis_port, service, http, debug, echo, one, two] = host::free_ports()?;
    let _redis = redis(world, redis_port)?;
    let config = world.directory().join("runtime/ratelimit/config");
    fs::create_dir_all(&config)?;
    // Limits come with the questions.
    fs::write(config.join("sluice.yaml"), "domain: sluice\ndescriptors: []\n")?;
    let mut command = bound(program);
    let runtime = world.directory().join("runtime").display().to_string();
    command.envs([
        ("RUNTIME_ROOT", runtime),
        ("RUNTIME_SUBDIRECTORY", "ratelimit".into()),
        ("RUNTIME_WATCH_ROOT", "false".into()),
        ("USE_STATSD", "false".into()),
        ("BACKEND_TYPE", "redis".into()),
        ("REDIS_SOCKET_TYPE", "tcp".into()),
        ("REDIS_URL", format!("127.0.0.1:{redis_port}")),
        ("REDIS_AUTH", PASSWORD.into()),
        ("HOST", "127.0.0.1".into()),
        ("PORT", http.to_string()),
        ("GRPC_HOST", "127.0.0.1".into()),
        ("GRPC_PORT", service.to_string()),
        ("DEBUG_HOST", "127.0.0.1".into()),
        ("DEBUG_PORT", debug.to_string()),
    ]);
    let _service = world.start("ratelimit", &mut command, service)?;
    let _proxies = [
        proxy(world, "one", one, echo, service, &[])?,
        proxy(world, "two", two, echo, service, &[])?,
    ];
    limited(one, two)
}

/// What holds at two proxies together.
fn limited(one: u16, two: u16) -> Result<()> {
    for (port, left) in [(one, "2"), (two, "1"), (one, "0")] {
        let got = ask(port, "shared", &[])?;
        expect(&got, 200)?;
        tells(&got, "x-ratelimit-limit", "3, 3;w=31536000")?;
        tells(&got, "x-ratelimit-remaining", left)?;
    }
    for port in [one, two] {
        let got = ask(port, "shared", &[])?;
        expect(&got, 429)?;
        tells(&got, "x-envoy-ratelimited", "true")?;
        tells(&got, "x-ratelimit-remaining", "0")?;
    }
    for (port, user, expected) in [(one, "a", 200), (two, "a", 429), (two, "b", 200), (one, "b", 429)] {
        let header = format!("x-user: {user}");
        expect(&ask(port, "distinct", &["--header", &header])?, expected)?;
    }
    expect(&ask(one, "distinct", &[])?, 200)?;
    for port in [one, two, one] {
        expect(&ask(port, "shadow", &[])?, 200)?;
    }
    for (port, expected) in [(one, 200), (two, 200), (one, 429)] {
        expect(&ask(port, "cost", &[])?, expected)?;
    }
    responses(one, two)
}

/// Responses are counted when they have ended: requests that follow at once may still pass.
fn responses(one: u16, two: u16) -> Result<()> {
    let mut served = 0;
    let since = Instant::now();
    loop {
        let port = if served % 2 == 0 { one } else { two };
        let got = ask(port, "response", &[])?;
        if got.status == 429 {
            break;
        }
        expect(&got, 200)?;
        served += 1;
        ensure!(
            since.elapsed() < PATIENCE,
            "{served} responses have not used up 21"
        );
    }
    ensure!(served >= 3, "{served} responses have used up 21 at 10 each");
    expect(&ask(two, "response", &[])?, 429)
}

fn redis(world: &World, port: u16) -> Result<Process> {
    let mut command = bound("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.args(["--save", "", "--appendonly", "no", "--requirepass", PASSWORD]);
    command.arg("--dir").arg(world.directory());
    world.start("redis", &mut command, port)
}

fn proxy(world: &World, name: &str, port: u16, echo: u16, service: u16, more: &[&str]) -> Result<Process> {
    let config = world.directory().join(name);
    // The first proxy's echo backend serves all: its port can be had once.
    write_manifests(&config, port, echo, name == "one")?;
    let mut command = world.program();
    command
        .args(["standalone", "--workers", "1", "--config"])
        .arg(&config);
    command.args(["--rate-limit-service", &format!("127.0.0.1:{service}")]);
    // Long enough for a busy machine.
    command.args(["--rate-limit-timeout-ms", "10000"]).args(more);
    world.start(&format!("sluice-{name}"), &mut command, port)
}

fn write_manifests(directory: &Path, port: u16, echo: u16, echoes: bool) -> Result<()> {
    let mut text = format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gateway}}
spec:
  gatewayClassName: sluice
  listeners: [{{name: http, port: {port}, protocol: HTTP}}]
---
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec: {{ports: [{{name: http, port: 80, targetPort: {echo}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: echo
  labels: {{kubernetes.io/service-name: echo}}
  annotations: {{sluice.dev/echo: \"{echoes}\"}}
addressType: IPv4
ports: [{{name: http, port: {echo}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"
    );
    for (name, rule) in LIMITED {
        let _ = write!(
            text,
            "
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: gateway}}]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: /{name}}}}}]
    backendRefs: [{{name: echo, port: 80}}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: {name}}}]
  rateLimit: {{type: Global, global: {{rules: [{rule}]}}}}
"
        );
    }
    world::write_manifests(directory, &text)
}

fn ask(port: u16, route: &str, arguments: &[&str]) -> Result<Answer> {
    curl::local(&format!("http://127.0.0.1:{port}/{route}"), arguments)
}

fn expect(got: &Answer, status: u16) -> Result<()> {
    ensure!(
        got.status == status,
        "status {} instead of {status}: {}",
        got.status,
        got.body
    );
    Ok(())
}

fn tells(got: &Answer, name: &str, value: &str) -> Result<()> {
    let found = got.header(name);
    ensure!(found == Some(value), "{name} is {found:?} instead of {value:?}");
    Ok(())
}

/// Waits until the service says that it is ready, or that it is not.
fn ready(metrics: u16, wanted: bool) -> Result<()> {
    let since = Instant::now();
    loop {
        let status = curl::local(&format!("http://127.0.0.1:{metrics}/readyz"), &[])?.status;
        if (status == 200) == wanted {
            return Ok(());
        }
        if since.elapsed() > PATIENCE {
            bail!("/readyz still answers {status}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
