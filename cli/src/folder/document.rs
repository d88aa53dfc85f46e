//! From the text of a file to typed objects, with the place of every mistake.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;
use sluice_controller::store::{Kind, Object, Stored};
use sluice_crds::envoy::EnvoyProxy;
use sluice_crds::gateway::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant, TCPRoute,
    TLSRoute, UDPRoute, XBackend, XBackendTrafficPolicy,
};

/// Where objects are that name no namespace.
const DEFAULT_NAMESPACE: &str = "default";

/// One object of a file.
pub(super) struct Document {
    /// The object.
    pub object: Object,
    /// The same as it was written, to tell whether it has changed.
    pub value: Value,
}

/// What is wrong with a document.
#[derive(Debug)]
pub(super) struct Problem {
    /// Which document of the file, from 1.
    pub number: usize,
    /// True: the file as a whole cannot be relied on. False: the document is no concern of ours.
    pub breaks_file: bool,
    /// For people.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Vec<Value>,
}

/// Parses the documents of a file.
pub(super) fn parse(text: &str) -> (Vec<Document>, Vec<Problem>) {
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    for (index, part) in split(text).into_iter().enumerate() {
        let mut problem = |breaks_file, reason| {
            problems.push(Problem {
                number: index + 1,
                breaks_file,
                reason,
            });
        };
        match parse_one(&part, &mut documents) {
            Ok(()) => {}
            Err(Fault::Unknown(reason)) => problem(false, reason),
            Err(Fault::Wrong(reason)) => problem(true, reason),
        }
    }
    (documents, problems)
}

enum Fault {
    Unknown(String),
    Wrong(String),
}

/// Cuts at the lines with `---`. Each part begins with as many empty lines as were before it, so that the line numbers
/// of errors are those of the file. Parts without content are left out.
fn split(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut empty = true;
    for (number, line) in text.lines().enumerate() {
        if line == "---" || line.starts_with("--- ") {
            if !std::mem::replace(&mut empty, true) {
                parts.push(std::mem::take(&mut part));
            }
            part = "\n".repeat(number + 1);
            continue;
        }
        let content = line.trim_start();
        empty &= content.is_empty() || content.starts_with('#');
        part.push_str(line);
        part.push('\n');
    }
    if !empty {
        parts.push(part);
    }
    parts
}

fn parse_one(text: &str, documents: &mut Vec<Document>) -> Result<(), Fault> {
    let wrong = |error: serde_yaml_ng::Error| Fault::Wrong(error.to_string());
    let value: Value = serde_yaml_ng::from_str(text).map_err(wrong)?;
    if value.is_null() {
        return Ok(());
    }
    let head = Head::deserialize(&value).map_err(wrong)?;
    if head.kind == "List" {
        for item in head.items {
            let head = Head::deserialize(&item).map_err(wrong)?;
            let object = object(&head, |kind| typed(kind, &item))?;
            documents.push(Document { object, value: item });
        }
        return Ok(());
    }
    let object = object(&head, |kind| {
        typed(kind, serde_yaml_ng::Deserializer::from_str(text))
    })?;
    documents.push(Document { object, value });
    Ok(())
}

fn object(
    head: &Head,
    parse: impl FnOnce(Kind) -> Result<Object, serde_yaml_ng::Error>,
) -> Result<Object, Fault> {
    if head.kind.is_empty() {
        return Err(Fault::Wrong("`kind` is missing".into()));
    }
    let (group, _) = head
        .api_version
        .split_once('/')
        .unwrap_or(("", &head.api_version));
    let kind = Kind::parse(group, &head.kind).ok_or_else(|| {
        Fault::Unknown(format!(
            "`{}` of `{}` is not a kind that is known here; ignored",
            head.kind, head.api_version
        ))
    })?;
    let object = parse(kind).map_err(|error| Fault::Wrong(format!("{kind}: {error}")))?;
    if object.reference().name.is_empty() {
        return Err(Fault::Wrong(format!("{kind}: `metadata.name` is missing")));
    }
    Ok(object)
}

fn typed<'de, D: serde::Deserializer<'de>>(kind: Kind, from: D) -> Result<Object, D::Error> {
    match kind {
        Kind::GatewayClass => cluster::<GatewayClass, D>(from),
        Kind::Gateway => namespaced::<Gateway, D>(from),
        Kind::ListenerSet => namespaced::<ListenerSet, D>(from),
        Kind::HTTPRoute => namespaced::<HTTPRoute, D>(from),
        Kind::GRPCRoute => namespaced::<GRPCRoute, D>(from),
        Kind::TLSRoute => namespaced::<TLSRoute, D>(from),
        Kind::TCPRoute => namespaced::<TCPRoute, D>(from),
        Kind::UDPRoute => namespaced::<UDPRoute, D>(from),
        Kind::ReferenceGrant => namespaced::<ReferenceGrant, D>(from),
        Kind::BackendTLSPolicy => namespaced::<BackendTLSPolicy, D>(from),
        Kind::XBackend => namespaced::<XBackend, D>(from),
        Kind::XBackendTrafficPolicy => namespaced::<XBackendTrafficPolicy, D>(from),
        Kind::EnvoyProxy => namespaced::<EnvoyProxy, D>(from),
        Kind::Service => namespaced::<Service, D>(from),
        Kind::EndpointSlice => namespaced::<EndpointSlice, D>(from),
        Kind::Secret => secret(from),
        Kind::ConfigMap => namespaced::<ConfigMap, D>(from),
        Kind::Namespace => cluster::<Namespace, D>(from),
        Kind::ClusterTrustBundle => cluster::<ClusterTrustBundle, D>(from),
        Kind::Deployment => namespaced::<Deployment, D>(from),
    }
}

fn cluster<'de, T: Stored + DeserializeOwned, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Object, D::Error> {
    T::deserialize(from).map(Object::new)
}

fn namespaced<'de, T: Stored + DeserializeOwned, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Object, D::Error> {
    let mut object = T::deserialize(from)?;
    settle(&mut object);
    Ok(Object::new(object))
}

/// As the API server does, `stringData` becomes `data`.
fn secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Object, D::Error> {
    let mut secret = Secret::deserialize(from)?;
    settle(&mut secret);
    let plain = secret.string_data.take().unwrap_or_default();
    let plain = plain
        .into_iter()
        .map(|(key, value)| (key, k8s_openapi::ByteString(value.into_bytes())));
    secret.data.get_or_insert_default().extend(plain);
    Ok(Object::new(secret))
}

fn settle<T: Resource>(object: &mut T) {
    object
        .meta_mut()
        .namespace
        .get_or_insert_with(|| DEFAULT_NAMESPACE.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_have_a_place() {
        let text = "# nothing\n---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\n---\nkind: Service\n\
                    apiVersion: v1\nmetadata: {name: b}\nspec:\n  ports:\n  - port: many\n---\n\
                    kind: Widget\napiVersion: example.com/v1\n---\nkind: {\n";
        let (documents, problems) = parse(text);
        let names: Vec<_> = documents
            .iter()
            .map(|d| d.object.reference().to_string())
            .collect();
        assert_eq!(names, ["Service default/a"]);
        let told: Vec<_> = problems.iter().map(|p| (p.number, p.breaks_file)).collect();
        assert_eq!(told, [(2, true), (3, false), (4, true)]);
        assert!(
            problems[0].reason.contains("spec.ports[0].port") && problems[0].reason.contains("line 13"),
            "{problems:?}"
        );
    }

    #[test]
    fn lists_and_secrets() {
        let text = "kind: List\napiVersion: v1\nitems:\n- kind: Secret\n  apiVersion: v1\n  metadata: {name: s, namespace: n}\n  \
                    stringData: {a: b}\n  data: {c: ZA==}\n- kind: GatewayClass\n  apiVersion: gateway.networking.k8s.io/v1\n  \
                    metadata: {name: g}\n  spec: {controllerName: x.y/z}\n";
        let (documents, problems) = parse(text);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(documents[1].object.reference().to_string(), "GatewayClass g");
        let secret: std::sync::Arc<Secret> = documents[0].object.downcast().unwrap();
        let data = secret.data.as_ref().unwrap();
        assert_eq!(
            (data["a"].0.as_slice(), data["c"].0.as_slice()),
            (&b"b"[..], &b"d"[..])
        );
    }
}
