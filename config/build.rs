//! Compiles the protobuf definitions without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(["sluice/config/v1/config.proto"], ["proto"])?;
    println!("cargo:rerun-if-changed=proto");
    tonic_prost_build::configure()
        .type_attribute(".sluice.config.v1", "#[derive(serde::Serialize)]")
        // Key material must not reach a log, a dump or a golden file.
        .skip_debug(["sluice.config.v1.CertificateKeyPair"])
        .field_attribute(
            "sluice.config.v1.CertificateKeyPair.private_key_pem",
            "#[serde(serialize_with = \"crate::redact\")]",
        )
        .compile_fds(descriptors)?;
    Ok(())
}
