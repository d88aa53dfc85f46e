//! Key material: certificates with their keys, and bundles of CA certificates. Owns how Secrets, ConfigMaps and
//! ClusterTrustBundles are read and checked, for listeners, policies and backends alike.
//!
//! Whether a reference is allowed is not asked here (see `grant`). Key material never gets into a message.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sluice_config::v1::resource::Body;
use sluice_config::v1::secret::Body as Material;
use sluice_config::{key, v1};

use crate::engine::{Output, View};
use crate::store::{Kind, ObjectRef};

const CERTIFICATE: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";
const CA: &str = "ca.crt";

/// Translates the object to the key material that it holds: a Secret may hold both a certificate and a CA.
pub fn translate(object: &ObjectRef, view: &View<'_>) -> Output {
    let mut output = Output::default();
    let mut add = |key: String, material: Material| {
        output
            .shared
            .add(key, Body::Secret(v1::Secret { body: Some(material) }));
    };
    if object.kind == Kind::Secret
        && let Ok(pair) = certificate(view, object)
    {
        add(certificate_key(object), Material::CertificateKeyPair(pair));
    }
    if let Ok(bundle) = trust_bundle(view, object) {
        add(trust_key(object), Material::TrustBundle(bundle));
    }
    output
}

/// Translates the object to all of its entries, as they are.
pub fn data(object: &ObjectRef, view: &View<'_>) -> Output {
    let mut output = Output::default();
    if let Some(entries) = entries(view, object) {
        let data = v1::SecretData {
            entries: entries.into_iter().collect(),
        };
        let body = Body::Secret(v1::Secret {
            body: Some(Material::Data(data)),
        });
        output.shared.add(data_key(object), body);
    }
    output
}

/// Key of the resource with all entries of a Secret or ConfigMap.
pub fn data_key(object: &ObjectRef) -> String {
    let own = key::secret(object.kind.as_str(), &object.namespace, &object.name);
    format!("{own}/data")
}

/// The entries of a Secret or ConfigMap; `None` if it is not there.
pub fn entries(view: &View<'_>, object: &ObjectRef) -> Option<BTreeMap<String, Vec<u8>>> {
    let (namespace, name) = (&object.namespace, &object.name);
    let binary = |data: Option<&BTreeMap<String, ByteString>>| -> BTreeMap<String, Vec<u8>> {
        let entries = data.into_iter().flatten();
        entries
            .map(|(key, bytes)| (key.clone(), bytes.0.clone()))
            .collect()
    };
    match object.kind {
        Kind::Secret => {
            let secret = view.get::<Secret>(namespace, name)?;
            Some(binary(secret.data.as_ref()))
        }
        Kind::ConfigMap => {
            let map = view.get::<ConfigMap>(namespace, name)?;
            let mut all = binary(map.binary_data.as_ref());
            let texts = map.data.iter().flatten();
            all.extend(texts.map(|(key, text)| (key.clone(), text.clone().into_bytes())));
            Some(all)
        }
        _ => None,
    }
}

/// Key of the resource with a Secret's certificate.
pub fn certificate_key(secret: &ObjectRef) -> String {
    key::secret(secret.kind.as_str(), &secret.namespace, &secret.name)
}

/// Key of the resource with an object's CA certificates.
pub fn trust_key(object: &ObjectRef) -> String {
    let own = key::secret(object.kind.as_str(), &object.namespace, &object.name);
    if object.kind == Kind::Secret {
        format!("{own}/{CA}")
    } else {
        own
    }
}

/// The kind of object that holds CA certificates, if it is one that is supported.
pub fn ca_kind(group: &str, kind: &str) -> Option<Kind> {
    Kind::parse(group, kind)
        .filter(|k| matches!(k, Kind::Secret | Kind::ConfigMap | Kind::ClusterTrustBundle))
}

/// The certificate of a Secret, checked: PEM, and a key that belongs to the certificate. The error says what is wrong.
pub fn certificate(view: &View<'_>, secret: &ObjectRef) -> Result<v1::CertificateKeyPair, String> {
    let object = view
        .get::<Secret>(&secret.namespace, &secret.name)
        .ok_or_else(|| format!("{secret} does not exist"))?;
    let chain_pem = secret_field(&object, secret, CERTIFICATE)?;
    let key_pem = secret_field(&object, secret, PRIVATE_KEY)?;
    let chain = certificates(&chain_pem).map_err(|e| format!("{secret}: {CERTIFICATE}: {e}"))?;
    let private_key = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|_| format!("{secret}: {PRIVATE_KEY}: no PEM private key"))?;
    CertifiedKey::from_der(chain, private_key, &rustls::crypto::ring::default_provider())
        .map_err(|e| format!("{secret}: {CERTIFICATE} and {PRIVATE_KEY}: {e}"))?;
    Ok(v1::CertificateKeyPair {
        certificate_chain_pem: chain_pem,
        private_key_pem: key_pem,
    })
}

/// The CA certificates of an object, checked: at least one, all well-formed. The error says what is wrong.
pub fn trust_bundle(view: &View<'_>, object: &ObjectRef) -> Result<Vec<u8>, String> {
    let missing = || format!("{object} does not exist");
    let pem = match object.kind {
        Kind::ConfigMap => {
            let found = view
                .get::<ConfigMap>(&object.namespace, &object.name)
                .ok_or_else(missing)?;
            let text = found
                .data
                .as_ref()
                .and_then(|data| data.get(CA))
                .map(|text| text.as_bytes().to_vec());
            let binary = || {
                found
                    .binary_data
                    .as_ref()
                    .and_then(|data| data.get(CA))
                    .map(|bytes| bytes.0.clone())
            };
            text.or_else(binary)
                .ok_or_else(|| format!("{object}: it has no key {CA}"))?
        }
        Kind::Secret => {
            let found = view
                .get::<Secret>(&object.namespace, &object.name)
                .ok_or_else(missing)?;
            secret_field(&found, object, CA)?
        }
        Kind::ClusterTrustBundle => {
            let found = view
                .get::<ClusterTrustBundle>("", &object.name)
                .ok_or_else(missing)?;
            found.spec.trust_bundle.as_bytes().to_vec()
        }
        other => return Err(format!("{other} holds no CA certificates")),
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&pem).map_err(|e| format!("{object}: {CA}: {e}"))? {
        roots
            .add(certificate)
            .map_err(|e| format!("{object}: {CA}: {e}"))?;
    }
    Ok(pem)
}

fn secret_field(object: &Secret, secret: &ObjectRef, field: &str) -> Result<Vec<u8>, String> {
    let bytes = object.data.as_ref().and_then(|data| data.get(field));
    bytes
        .map(|bytes| bytes.0.clone())
        .ok_or_else(|| format!("{secret}: it has no key {field}"))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    parsed
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or("no PEM certificate")
}
