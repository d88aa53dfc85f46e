//! Backends of Envoy Gateway: whether one can be used, how it is spoken to, its endpoints, and what its status says.

use std::net::IpAddr;

use sluice_config::{key, v1};
use sluice_crds::envoy::{AppProtocolType, Backend, BackendEndpoint, BackendTLSSettings, BackendType};
use sluice_crds::gateway::WellKnownCACertificatesType;

use super::Reach;
use crate::engine::{BackendUsage, Output, Status, Unit, View};
use crate::store::{Kind, ObjectRef};
use crate::translate::fault::{Fault, stated};
use crate::translate::model::RoutingType;
use crate::translate::policy::envoy::{Reader, gaps, tls_parameters};
use crate::translate::policy::{UpstreamTls, backend_tls};
use crate::translate::route::Context;
use crate::translate::secret;

/// How a route of this sort speaks to a Backend, or why it cannot.
pub fn reach(view: &View<'_>, backend: &Backend, usage: BackendUsage) -> Result<Reach, Fault> {
    check(view, backend)?;
    let object = ObjectRef::of(backend);
    let own = backend
        .spec
        .tls
        .as_ref()
        .map(|tls| tls_of(view, &object, backend, tls));
    let own = own.transpose()?;
    if is_dynamic(backend) && !matches!(usage, BackendUsage::Http | BackendUsage::Grpc) {
        return Err(invalid("type", "only an HTTP request names its destination"));
    }
    if usage == BackendUsage::Udp && backend.spec.endpoints.iter().any(|e| e.unix.is_some()) {
        return Err(invalid("endpoints", "a UDPRoute has no use for a Unix socket"));
    }
    if usage == BackendUsage::Udp && own.is_some() {
        return Err(invalid("tls", "a UDPRoute has none"));
    }
    let policy = if super::uses_tls_policy(usage) {
        backend_tls(view, &object, None)
    } else {
        None
    };
    let takes_gateway_certificate = own
        .as_ref()
        .is_none_or(|own| own.tls.client_certificate_secret.is_empty());
    let tls = match policy {
        _ if !super::uses_tls_policy(usage) => None,
        None => own,
        Some(policy) => {
            let config = policy
                .config
                .map_err(|why| Fault::new("InvalidBackendTLSPolicy", format!("{}: {why}", policy.policy)))?;
            Some(laid_over(own.unwrap_or_default(), config))
        }
    };
    Ok(Reach {
        protocol: protocol(backend, usage, tls.is_some())?,
        tls,
        takes_gateway_certificate,
    })
}

/// What the policy says goes before what the Backend says.
fn laid_over(own: UpstreamTls, policy: UpstreamTls) -> UpstreamTls {
    let mut needs = own.needs;
    needs.extend(policy.needs);
    UpstreamTls {
        tls: v1::UpstreamTls {
            client_certificate_secret: own.tls.client_certificate_secret,
            parameters: own.tls.parameters,
            ..policy.tls
        },
        needs,
    }
}

/// Its endpoints; none if it cannot be used.
pub fn endpoints(view: &View<'_>, backend: &Backend) -> Vec<v1::Endpoint> {
    if check(view, backend).is_err() {
        return Vec::new();
    }
    let endpoints = backend.spec.endpoints.iter();
    endpoints
        .filter_map(|from| {
            let mut endpoint = v1::Endpoint {
                zone: from.zone.clone().unwrap_or_default(),
                allow_local: allows_local(view),
                server_name: server_name(backend, from),
                ..v1::Endpoint::default()
            };
            if let Some(unix) = &from.unix {
                unix.path.clone_into(&mut endpoint.path);
                return Some(endpoint);
            }
            let port = match (&from.ip, &from.fqdn) {
                (Some(ip), _) => {
                    endpoint.address = address(ip.address.as_str())?.to_string();
                    ip.port
                }
                (None, Some(name)) => {
                    name.hostname.clone_into(&mut endpoint.hostname);
                    name.port
                }
                (None, None) => return None,
            };
            endpoint.port = u32::try_from(port).ok()?;
            Some(endpoint)
        })
        .collect()
}

/// The name that TLS to this endpoint is for, if endpoints have one each.
fn server_name(backend: &Backend, endpoint: &BackendEndpoint) -> String {
    let by_endpoint = |tls: &BackendTLSSettings| tls.auto_sni_from_endpoint_hostname == Some(true);
    if !backend.spec.tls.as_ref().is_some_and(by_endpoint) {
        return String::new();
    }
    let name = endpoint.fqdn.as_ref().map(|name| &name.hostname);
    let name = endpoint.hostname.as_ref().or(name);
    name.map(|name| name.trim_end_matches('.').to_owned())
        .unwrap_or_default()
}

/// Set: requests choose their own destination.
pub fn dynamic(view: &View<'_>, backend: &Backend) -> Option<v1::DynamicResolver> {
    is_dynamic(backend).then(|| v1::DynamicResolver {
        allow_local: view.environment().allow_local_backends,
        dns: None,
    })
}

fn is_dynamic(backend: &Backend) -> bool {
    backend.spec.type_ == Some(BackendType::DynamicResolver)
}

/// Translates it by itself: to its status, if a Gateway uses it.
pub fn translate(object: &ObjectRef, view: &View<'_>) -> Output {
    let mut output = Output::default();
    let Some(backend) = view.get::<Backend>(&object.namespace, &object.name) else {
        return output;
    };
    if view.gateways_using(object).is_empty() {
        return output;
    }
    let tls = || {
        let tls = backend.spec.tls.as_ref()?;
        tls_of(view, object, &backend, tls).err()
    };
    let fault = check(view, &backend).err().or_else(tls);
    let mut accepted = stated("Accepted", "Accepted", fault.as_ref());
    let ignored: Vec<_> = gaps::found(Kind::Backend, &backend.spec)
        .into_iter()
        .filter(|(_, gap)| gap.effect == gaps::Effect::Warned)
        .map(|(path, gap)| format!("spec.{path}: {}", gap.why))
        .collect();
    if fault.is_none() && !ignored.is_empty() {
        accepted.message = format!("not honoured: {}", ignored.join("; "));
    }
    let status = Status::Backend {
        generation: backend.metadata.generation.unwrap_or_default(),
        conditions: vec![accepted],
    };
    output.statuses.push((object.clone(), status));
    output
}

fn invalid(field: impl std::fmt::Display, why: impl std::fmt::Display) -> Fault {
    Fault::at("Invalid", format_args!("spec.{field}"), why)
}

/// What is wrong with it whoever uses it, TLS aside.
fn check(view: &View<'_>, backend: &Backend) -> Result<(), Fault> {
    let spec = &backend.spec;
    let refused = gaps::found(Kind::Backend, spec)
        .into_iter()
        .find(|(_, gap)| gap.effect == gaps::Effect::Refused);
    if let Some((path, gap)) = refused {
        return Err(invalid(path, gap.why));
    }
    if let Some(BackendType::Other(other)) = &spec.type_ {
        return Err(invalid("type", format_args!("{other:?} is not known")));
    }
    if is_dynamic(backend) {
        return if spec.endpoints.is_empty() {
            Ok(())
        } else {
            Err(invalid("endpoints", "type DynamicResolver has none"))
        };
    }
    if spec.endpoints.is_empty() {
        return Err(invalid("endpoints", "there is none"));
    }
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        check_endpoint(view, endpoint).map_err(|why| invalid(format_args!("endpoints[{i}]"), why))?;
    }
    Ok(())
}

fn check_endpoint(view: &View<'_>, endpoint: &BackendEndpoint) -> Result<(), String> {
    if let (Some(unix), None, None) = (&endpoint.unix, &endpoint.ip, &endpoint.fqdn) {
        // What sockaddr_un has room for.
        return if unix.path.starts_with('/') && unix.path.len() <= 107 && !unix.path.contains('\0') {
            Ok(())
        } else {
            Err(format!("{:?} is not the path of a socket", unix.path))
        };
    }
    let port = match (&endpoint.ip, &endpoint.fqdn) {
        (Some(ip), None) if endpoint.unix.is_none() => {
            let address =
                address(&ip.address).ok_or_else(|| format!("{:?} is not an address", ip.address))?;
            if is_local(address) && !allows_local(view) {
                // It would lead into the proxy's own pod or node.
                return Err(format!("{address} is an address of the proxy itself"));
            }
            ip.port
        }
        (None, Some(name)) if endpoint.unix.is_none() => {
            let host = name.hostname.trim_end_matches('.').to_ascii_lowercase();
            if (host == "localhost" || host.ends_with(".localhost")) && !allows_local(view) {
                return Err(format!("{host} is the proxy itself"));
            }
            name.port
        }
        _ => return Err("exactly one of fqdn, ip and unix must be set".to_owned()),
    };
    match u16::try_from(port) {
        Ok(1..) => Ok(()),
        _ => Err(format!("{port} is not a port")),
    }
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Whether it is meant for the host itself or its link: where metadata services and sidecars listen.
fn is_local(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast()
}

fn allows_local(view: &View<'_>) -> bool {
    view.environment().allows_local_endpoints()
}

fn protocol(backend: &Backend, usage: BackendUsage, tls: bool) -> Result<v1::BackendProtocol, Fault> {
    let grpc = match usage {
        BackendUsage::Tcp | BackendUsage::Passthrough => return Ok(v1::BackendProtocol::Tcp),
        BackendUsage::Udp => return Ok(v1::BackendProtocol::Udp),
        BackendUsage::Grpc => true,
        BackendUsage::Http => false,
    };
    // The first is the one to speak.
    match backend.spec.app_protocols.first() {
        None if grpc => Ok(v1::BackendProtocol::H2c),
        None => Ok(v1::BackendProtocol::Unspecified),
        Some(AppProtocolType::H2c) => Ok(v1::BackendProtocol::H2c),
        Some(AppProtocolType::Ws) if !grpc => Ok(v1::BackendProtocol::Websocket),
        Some(AppProtocolType::Wss) if !grpc && tls => Ok(v1::BackendProtocol::Websocket),
        Some(AppProtocolType::Wss) if !grpc => Err(invalid("appProtocols", "wss needs TLS")),
        Some(other) => {
            let why = format_args!("{other} cannot be spoken here");
            Err(invalid("appProtocols", why))
        }
    }
}

fn tls_of(
    view: &View<'_>,
    object: &ObjectRef,
    backend: &Backend,
    from: &BackendTLSSettings,
) -> Result<UpstreamTls, Fault> {
    let context = Context::new(view, object, RoutingType::default(), None);
    let mut reader = Reader::new(&context, String::new());
    let parameters = tls_parameters(&mut reader, &from.config.settings);
    let mut upstream = UpstreamTls::default();
    let tls = &mut upstream.tls;
    tls.parameters = (parameters != v1::TlsParameters::default()).then_some(parameters);
    tls.insecure_skip_verify = from.insecure_skip_verify.unwrap_or_default();
    match &from.well_known_ca_certificates {
        Some(WellKnownCACertificatesType::System) => tls.system_ca = true,
        Some(other) => reader.fault(
            "tls.wellKnownCACertificates",
            format_args!("{other:?} is not known"),
        ),
        None => {}
    }
    for (i, reference) in from.ca_certificate_refs.iter().enumerate() {
        let field = format!("tls.caCertificateRefs[{i}]");
        let Some(kind) = secret::ca_kind(&reference.group, &reference.kind) else {
            reader.fault(field, format_args!("{} is not supported", reference.kind));
            continue;
        };
        let namespace = if kind == Kind::ClusterTrustBundle {
            ""
        } else {
            &object.namespace
        };
        let authority = ObjectRef::new(kind, namespace, reference.name.as_str());
        match secret::trust_bundle(view, &authority) {
            Ok(_) => {
                tls.ca_secrets.push(secret::trust_key(&authority));
                reader.needs.push(Unit::Secret(authority));
            }
            Err(why) => reader.fault(field, why),
        }
    }
    if let Some(reference) = &from.config.client_certificate_ref {
        let field = "tls.clientCertificateRef";
        if let Some(certificate) = reader.secret_object(object, reference, field) {
            match secret::certificate(view, &certificate) {
                Ok(_) => {
                    tls.client_certificate_secret = key::secret(
                        certificate.kind.as_str(),
                        &certificate.namespace,
                        &certificate.name,
                    );
                    reader.needs.push(Unit::Secret(certificate));
                }
                Err(why) => reader.fault(field, why),
            }
        }
    }
    let name = backend.spec.endpoints.iter().find_map(|e| e.fqdn.as_ref());
    let name = name.map(|name| name.hostname.trim_end_matches('.').to_owned());
    tls.hostname = from.sni.clone().or(name).unwrap_or_default();
    if !tls.insecure_skip_verify {
        if tls.ca_secrets.is_empty() && !tls.system_ca {
            reader.fault("tls", "it names no CA certificates");
        }
        let each_has_one = backend
            .spec
            .endpoints
            .iter()
            .all(|endpoint| !server_name(backend, endpoint).is_empty());
        // The host of each request is its name.
        if tls.hostname.is_empty() && !each_has_one {
            reader.fault("tls.sni", "without a name no certificate can be verified");
        }
    }
    if let Some(fault) = reader.faults.into_iter().next() {
        return Err(fault);
    }
    upstream.needs = reader.needs;
    Ok(upstream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_proxy_itself_are_known_in_every_guise() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "::",
            "169.254.169.254",
            "fe80::1",
        ] {
            assert!(is_local(address(text).unwrap()), "{text}");
        }
        for text in ["10.0.0.1", "192.0.2.7", "2001:db8::1"] {
            assert!(!is_local(address(text).unwrap()), "{text}");
        }
    }
}
