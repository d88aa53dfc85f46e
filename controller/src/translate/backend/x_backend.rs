//! XBackends: whether one can be used, how it is spoken to, and what its status says.
//!
//! Owns the reading of an XBackend's spec. Its endpoints are in [`super::endpoints`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use sluice_config::{key, v1};
use sluice_crds::gateway::{
    BackendProtocol, BackendTLS, BackendTLSMode, BackendType, SecretObjectReference, SessionPersistence,
    XBackend,
};

use crate::engine::{AncestorStatus, BackendUsage, Output, PodService, Status, Unit, View, WantedPodService};
use crate::infra::pods;
use crate::store::{Kind, ObjectRef};
use crate::translate::condition::Condition;
use crate::translate::fault::{Fault, stated};
use crate::translate::policy::{UpstreamTls, backend_tls, gateway_reference, validation};
use crate::translate::{grant, secret};

/// Most ancestors that a status can hold.
const MOST_ANCESTORS: usize = 32;
/// Names of the cluster itself, which only a Service may stand for.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// Bytes of a name in the DNS.
const LONGEST_HOSTNAME: usize = 253;

/// How an XBackend is spoken to.
#[derive(Debug, Clone, PartialEq)]
pub struct Speech {
    /// What is spoken.
    pub protocol: v1::BackendProtocol,
    /// TLS, if there is any.
    pub tls: Option<UpstreamTls>,
    /// True: a client certificate of the Gateway's may be shown; the XBackend says nothing of TLS itself.
    pub takes_gateway_certificate: bool,
}

/// The port; 0 if there is none, which [`speech`] says.
pub fn port(backend: &XBackend) -> u16 {
    backend.spec.port.number.unwrap_or_default()
}

/// The name that stands for the backend, for type ExternalHostname.
pub fn hostname(backend: &XBackend) -> Option<&str> {
    let external = backend.spec.external_hostname.as_ref();
    external
        .filter(|_| backend.spec.type_ == BackendType::ExternalHostname)
        .map(|external| external.hostname.as_str())
        .filter(|hostname| is_external(hostname))
}

/// Session persistence that it asks for.
pub fn session_persistence(backend: &XBackend) -> Option<&SessionPersistence> {
    let persistence = backend.spec.session_persistence.as_ref();
    persistence.filter(|_| backend.spec.type_ == BackendType::EndpointSelector)
}

/// How a route of this sort speaks to an XBackend, or why it cannot.
pub fn speech(view: &View<'_>, backend: &XBackend, usage: BackendUsage) -> Result<Speech, Fault> {
    let own = own_tls(view, backend)?;
    check(backend)?;
    let mut speech = Speech {
        protocol: v1::BackendProtocol::Unspecified,
        takes_gateway_certificate: own.is_none(),
        tls: own,
    };
    if usage == BackendUsage::Udp && speech.tls.is_some() {
        let why = "a UDPRoute has none";
        return Err(Fault::at("UnsupportedProtocol", format_args!("spec.tls"), why));
    }
    if !super::uses_tls_policy(usage) {
        // Passed through: the bytes are TLS already.
        speech.tls = None;
    } else if speech.tls.is_none()
        && let Some(policy) = backend_tls(view, &ObjectRef::of(backend), None)
    {
        let config = policy
            .config
            .map_err(|why| Fault::new("InvalidBackendTLSPolicy", format!("{}: {why}", policy.policy)))?;
        speech.tls = Some(config);
    }
    speech.protocol = protocol(backend.spec.protocol.as_ref(), usage, speech.tls.is_some())?;
    Ok(speech)
}

/// What is wrong with the XBackend whoever uses it, TLS aside.
fn check(backend: &XBackend) -> Result<(), Fault> {
    let spec = &backend.spec;
    if port(backend) == 0 {
        return Err(Fault::unsupported(
            format_args!("spec.port.number"),
            "a port is needed",
        ));
    }
    match &spec.type_ {
        BackendType::ExternalHostname => {
            let given = spec.external_hostname.as_ref();
            let given = given.map_or("", |external| external.hostname.as_str());
            if !is_external(given) {
                let why = format_args!("{given:?} is not the name of a host outside the cluster");
                return Err(Fault::unsupported(
                    format_args!("spec.externalHostname.hostname"),
                    why,
                ));
            }
            if spec.session_persistence.is_some() {
                let why = "only for type EndpointSelector";
                return Err(Fault::unsupported(format_args!("spec.sessionPersistence"), why));
            }
        }
        BackendType::EndpointSelector => {
            if selected(backend).is_none() {
                let why = "a label is needed";
                return Err(Fault::unsupported(
                    format_args!("spec.endpointSelector.matchLabels"),
                    why,
                ));
            }
        }
        BackendType::Other(kind) => {
            let why = format_args!("{kind:?} is not a type of backend");
            return Err(Fault::unsupported(format_args!("spec.type"), why));
        }
    }
    Ok(())
}

/// Whether it is a name in the DNS, and not one of the cluster.
fn is_external(hostname: &str) -> bool {
    let name = hostname
        .strip_suffix('.')
        .unwrap_or(hostname)
        .to_ascii_lowercase();
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let of_cluster = name
        .strip_suffix(CLUSTER_DOMAIN)
        .is_some_and(|before| before.is_empty() || before.ends_with('.'));
    name.len() <= LONGEST_HOSTNAME
        && name.split('.').all(is_label)
        && name.parse::<IpAddr>().is_err()
        && !of_cluster
}

fn protocol(
    given: Option<&BackendProtocol>,
    usage: BackendUsage,
    tls: bool,
) -> Result<v1::BackendProtocol, Fault> {
    use BackendProtocol as Given;
    let field = format_args!("spec.protocol");
    match given {
        Some(Given::H2c) if tls => {
            return Err(Fault::unsupported(field, "H2C has no TLS; HTTP2 has"));
        }
        Some(name @ (Given::Http2 | Given::Wss)) if !tls && super::uses_tls_policy(usage) => {
            return Err(Fault::unsupported(field, format_args!("{name} needs TLS")));
        }
        Some(Given::Other(name)) => {
            return Err(Fault::unsupported(
                field,
                format_args!("{name:?} is not a protocol"),
            ));
        }
        _ => {}
    }
    let spoken = match (usage, given) {
        // Bytes are bytes.
        (BackendUsage::Tcp | BackendUsage::Passthrough, _) => v1::BackendProtocol::Tcp,
        (BackendUsage::Udp, None) => v1::BackendProtocol::Udp,
        // MCP is spoken over HTTP.
        (BackendUsage::Http, None | Some(Given::Http | Given::Mcp)) => v1::BackendProtocol::Unspecified,
        (BackendUsage::Http, Some(Given::Http11)) => v1::BackendProtocol::Http1,
        (BackendUsage::Http, Some(Given::Wss)) => v1::BackendProtocol::Websocket,
        (BackendUsage::Http, Some(Given::H2c | Given::Http2 | Given::Grpc))
        | (BackendUsage::Grpc, None | Some(Given::Http | Given::H2c | Given::Http2 | Given::Grpc)) => {
            v1::BackendProtocol::H2c
        }
        (_, given) => {
            let name = given.map(ToString::to_string).unwrap_or_default();
            let route = match usage {
                BackendUsage::Grpc => "a GRPCRoute",
                BackendUsage::Udp => "a UDPRoute",
                _ => "an HTTPRoute",
            };
            let why = format_args!("{name} cannot be spoken by {route}");
            return Err(Fault::at("UnsupportedProtocol", field, why));
        }
    };
    Ok(spoken)
}

/// What the XBackend itself says of TLS; `None` if it says none.
fn own_tls(view: &View<'_>, backend: &XBackend) -> Result<Option<UpstreamTls>, Fault> {
    let Some(tls) = &backend.spec.tls else {
        return Ok(None);
    };
    let certificate = match (&tls.mode, &tls.client_certificate_ref) {
        (BackendTLSMode::None, _) => return Ok(None),
        (BackendTLSMode::ServerOnly, _) => None,
        (BackendTLSMode::ClientAndServer, Some(reference)) => {
            Some(client_certificate(view, backend, reference)?)
        }
        (BackendTLSMode::ClientAndServer, None) => {
            let why = "mode ClientAndServer needs it";
            return Err(Fault::unsupported(
                format_args!("spec.tls.clientCertificateRef"),
                why,
            ));
        }
        (BackendTLSMode::Other(mode), _) => {
            let why = format_args!("{mode:?} is not a mode of TLS");
            return Err(Fault::unsupported(format_args!("spec.tls.mode"), why));
        }
    };
    let mut upstream = validated(view, backend, tls)?;
    if let Some(secret) = certificate {
        upstream.tls.client_certificate_secret =
            key::secret(secret.kind.as_str(), &secret.namespace, &secret.name);
        upstream.needs.push(Unit::Secret(secret));
    }
    Ok(Some(upstream))
}

fn validated(view: &View<'_>, backend: &XBackend, tls: &BackendTLS) -> Result<UpstreamTls, Fault> {
    let Some(spec) = &tls.validation else {
        let why = format_args!("mode {} needs it", tls.mode);
        return Err(Fault::unsupported(format_args!("spec.tls.validation"), why));
    };
    let namespace = backend.metadata.namespace.as_deref().unwrap_or_default();
    let validated = validation(view, namespace, spec);
    match validated.accepted {
        None => Ok(validated.upstream),
        Some(fault) => Err(Fault::new(fault.reason, format!("spec.tls: {}", fault.message))),
    }
}

fn client_certificate(
    view: &View<'_>,
    backend: &XBackend,
    reference: &SecretObjectReference,
) -> Result<ObjectRef, Fault> {
    let field = format_args!("spec.tls.clientCertificateRef");
    let from = ObjectRef::of(backend);
    if (reference.group(), reference.kind()) != ("", "Secret") {
        let (kind, group) = (reference.kind(), reference.group());
        let why = format_args!("{kind} of group {group:?} is not supported");
        return Err(Fault::at("InvalidClientCertificateRef", field, why));
    }
    let namespace = reference.namespace(&from.namespace);
    let secret = ObjectRef::new(Kind::Secret, namespace, reference.name.as_str());
    let referrer = grant::Referrer::object(&from);
    if !grant::is_granted(view, referrer, secret.kind, &secret.namespace, &secret.name) {
        let why = format_args!("no ReferenceGrant allows {secret}");
        return Err(Fault::at("RefNotPermitted", field, why));
    }
    secret::certificate(view, &secret).map_err(|why| Fault::at("InvalidClientCertificateRef", field, why))?;
    Ok(secret)
}

/// The labels that the backend's pods carry, for type EndpointSelector.
fn selected(backend: &XBackend) -> Option<&BTreeMap<String, String>> {
    let selector = backend.spec.endpoint_selector.as_ref();
    selector
        .filter(|_| backend.spec.type_ == BackendType::EndpointSelector)
        .map(|selector| &selector.match_labels)
        .filter(|labels| !labels.is_empty())
}

/// Whether it says itself how TLS is spoken to it: then no policy does.
pub fn has_tls(backend: &XBackend) -> bool {
    let tls = backend.spec.tls.as_ref();
    tls.is_some_and(|tls| tls.mode != BackendTLSMode::None)
}

/// Translates an XBackend as such: to its status, and to the Service that finds its pods.
pub fn translate(object: &ObjectRef, view: &View<'_>) -> Output {
    let Some(backend) = view.get::<XBackend>(&object.namespace, &object.name) else {
        return Output::default();
    };
    let users = view.gateways_using(object);
    // Its own faults, not those of a use: TLS policies have a status, and so have routes that cannot speak to it.
    let fault = own_tls(view, &backend)
        .and_then(|tls| check(&backend).map(|()| tls.is_some()))
        .and_then(|tls| {
            protocol(
                backend.spec.protocol.as_ref(),
                BackendUsage::Tcp,
                tls || has_policy(view, object),
            )
        })
        .err();
    let conditions: Vec<Condition> = vec![stated("Accepted", "Accepted", fault.as_ref())];
    let ancestor = |gateway| AncestorStatus {
        ancestor_ref: gateway_reference(&gateway),
        conditions: conditions.clone(),
    };
    let is_used = !users.is_empty();
    let status = Status::Policy {
        generation: backend.metadata.generation.unwrap_or_default(),
        ancestors: users.into_iter().take(MOST_ANCESTORS).map(ancestor).collect(),
    };
    Output {
        statuses: vec![(object.clone(), status)],
        pods: pod_service(&backend, is_used, view),
        ..Output::default()
    }
}

fn has_policy(view: &View<'_>, object: &ObjectRef) -> bool {
    backend_tls(view, object, None).is_some()
}

/// What is to become of the Services that were made for it; `None` if there is nothing to make and nothing to remove.
fn pod_service(backend: &XBackend, is_used: bool, view: &View<'_>) -> Option<PodService> {
    let wanted = selected(backend)
        .filter(|_| is_used && port(backend) != 0)
        .map(|labels| WantedPodService {
            uid: backend.metadata.uid.clone().unwrap_or_default(),
            labels: labels.clone(),
            port: port(backend),
        });
    let found: Vec<_> = services(backend, view)
        .iter()
        .map(|service| {
            let name = service.metadata.name.clone().unwrap_or_default();
            let as_wanted = wanted
                .as_ref()
                .is_some_and(|wanted| pods::is_as_wanted(service, wanted));
            (name, as_wanted)
        })
        .collect();
    (wanted.is_some() || !found.is_empty()).then_some(PodService { wanted, found })
}

/// The Services that were made for an XBackend, the one to use first.
pub fn services(backend: &XBackend, view: &View<'_>) -> Vec<Arc<Service>> {
    let controller_name = &view.environment().controller_name;
    let mut services = view.pointing_at::<Service>(&ObjectRef::of(backend));
    services.retain(|service| pods::is_made_for(&service.metadata, backend, controller_name));
    services.sort_by_key(|service| pods::age(&service.metadata));
    services
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_cluster_and_addresses_are_not_external() {
        for (name, external) in [
            ("api.example.com", true),
            ("example.com.", true),
            ("localhost", true),
            ("mycluster.local", true),
            ("db.shop.svc.cluster.local", false),
            ("db.shop.svc.Cluster.Local.", false),
            ("cluster.local", false),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
            ("*.example.com", false),
            ("a..example.com", false),
            ("", false),
        ] {
            assert_eq!(is_external(name), external, "{name}");
        }
    }

    #[test]
    fn a_protocol_must_fit_the_route_and_the_tls() {
        use v1::BackendProtocol as Spoken;
        let of = |name: &str, usage, tls| {
            let given = serde_json::from_value::<BackendProtocol>(name.into()).unwrap();
            protocol(Some(&given), usage, tls).ok()
        };
        let (http, grpc, tcp) = (BackendUsage::Http, BackendUsage::Grpc, BackendUsage::Tcp);
        for (name, usage, tls, spoken) in [
            ("HTTP", http, false, Some(Spoken::Unspecified)),
            ("HTTP", http, true, Some(Spoken::Unspecified)),
            ("HTTP11", http, true, Some(Spoken::Http1)),
            ("H2C", http, false, Some(Spoken::H2c)),
            ("H2C", http, true, None),
            ("HTTP2", http, true, Some(Spoken::H2c)),
            ("HTTP2", http, false, None),
            ("WSS", http, true, Some(Spoken::Websocket)),
            ("WSS", http, false, None),
            ("GRPC", http, false, Some(Spoken::H2c)),
            ("MCP", http, false, Some(Spoken::Unspecified)),
            ("TCP", http, false, None),
            ("SMTP", http, false, None),
            ("GRPC", grpc, false, Some(Spoken::H2c)),
            ("HTTP", grpc, false, Some(Spoken::H2c)),
            ("HTTP11", grpc, false, None),
            ("MCP", grpc, false, None),
            ("TCP", tcp, false, Some(Spoken::Tcp)),
            ("HTTP2", BackendUsage::Passthrough, false, Some(Spoken::Tcp)),
            ("HTTP", BackendUsage::Udp, false, None),
        ] {
            assert_eq!(of(name, usage, tls), spoken, "{name} {usage:?} {tls}");
        }
        assert_eq!(protocol(None, BackendUsage::Udp, false).ok(), Some(Spoken::Udp));
    }
}
