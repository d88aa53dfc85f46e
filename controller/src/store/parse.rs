//! Objects from YAML files, in place of an API server: standalone mode, `sluice translate`, tests.
//!
//! Does what an API server does to objects as they come in, as far as anything here depends on it: the namespace
//! `default`, `stringData` of Secrets, the name label of Namespaces. It does not validate by the CRDs' schemas, and it
//! does not decide what a file with a mistake is worth.

use std::any::{Any, TypeId};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::{ByteString, NamespaceResourceScope};
use kube::Resource;
use serde_yaml_ng::{Deserializer, Value};

use super::{Kind, Object, Stored};

/// Namespace of objects that name none.
const DEFAULT_NAMESPACE: &str = "default";
/// Label that every Namespace carries.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// One object of a file.
#[derive(Debug, Clone)]
pub struct Document {
    /// The object.
    pub object: Object,
    /// The same as it was written, to tell whether it has changed.
    pub value: Value,
}

/// What is wrong with a document.
#[derive(Debug, thiserror::Error)]
#[error("document {document}: {fault}")]
pub struct Problem {
    /// Which document of the file, from 1; those without content do not count.
    pub document: usize,
    /// What is wrong.
    pub fault: Fault,
}

impl Problem {
    /// True: the file as a whole cannot be relied on. False: what is left out is no concern of ours.
    pub fn breaks_file(&self) -> bool {
        !matches!(self.fault, Fault::Unknown { .. })
    }
}

/// What can be wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Not YAML; the line is the file's.
    #[error(transparent)]
    Yaml(#[from] serde_yaml_ng::Error),
    /// Not an object.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A kind that nothing here reads.
    #[error("{kind} of {api_version} is not a kind that is read here; left out")]
    Unknown {
        /// Kind.
        kind: String,
        /// Group and version.
        api_version: String,
    },
    /// Not of the shape of its kind.
    #[error("{kind} {name}: {reason}")]
    Shape {
        /// Kind.
        kind: Kind,
        /// Its `namespace/name`.
        name: String,
        /// The field, what is wrong with it, and the file's line.
        reason: String,
    },
}

/// Reads the objects of a file with any number of YAML documents, lists among them.
pub fn parse(text: &str) -> (Vec<Document>, Vec<Problem>) {
    let mut reader = Reader::default();
    for (index, part) in split(text).iter().enumerate() {
        reader.number = index + 1;
        if reader.document(&part.text).is_ok() {
            continue;
        }
        // Once more for the text of the error, which has the file's line.
        if let Err(fault) = reader.document(&part.in_place()) {
            reader.report(fault);
        }
    }
    (reader.documents, reader.problems)
}

/// The object as it is once an API server has taken it in.
pub fn admit<T: Stored>(mut object: T) -> Object {
    let meta = object.meta_mut();
    if TypeId::of::<<T as Resource>::Scope>() == TypeId::of::<NamespaceResourceScope>() {
        meta.namespace.get_or_insert_with(|| DEFAULT_NAMESPACE.to_owned());
    } else {
        meta.namespace = None;
    }
    let any: &mut dyn Any = &mut object;
    if let Some(secret) = any.downcast_mut::<Secret>() {
        let texts = secret.string_data.take().unwrap_or_default();
        let texts = texts
            .into_iter()
            .map(|(key, text)| (key, ByteString(text.into_bytes())));
        secret.data.get_or_insert_default().extend(texts);
    } else if let Some(Namespace { metadata, .. }) = any.downcast_mut() {
        let name = metadata.name.clone().unwrap_or_default();
        metadata
            .labels
            .get_or_insert_default()
            .insert(NAME_LABEL.to_owned(), name);
    }
    Object::new(object)
}

/// The text of one document.
struct Part {
    /// How many lines of the file are before it.
    before: usize,
    text: String,
}

impl Part {
    /// The text behind as many empty lines as are before it, so that the line numbers of errors are those of the file.
    fn in_place(&self) -> String {
        "\n".repeat(self.before) + &self.text
    }
}

/// Cuts at the lines with `---`. Parts without content are left out.
fn split(text: &str) -> Vec<Part> {
    let part = |before| Part {
        before,
        text: String::new(),
    };
    let mut parts = Vec::new();
    let (mut current, mut empty) = (part(0), true);
    for (number, line) in text.lines().enumerate() {
        let cut = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        if cut.is_some() {
            let done = std::mem::replace(&mut current, part(number));
            if !std::mem::replace(&mut empty, true) {
                parts.push(done);
            }
        }
        let line = cut.unwrap_or(line);
        let content = line.trim_start();
        empty &= content.is_empty() || content.starts_with('#');
        current.text.push_str(line);
        current.text.push('\n');
    }
    if !empty {
        parts.push(current);
    }
    parts
}

/// Takes in one document after another.
#[derive(Default)]
struct Reader {
    number: usize,
    documents: Vec<Document>,
    problems: Vec<Problem>,
}

impl Reader {
    fn report(&mut self, fault: Fault) {
        let document = self.number;
        self.problems.push(Problem { document, fault });
    }

    fn document(&mut self, text: &str) -> Result<(), Fault> {
        let mut value: Value = serde_yaml_ng::from_str(text)?;
        if value.is_null() {
            return Ok(());
        }
        if value.get("kind").and_then(Value::as_str) == Some("List") {
            let Some(Value::Sequence(items)) = value.get_mut("items").map(std::mem::take) else {
                return Err(Fault::Missing("items"));
            };
            for (index, item) in items.into_iter().enumerate() {
                if let Err(fault) = self.item(index, item) {
                    self.report(fault);
                }
            }
            return Ok(());
        }
        // Read from the text, so that errors have a line.
        let object = object(&value, |kind| {
            kind.deserialize(Deserializer::from_str(text))
                .map_err(|error| error.to_string())
        })?;
        self.documents.push(Document { object, value });
        Ok(())
    }

    fn item(&mut self, index: usize, value: Value) -> Result<(), Fault> {
        let object = object(&value, |kind| {
            let mut track = serde_path_to_error::Track::new();
            let from = serde_path_to_error::Deserializer::new(&value, &mut track);
            kind.deserialize(from)
                .map_err(|error| format!("items[{index}].{}: {error}", track.path()))
        })?;
        self.documents.push(Document { object, value });
        Ok(())
    }
}

/// What is read by `typed` if it is of a known kind and has a name.
fn object(value: &Value, typed: impl FnOnce(Kind) -> Result<Object, String>) -> Result<Object, Fault> {
    let text = |value: &Value, field| value.get(field).and_then(Value::as_str).map(str::to_owned);
    let needed = |field| text(value, field).ok_or(Fault::Missing(field));
    let (api_version, kind) = (needed("apiVersion")?, needed("kind")?);
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let Some(kind) = Kind::parse(group, &kind) else {
        return Err(Fault::Unknown { kind, api_version });
    };
    let metadata = value.get("metadata").ok_or(Fault::Missing("metadata"))?;
    let name = text(metadata, "name").filter(|name| !name.is_empty());
    let name = name.ok_or(Fault::Missing("metadata.name"))?;
    typed(kind).map_err(|reason| {
        let name = match text(metadata, "namespace") {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name,
        };
        Fault::Shape { kind, name, reason }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(text: &str) -> Vec<Object> {
        let (documents, problems) = parse(text);
        assert!(problems.is_empty(), "{problems:?}");
        documents.into_iter().map(|document| document.object).collect()
    }

    fn names(documents: &[Document]) -> Vec<String> {
        documents
            .iter()
            .map(|document| document.object.reference().to_string())
            .collect()
    }

    fn told(text: &str) -> Vec<(String, bool)> {
        let (_, problems) = parse(text);
        problems
            .iter()
            .map(|p| (p.to_string(), p.breaks_file()))
            .collect()
    }

    #[test]
    fn what_is_held_of_a_file_grows_with_its_length_alone() {
        let file = "---\n{apiVersion: v1, kind: Service, metadata: {name: a}}\n".repeat(1000);
        let held: usize = split(&file).iter().map(|part| part.text.len()).sum();
        assert!(held <= file.len(), "{held} bytes of {}", file.len());
        let (_, problems) = parse(&format!("{file}---\n{{apiVersion: v1, kind: Service\n"));
        assert!(problems[0].to_string().contains("line 200"), "{}", problems[0]);
    }

    #[test]
    fn documents_lists_and_what_is_left_out() {
        let (documents, problems) = parse(
            "
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
--- # The rest of the line counts too.
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {}}
- {apiVersion: v1, kind: Widget, metadata: {name: a}}
- {apiVersion: v1, kind: Service, metadata: {name: a, namespace: b}, spec: {}}
--- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}}
",
        );
        assert_eq!(
            names(&documents),
            [
                "GatewayClass sluice",
                "Service default/a",
                "Service b/a",
                "ConfigMap default/c"
            ]
        );
        let problems: Vec<_> = problems.iter().map(|p| (p.document, p.breaks_file())).collect();
        assert_eq!(problems, [(2, false), (3, false)]);
    }

    #[test]
    fn does_what_an_api_server_does() {
        let secret =
            "{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {k: v}, data: {d: ZA==}}";
        let secret = objects(secret)[0].downcast::<Secret>().unwrap();
        let data = secret.data.as_ref().unwrap();
        assert_eq!(
            (data["k"].0.as_slice(), data["d"].0.as_slice()),
            (&b"v"[..], &b"d"[..])
        );
        let namespace = &objects("{apiVersion: v1, kind: Namespace, metadata: {name: n}}")[0];
        let namespace = namespace.downcast::<Namespace>().unwrap();
        assert_eq!(namespace.metadata.labels.as_ref().unwrap()[NAME_LABEL], "n");
    }

    #[test]
    fn mistakes_have_a_place() {
        let gateway = "# nothing\n---\napiVersion: v1\nkind: Job\n---\n---\n\
                       apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: n}\n\
                       spec:\n  gatewayClassName: c\n  listeners: [{name: a, port: x, protocol: HTTP}]\n---\nkind: {\n";
        let told = told(gateway);
        let starts = [
            ("document 1: Job of v1 is not a kind", false),
            (
                "document 2: Gateway n/g: spec.listeners[0].port: invalid type",
                true,
            ),
            ("document 3: ", true),
        ];
        assert_eq!(told.len(), starts.len(), "{told:?}");
        for ((text, breaks), (start, expected)) in told.iter().zip(starts) {
            assert!(text.starts_with(start) && *breaks == expected, "{text}");
        }
        assert!(told[1].0.contains("line 12"), "{}", told[1].0);
    }

    #[test]
    fn mistakes_of_items_and_missing_fields() {
        let list = "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Service, metadata: {name: a}, \
                    spec: {ports: [{port: many}]}}]}";
        let said = &told(list)[0].0;
        assert!(
            said.starts_with("document 1: Service a: items[0].spec.ports[0].port: invalid type"),
            "{said}"
        );
        for (text, missing) in [
            ("{kind: Service}", "apiVersion"),
            ("[a]", "apiVersion"),
            ("{apiVersion: v1, kind: Service}", "metadata"),
            ("{apiVersion: v1, kind: Service, metadata: {}}", "metadata.name"),
            ("{apiVersion: v1, kind: List}", "items"),
        ] {
            assert_eq!(told(text), [(format!("document 1: {missing} is missing"), true)]);
        }
    }
}
