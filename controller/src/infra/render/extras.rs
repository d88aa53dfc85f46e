//! The small objects: ServiceAccount, ConfigMap, autoscaler, disruption budget.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec,
};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Child, ChildKind, Context, RenderError, account_name, finish, name, parse};

pub(super) fn service_account(context: &Context<'_>) -> Result<Child, RenderError> {
    let account = ServiceAccount {
        metadata: context.metadata(account_name(context.infra)),
        automount_service_account_token: Some(false),
        ..Default::default()
    };
    finish(
        ChildKind::ServiceAccount,
        &account,
        None,
        "provider.kubernetes.envoyServiceAccount",
    )
}

/// The CA by which proxies know the controller.
pub(super) fn config_map(context: &Context<'_>) -> Result<Child, RenderError> {
    let map = ConfigMap {
        metadata: context.metadata(context.name.clone()),
        data: Some([("ca.crt".to_owned(), context.settings.ca_bundle.clone())].into()),
        ..Default::default()
    };
    finish(ChildKind::ConfigMap, &map, None, "provider.kubernetes")
}

pub(super) fn autoscaler(context: &Context<'_>) -> Result<Option<Child>, RenderError> {
    const FIELD: &str = "provider.kubernetes.envoyHpa";
    let infra = context.infra;
    let asked = context.kubernetes().and_then(|k| k.envoy_hpa.as_ref());
    let Some(asked) = asked.filter(|_| !name::is_daemon_set(&infra.proxy)) else {
        return Ok(None);
    };
    let max = asked
        .max_replicas
        .ok_or_else(|| RenderError::new(FIELD, "maxReplicas is required"))?;
    let autoscaler = HorizontalPodAutoscaler {
        metadata: context.metadata(asked.name.clone().unwrap_or_else(|| context.name.clone())),
        spec: HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name: name::deployment_name(&infra.gateway, &infra.class, &infra.proxy),
            },
            min_replicas: asked.min_replicas,
            max_replicas: max,
            metrics: parse(asked.metrics.as_ref(), "provider.kubernetes.envoyHpa.metrics")?,
            behavior: parse(asked.behavior.as_ref(), "provider.kubernetes.envoyHpa.behavior")?,
        },
        status: None,
    };
    finish(
        ChildKind::HorizontalPodAutoscaler,
        &autoscaler,
        asked.patch.as_ref(),
        FIELD,
    )
    .map(Some)
}

pub(super) fn disruption_budget(context: &Context<'_>) -> Result<Option<Child>, RenderError> {
    let Some(asked) = context.kubernetes().and_then(|k| k.envoy_pdb.as_ref()) else {
        return Ok(None);
    };
    let budget = PodDisruptionBudget {
        metadata: context.metadata(asked.name.clone().unwrap_or_else(|| context.name.clone())),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: asked.min_available.clone().map(Into::into),
            max_unavailable: asked.max_unavailable.clone().map(Into::into),
            selector: Some(LabelSelector {
                match_labels: Some(context.selector()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        status: None,
    };
    let field = "provider.kubernetes.envoyPDB";
    finish(
        ChildKind::PodDisruptionBudget,
        &budget,
        asked.patch.as_ref(),
        field,
    )
    .map(Some)
}
