//! BackendTLSPolicy: which one applies to a backend, and what it comes to.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use sluice_config::v1;
use sluice_crds::gateway::{
    BackendTLSPolicy, BackendTLSPolicyValidation, LocalPolicyTargetReferenceWithSectionName, SubjectAltName,
    SubjectAltNameType, WellKnownCACertificatesType, XBackend,
};

use super::Ancestors;
use crate::engine::{GatewayRef, Unit, View};
use crate::store::{Kind, ObjectRef};
use crate::translate::backend::x_backend;
use crate::translate::condition::Condition;
use crate::translate::fault::{Fault, stated};
use crate::translate::precedence::Precedence;
use crate::translate::secret;

/// The BackendTLSPolicy that applies to a backend.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendTls {
    /// The policy.
    pub policy: ObjectRef,
    /// How to connect; or why the policy cannot be honoured: then the backend must not be connected to.
    pub config: Result<UpstreamTls, String>,
}

/// TLS towards a backend, and the key material that it needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpstreamTls {
    /// Everything but the client certificate, which is the Gateway's.
    pub tls: v1::UpstreamTls,
    /// Units of the secrets that `tls` names.
    pub needs: Vec<Unit>,
}

/// How a `validation` stanza turned out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Validated {
    /// Why it cannot be honoured at all.
    pub accepted: Option<Fault>,
    /// What is wrong with its references; some of them may be right.
    pub resolved: Option<Fault>,
    /// What it comes to, if it can be honoured.
    pub upstream: UpstreamTls,
}

/// The BackendTLSPolicy that applies to a port of `target` (a Service or XBackend), if there is one. A policy for the very port
/// (`sectionName`) goes before one for the whole Service.
pub fn backend_tls(view: &View<'_>, target: &ObjectRef, port_name: Option<&str>) -> Option<BackendTls> {
    let policies = view.pointing_at::<BackendTLSPolicy>(target);
    let for_port = port_name.and_then(|port| winner(&policies, target, Some(port)));
    let policy = for_port.or_else(|| winner(&policies, target, None))?;
    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
    let validated = validation(view, namespace, &policy.spec.validation);
    let config = match validated.accepted {
        Some(fault) => Err(fault.message),
        None => Ok(validated.upstream),
    };
    Some(BackendTls {
        policy: ObjectRef::of(policy.as_ref()),
        config,
    })
}

/// What a `validation` stanza of an object in `namespace` comes to.
pub fn validation(view: &View<'_>, namespace: &str, spec: &BackendTLSPolicyValidation) -> Validated {
    let mut validated = Validated::default();
    validated.upstream.tls.hostname.clone_from(&spec.hostname);
    match &spec.well_known_ca_certificates {
        Some(WellKnownCACertificatesType::System) => validated.upstream.tls.system_ca = true,
        Some(other) if !other.as_str().is_empty() => {
            let message = format!("validation.wellKnownCACertificates: {other:?} is not supported");
            validated.accepted = Some(Fault::new("Invalid", message));
        }
        _ => resolve_ca(view, namespace, spec, &mut validated),
    }
    for (index, name) in spec.subject_alt_names.iter().enumerate() {
        if let Some(name) = subject_alt_name(name) {
            validated.upstream.tls.subject_alt_names.push(name);
        } else {
            let message = format!("validation.subjectAltNames[{index}]: neither a Hostname nor a URI");
            validated.accepted.get_or_insert(Fault::new("Invalid", message));
        }
    }
    validated
}

fn resolve_ca(
    view: &View<'_>,
    namespace: &str,
    spec: &BackendTLSPolicyValidation,
    validated: &mut Validated,
) {
    for (index, reference) in spec.ca_certificate_refs.iter().enumerate() {
        let field = format!("validation.caCertificateRefs[{index}]");
        let Some(kind) = secret::ca_kind(&reference.group, &reference.kind) else {
            let message = format!(
                "{field}: {} {:?} is not supported",
                reference.kind, reference.group
            );
            validated
                .resolved
                .get_or_insert(Fault::new("InvalidKind", message));
            continue;
        };
        let namespace = if kind == Kind::ClusterTrustBundle {
            ""
        } else {
            namespace
        };
        let object = ObjectRef::new(kind, namespace, reference.name.as_str());
        match secret::trust_bundle(view, &object) {
            Ok(_) => {
                validated.upstream.tls.ca_secrets.push(secret::trust_key(&object));
                validated.upstream.needs.push(Unit::Secret(object));
            }
            Err(error) => {
                let fault = Fault::new("InvalidCACertificateRef", format!("{field}: {error}"));
                validated.resolved.get_or_insert(fault);
            }
        }
    }
    if validated.upstream.tls.ca_secrets.is_empty() {
        let why = validated
            .resolved
            .as_ref()
            .map_or("no CA certificate is given", |fault| &fault.message);
        validated.accepted = Some(Fault::new("NoValidCACertificate", why));
    }
}

fn subject_alt_name(name: &SubjectAltName) -> Option<String> {
    match name.type_ {
        SubjectAltNameType::Hostname => name.hostname.as_ref().map(|hostname| format!("dns:{hostname}")),
        SubjectAltNameType::Uri => name.uri.as_ref().map(|uri| format!("uri:{uri}")),
        SubjectAltNameType::Other(_) => None,
    }
}

/// The policy that prevails among those for `section` of `target`.
fn winner<'p>(
    policies: &'p [Arc<BackendTLSPolicy>],
    target: &ObjectRef,
    section: Option<&str>,
) -> Option<&'p Arc<BackendTLSPolicy>> {
    let names = |policy: &&Arc<BackendTLSPolicy>| {
        policy
            .spec
            .target_refs
            .iter()
            .any(|t| is_target(t, target) && section_of(t) == section)
    };
    policies
        .iter()
        .filter(names)
        .min_by_key(|policy| Precedence::of(&policy.metadata))
}

fn is_target(reference: &LocalPolicyTargetReferenceWithSectionName, target: &ObjectRef) -> bool {
    Kind::parse(&reference.group, &reference.kind) == Some(target.kind) && reference.name == *target.name
}

fn section_of(reference: &LocalPolicyTargetReferenceWithSectionName) -> Option<&str> {
    reference
        .section_name
        .as_deref()
        .filter(|section| !section.is_empty())
}

/// What the policy's status says, by ancestor.
pub(super) fn ancestors(policy: &BackendTLSPolicy, view: &View<'_>) -> Ancestors {
    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
    let mut faults = BTreeMap::<GatewayRef, Option<Fault>>::new();
    for (index, reference) in policy.spec.target_refs.iter().enumerate() {
        let Some(kind) = Kind::parse(&reference.group, &reference.kind) else {
            continue;
        };
        let target = ObjectRef::new(kind, namespace, reference.name.as_str());
        let users = view.gateways_using(&target);
        if users.is_empty() {
            continue;
        }
        let fault = target_fault(policy, view, &target, section_of(reference))
            .map(|fault| Fault::new(fault.reason, format!("targetRefs[{index}]: {}", fault.message)));
        for gateway in users {
            let entry = faults.entry(gateway).or_default();
            *entry = entry.take().or_else(|| fault.clone());
        }
    }
    if faults.is_empty() {
        return Ancestors::new();
    }
    let validated = validation(view, namespace, &policy.spec.validation);
    let mut resolved = stated("ResolvedRefs", "ResolvedRefs", validated.resolved.as_ref());
    resolved.message = validated.resolved.map(|fault| fault.message).unwrap_or_default();
    let conditions = |conflict: Option<Fault>| {
        let mut accepted = stated(
            "Accepted",
            "Accepted",
            conflict.or_else(|| validated.accepted.clone()).as_ref(),
        );
        note_options(policy, &mut accepted);
        vec![accepted, resolved.clone()]
    };
    faults
        .into_iter()
        .map(|(gateway, conflict)| (gateway, conditions(conflict)))
        .collect()
}

/// Why the policy does not apply to a target that it names.
fn target_fault(
    policy: &BackendTLSPolicy,
    view: &View<'_>,
    target: &ObjectRef,
    section: Option<&str>,
) -> Option<Fault> {
    let policies = view.pointing_at::<BackendTLSPolicy>(target);
    let prevails = winner(&policies, target, section)?;
    if prevails.metadata.name != policy.metadata.name {
        let name = prevails.metadata.name.as_deref().unwrap_or_default();
        return Some(Fault::new(
            "Conflicted",
            format!("BackendTLSPolicy {name} has the same target and goes before"),
        ));
    }
    if target.kind == Kind::XBackend {
        let object = view.get::<XBackend>(&target.namespace, &target.name)?;
        if x_backend::has_tls(&object) {
            let why = format!("{target} has TLS settings of its own, which go before");
            return Some(Fault::new("Conflicted", why));
        }
        let why = |section| format!("{target} has no port named {section}");
        return section.map(|section| Fault::new("TargetNotFound", why(section)));
    }
    let section = section?;
    let service = view.get::<Service>(&target.namespace, &target.name)?;
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let has_port = ports.is_some_and(|ports| ports.iter().any(|port| port.name.as_deref() == Some(section)));
    (!has_port).then(|| Fault::new("TargetNotFound", format!("{target} has no port named {section}")))
}

fn note_options(policy: &BackendTLSPolicy, accepted: &mut Condition) {
    let options: Vec<_> = policy.spec.options.keys().map(String::as_str).collect();
    if accepted.status && !options.is_empty() {
        accepted.message = format!("options have no effect: {}", options.join(", "));
    }
}
