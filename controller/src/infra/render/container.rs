//! The proxy's container: how it is started, and what it may do.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector, Probe,
    SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_crds::envoy::KubernetesContainerSpec;

use super::pod::drain;
use super::service::{port_name, protocol};
use super::{Context, RenderError, parse};
use crate::infra::ADMIN_PORT;

const CONTAINER: &str = "proxy";
const TOKEN_DIRECTORY: &str = "/var/run/secrets/sluice";
const CA_DIRECTORY: &str = "/etc/sluice";
const CACHE_DIRECTORY: &str = "/var/cache/sluice";

pub(super) fn container(
    context: &Context<'_>,
    asked: Option<&KubernetesContainerSpec>,
) -> Result<Container, RenderError> {
    let default = KubernetesContainerSpec::default();
    let asked = asked.unwrap_or(&default);
    let settings = context.settings;
    let mut env = environment(context);
    env.extend(parse(asked.env.as_ref(), "container.env")?.unwrap_or_default());
    let mut mounts: Vec<_> = [
        ("token", TOKEN_DIRECTORY, true),
        ("ca", CA_DIRECTORY, true),
        ("cache", CACHE_DIRECTORY, false),
    ]
    .into_iter()
    .map(|(name, path, read_only)| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only),
        ..Default::default()
    })
    .collect();
    mounts.extend(parse(asked.volume_mounts.as_ref(), "container.volumeMounts")?.unwrap_or_default());
    Ok(Container {
        name: CONTAINER.to_owned(),
        image: Some(image(asked, &settings.image)),
        image_pull_policy: asked
            .image_pull_policy
            .clone()
            .or_else(|| settings.image_pull_policy.clone()),
        args: Some(arguments(context)),
        env: Some(env),
        ports: Some(ports(context)),
        resources: asked
            .resources
            .as_ref()
            .map(sluice_crds::envoy::ResourceRequirements::to_kubernetes),
        security_context: Some(
            parse(asked.security_context.as_ref(), "container.securityContext")?
                .unwrap_or_else(container_security),
        ),
        volume_mounts: Some(mounts),
        // A Gateway is programmed when a proxy is ready: look often.
        readiness_probe: Some(probe("/healthz/ready", 1, 2)),
        liveness_probe: Some(probe("/healthz/live", 10, 3)),
        ..Default::default()
    })
}

fn arguments(context: &Context<'_>) -> Vec<String> {
    let gateway = &context.infra.gateway;
    let token = format!("{TOKEN_DIRECTORY}/token");
    let ca = format!("{CA_DIRECTORY}/ca.crt");
    let admin = format!("0.0.0.0:{ADMIN_PORT}");
    let options: [(&str, &str); 8] = [
        ("--controller", &context.settings.controller_url),
        ("--ca-file", &ca),
        ("--token-file", &token),
        ("--namespace", &gateway.namespace),
        ("--gateway", &gateway.name),
        ("--proxy-name", "$(POD_NAME)"),
        ("--cache-dir", CACHE_DIRECTORY),
        ("--admin-address", &admin),
    ];
    let options = options
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value.to_owned()]);
    std::iter::once("dataplane".to_owned()).chain(options).collect()
}

fn environment(context: &Context<'_>) -> Vec<EnvVar> {
    let plain = |name: &str, value: String| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        ..Default::default()
    };
    let of_pod = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let drain = drain(context);
    let mut env = vec![
        of_pod("POD_NAME", "metadata.name"),
        // Kubernetes gives pods the zone of their node as a label (from 1.35 on by itself); without it this is empty.
        of_pod("SLUICE_ZONE", "metadata.labels['topology.kubernetes.io/zone']"),
        plain("SLUICE_DRAIN_TIMEOUT", drain.timeout.as_secs().to_string()),
        plain("SLUICE_MIN_DRAIN", drain.min.as_secs().to_string()),
    ];
    if !drain.unready_delay.is_zero() {
        let delay = drain.unready_delay.as_millis();
        env.push(plain("SLUICE_UNREADY_DELAY", delay.to_string()));
    }
    let proxy = &context.infra.proxy;
    if let Some(workers) = proxy.concurrency.filter(|workers| *workers > 0) {
        env.push(plain("SLUICE_WORKERS", workers.to_string()));
    }
    if let Some(level) = proxy
        .logging
        .as_ref()
        .and_then(|logging| logging.level.get("default"))
    {
        // Envoy's names where they differ from ours.
        let level = match level.as_str() {
            "warning" => "warn",
            "critical" => "error",
            other => other,
        };
        env.push(plain("SLUICE_LOG", level.to_owned()));
    }
    env
}

/// An image that an EnvoyProxy names is used unless it is Envoy's own, which cannot run this proxy: manifests that were
/// written for Envoy keep working.
fn image(asked: &KubernetesContainerSpec, default: &str) -> String {
    let is_envoy = |image: &str| {
        image
            .rsplit('/')
            .next()
            .is_some_and(|last| last.starts_with("envoy"))
    };
    if let Some(image) = asked.image.as_ref().filter(|image| !is_envoy(image)) {
        return image.clone();
    }
    match asked
        .image_repository
        .as_ref()
        .filter(|repository| !is_envoy(repository))
    {
        Some(repository) => {
            let name = default.rsplit('/').next().unwrap_or_default();
            let tag = name.find(['@', ':']).map_or("", |at| &name[at..]);
            format!("{repository}{tag}")
        }
        None => default.to_owned(),
    }
}

fn ports(context: &Context<'_>) -> Vec<ContainerPort> {
    let admin = ContainerPort {
        name: Some("admin".to_owned()),
        container_port: ADMIN_PORT.into(),
        protocol: Some("TCP".to_owned()),
        ..Default::default()
    };
    // Two ports of the Service may lead to one of the container.
    let mut seen = BTreeMap::new();
    for port in &context.infra.ports {
        seen.entry((port.bind_port, port.udp)).or_insert(port);
    }
    let listeners = seen.into_values().map(|port| ContainerPort {
        name: Some(port_name(port)),
        container_port: port.bind_port.into(),
        protocol: Some(protocol(port).to_owned()),
        ..Default::default()
    });
    std::iter::once(admin).chain(listeners).collect()
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(ADMIN_PORT.into()),
            ..Default::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Default::default()
    }
}
