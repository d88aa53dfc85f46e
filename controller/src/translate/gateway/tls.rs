//! TLS of a Gateway: certificates of listeners, validation of clients, the certificate that is shown to backends.

use sluice_config::v1;
use sluice_crds::gateway::{
    FrontendTLSValidation, FrontendValidationModeType, Gateway, ListenerTLSConfig, SecretObjectReference,
};

use crate::engine::{Unit, View};
use crate::store::{Kind, ObjectRef};
use crate::translate::fault::Fault;
use crate::translate::{grant, secret};

/// How the TLS of a listener turned out.
#[derive(Debug, Default)]
pub struct Termination {
    /// What the proxy is told; `None` if there is no certificate to show.
    pub config: Option<v1::TlsTermination>,
    /// Units of the secrets that it names.
    pub needs: Vec<Unit>,
    /// Why the listener cannot be accepted.
    pub accepted: Option<Fault>,
    /// What is wrong with references.
    pub resolved: Option<Fault>,
}

/// Resolves the TLS of a listener of `parent` that terminates it. `validation` is that of `gateway`, if clients are to
/// be validated.
pub fn terminate(
    view: &View<'_>,
    parent: &ObjectRef,
    spec: Option<&ListenerTLSConfig>,
    gateway: &ObjectRef,
    validation: Option<&FrontendTLSValidation>,
) -> Termination {
    let mut termination = Termination::default();
    let mut config = v1::TlsTermination::default();
    let references = spec
        .map(|tls| tls.certificate_refs.as_slice())
        .unwrap_or_default();
    for (index, reference) in references.iter().enumerate() {
        match certificate(view, parent, reference) {
            Ok(secret) => {
                config.certificate_secrets.push(secret::certificate_key(&secret));
                termination.needs.push(Unit::Secret(secret));
            }
            Err(error) => {
                let fault = error.fault(
                    "InvalidCertificateRef",
                    format_args!("tls.certificateRefs[{index}]"),
                );
                termination.resolved.get_or_insert(fault);
            }
        }
    }
    if references.is_empty() {
        let message = "tls.certificateRefs: a listener that terminates TLS needs a certificate";
        termination.resolved = Some(Fault::new("InvalidCertificateRef", message));
    }
    if let Some(validation) = validation {
        config.client_validation = client_validation(view, gateway, validation, &mut termination);
    }
    termination.config = (!config.certificate_secrets.is_empty()).then_some(config);
    termination
}

/// The certificate that is shown to backends, if one is asked for.
pub fn client_certificate(view: &View<'_>, gateway: &Gateway) -> Result<Option<ObjectRef>, Fault> {
    let backend = gateway.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref());
    let Some(reference) = backend.and_then(|backend| backend.client_certificate_ref.as_ref()) else {
        return Ok(None);
    };
    certificate(view, &ObjectRef::of(gateway), reference)
        .map(Some)
        .map_err(|error| {
            error.fault(
                "InvalidClientCertificateRef",
                format_args!("spec.tls.backend.clientCertificateRef"),
            )
        })
}

/// The validation of clients that holds for a port of a Gateway.
pub fn validation_for(gateway: &Gateway, port: u16) -> Option<&FrontendTLSValidation> {
    let frontend = gateway.spec.tls.as_ref()?.frontend.as_ref()?;
    let for_port = frontend.per_port.iter().find(|per_port| per_port.port == port);
    for_port
        .map_or(&frontend.default, |per_port| &per_port.tls)
        .validation
        .as_ref()
}

/// Where clients without a valid certificate are let through: names of fields.
pub fn insecure_fields(gateway: &Gateway) -> Vec<String> {
    let Some(frontend) = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref()) else {
        return Vec::new();
    };
    let default = ("spec.tls.frontend.default".to_owned(), &frontend.default);
    let per_port = frontend.per_port.iter().map(|per_port| {
        (
            format!("spec.tls.frontend.perPort[port={}]", per_port.port),
            &per_port.tls,
        )
    });
    std::iter::once(default)
        .chain(per_port)
        .filter(|(_, tls)| tls.validation.as_ref().is_some_and(is_insecure))
        .map(|(field, _)| field)
        .collect()
}

fn is_insecure(validation: &FrontendTLSValidation) -> bool {
    validation.mode == Some(FrontendValidationModeType::AllowInsecureFallback)
}

/// Why a reference cannot be used.
enum Unusable {
    NotPermitted(String),
    Kind(String),
    Invalid(String),
}

impl Unusable {
    fn fault(self, reason: &'static str, field: std::fmt::Arguments<'_>) -> Fault {
        match self {
            Self::NotPermitted(why) => Fault::at("RefNotPermitted", field, why),
            Self::Kind(why) | Self::Invalid(why) => Fault::at(reason, field, why),
        }
    }
}

fn certificate(
    view: &View<'_>,
    from: &ObjectRef,
    reference: &SecretObjectReference,
) -> Result<ObjectRef, Unusable> {
    if (reference.group(), reference.kind()) != ("", "Secret") {
        let (kind, group) = (reference.kind(), reference.group());
        return Err(Unusable::Kind(format!(
            "{kind} of group {group:?} is not supported"
        )));
    }
    let secret = ObjectRef::new(
        Kind::Secret,
        reference.namespace(&from.namespace),
        reference.name.as_str(),
    );
    permitted(view, from, &secret)?;
    secret::certificate(view, &secret).map_err(Unusable::Invalid)?;
    Ok(secret)
}

fn permitted(view: &View<'_>, from: &ObjectRef, to: &ObjectRef) -> Result<(), Unusable> {
    let granted = grant::is_granted(
        view,
        grant::Referrer::object(from),
        to.kind,
        &to.namespace,
        &to.name,
    );
    if granted {
        Ok(())
    } else {
        Err(Unusable::NotPermitted(format!("no ReferenceGrant allows {to}")))
    }
}

fn client_validation(
    view: &View<'_>,
    gateway: &ObjectRef,
    validation: &FrontendTLSValidation,
    termination: &mut Termination,
) -> Option<v1::ClientValidation> {
    let mut ca_secrets = Vec::new();
    for (index, reference) in validation.ca_certificate_refs.iter().enumerate() {
        let namespace = reference.namespace.as_deref();
        match ca(
            view,
            gateway,
            &reference.group,
            &reference.kind,
            namespace,
            &reference.name,
        ) {
            Ok(object) => {
                ca_secrets.push(secret::trust_key(&object));
                termination.needs.push(Unit::Secret(object));
            }
            Err(error) => {
                let reason = match error {
                    Unusable::Kind(_) => "InvalidCACertificateKind",
                    _ => "InvalidCACertificateRef",
                };
                let field = format_args!("caCertificateRefs[{index}] of the Gateway's spec.tls.frontend");
                termination.resolved.get_or_insert(error.fault(reason, field));
            }
        }
    }
    if ca_secrets.is_empty() {
        let why = termination
            .resolved
            .as_ref()
            .map_or("no CA certificate is given", |fault| &fault.message);
        termination.accepted = Some(Fault::new("NoValidCACertificate", why));
        return None;
    }
    Some(v1::ClientValidation {
        ca_secrets,
        insecure_fallback: is_insecure(validation),
        ..v1::ClientValidation::default()
    })
}

fn ca(
    view: &View<'_>,
    gateway: &ObjectRef,
    group: &str,
    kind: &str,
    namespace: Option<&str>,
    name: &str,
) -> Result<ObjectRef, Unusable> {
    let Some(kind) = secret::ca_kind(group, kind) else {
        return Err(Unusable::Kind(format!(
            "{kind} of group {group:?} is not supported"
        )));
    };
    let object = if kind == Kind::ClusterTrustBundle {
        if namespace.is_some() {
            return Err(Unusable::Invalid(
                "a ClusterTrustBundle has no namespace".to_owned(),
            ));
        }
        ObjectRef::new(kind, "", name)
    } else {
        let object = ObjectRef::new(kind, namespace.unwrap_or(&gateway.namespace), name);
        permitted(view, gateway, &object)?;
        object
    };
    secret::trust_bundle(view, &object).map_err(Unusable::Invalid)?;
    Ok(object)
}
