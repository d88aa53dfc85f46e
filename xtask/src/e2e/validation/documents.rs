//! The manifests in the tree that are of the kinds compared.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::crds::GROUP;

/// Where they are.
const PLACES: [&str; 6] = [
    "crds/tests/fixtures",
    "e2e/manifests",
    "controller/tests",
    "docs",
    "examples",
    "charts",
];

/// Every one, with its kind.
pub fn all(root: &Path) -> Result<Vec<(String, Value)>> {
    let mut found = Vec::new();
    for place in PLACES {
        read(&root.join(place), &mut found)?;
    }
    Ok(found)
}

fn read(directory: &Path, found: &mut Vec<(String, Value)>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, found)?;
        } else if let Some(kind) = path.extension().and_then(|extension| extension.to_str())
            && matches!(kind, "yaml" | "md")
        {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let texts = if kind == "md" { blocks(&text) } else { vec![text] };
            found.extend(texts.iter().flat_map(|text| objects(text)));
        }
    }
    Ok(())
}

/// The YAML in a document.
fn blocks(document: &str) -> Vec<String> {
    let parts = document.split("```yaml\n").skip(1);
    parts
        .filter_map(|part| part.split("```").next())
        .map(str::to_owned)
        .collect()
}

/// The objects in a YAML text; what is no YAML, such as a chart's template, has none.
fn objects(text: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let Ok(mut object) = Value::deserialize(document) else {
            break;
        };
        let group = object["apiVersion"]
            .as_str()
            .and_then(|version| version.split('/').next());
        if group != Some(GROUP) {
            continue;
        }
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        found.push((kind, object));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_the_group_are_taken_from_documents() {
        let text = "x\n```yaml\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: A\nspec: {}\nstatus: {}\n---\napiVersion: v1\nkind: B\n```\n";
        let found: Vec<_> = blocks(text).iter().flat_map(|text| objects(text)).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "A");
        assert!(found[0].1.get("status").is_none());
    }

    #[test]
    fn the_tree_has_some_of_most_kinds() {
        let found = all(crate::paths::root()).unwrap();
        let kinds: std::collections::BTreeSet<_> = found.iter().map(|(kind, _)| kind.as_str()).collect();
        assert!(kinds.len() >= 6, "{kinds:?}");
    }
}
