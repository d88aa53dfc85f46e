//! The configuration model between the Sluice controller and its proxies: protobuf messages and the gRPC service
//! that pushes them, generated from `proto/sluice/config/v1`, which documents every field.
//!
//! This crate owns the wire form and the resource keys. It holds no logic and knows nothing of Kubernetes.

pub mod key;
pub mod operators;

/// Version 1 of the configuration protocol.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("sluice.config.v1");
}

/// Stands for key material wherever a message is printed.
const REDACTED: &str = "[redacted]";

fn redact<S: serde::Serializer>(_: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(REDACTED)
}

fn redact_text<S: serde::Serializer>(_: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(REDACTED)
}

fn redact_entries<S: serde::Serializer>(
    entries: &std::collections::BTreeMap<String, Vec<u8>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(entries.keys().map(|key| (key, REDACTED)))
}

impl std::fmt::Debug for v1::SecretData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.entries.keys().map(|key| (key, REDACTED)))
            .finish()
    }
}

impl std::fmt::Debug for v1::MetadataEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetadataEntry")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for v1::CertificateKeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateKeyPair")
            .field("private_key_pem", &REDACTED)
            .finish_non_exhaustive()
    }
}
