//! EnvoyProxy parameters of a class and of a Gateway: found, checked, and the Gateway's put in the place of its class's, or laid
//! over them.
//!
//! What cannot be honoured and would change what traffic meets is refused; what can be done without is named in the
//! condition. Proxies that run already go on with as much as can be read.

use std::sync::Arc;

use sluice_config::v1;
use sluice_crds::envoy::{EnvoyProxy, EnvoyProxySpec, GROUP, PolicyMergeType, ProviderType, TLSSettings};
use sluice_crds::gateway::{Gateway, GatewayClass};

use super::{fleet, geo, order};
use crate::engine::{GatewayRef, View};
use crate::infra;
use crate::store::{Kind, ObjectRef};
use crate::translate::fault::Fault;
use crate::translate::model::{BackendTls, RoutingType};
use crate::translate::policy::envoy::{Reader, gaps, merge_specs, tls_parameters};
use crate::translate::route::Context;
use crate::translate::secret;

/// An EnvoyProxy that speaks of telemetry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    /// Its name.
    pub proxy: ObjectRef,
    /// True if it is the class's: who runs the class says where telemetry goes, in any namespace. A Gateway's needs grants.
    pub is_of_class: bool,
}

/// Parameters of proxies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters {
    /// What they say.
    pub proxy: Arc<EnvoyProxySpec>,
    /// Who speaks of telemetry.
    pub telemetry: Option<Telling>,
    /// What they say of TLS to backends. References are its whose they are, so a Gateway's parameters that speak of this
    /// take the place of its class's.
    pub backend_tls: BackendTls,
    /// Fields without effect, and why.
    ignored: Vec<String>,
}

impl Parameters {
    /// What people should know of parameters that are accepted; empty if nothing.
    pub fn remark(&self, further: &[String]) -> String {
        let all: Vec<_> = self.ignored.iter().chain(further).map(String::as_str).collect();
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
    /// The fleet that the Gateways of the class share; `None`: each has its own.
    pub fleet: Option<GatewayRef>,
    /// The class names parameters of which nothing is known.
    pub unreadable: bool,
}

impl Reading {
    /// Takes in what an EnvoyProxy says of TLS to backends.
    fn resolve_backend_tls(&mut self, view: &View<'_>, owner: &ObjectRef, spec: &EnvoyProxySpec) {
        let Some(from) = &spec.backend_tls else { return };
        let context = Context::new(view, owner, RoutingType::default(), None);
        let mut reader = Reader::new(&context, String::new());
        tls_parameters(&mut reader, &from.settings);
        let mut found = BackendTls {
            certificate: None,
            parameters: (from.settings != TLSSettings::default()).then(|| owner.clone()),
        };
        let field = "tls.clientCertificateRef";
        if let Some(reference) = &from.client_certificate_ref
            && let Some(secret) = reader.secret_object(owner, reference, field)
        {
            match secret::certificate(view, &secret) {
                Ok(_) => found.certificate = Some(secret),
                Err(why) => reader.fault(field, why),
            }
        }
        if let Some(fault) = reader.faults.first() {
            let why = fault.message.replacen("spec.tls.", "spec.backendTLS.", 1);
            self.fault
                .get_or_insert_with(|| invalid(format!("{owner}: {why}")));
        }
        self.parameters.backend_tls = found;
    }
}

/// Versions, ciphers and so on that an EnvoyProxy has for TLS to backends.
pub fn backend_tls_parameters(view: &View<'_>, owner: &ObjectRef) -> Option<v1::TlsParameters> {
    let proxy = view.get::<EnvoyProxy>(&owner.namespace, &owner.name)?;
    let from = proxy.spec.backend_tls.as_ref()?;
    let context = Context::new(view, owner, RoutingType::default(), None);
    let mut reader = Reader::new(&context, String::new());
    Some(tls_parameters(&mut reader, &from.settings))
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
    let mut reading = match found {
        Ok(proxy) => {
            let name = ObjectRef::of(proxy.as_ref());
            let mut reading = check(Arc::new(proxy.spec.clone()), &name);
            if let Some(telling) = &mut reading.parameters.telemetry {
                telling.is_of_class = true;
            }
            reading.resolve_backend_tls(view, &name, &proxy.spec);
            reading
        }
        Err(why) => Reading {
            fault: Some(invalid(why)),
            unreadable: true,
            ..Reading::default()
        },
    };
    reading.fleet = fleet::of_class(view, class, &reading);
    reading
}

/// The parameters of a Gateway of that class.
pub fn of_gateway(view: &View<'_>, gateway: &Gateway, class: &GatewayClass) -> Reading {
    let of_class = of_class(view, class);
    let class_fault = of_class.fault.as_ref().map(|fault| {
        let class = class.metadata.name.as_deref().unwrap_or_default();
        invalid(format!("GatewayClass {class}: {}", fault.message))
    });
    let infrastructure = gateway.spec.infrastructure.as_ref();
    let Some(reference) = infrastructure.and_then(|i| i.parameters_ref.as_ref()) else {
        return Reading {
            fault: class_fault,
            ..of_class
        };
    };
    if of_class.fleet.is_some() {
        let why = "the Gateways of the class share their proxies (mergeGateways), which have the class's parameters";
        return Reading {
            fault: class_fault.or_else(|| Some(invalid(format!("spec.infrastructure.parametersRef: {why}")))),
            ..of_class
        };
    }
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
        let under = match &proxy.spec.merge_type {
            None | Some(PolicyMergeType::Replace) => &Parameters::default(),
            Some(_) => &of_class.parameters,
        };
        let merged = overlay(&under.proxy, &proxy.spec).map_err(|why| format!("{name}: {why}"))?;
        let speaks = proxy.spec.telemetry.is_some();
        let shares = merged.merge_gateways == Some(true);
        let mut reading = check(Arc::new(merged), &name);
        if shares {
            let why = "only the parameters of a GatewayClass can ask for it";
            let message = format!("{name}: spec.mergeGateways: {why}");
            reading.fault.get_or_insert_with(|| invalid(message));
        }
        // References are its whose they are.
        if !speaks {
            reading.parameters.telemetry.clone_from(&under.telemetry);
        }
        if proxy.spec.backend_tls.is_some() {
            reading.resolve_backend_tls(view, &name, &proxy.spec);
        } else {
            reading.parameters.backend_tls.clone_from(&under.backend_tls);
        }
        Ok(reading)
    });
    match own {
        Ok(own) => Reading {
            fault: class_fault.or(own.fault),
            ..own
        },
        Err(why) => Reading {
            fault: class_fault.or_else(|| Some(invalid(why))),
            ..of_class
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

/// `over` laid over `under` as its `mergeType` says; or what is wrong with it.
fn overlay(under: &EnvoyProxySpec, over: &EnvoyProxySpec) -> Result<EnvoyProxySpec, String> {
    let strategic = match &over.merge_type {
        Some(PolicyMergeType::Other(other)) => {
            return Err(format!("spec.mergeType: {other:?} is not supported"));
        }
        Some(PolicyMergeType::StrategicMerge) => true,
        _ => false,
    };
    let (merged, _) = merge_specs(under, over, strategic).map_err(|why| format!("spec.mergeType: {why}"))?;
    Ok(merged)
}

/// `name` is the object's that is checked.
fn check(proxy: Arc<EnvoyProxySpec>, name: &ObjectRef) -> Reading {
    let provider = proxy
        .provider
        .as_ref()
        .and_then(|provider| provider.type_.as_ref());
    let refused = present([(
        "provider.type",
        provider.is_some_and(|type_| *type_ != ProviderType::Kubernetes),
    )]);
    let refused: Vec<_> = refused
        .into_iter()
        .chain(proxy.geo_ip.as_ref().and_then(geo::fault))
        .collect();
    let fault = if refused.is_empty() {
        let order = || order::steps(&proxy.filter_order).map(drop);
        let checked = infra::check(&proxy)
            .map_err(|error| error.to_string())
            .and_then(|()| order());
        checked.err().map(|error| format!("spec.{error}"))
    } else {
        Some(format!("not supported: spec.{}", refused.join(", spec.")))
    };
    let gaps = gaps::found(Kind::EnvoyProxy, proxy.as_ref())
        .into_iter()
        .filter(|(_, gap)| gap.effect != gaps::Effect::Refused)
        .map(|(path, gap)| match gap.path.split_once('=') {
            Some((_, value)) => format!("{path} {value} ({})", gap.why),
            None => format!("{path} ({})", gap.why),
        });
    let levels = proxy.logging.iter().flat_map(|logging| logging.level.keys());
    let levels = levels
        .filter(|component| *component != "default")
        .map(|component| format!("logging.level.{component} (the proxy has other components)"));
    let ignored = gaps.chain(levels).collect();
    Reading {
        parameters: Parameters {
            telemetry: proxy.telemetry.is_some().then(|| Telling {
                proxy: name.clone(),
                is_of_class: false,
            }),
            proxy,
            ignored,
            backend_tls: BackendTls::default(),
        },
        fault: fault.map(|why| invalid(format!("{name}: {why}"))),
        ..Reading::default()
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

    fn spec(yaml: &str) -> EnvoyProxySpec {
        serde_yaml_ng::from_str(yaml).unwrap()
    }

    #[test]
    fn the_gateways_parameters_go_over_the_classs() {
        let class = spec(
            "{concurrency: 2, provider: {type: Kubernetes, kubernetes: {envoyService: {type: NodePort}, \
             envoyDeployment: {container: {env: [{name: A, value: '1'}]}}}}}",
        );
        let own = "concurrency: 4, provider: {type: Kubernetes, kubernetes: {envoyDeployment: {replicas: 3, \
                   container: {env: [{name: B, value: '2'}]}}}}";
        let laid = |how| {
            let merged = overlay(&class, &spec(&format!("{{mergeType: {how}, {own}}}"))).unwrap();
            let kubernetes = merged.provider.unwrap().kubernetes.unwrap();
            let container = kubernetes.envoy_deployment.unwrap().container.unwrap();
            let env = container.env.unwrap().value.as_array().unwrap().len();
            (merged.concurrency, kubernetes.envoy_service.is_some(), env)
        };
        assert_eq!(laid("StrategicMerge"), (Some(4), true, 2));
        assert_eq!(laid("JSONMerge"), (Some(4), true, 1));
        let other = overlay(&class, &spec("{mergeType: Guess}"));
        assert_eq!(other.unwrap_err(), "spec.mergeType: \"Guess\" is not supported");
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let check = |yaml| check(Arc::new(spec(yaml)), &ObjectRef::new(Kind::EnvoyProxy, "n", "p"));
        let refused = |yaml| check(yaml).fault.unwrap().message;
        assert_eq!(
            refused("{provider: {type: Host}}"),
            "EnvoyProxy n/p: not supported: spec.provider.type"
        );
        assert!(
            refused("{provider: {kubernetes: {envoyService: {type: ExternalName}}}}")
                .starts_with("EnvoyProxy n/p: spec.provider.kubernetes.envoyService.type: "),
        );
        let ignored =
            check("{extraArgs: [x], bootstrap: {value: x}, logging: {level: {default: info, http: debug}}}");
        assert!(ignored.fault.is_none());
        assert_eq!(
            ignored.parameters.remark(&["telemetry.x".to_owned()]),
            "EnvoyProxy fields that have no effect: bootstrap (there is no Envoy here to be started with it), \
             extraArgs (there is no Envoy here to take them), \
             logging.level.http (the proxy has other components), telemetry.x"
        );
    }
}
