//! The proxy's pods, and the Deployment or DaemonSet that runs them.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, Deployment, DeploymentSpec, DeploymentStrategy,
    RollingUpdateDaemonSet, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, HTTPGetAction, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ProjectedVolumeSource, SeccompProfile, SecurityContext, ServiceAccountTokenProjection, Sysctl, Volume,
    VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_crds::envoy::{
    KubernetesContainerSpec, KubernetesDaemonSetSpec, KubernetesDeploymentSpec, KubernetesPodSpec, Raw,
};

use super::service::{port_name, protocol};
use super::{Child, ChildKind, Context, RenderError, account_name, finish, name, parse};
use crate::infra::ADMIN_PORT;
use crate::publish::AUDIENCE;

const UID: i64 = 65532;
const CONTAINER: &str = "proxy";
const TOKEN_DIRECTORY: &str = "/var/run/secrets/sluice";
const CA_DIRECTORY: &str = "/etc/sluice";
const CACHE_DIRECTORY: &str = "/var/cache/sluice";
/// Defaults of an EnvoyProxy's `shutdown`.
const DRAIN: Duration = Duration::from_mins(1);
const MIN_DRAIN: Duration = Duration::from_secs(10);
/// What a proxy needs besides draining before it is killed.
const MARGIN: Duration = Duration::from_secs(10);

/// What Deployments and DaemonSets have in common.
#[derive(Default)]
struct Asked<'a> {
    pod: Option<&'a KubernetesPodSpec>,
    container: Option<&'a KubernetesContainerSpec>,
    init_containers: Option<&'a Raw<Vec<Container>>>,
}

pub(super) fn workload(context: &Context<'_>) -> Result<Child, RenderError> {
    let kubernetes = context.kubernetes();
    if name::is_daemon_set(&context.infra.proxy)
        && let Some(asked) = kubernetes.and_then(|k| k.envoy_daemon_set.as_ref())
    {
        return daemon_set(context, asked);
    }
    let default = KubernetesDeploymentSpec::default();
    deployment(
        context,
        kubernetes
            .and_then(|k| k.envoy_deployment.as_ref())
            .unwrap_or(&default),
    )
}

fn deployment(context: &Context<'_>, asked: &KubernetesDeploymentSpec) -> Result<Child, RenderError> {
    let infra = context.infra;
    let scaled = context.kubernetes().is_some_and(|k| k.envoy_hpa.is_some());
    // A new pod serves before an old one goes.
    let strategy = DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_unavailable: Some(IntOrString::Int(0)),
            max_surge: Some(IntOrString::String("25%".to_owned())),
        }),
    };
    let strategy_field = "provider.kubernetes.envoyDeployment.strategy";
    let deployment = Deployment {
        metadata: context.metadata(name::deployment_name(&infra.gateway, &infra.class, &infra.proxy)),
        spec: Some(DeploymentSpec {
            // Who scales may do so unless the EnvoyProxy states a number.
            replicas: asked.replicas.filter(|_| !scaled),
            strategy: Some(parse(asked.strategy.as_ref(), strategy_field)?.unwrap_or(strategy)),
            selector: LabelSelector {
                match_labels: Some(context.selector()),
                ..Default::default()
            },
            template: template(
                context,
                &Asked {
                    pod: asked.pod.as_ref(),
                    container: asked.container.as_ref(),
                    init_containers: asked.init_containers.as_ref(),
                },
            )?,
            ..Default::default()
        }),
        status: None,
    };
    let field = "provider.kubernetes.envoyDeployment.patch";
    finish(ChildKind::Deployment, &deployment, asked.patch.as_ref(), field)
}

fn daemon_set(context: &Context<'_>, asked: &KubernetesDaemonSetSpec) -> Result<Child, RenderError> {
    let strategy = DaemonSetUpdateStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDaemonSet {
            max_unavailable: Some(IntOrString::Int(0)),
            max_surge: Some(IntOrString::Int(1)),
        }),
    };
    let strategy_field = "provider.kubernetes.envoyDaemonSet.strategy";
    let set = DaemonSet {
        metadata: context.metadata(asked.name.clone().unwrap_or_else(|| context.name.clone())),
        spec: Some(DaemonSetSpec {
            update_strategy: Some(parse(asked.strategy.as_ref(), strategy_field)?.unwrap_or(strategy)),
            selector: LabelSelector {
                match_labels: Some(context.selector()),
                ..Default::default()
            },
            template: template(
                context,
                &Asked {
                    pod: asked.pod.as_ref(),
                    container: asked.container.as_ref(),
                    init_containers: asked.init_containers.as_ref(),
                },
            )?,
            ..Default::default()
        }),
        status: None,
    };
    finish(
        ChildKind::DaemonSet,
        &set,
        asked.patch.as_ref(),
        "provider.kubernetes.envoyDaemonSet.patch",
    )
}

fn template(context: &Context<'_>, asked: &Asked<'_>) -> Result<PodTemplateSpec, RenderError> {
    let default = KubernetesPodSpec::default();
    let pod = asked.pod.unwrap_or(&default);
    let mut volumes = volumes(context);
    volumes.extend(parse(pod.volumes.as_ref(), "pod.volumes")?.unwrap_or_default());
    let (drain, min_drain) = drain(context);
    let grace = drain + min_drain + MARGIN;
    Ok(PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(context.labels(&pod.labels)),
            annotations: Some(context.annotations(&pod.annotations)).filter(|a| !a.is_empty()),
            ..Default::default()
        }),
        spec: Some(PodSpec {
            service_account_name: Some(account_name(context.infra)),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: i64::try_from(grace.as_secs()).ok(),
            security_context: Some(
                parse(pod.security_context.as_ref(), "pod.securityContext")?
                    .unwrap_or_else(|| pod_security(context)),
            ),
            affinity: parse(pod.affinity.as_ref(), "pod.affinity")?,
            tolerations: parse(pod.tolerations.as_ref(), "pod.tolerations")?,
            image_pull_secrets: parse(pod.image_pull_secrets.as_ref(), "pod.imagePullSecrets")?,
            node_selector: Some(pod.node_selector.clone()).filter(|selector| !selector.is_empty()),
            topology_spread_constraints: parse(
                pod.topology_spread_constraints.as_ref(),
                "pod.topologySpreadConstraints",
            )?,
            priority_class_name: pod.priority_class_name.clone(),
            init_containers: parse(asked.init_containers, "initContainers")?,
            containers: vec![container(context, asked.container)?],
            volumes: Some(volumes),
            ..Default::default()
        }),
    })
}

fn container(
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
    let field = ObjectFieldSelector {
        field_path: "metadata.name".to_owned(),
        ..Default::default()
    };
    let (drain, min_drain) = drain(context);
    let mut env = vec![
        EnvVar {
            name: "POD_NAME".to_owned(),
            value_from: Some(EnvVarSource {
                field_ref: Some(field),
                ..Default::default()
            }),
            ..Default::default()
        },
        plain("SLUICE_DRAIN_TIMEOUT", drain.as_secs().to_string()),
        plain("SLUICE_MIN_DRAIN", min_drain.as_secs().to_string()),
    ];
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

fn drain(context: &Context<'_>) -> (Duration, Duration) {
    let asked = context.infra.proxy.shutdown.unwrap_or_default();
    let whole = |asked: Option<sluice_crds::Duration>, default| asked.map_or(default, Into::into);
    (
        whole(asked.drain_timeout, DRAIN),
        whole(asked.min_drain_duration, MIN_DRAIN),
    )
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

fn volumes(context: &Context<'_>) -> Vec<Volume> {
    let token = ServiceAccountTokenProjection {
        audience: Some(AUDIENCE.to_owned()),
        expiration_seconds: Some(3600),
        path: "token".to_owned(),
    };
    let source = VolumeProjection {
        service_account_token: Some(token),
        ..Default::default()
    };
    vec![
        Volume {
            name: "token".to_owned(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(vec![source]),
                ..Default::default()
            }),
            ..Default::default()
        },
        Volume {
            name: "ca".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: context.name.clone(),
                ..Default::default()
            }),
            ..Default::default()
        },
        // Holds private keys: never on a disk.
        Volume {
            name: "cache".to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        },
    ]
}

/// Pod Security Standard `restricted`.
fn pod_security(context: &Context<'_>) -> PodSecurityContext {
    let privileged = context.infra.ports.iter().any(|port| port.bind_port < 1024);
    let sysctl = Sysctl {
        name: "net.ipv4.ip_unprivileged_port_start".to_owned(),
        value: "0".to_owned(),
    };
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(UID),
        run_as_group: Some(UID),
        fs_group: Some(UID),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..Default::default()
        }),
        sysctls: privileged.then(|| vec![sysctl]),
        ..Default::default()
    }
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
