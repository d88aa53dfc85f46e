//! Backends: destinations as routes use them, and their addresses.
//!
//! A backend is a Service's port or an XBackend together with all that is known about how to talk to it: protocol, TLS, retry
//! budget. A backend that must not be connected to (its TLS policy cannot be honoured) has no resource; routes leave
//! its slot empty.

pub mod endpoints;
pub mod envoy;
pub mod protocol;
pub mod rate_limit;
mod retry_budget;
pub mod service;
pub mod x_backend;

use k8s_openapi::api::core::v1::Service;
use sluice_config::{key, v1};
use sluice_crds::envoy::Backend;
use sluice_crds::gateway::XBackend;

use crate::engine::{BackendId, BackendUsage, EndpointsId, Output, Unit, View};
use crate::store::Kind;
use crate::translate::gateway::parameters;
use crate::translate::model::RoutingType;
use crate::translate::policy::envoy::cluster;
use crate::translate::policy::{UpstreamTls, backend_tls, backend_traffic};

/// Key of a backend's resource.
pub fn key(id: &BackendId) -> String {
    let mut variant = Vec::new();
    variant.extend(match id.usage {
        BackendUsage::Http => None,
        BackendUsage::Grpc => Some("grpc".to_owned()),
        BackendUsage::Tcp => Some("tcp".to_owned()),
        BackendUsage::Passthrough => Some("passthrough".to_owned()),
        BackendUsage::Udp => Some("udp".to_owned()),
    });
    if id.routing == RoutingType::Service {
        variant.push("service".to_owned());
    }
    // Slashes are in no name.
    variant.extend(
        id.tls
            .certificate
            .as_ref()
            .map(|secret| format!("as/{}/{}", secret.namespace, secret.name)),
    );
    variant.extend(
        id.tls
            .parameters
            .as_ref()
            .map(|proxy| format!("tls/{}/{}", proxy.namespace, proxy.name)),
    );
    // A policy is no Secret, so this cannot be taken for the one before.
    variant.extend(
        id.traffic
            .iter()
            .map(|policy| format!("by/{}/{}", policy.namespace, policy.name)),
    );
    variant.extend(
        id.settings
            .as_ref()
            .map(|asked| format!("with/{}", asked.digest())),
    );
    let target = &id.target;
    key::backend(
        target.kind.as_str(),
        &target.namespace,
        &target.name,
        id.port,
        variant.join("/"),
    )
}

/// Whether a BackendTLSPolicy has a say in such a use.
pub fn uses_tls_policy(usage: BackendUsage) -> bool {
    match usage {
        BackendUsage::Http | BackendUsage::Grpc | BackendUsage::Tcp => true,
        // Passed through as it is, and not TLS at all.
        BackendUsage::Passthrough | BackendUsage::Udp => false,
    }
}

/// How a backend is connected to.
pub struct Reach {
    /// What is spoken.
    pub protocol: v1::BackendProtocol,
    /// TLS, if there is any.
    pub tls: Option<UpstreamTls>,
    /// The Gateway's client certificate may be shown.
    pub takes_gateway_certificate: bool,
}

/// Translates one backend.
pub fn translate(id: &BackendId, view: &View<'_>) -> Output {
    let reach = match id.target.kind {
        Kind::Service => of_service(id, view),
        Kind::XBackend => of_x_backend(id, view),
        Kind::Backend => view
            .get::<Backend>(&id.target.namespace, &id.target.name)
            .and_then(|object| envoy::reach(view, &object, id.usage).ok()),
        _ => None,
    };
    reach.map_or_else(Output::default, |reach| reached(id, reach, view))
}

/// `None` if there is nothing that may be connected to.
fn of_service(id: &BackendId, view: &View<'_>) -> Option<Reach> {
    let target = &id.target;
    let object = view.get::<Service>(&target.namespace, &target.name)?;
    let udp = id.usage == BackendUsage::Udp;
    let port = service::port(&object, id.port, udp)?;
    let policy = if uses_tls_policy(id.usage) {
        backend_tls(view, target, port.name.as_deref())
    } else {
        None
    };
    let tls = policy.map(|policy| policy.config).transpose().ok()?;
    let protocol = protocol::of_service(id.usage, port.app_protocol.as_deref(), || tls.is_some()).ok()?;
    Some(Reach {
        protocol,
        tls,
        takes_gateway_certificate: true,
    })
}

/// `None` if there is nothing that may be connected to.
fn of_x_backend(id: &BackendId, view: &View<'_>) -> Option<Reach> {
    let object = view.get::<XBackend>(&id.target.namespace, &id.target.name)?;
    let speech = x_backend::speech(view, &object, id.usage).ok()?;
    Some(Reach {
        protocol: speech.protocol,
        tls: speech.tls,
        takes_gateway_certificate: speech.takes_gateway_certificate,
    })
}

fn reached(id: &BackendId, reach: Reach, view: &View<'_>) -> Output {
    let target = &id.target;
    let mut output = Output::default();
    let tls = reach.tls.map(|mut upstream| {
        output.shared.needs.append(&mut upstream.needs);
        if reach.takes_gateway_certificate
            && let Some(secret) = &id.tls.certificate
        {
            upstream.tls.client_certificate_secret =
                key::secret(secret.kind.as_str(), &secret.namespace, &secret.name);
            output.shared.needs.push(Unit::Secret(secret.clone()));
        }
        if upstream.tls.parameters.is_none()
            && let Some(proxy) = &id.tls.parameters
        {
            upstream.tls.parameters = parameters::backend_tls_parameters(view, proxy);
        }
        upstream.tls
    });
    let retry_budget = match id.usage {
        BackendUsage::Http | BackendUsage::Grpc => backend_traffic(view, target)
            .and_then(|policy| policy.spec.retry_constraint.as_ref().map(retry_budget::translate)),
        _ => None,
    };
    let mut backend = v1::Backend {
        name: format!("{}/{}:{}", target.namespace, target.name, id.port),
        protocol: reach.protocol.into(),
        tls,
        retry_budget,
        ..v1::Backend::default()
    };
    if target.kind == Kind::Backend
        && let Some(object) = view.get::<Backend>(&target.namespace, &target.name)
    {
        backend.dynamic = envoy::dynamic(view, &object);
    }
    let look_up = match &id.settings {
        Some(settings) => settings.apply(view, target, &mut backend),
        None => cluster::apply_policies(view, &id.traffic, &mut backend),
    };
    if let Some(dynamic) = &mut backend.dynamic {
        dynamic.dns = look_up.map(Into::into);
    }
    let endpoints = EndpointsId {
        target: target.clone(),
        port: id.port,
        udp: id.usage == BackendUsage::Udp,
        routing: id.routing,
        look_up: look_up.filter(|_| endpoints::are_named(target, view)),
    };
    backend.endpoints = endpoints::resource_key(&endpoints);
    output.shared.needs.push(Unit::Endpoints(endpoints));
    output.shared.add(key(id), v1::resource::Body::Backend(backend));
    output
}
