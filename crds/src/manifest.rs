//! The manifests of the CRDs that are ours to install.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use thiserror::Error;

use crate::envoy::{
    Backend, BackendTrafficPolicy, ClientTrafficPolicy, EnvoyExtensionPolicy, EnvoyPatchPolicy, EnvoyProxy,
    HTTPRouteFilter, SecurityPolicy,
};

/// A manifest cannot be written.
#[derive(Debug, Error)]
#[error("CRD manifest of {kind}: {source}")]
pub struct ManifestError {
    kind: String,
    source: serde_yaml_ng::Error,
}

/// Every CRD that Sluice installs itself.
///
/// Gateway API's own CRDs are installed from its release; see `docs/install.md`.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        Backend::crd(),
        BackendTrafficPolicy::crd(),
        ClientTrafficPolicy::crd(),
        EnvoyExtensionPolicy::crd(),
        EnvoyPatchPolicy::crd(),
        EnvoyProxy::crd(),
        HTTPRouteFilter::crd(),
        SecurityPolicy::crd(),
    ]
}

/// File name and YAML of every CRD of [`crds`].
pub fn manifests() -> Result<Vec<(String, String)>, ManifestError> {
    let manifest = |crd: CustomResourceDefinition| {
        let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
        let yaml = serde_yaml_ng::to_string(&crd).map_err(|source| ManifestError {
            kind: crd.spec.names.kind,
            source,
        })?;
        // A word that readers of YAML 1.1, as kubectl is one, take for `false`.
        let yaml = yaml.replace("- Off\n", "- 'Off'\n");
        Ok((
            name,
            format!("# Generated from crds/src/envoy; do not edit.\n{yaml}"),
        ))
    };
    crds().into_iter().map(manifest).collect()
}
