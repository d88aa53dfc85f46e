//! Authorization by where clients are, with a database that somebody else's program has written.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::world::{World, echo_service};
use crate::build::programs::GEOIP;
use crate::cmd::Run;
use crate::{curl, host};

/// How long the proxy may take to notice another file.
const PATIENCE: Duration = Duration::from_mins(1);

/// Clients of one country pass; a file that is replaced is read anew.
pub fn country(world: &World) -> Result<()> {
    let program = GEOIP.ensure()?;
    let [port, echo] = host::free_ports()?;
    let file = world.directory().join("country.mmdb");
    let write = |country: &str| -> Result<()> {
        let next = world.directory().join("next.mmdb");
        Command::new(&program).arg(&next).arg(country).text()?;
        Ok(fs::rename(&next, &file)?)
    };
    write("DE")?;
    let _sluice = world.sluice(&manifests(&file, port, echo), port)?;
    let status = |client: &str| -> Result<u16> {
        let header = format!("X-Forwarded-For: {client}");
        let answer = curl::local(&format!("http://127.0.0.1:{port}/"), &["--header", &header])?;
        Ok(answer.status)
    };
    for (client, expected) in [("192.0.2.1", 200), ("198.51.100.1", 403), ("127.0.0.1", 403)] {
        let status = status(client)?;
        ensure!(status == expected, "{client} gets {status}");
    }
    write("FR")?;
    let begun = Instant::now();
    while status("192.0.2.1")? != 403 {
        ensure!(begun.elapsed() < PATIENCE, "the new file is not read");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn manifests(file: &Path, port: u16, echo: u16) -> String {
    let file = file.display();
    let service = echo_service(echo);
    format!(
        "\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {{name: geo}}
spec:
  geoIP: {{provider: {{type: MaxMind, maxMind: {{countryDbSource: {{local: {{path: {file}}}}}}}}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  gatewayClassName: sluice
  infrastructure: {{parametersRef: {{group: gateway.envoyproxy.io, kind: EnvoyProxy, name: geo}}}}
  listeners: [{{name: http, port: {port}, protocol: HTTP}}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {{name: clients}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: edge}}]
  clientIPDetection: {{xForwardedFor: {{numTrustedHops: 1}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: echo}}
spec:
  parentRefs: [{{name: edge}}]
  rules: [{{backendRefs: [{{name: echo, port: 80}}]}}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {{name: germany}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: echo}}]
  authorization:
    defaultAction: Deny
    rules: [{{action: Allow, principal: {{clientIPGeoLocations: [{{country: DE}}]}}}}]
{service}"
    )
}
