//! Envoy Gateway's kinds on a real cluster, with the manifests of Envoy Gateway's guides; e2e/README.md says which check
//! stands for which guide.
//!
//! All checks share a namespace with one Gateway `main`; what listens besides is in pods, except the OpenID provider.

mod client;
mod extension;
mod http3;
mod limits;
mod login;
mod merged;
mod routing;
mod security;
mod telemetry;
mod traffic;

use std::ops::Deref;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::json;

use super::features::certificates::{Certificates, GATEWAY_HOST};
use super::install;
use super::site::{self, Site, Suite};
use crate::build::images;
use crate::checks;
use crate::cluster::Cluster;
use crate::paths;

const NAMESPACE: &str = "sluice-policies";
/// Namespaces of their own, as the guides have them.
const REDIS: &str = "redis-system";
const MONITORING: &str = "monitoring";

type Check = checks::Check<World>;

/// What the checks share.
pub struct World {
    site: Site,
    certificates: Certificates,
}

impl Deref for World {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Suite for World {
    const NAMESPACE: &'static str = NAMESPACE;
    const VALUES: &'static [&'static str] = &["conformance", "policies"];
    const CHECKS: &'static [&'static [Check]] = &[
        &security::CHECKS,
        &login::CHECKS,
        &traffic::CHECKS,
        &limits::CHECKS,
        &client::CHECKS,
        &http3::CHECKS,
        &routing::CHECKS,
        &extension::CHECKS,
        &telemetry::CHECKS,
        &merged::CHECKS,
    ];

    fn images() -> Result<Vec<PathBuf>> {
        let (authorizer, processor) = (images::AUTHORIZER.ensure()?, images::PROCESSOR.ensure()?);
        Ok(vec![
            authorizer,
            processor,
            images::COLLECTOR.ensure()?,
            images::redis()?,
        ])
    }

    fn before(cluster: &Cluster) -> Result<()> {
        install::apply_file(cluster, "e2e/manifests/policies/redis.yaml")?;
        install::wait_deployment(cluster, REDIS, "redis")
    }

    fn prepare(cluster: &Cluster) -> Result<Self> {
        install::apply_file(cluster, "e2e/manifests/policies/namespace.yaml")?;
        let servers = [
            ("gateway-tls", GATEWAY_HOST),
            ("example-cert", login::HOST),
            ("provider", login::PROVIDER),
            ("grpc-ext-proc-secret", "grpc-ext-proc.envoygateway"),
        ];
        let certificates = Certificates::make(&paths::state()?.join("policies"), NAMESPACE, &servers)?;
        certificates.apply_secrets(cluster)?;
        for (kind, field, name) in [
            ("Secret", "stringData", "example-ca-cert"),
            ("ConfigMap", "data", "grpc-ext-proc-ca"),
            ("ConfigMap", "data", "provider-ca"),
        ] {
            let trusted = json!({
                "apiVersion": "v1",
                "kind": kind,
                "metadata": {"name": name, "namespace": NAMESPACE},
                field: {"ca.crt": certificates.good},
            });
            cluster.apply(&trusted.to_string())?;
        }
        for file in [
            "backends",
            "gateway",
            "security",
            "oidc",
            "traffic",
            "global-rate-limit",
            "client",
            "http3",
            "routing",
            "extension",
            "telemetry",
            "merged",
        ] {
            install::apply_file(cluster, &format!("e2e/manifests/policies/{file}.yaml"))?;
        }
        let site = Site::ready(cluster, NAMESPACE)?;
        for deployment in ["backend", "authz", "grpc-ext-proc"] {
            install::wait_deployment(cluster, NAMESPACE, deployment)?;
        }
        install::wait_deployment(cluster, MONITORING, "otel-collector")?;
        Ok(Self { site, certificates })
    }

    fn remove(cluster: &Cluster) -> Result<()> {
        site::delete(cluster, "namespace", &[NAMESPACE, REDIS, MONITORING])?;
        site::delete(cluster, "gatewayclass", &[telemetry::CLASS, merged::CLASS])
    }
}

impl World {
    /// Each policy is accepted, and what it has no effect for is nothing.
    fn accepted(&self, kind: &str, names: &[&str]) -> Result<()> {
        for name in names {
            let reason = self.wait_condition(kind, name, "Accepted", true)?;
            ensure!(reason == "Accepted", "{kind} {name}: reason {reason}");
            let policy = self.object(kind, name)?;
            let conditions = &policy["status"]["ancestors"][0]["conditions"];
            ensure!(
                install::condition(conditions, "Warning").is_none(),
                "{kind} {name}: {conditions}"
            );
        }
        Ok(())
    }

    /// The policy is refused for this reason, and its route, to this path, answers 500 while others go on.
    fn refused(&self, kind: &str, name: &str, path: &str, reason: &str) -> Result<()> {
        let found = self.wait_condition(kind, name, "Accepted", false)?;
        ensure!(
            found == reason,
            "{kind} {name}: reason {found} instead of {reason}"
        );
        self.wait_status(path, &[], 500)?;
        self.wait_status("/plain", &[], 200).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_named_beside_its_guide() {
        let text = std::fs::read_to_string(paths::root().join("e2e/README.md")).unwrap();
        for check in World::checks().filter(|check| !check.name.ends_with("Accepted")) {
            let about_guides = !check.name.ends_with("Invalid");
            assert_eq!(
                text.contains(&format!("`{}`", check.name)),
                about_guides,
                "{}",
                check.name
            );
        }
    }
}
