//! The manifests of the CRDs that are ours to install.

use kube::CustomResourceExt;
use thiserror::Error;

use crate::envoy::EnvoyProxy;

/// A manifest cannot be written.
#[derive(Debug, Error)]
#[error("CRD manifest of {kind}: {source}")]
pub struct ManifestError {
    kind: &'static str,
    source: serde_yaml_ng::Error,
}

/// File name and YAML of every CRD that Sluice installs itself.
///
/// Gateway API's own CRDs are installed from its release; see `docs/install.md`.
pub fn manifests() -> Result<Vec<(String, String)>, ManifestError> {
    let crd = EnvoyProxy::crd();
    let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
    let error = |source| ManifestError {
        kind: "EnvoyProxy",
        source,
    };
    let yaml = serde_yaml_ng::to_string(&crd).map_err(error)?;
    Ok(vec![(
        name,
        format!("# Generated from crds/src/envoy; do not edit.\n{yaml}"),
    )])
}
