//! What the harness builds: Go programs at fixed versions, container images without a registry, and Sluice itself.

pub mod go;
pub mod images;
pub mod oci;
pub mod programs;
pub mod sluice;
