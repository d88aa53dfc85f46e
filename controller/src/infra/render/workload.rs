//! The Deployment or DaemonSet that runs a Gateway's proxies.

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, Deployment, DeploymentSpec, DeploymentStrategy,
    RollingUpdateDaemonSet, RollingUpdateDeployment,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_crds::envoy::{KubernetesDaemonSetSpec, KubernetesDeploymentSpec};

use super::pod::{Asked, template};
use super::{Child, ChildKind, Context, RenderError, finish, name, parse};

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
