//! The manifests of the CRDs that are ours to install.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
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
    let mut crds = vec![
        Backend::crd(),
        BackendTrafficPolicy::crd(),
        ClientTrafficPolicy::crd(),
        EnvoyExtensionPolicy::crd(),
        EnvoyPatchPolicy::crd(),
        EnvoyProxy::crd(),
        HTTPRouteFilter::crd(),
        SecurityPolicy::crd(),
    ];
    for version in crds.iter_mut().flat_map(|crd| &mut crd.spec.versions) {
        let schema = version.schema.as_mut();
        if let Some(schema) = schema.and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            settle(schema);
        }
    }
    crds
}

/// Settles what is the same in every schema.
///
/// `null` is not a value: the API server drops one that is not admitted and puts the default in its place, so that
/// rules need not know two ways to be absent. Integers are of 32 bits, unless a bound says otherwise or the field is a
/// [`Long`](crate::shape::Long): the API server holds them to that, whatever type reads them.
fn settle(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    let is_long = schema
        .maximum
        .is_some_and(|maximum| maximum > f64::from(i32::MAX));
    if schema.type_.as_deref() == Some("integer") && schema.format.is_some() {
        schema.format = Some(if is_long { "int64" } else { "int32" }.to_owned());
    }
    if let Some(values) = &mut schema.enum_ {
        values.retain(|JSON(value)| !value.is_null());
    }
    for property in schema.properties.iter_mut().flat_map(BTreeMap::values_mut) {
        settle(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        settle(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        settle(values);
    }
}

/// File name and YAML of every CRD of [`crds`].
pub fn manifests() -> Result<Vec<(String, String)>, ManifestError> {
    let manifest = |crd: CustomResourceDefinition| {
        let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
        let yaml = serde_yaml_ng::to_string(&crd).map_err(|source| ManifestError {
            kind: crd.spec.names.kind,
            source,
        })?;
        // Words that readers of YAML 1.1, as kubectl is one, take for `false`.
        let yaml = yaml
            .replace("- Off\n", "- 'Off'\n")
            .replace("- off\n", "- 'off'\n");
        Ok((
            name,
            format!("# Generated from crds/src/envoy; do not edit.\n{yaml}"),
        ))
    };
    crds().into_iter().map(manifest).collect()
}
