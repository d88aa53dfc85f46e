//! What Secrets hold reaches proxies alone: no golden output, which has every status and the printed configuration,
//! shows a value of a Secret of its case.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize as _;
use serde_yaml_ng::{Deserializer, Value};

/// Values that are shorter stand in outputs for other reasons.
const SHORTEST: usize = 6;

#[test]
fn no_output_shows_a_secret() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut looked_for = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        if name.ends_with(".out.yaml") {
            continue;
        }
        let output = fs::read_to_string(path.with_extension("out.yaml")).unwrap_or_default();
        for secret in secrets(&fs::read_to_string(&path).unwrap()) {
            looked_for += 1;
            let encoded = BASE64_STANDARD.encode(&secret);
            assert!(
                !output.contains(&secret) && !output.contains(&encoded),
                "{name}: {secret}"
            );
        }
    }
    assert!(looked_for > 1, "there are no Secrets to look for");
}

/// The values of all Secrets, and for `name:value` the value alone too.
fn secrets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for document in text.split("\n---\n").flat_map(Deserializer::from_str) {
        // The words that the golden test fills in are not always YAML.
        let Ok(object) = Value::deserialize(document) else {
            continue;
        };
        if object["kind"] != "Secret" {
            continue;
        }
        for field in ["stringData", "data"] {
            for (_, value) in object[field].as_mapping().into_iter().flatten() {
                let Some(value) = value.as_str().filter(|value| !value.contains("{{")) else {
                    continue;
                };
                let decoded = BASE64_STANDARD
                    .decode(value)
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes).ok());
                let value = match (field, decoded) {
                    ("data", Some(decoded)) => decoded,
                    _ => value.to_owned(),
                };
                found.extend(value.split_once(':').map(|(_, rest)| rest.to_owned()));
                found.push(value);
            }
        }
    }
    found.retain(|value| value.len() >= SHORTEST);
    found
}
