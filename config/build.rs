//! Compiles the protobuf definitions without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(["sluice/config/v1/config.proto"], ["proto"])?;
    println!("cargo:rerun-if-changed=proto");
    tonic_prost_build::configure()
        .type_attribute(".sluice.config.v1", "#[derive(serde::Serialize)]")
        // Key material must not reach a log, a dump or a golden file.
        .skip_debug([
            "sluice.config.v1.MetadataEntry",
            "sluice.config.v1.CertificateKeyPair",
            "sluice.config.v1.SecretData",
        ])
        .field_attribute(
            "sluice.config.v1.CertificateKeyPair.private_key_pem",
            "#[serde(serialize_with = \"crate::redact\")]",
        )
        .field_attribute(
            "sluice.config.v1.MetadataEntry.value",
            "#[serde(serialize_with = \"crate::redact_text\")]",
        )
        .field_attribute(
            "sluice.config.v1.SecretData.entries",
            "#[serde(serialize_with = \"crate::redact_entries\")]",
        )
        // One content has one encoding: versions are made from it.
        .btree_map("sluice.config.v1.SecretData.entries")
        .btree_map("sluice.config.v1.HttpRule.annotations")
        .btree_map("sluice.config.v1.LogFormat.json")
        .btree_map("sluice.config.v1.OtlpLogs.resource")
        .btree_map("sluice.config.v1.OtlpMetrics.resource")
        .btree_map("sluice.config.v1.Tracing.resource")
        .compile_fds(descriptors)?;
    Ok(())
}
