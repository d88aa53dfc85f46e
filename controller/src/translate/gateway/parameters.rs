//! EnvoyProxy parameters of a class and of a Gateway: found, checked, and the Gateway's laid over its class's.
//!
//! What cannot be honoured and would change what traffic meets is refused; what can be done without is named in the
//! condition. Proxies that run already go on with as much as can be read.

use std::sync::Arc;

use sluice_crds::envoy::{EnvoyProxy, EnvoyProxySpec, GROUP, ProviderType};
use sluice_crds::gateway::{Gateway, GatewayClass};

use super::geo;
use crate::engine::View;
use crate::infra;
use crate::store::ObjectRef;
use crate::translate::fault::Fault;

/// Parameters of proxies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters {
    /// What they say.
    pub proxy: Arc<EnvoyProxySpec>,
    /// The EnvoyProxy that speaks of telemetry.
    pub telemetry: Option<ObjectRef>,
    /// Fields without effect.
    ignored: Vec<&'static str>,
}

impl Parameters {
    /// What people should know of parameters that are accepted; empty if nothing.
    pub fn remark(&self, further: &[String]) -> String {
        let all = self
            .ignored
            .iter()
            .copied()
            .chain(further.iter().map(String::as_str));
        let all: Vec<_> = all.collect();
        if all.is_empty() {
            String::new()
        } else {
            format!("EnvoyProxy fields that have no effect: {}", all.join(", "))
        }
    }
}

/// What an object says of parameters.
#[derive(Debug, Default)]
pub struct Reading {
    /// As much as can be read of them.
    pub parameters: Parameters,
    /// Why they cannot be honoured.
    pub fault: Option<Fault>,
}

/// The parameters of a class.
pub fn of_class(view: &View<'_>, class: &GatewayClass) -> Reading {
    let Some(reference) = &class.spec.parameters_ref else {
        return Reading::default();
    };
    let found = match &reference.namespace {
        None => Err("spec.parametersRef.namespace: an EnvoyProxy has one".to_owned()),
        Some(namespace) => find(
            view,
            &reference.group,
            &reference.kind,
            namespace,
            &reference.name,
        )
        .map_err(|why| format!("spec.parametersRef: {why}")),
    };
    match found {
        Ok(proxy) => check(Arc::new(proxy.spec.clone()), &ObjectRef::of(proxy.as_ref())),
        Err(why) => Reading {
            parameters: Parameters::default(),
            fault: Some(invalid(why)),
        },
    }
}

/// The parameters of a Gateway of that class.
pub fn of_gateway(view: &View<'_>, gateway: &Gateway, class: &GatewayClass) -> Reading {
    let of_class = of_class(view, class);
    let class_fault = of_class.fault.map(|fault| {
        let class = class.metadata.name.as_deref().unwrap_or_default();
        invalid(format!("GatewayClass {class}: {}", fault.message))
    });
    let infrastructure = gateway.spec.infrastructure.as_ref();
    let Some(reference) = infrastructure.and_then(|i| i.parameters_ref.as_ref()) else {
        return Reading {
            parameters: of_class.parameters,
            fault: class_fault,
        };
    };
    let namespace = gateway.metadata.namespace.as_deref().unwrap_or_default();
    let own = find(
        view,
        &reference.group,
        &reference.kind,
        namespace,
        &reference.name,
    )
    .map_err(|why| format!("spec.infrastructure.parametersRef: {why}"))
    .and_then(|proxy| {
        let name = ObjectRef::of(proxy.as_ref());
        let merged = overlay(&of_class.parameters.proxy, &proxy.spec).map_err(|e| format!("{name}: {e}"))?;
        let speaks = proxy.spec.telemetry.is_some();
        let mut reading = check(Arc::new(merged), &name);
        // References are its whose they are.
        if !speaks {
            reading
                .parameters
                .telemetry
                .clone_from(&of_class.parameters.telemetry);
        }
        Ok(reading)
    });
    match own {
        Ok(own) => Reading {
            fault: class_fault.or(own.fault),
            ..own
        },
        Err(why) => Reading {
            parameters: of_class.parameters,
            fault: class_fault.or_else(|| Some(invalid(why))),
        },
    }
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

/// `name` is the object's that is checked.
fn check(proxy: Arc<EnvoyProxySpec>, name: &ObjectRef) -> Reading {
    let provider = proxy
        .provider
        .as_ref()
        .and_then(|provider| provider.type_.as_ref());
    let refused = [
        (
            "provider.type",
            provider.is_some_and(|type_| *type_ != ProviderType::Kubernetes),
        ),
        ("bootstrap", proxy.bootstrap.is_some()),
        ("filterOrder", proxy.filter_order.is_some()),
        ("backendTLS", proxy.backend_tls.is_some()),
        ("mergeGateways", proxy.merge_gateways == Some(true)),
        ("preserveRouteOrder", proxy.preserve_route_order == Some(true)),
    ];
    let refused = present(refused);
    let refused: Vec<_> = refused
        .into_iter()
        .chain(proxy.geo_ip.as_ref().and_then(geo::fault))
        .collect();
    let fault = if refused.is_empty() {
        infra::check(&proxy).err().map(|error| format!("spec.{error}"))
    } else {
        Some(format!("not supported: spec.{}", refused.join(", spec.")))
    };
    let ignored = present([("extraArgs", !proxy.extra_args.is_empty())]);
    Reading {
        parameters: Parameters {
            telemetry: proxy.telemetry.is_some().then(|| name.clone()),
            proxy,
            ignored,
        },
        fault: fault.map(|why| invalid(format!("{name}: {why}"))),
    }
}

/// Names of the fields that are there.
fn present<const N: usize>(fields: [(&'static str, bool); N]) -> Vec<&'static str> {
    fields
        .into_iter()
        .filter(|(_, is)| *is)
        .map(|(field, _)| field)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Kind;

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
        let check = |yaml| check(Arc::new(spec(yaml)), &ObjectRef::new(Kind::EnvoyProxy, "n", "p"));
        let refused = |yaml| check(yaml).fault.unwrap().message;
        assert_eq!(
            refused("{bootstrap: {value: x}, mergeGateways: true}"),
            "EnvoyProxy n/p: not supported: spec.bootstrap, spec.mergeGateways"
        );
        assert!(
            refused("{provider: {kubernetes: {envoyService: {type: ExternalName}}}}")
                .starts_with("EnvoyProxy n/p: spec.provider.kubernetes.envoyService.type: "),
        );
        let ignored = check("{extraArgs: [x]}");
        assert!(ignored.fault.is_none());
        assert_eq!(
            ignored.parameters.remark(&["telemetry.x".to_owned()]),
            "EnvoyProxy fields that have no effect: extraArgs, telemetry.x"
        );
    }
}
