//! Objects from YAML files, in place of an API server: standalone mode, `sluice translate`, tests.
//!
//! Does what an API server does to objects as they come in, as far as anything here depends on it: the namespace
//! `default`, `stringData` of Secrets, the name label of Namespaces. It does not validate by the CRDs' schemas.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Kind, Object, Stored};

/// Namespace of objects that name none.
const DEFAULT_NAMESPACE: &str = "default";
/// Label that every Namespace carries.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Why a file cannot be read. Documents are counted from 1.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Not YAML.
    #[error("document {document}: {source}")]
    Yaml {
        /// Which document.
        document: usize,
        /// What is wrong, and where.
        source: serde_yaml_ng::Error,
    },
    /// Not an object.
    #[error("document {document}: {field} is missing")]
    Missing {
        /// Which document.
        document: usize,
        /// The field.
        field: &'static str,
    },
    /// A kind that its group does not have.
    #[error("document {document}: there is no kind {kind} in group {group}")]
    Kind {
        /// Which document.
        document: usize,
        /// API group.
        group: String,
        /// Kind.
        kind: String,
    },
    /// Not of the shape of its kind.
    #[error("document {document}: {kind} {name}: {source}")]
    Object {
        /// Which document.
        document: usize,
        /// Kind.
        kind: Kind,
        /// `namespace/name`.
        name: String,
        /// The field and what is wrong with it.
        source: serde_path_to_error::Error<serde_json::Error>,
    },
}

/// Reads the objects of a file with any number of YAML documents, lists among them. Kinds of the Kubernetes API that
/// nothing here reads are left out.
pub fn parse(yaml: &str) -> Result<Vec<Object>, ParseError> {
    let mut objects = Vec::new();
    for (index, document) in serde_yaml_ng::Deserializer::from_str(yaml).enumerate() {
        let document_number = index + 1;
        let value = Value::deserialize(document).map_err(|source| ParseError::Yaml {
            document: document_number,
            source,
        })?;
        add(document_number, value, &mut objects)?;
    }
    Ok(objects)
}

fn add(document: usize, mut value: Value, objects: &mut Vec<Object>) -> Result<(), ParseError> {
    if value.is_null() {
        return Ok(());
    }
    let text = |field: &'static str| {
        let text = value.get(field).and_then(Value::as_str).map(str::to_owned);
        text.ok_or(ParseError::Missing { document, field })
    };
    let (api_version, kind) = (text("apiVersion")?, text("kind")?);
    if kind == "List" {
        let items = value.get_mut("items").map(Value::take);
        for item in items
            .and_then(|items| items.as_array().cloned())
            .into_iter()
            .flatten()
        {
            add(document, item, objects)?;
        }
        return Ok(());
    }
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let Some(kind) = Kind::parse(group, &kind) else {
        // These groups are ours alone to know, so that it is a slip.
        let is_slip = group.starts_with("gateway.");
        let error = ParseError::Kind {
            document,
            group: group.to_owned(),
            kind,
        };
        return if is_slip { Err(error) } else { Ok(()) };
    };
    place(document, kind, &mut value)?;
    let object = typed(kind, &value).map_err(|source| {
        let part = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (part("namespace"), part("name"));
        let name = if namespace.is_empty() {
            name
        } else {
            format!("{namespace}/{name}")
        };
        ParseError::Object {
            document,
            kind,
            name,
            source,
        }
    })?;
    objects.push(object);
    Ok(())
}

/// Sees to it that the object has a name, and a namespace exactly if its kind has one.
fn place(document: usize, kind: Kind, value: &mut Value) -> Result<(), ParseError> {
    let metadata = value.get_mut("metadata").and_then(Value::as_object_mut);
    let metadata = metadata.ok_or(ParseError::Missing {
        document,
        field: "metadata",
    })?;
    if metadata
        .get("name")
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        return Err(ParseError::Missing {
            document,
            field: "metadata.name",
        });
    }
    if matches!(
        kind,
        Kind::GatewayClass | Kind::Namespace | Kind::ClusterTrustBundle
    ) {
        metadata.remove("namespace");
    } else {
        metadata
            .entry("namespace")
            .or_insert_with(|| DEFAULT_NAMESPACE.into());
    }
    Ok(())
}

type Read<T> = Result<T, serde_path_to_error::Error<serde_json::Error>>;

fn typed(kind: Kind, value: &Value) -> Read<Object> {
    match kind {
        Kind::GatewayClass => object::<sluice_crds::gateway::GatewayClass>(value),
        Kind::Gateway => object::<sluice_crds::gateway::Gateway>(value),
        Kind::ListenerSet => object::<sluice_crds::gateway::ListenerSet>(value),
        Kind::HTTPRoute => object::<sluice_crds::gateway::HTTPRoute>(value),
        Kind::GRPCRoute => object::<sluice_crds::gateway::GRPCRoute>(value),
        Kind::TLSRoute => object::<sluice_crds::gateway::TLSRoute>(value),
        Kind::TCPRoute => object::<sluice_crds::gateway::TCPRoute>(value),
        Kind::UDPRoute => object::<sluice_crds::gateway::UDPRoute>(value),
        Kind::ReferenceGrant => object::<sluice_crds::gateway::ReferenceGrant>(value),
        Kind::BackendTLSPolicy => object::<sluice_crds::gateway::BackendTLSPolicy>(value),
        Kind::XBackend => object::<sluice_crds::gateway::XBackend>(value),
        Kind::XBackendTrafficPolicy => object::<sluice_crds::gateway::XBackendTrafficPolicy>(value),
        Kind::EnvoyProxy => object::<sluice_crds::envoy::EnvoyProxy>(value),
        Kind::Service => object::<k8s_openapi::api::core::v1::Service>(value),
        Kind::EndpointSlice => object::<k8s_openapi::api::discovery::v1::EndpointSlice>(value),
        Kind::Secret => read(value).map(fold_string_data).map(Object::new),
        Kind::ConfigMap => object::<k8s_openapi::api::core::v1::ConfigMap>(value),
        Kind::Namespace => read(value).map(add_name_label).map(Object::new),
        Kind::ClusterTrustBundle => object::<sluice_crds::ClusterTrustBundle>(value),
        Kind::Deployment => object::<k8s_openapi::api::apps::v1::Deployment>(value),
    }
}

fn object<T: Stored + DeserializeOwned>(value: &Value) -> Read<Object> {
    read::<T>(value).map(Object::new)
}

fn read<T: DeserializeOwned>(value: &Value) -> Read<T> {
    serde_path_to_error::deserialize(value)
}

fn fold_string_data(mut secret: Secret) -> Secret {
    if let Some(texts) = secret.string_data.take() {
        let data = secret.data.get_or_insert_with(BTreeMap::new);
        data.extend(
            texts
                .into_iter()
                .map(|(key, text)| (key, ByteString(text.into_bytes()))),
        );
    }
    secret
}

fn add_name_label(mut namespace: Namespace) -> Namespace {
    let name = namespace.metadata.name.clone().unwrap_or_default();
    namespace
        .metadata
        .labels
        .get_or_insert_with(BTreeMap::new)
        .insert(NAME_LABEL.to_owned(), name);
    namespace
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(yaml: &str) -> Vec<String> {
        parse(yaml)
            .unwrap()
            .iter()
            .map(|object| object.reference().to_string())
            .collect()
    }

    #[test]
    fn documents_lists_and_what_is_left_out() {
        let yaml = "
# Nothing in the first document.
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: sluice, namespace: ignored}
spec: {controllerName: sluice.dev/gateway-controller}
---
apiVersion: batch/v1
kind: Job
metadata: {name: other}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {}}
- {apiVersion: v1, kind: Service, metadata: {name: a, namespace: b}, spec: {}}
";
        assert_eq!(
            names(yaml),
            ["GatewayClass sluice", "Service default/a", "Service b/a"]
        );
    }

    #[test]
    fn does_what_an_api_server_does() {
        let secret =
            parse("{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {k: v}}").unwrap();
        let secret = secret[0].downcast::<Secret>().unwrap();
        assert_eq!(secret.data.as_ref().unwrap()["k"].0, b"v");
        let namespace = parse("{apiVersion: v1, kind: Namespace, metadata: {name: n}}").unwrap();
        let namespace = namespace[0].downcast::<Namespace>().unwrap();
        assert_eq!(namespace.metadata.labels.as_ref().unwrap()[NAME_LABEL], "n");
    }

    #[test]
    fn errors_name_document_and_field() {
        let error = |yaml: &str| parse(yaml).unwrap_err().to_string();
        let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g}\n\
                       spec: {gatewayClassName: c, listeners: [{name: a, port: x, protocol: HTTP}]}";
        assert!(
            error(&format!("apiVersion: v1\nkind: Job\n---\n{gateway}"))
                .starts_with("document 2: Gateway default/g: spec.listeners[0].port: invalid type"),
        );
        assert_eq!(
            error("{apiVersion: gateway.networking.k8s.io/v1, kind: HttpRoute, metadata: {name: a}}"),
            "document 1: there is no kind HttpRoute in group gateway.networking.k8s.io"
        );
        assert_eq!(
            error("{apiVersion: v1, kind: Service}"),
            "document 1: metadata is missing"
        );
        assert!(error("{").starts_with("document 1: "));
    }
}
