//! TLS towards clients.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sluice_config::v1;
use sluice_config::v1::client_validation::Mode;
use sluice_config::v1::resource::Body;
use sluice_config::v1::subject_alt_name_match::Kind as NameKind;
use sluice_config::v1::tls_parameters::{AlpnProtocols, SessionResumption};
use sluice_crds::envoy::{
    ClientTLSSettings, ClientValidationContext, ClientValidationModeType, StringMatch, TLSFingerprintType,
    TLSSettings, TLSVersion,
};
use sluice_crds::gateway::SecretObjectReference;

use super::super::reader::{Reader, string_match};
use crate::engine::Unit;
use crate::store::{Kind, ObjectRef};
use crate::translate::secret;

/// Bytes of a hash.
const SHA256: usize = 32;
/// The entry with revocation lists.
const CRL: &str = "ca.crl";

/// Versions, ciphers and so on.
pub(super) fn parameters(reader: &mut Reader<'_, '_, '_>, from: &ClientTLSSettings) -> v1::TlsParameters {
    let resumption = from.session.as_ref().map(|session| {
        let resumption = session.resumption.clone().unwrap_or_default();
        SessionResumption {
            stateless: resumption.stateless.is_some(),
            stateful: resumption.stateful.is_some(),
        }
    });
    let mut fingerprints = Vec::new();
    for kind in &from.settings.fingerprints {
        match kind {
            TLSFingerprintType::JA3 => fingerprints.push(v1::TlsFingerprint::Ja3.into()),
            TLSFingerprintType::JA4 => fingerprints.push(v1::TlsFingerprint::Ja4.into()),
            TLSFingerprintType::Other(other) => {
                reader.fault("tls.fingerprints", format_args!("{other:?} is not known"));
            }
        }
    }
    v1::TlsParameters {
        resumption,
        fingerprints,
        ..common(reader, &from.settings)
    }
}

/// What connections of either side have in common.
pub fn common(reader: &mut Reader<'_, '_, '_>, from: &TLSSettings) -> v1::TlsParameters {
    let mut version = |version: Option<&TLSVersion>, field: &str| {
        let version = match version {
            None | Some(TLSVersion::Auto) => v1::TlsVersion::Unspecified,
            Some(TLSVersion::V10) => v1::TlsVersion::V10,
            Some(TLSVersion::V11) => v1::TlsVersion::V11,
            Some(TLSVersion::V12) => v1::TlsVersion::V12,
            Some(TLSVersion::V13) => v1::TlsVersion::V13,
            Some(TLSVersion::Other(other)) => {
                reader.fault(field, format_args!("{other:?} is not known"));
                v1::TlsVersion::V13
            }
        };
        i32::from(version)
    };
    v1::TlsParameters {
        min_version: version(from.min_version.as_ref(), "tls.minVersion"),
        max_version: version(from.max_version.as_ref(), "tls.maxVersion"),
        ciphers: from.ciphers.clone(),
        curves: from.ecdh_curves.clone(),
        alpn: (!from.alpn_protocols.is_empty()).then(|| AlpnProtocols {
            protocols: from
                .alpn_protocols
                .iter()
                .map(|protocol| protocol.as_str().to_owned())
                .collect(),
        }),
        signature_algorithms: from.signature_algorithms.clone(),
        fingerprints: Vec::new(),
        resumption: None,
    }
}

/// What of client certificates is demanded.
pub(super) fn validation(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    from: &ClientValidationContext,
) -> v1::ClientValidation {
    let mode = match (&from.mode, from.optional) {
        (Some(ClientValidationModeType::Request), _) => Mode::Request,
        (Some(ClientValidationModeType::RequireAny), _) => Mode::RequireAny,
        (Some(ClientValidationModeType::VerifyIfGiven), _) | (None, Some(true)) => Mode::VerifyIfGiven,
        (Some(ClientValidationModeType::RequireAndVerify) | None, _) => Mode::RequireAndVerify,
        (Some(ClientValidationModeType::Other(other)), _) => {
            reader.fault(
                "tls.clientValidation.mode",
                format_args!("{other:?} is not known"),
            );
            Mode::RequireAndVerify
        }
    };
    let mut ca_secrets = Vec::new();
    for (i, reference) in from.ca_certificate_refs.iter().enumerate() {
        let field = format!("tls.clientValidation.caCertificateRefs[{i}]");
        ca_secrets.extend(authority(reader, owner, reference, &field));
    }
    let verifies = matches!(mode, Mode::VerifyIfGiven | Mode::RequireAndVerify);
    let pinned = !from.spki_hashes.is_empty() || !from.certificate_hashes.is_empty();
    if verifies && ca_secrets.is_empty() && !pinned {
        reader.fault(
            "tls.clientValidation",
            "it names nothing to verify certificates by",
        );
    }
    for hash in &from.spki_hashes {
        if STANDARD.decode(hash).map_or(0, |bytes| bytes.len()) != SHA256 {
            let why = format!("{hash:?} is not the Base64 of a SHA-256 hash");
            reader.fault("tls.clientValidation.spkiHashes", why);
        }
    }
    for hash in &from.certificate_hashes {
        let digits = hash.chars().filter(|c| *c != ':');
        if !digits.clone().all(|c| c.is_ascii_hexdigit()) || digits.count() != 2 * SHA256 {
            let why = format!("{hash:?} is not the hexadecimal of a SHA-256 hash");
            reader.fault("tls.clientValidation.certificateHashes", why);
        }
    }
    let mut crl_secrets = Vec::new();
    let lists = from
        .crl
        .as_ref()
        .map(|crl| crl.refs.as_slice())
        .unwrap_or_default();
    for (i, reference) in lists.iter().enumerate() {
        let field = format!("tls.clientValidation.crl.refs[{i}]");
        crl_secrets.extend(revocations(reader, owner, reference, &field));
    }
    v1::ClientValidation {
        ca_secrets,
        mode: mode.into(),
        spki_hashes: from.spki_hashes.clone(),
        certificate_hashes: from.certificate_hashes.clone(),
        subject_alt_names: names(reader, from),
        crl_secrets,
        crl_leaf_only: from
            .crl
            .as_ref()
            .is_some_and(|crl| crl.only_verify_leaf_certificate == Some(true)),
        allow_expired: from.allow_expired_certificate.unwrap_or_default(),
        ..v1::ClientValidation::default()
    }
}

fn names(reader: &mut Reader<'_, '_, '_>, from: &ClientValidationContext) -> Vec<v1::SubjectAltNameMatch> {
    let field = "tls.clientValidation.subjectAltNames";
    let from = from.subject_alt_names.clone().unwrap_or_default();
    let mut all = Vec::new();
    let lists: [(NameKind, &[StringMatch]); 4] = [
        (NameKind::Dns, &from.dns_names),
        (NameKind::Email, &from.email_addresses),
        (NameKind::Ip, &from.ip_addresses),
        (NameKind::Uri, &from.uris),
    ];
    for (kind, list) in lists {
        for name in list {
            all.push(v1::SubjectAltNameMatch {
                kind: kind.into(),
                value: Some(string_match(reader, name, field)),
                oid: String::new(),
            });
        }
    }
    for name in &from.other_names {
        all.push(v1::SubjectAltNameMatch {
            kind: NameKind::OtherName.into(),
            value: Some(string_match(reader, &name.matches, field)),
            oid: name.oid.clone(),
        });
    }
    all
}

fn object(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    reference: &SecretObjectReference,
    field: &str,
) -> Option<ObjectRef> {
    let kind = secret::ca_kind(reference.group(), reference.kind());
    let Some(kind) = kind else {
        reader.fault(field, format_args!("{} is not supported", reference.kind()));
        return None;
    };
    let name = reference.name.as_str();
    if kind == Kind::ClusterTrustBundle {
        return Some(ObjectRef::new(kind, "", name));
    }
    let object = ObjectRef::new(kind, reference.namespace(&owner.namespace), name);
    reader.permitted(owner, object, field)
}

fn authority(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    reference: &SecretObjectReference,
    field: &str,
) -> Option<String> {
    let object = object(reader, owner, reference, field)?;
    match secret::trust_bundle(reader.context.view, &object) {
        Ok(_) => {
            let key = secret::trust_key(&object);
            reader.needs.push(Unit::Secret(object));
            Some(key)
        }
        Err(why) => {
            reader.fault(field, why);
            None
        }
    }
}

fn revocations(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    reference: &SecretObjectReference,
    field: &str,
) -> Option<String> {
    let object = object(reader, owner, reference, field)?;
    let lists = secret::entries(reader.context.view, &object).and_then(|mut entries| entries.remove(CRL));
    let Some(lists) = lists else {
        reader.fault(
            field,
            format_args!("{object} does not exist, or has no key {CRL}"),
        );
        return None;
    };
    let body = v1::secret::Body::RevocationList(lists);
    let name = format!("{}/{}/{}", object.kind, object.namespace, object.name);
    let secret = Body::Secret(v1::Secret { body: Some(body) });
    Some(reader.resource("secret/revoked", &name, secret))
}
