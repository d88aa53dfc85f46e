//! EnvoyProxy parameters of a class and of a Gateway: found, checked, and the Gateway's laid over its class's.
//!
//! What cannot be honoured and would change what traffic meets is refused; what can be done without is named in the
//! condition.

use std::sync::Arc;

use sluice_crds::envoy::{EnvoyProxy, EnvoyProxySpec, GROUP, ProviderType};
use sluice_crds::gateway::{Gateway, GatewayClass};

use crate::engine::View;
use crate::store::ObjectRef;
use crate::translate::fault::Fault;

/// Parameters that can be honoured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters {
    /// What they say.
    pub proxy: Arc<EnvoyProxySpec>,
    /// Fields without effect.
    ignored: Vec<&'static str>,
}

impl Parameters {
    /// What people should know of parameters that are accepted; empty if nothing.
    pub fn remark(&self) -> String {
        if self.ignored.is_empty() {
            String::new()
        } else {
            format!(
                "EnvoyProxy fields that have no effect: {}",
                self.ignored.join(", ")
            )
        }
    }
}

/// The parameters of a class.
pub fn of_class(view: &View<'_>, class: &GatewayClass) -> Result<Parameters, Fault> {
    let Some(reference) = &class.spec.parameters_ref else {
        return Ok(Parameters::default());
    };
    let Some(namespace) = &reference.namespace else {
        return Err(invalid("spec.parametersRef.namespace: an EnvoyProxy has one"));
    };
    let proxy = find(
        view,
        &reference.group,
        &reference.kind,
        namespace,
        &reference.name,
    )
    .map_err(|why| invalid(format!("spec.parametersRef: {why}")))?;
    check(Arc::new(proxy.spec.clone()))
        .map_err(|why| invalid(format!("{}: {why}", ObjectRef::of(proxy.as_ref()))))
}

/// The parameters of a Gateway of that class.
pub fn of_gateway(view: &View<'_>, gateway: &Gateway, class: &GatewayClass) -> Result<Parameters, Fault> {
    let of_class = of_class(view, class).map_err(|fault| {
        let class = class.metadata.name.as_deref().unwrap_or_default();
        invalid(format!("GatewayClass {class}: {}", fault.message))
    })?;
    let infrastructure = gateway.spec.infrastructure.as_ref();
    let Some(reference) = infrastructure.and_then(|i| i.parameters_ref.as_ref()) else {
        return Ok(of_class);
    };
    let namespace = gateway.metadata.namespace.as_deref().unwrap_or_default();
    let proxy = find(
        view,
        &reference.group,
        &reference.kind,
        namespace,
        &reference.name,
    )
    .map_err(|why| invalid(format!("spec.infrastructure.parametersRef: {why}")))?;
    let name = ObjectRef::of(proxy.as_ref());
    let merged = overlay(&of_class.proxy, &proxy.spec).map_err(|e| invalid(format!("{name}: {e}")))?;
    check(Arc::new(merged)).map_err(|why| invalid(format!("{name}: {why}")))
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("InvalidParameters", message)
}

fn find(
    view: &View<'_>,
    group: &str,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<Arc<EnvoyProxy>, String> {
    if (group, kind) != (GROUP, "EnvoyProxy") {
        return Err(format!(
            "{kind} of group {group:?} is not supported, only EnvoyProxy of group {GROUP:?}"
        ));
    }
    view.get::<EnvoyProxy>(namespace, name)
        .ok_or_else(|| format!("EnvoyProxy {namespace}/{name} does not exist"))
}

/// `over` laid over `under`: field by field, lists as a whole (RFC 7396).
fn overlay(under: &EnvoyProxySpec, over: &EnvoyProxySpec) -> Result<EnvoyProxySpec, serde_json::Error> {
    let mut merged = serde_json::to_value(under)?;
    json_patch::merge(&mut merged, &serde_json::to_value(over)?);
    serde_json::from_value(merged)
}

fn check(proxy: Arc<EnvoyProxySpec>) -> Result<Parameters, String> {
    let refused = [
        (
            "provider.type",
            proxy
                .provider
                .as_ref()
                .is_some_and(|p| p.type_.as_ref().is_some_and(|t| *t != ProviderType::Kubernetes)),
        ),
        ("bootstrap", proxy.bootstrap.is_some()),
        ("filterOrder", proxy.filter_order.is_some()),
        ("backendTLS", proxy.backend_tls.is_some()),
        ("mergeGateways", proxy.merge_gateways == Some(true)),
        ("preserveRouteOrder", proxy.preserve_route_order == Some(true)),
    ];
    let refused: Vec<_> = refused
        .into_iter()
        .filter(|(_, is)| *is)
        .map(|(field, _)| field)
        .collect();
    if !refused.is_empty() {
        return Err(format!("not supported: spec.{}", refused.join(", spec.")));
    }
    let ignored = [
        ("telemetry", proxy.telemetry.is_some()),
        ("extraArgs", !proxy.extra_args.is_empty()),
    ];
    let ignored = ignored
        .into_iter()
        .filter(|(_, is)| *is)
        .map(|(field, _)| field)
        .collect();
    Ok(Parameters { proxy, ignored })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> EnvoyProxySpec {
        serde_yaml_ng::from_str(yaml).unwrap()
    }

    #[test]
    fn the_gateways_parameters_go_over_the_classs() {
        let class = spec(
            "{concurrency: 2, provider: {type: Kubernetes, kubernetes: {envoyService: {type: NodePort}}}}",
        );
        let gateway = spec("{concurrency: 4, provider: {kubernetes: {envoyDeployment: {replicas: 3}}}}");
        let merged = overlay(&class, &gateway).unwrap();
        assert_eq!(
            merged,
            spec(
                "{concurrency: 4, provider: {type: Kubernetes, \
                 kubernetes: {envoyService: {type: NodePort}, envoyDeployment: {replicas: 3}}}}"
            )
        );
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let refused = check(Arc::new(spec("{bootstrap: {value: x}, mergeGateways: true}"))).unwrap_err();
        assert_eq!(refused, "not supported: spec.bootstrap, spec.mergeGateways");
        assert_eq!(
            check(Arc::new(spec("{telemetry: {}}"))).unwrap().remark(),
            "EnvoyProxy fields that have no effect: telemetry"
        );
    }
}
