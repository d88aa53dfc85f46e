//! The proxy's pods.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, EmptyDirVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec,
    ProjectedVolumeSource, SeccompProfile, ServiceAccountTokenProjection, Sysctl, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sluice_crds::envoy::{KubernetesContainerSpec, KubernetesPodSpec, Raw};

use super::container::container;
use super::{Context, RenderError, account_name, parse};
use crate::publish::AUDIENCE;

const UID: i64 = 65532;
/// Defaults of an EnvoyProxy's `shutdown`.
const DRAIN: Duration = Duration::from_mins(1);
const MIN_DRAIN: Duration = Duration::from_secs(10);
/// What a proxy needs besides draining before it is killed.
const MARGIN: Duration = Duration::from_secs(10);

/// What Deployments and DaemonSets have in common.
#[derive(Default)]
pub(super) struct Asked<'a> {
    pub pod: Option<&'a KubernetesPodSpec>,
    pub container: Option<&'a KubernetesContainerSpec>,
    pub init_containers: Option<&'a Raw<Vec<Container>>>,
}

pub(super) fn template(context: &Context<'_>, asked: &Asked<'_>) -> Result<PodTemplateSpec, RenderError> {
    let default = KubernetesPodSpec::default();
    let pod = asked.pod.unwrap_or(&default);
    let mut volumes = volumes(context);
    volumes.extend(parse(pod.volumes.as_ref(), "pod.volumes")?.unwrap_or_default());
    let Drain {
        timeout,
        min,
        unready_delay,
    } = drain(context);
    let grace = unready_delay + timeout + min + MARGIN;
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

/// How a pod stops.
pub(super) struct Drain {
    /// How long open requests have at most.
    pub timeout: Duration,
    /// How long it serves on in any case, once it is not ready any more.
    pub min: Duration,
    /// How long it is still ready.
    pub unready_delay: Duration,
}

pub(super) fn drain(context: &Context<'_>) -> Drain {
    let asked = context.infra.proxy.shutdown.unwrap_or_default();
    let whole = |asked: Option<sluice_crds::Duration>, default| asked.map_or(default, Into::into);
    Drain {
        timeout: whole(asked.drain_timeout, DRAIN),
        min: whole(asked.min_drain_duration, MIN_DRAIN),
        unready_delay: whole(asked.health_check_failure_delay, Duration::ZERO),
    }
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
