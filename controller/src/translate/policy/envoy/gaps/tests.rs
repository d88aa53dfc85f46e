//! The list, and the documentation that is made from it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::*;

/// Where the tables begin in the document.
const MARK: &str =
    "<!-- From here on made from the CRDs and the list of gaps: UPDATE_GOLDEN=1 rewrites it. -->";

#[test]
fn what_is_set_is_found_and_what_is_switched_off_is_not() {
    let spec = json!({
        "extAuth": { "http": { "backendSettings": { "loadBalancer": { "dynamicModule": null } } } },
        "jwt": {
            "providers": [{ "remoteJWKS": { "backendSettings": {
                "tcpKeepalive": {},
                "loadBalancer": { "type": "DynamicModule", "dynamicModule": {} },
            } } }],
        },
    });
    let paths: Vec<_> = found(Kind::SecurityPolicy, &spec)
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    let settings = "jwt.providers[].remoteJWKS.backendSettings.loadBalancer";
    let expected = [format!("{settings}.dynamicModule"), format!("{settings}.type")];
    assert_eq!(paths, expected);
}

#[test]
fn a_value_can_be_what_is_not_honoured() {
    let of = |kind: &str| {
        found(
            Kind::BackendTrafficPolicy,
            &json!({ "loadBalancer": { "type": kind } }),
        )
        .len()
    };
    assert_eq!((of("DynamicModule"), of("Random")), (1, 0));
}

#[test]
fn the_documentation_says_what_becomes_of_every_field() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/envoy-gateway.md");
    let written = std::fs::read_to_string(&path).unwrap();
    let (prose, _) = written.split_once(MARK).unwrap();
    let mut text = format!("{prose}{MARK}\n");
    let mut known = BTreeSet::new();
    for crd in sluice_crds::crds() {
        let kind = Kind::parse(&crd.spec.group, &crd.spec.names.kind).unwrap();
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let spec = &schema["openAPIV3Schema"]["properties"]["spec"];
        write!(text, "\n## {kind}\n\n| Field | |\n|---|---|\n").unwrap();
        rows(kind, spec, &mut String::new(), &mut text, &mut known);
    }
    for gap in GAPS {
        let field = gap.path.split('=').next().unwrap();
        let is_known = known.contains(&(gap.kind, field.to_owned()));
        assert!(is_known, "{} has no field {field}", gap.kind);
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == text,
        "docs/envoy-gateway.md is out of date: run with UPDATE_GOLDEN=1"
    );
}

fn rows(
    kind: Kind,
    schema: &Value,
    path: &mut String,
    text: &mut String,
    known: &mut BTreeSet<(Kind, String)>,
) {
    known.insert((kind, path.clone()));
    let length = path.len();
    if let Some(gap) = whole(kind, path) {
        let effect = match gap.effect {
            Effect::Refused => "refused",
            Effect::Warned => "no effect, with a warning",
        };
        writeln!(text, "| `{path}` | {effect}: {} |", gap.why).unwrap();
        return;
    }
    let items = &schema["items"];
    if is_described(items) {
        path.push_str("[]");
        rows(kind, items, path, text, known);
        path.truncate(length);
        return;
    }
    match schema["properties"].as_object().filter(|_| is_described(schema)) {
        Some(fields) => {
            for (name, field) in fields {
                if length > 0 {
                    path.push('.');
                }
                path.push_str(name);
                rows(kind, field, path, text, known);
                path.truncate(length);
            }
        }
        None => leaf(kind, schema, path, text),
    }
}

/// Whether the fields of an object are described. Those of Kubernetes' own types are not, and are passed on as they are.
fn is_described(schema: &Value) -> bool {
    let mut fields = schema["properties"].as_object().into_iter().flatten();
    fields.any(|(_, field)| field["description"].is_string())
}

fn leaf(kind: Kind, schema: &Value, path: &str, text: &mut String) {
    let mut exceptions = String::new();
    for (gap, value) in of(kind, path) {
        if let Some(value) = value {
            let effect = match gap.effect {
                Effect::Refused => "refused",
                Effect::Warned => "no effect, with a warning",
            };
            write!(exceptions, "; `{value}` {effect}: {}", gap.why).unwrap();
        }
    }
    let about = schema["description"]
        .as_str()
        .unwrap_or_default()
        .trim_end_matches('.');
    writeln!(text, "| `{path}` | honoured: {about}{exceptions} |").unwrap();
}
