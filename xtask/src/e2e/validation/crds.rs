//! The two sets of CRDs: ours from the tree, theirs from Envoy Gateway's Go module, moved to an API group of their own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::schema::Node;
use crate::build::programs;

/// The group that both sets are for.
pub const GROUP: &str = "gateway.envoyproxy.io";
/// The group that theirs get instead. No rule speaks of its own object's group.
pub const PEER_GROUP: &str = "gateway.peer.example";
/// The version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// One kind, as either sees it.
pub struct Kind {
    pub name: String,
    pub plural: String,
    /// Whole definitions.
    pub theirs: Value,
    pub ours: Value,
}

impl Kind {
    /// The two schemas.
    pub fn schema(&self) -> Node<'_> {
        Node {
            theirs: schema(&self.theirs),
            ours: schema(&self.ours),
        }
    }
}

fn schema(crd: &Value) -> Option<&Value> {
    crd["spec"]["versions"][0]["schema"].get("openAPIV3Schema")
}

/// All kinds of the group.
pub fn kinds(ours: &Path) -> Result<Vec<Kind>> {
    let published = read(&programs::envoy_gateway_crds()?)?;
    let mut own = read(ours)?;
    let kinds: Vec<Kind> = published
        .into_iter()
        .map(|(plural, mut theirs)| {
            let ours = own
                .remove(&plural)
                .with_context(|| format!("Sluice has no CRD of {plural}"))?;
            let name = ours["spec"]["names"]["kind"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            theirs["metadata"] = json!({"name": format!("{plural}.{PEER_GROUP}")});
            theirs["spec"]["group"] = json!(PEER_GROUP);
            Ok(Kind {
                name,
                plural,
                theirs,
                ours,
            })
        })
        .collect::<Result<_>>()?;
    if let Some(plural) = own.keys().next() {
        bail!("Envoy Gateway has no CRD of {plural}");
    }
    Ok(kinds)
}

/// The CRDs of the group in a directory, by the kinds' plurals.
fn read(directory: &Path) -> Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let crd: Value = serde_yaml_ng::from_str(&without_templates(&text))
            .with_context(|| format!("{} is no YAML", path.display()))?;
        if crd["spec"]["group"] == GROUP {
            let plural = crd["spec"]["names"]["plural"].as_str().context("no plural")?;
            found.insert(plural.to_owned(), crd);
        }
    }
    Ok(found)
}

/// The lines of a chart's template that are no template.
fn without_templates(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("{{"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_left_out() {
        assert_eq!(
            without_templates("{{- if .a }}\na: '{{b}}'\n{{- end }}\n"),
            "a: '{{b}}'\n"
        );
    }

    #[test]
    fn the_trees_own_crds_are_found() {
        let all = read(&crate::paths::root().join("crds/yaml")).unwrap();
        assert!(
            all.contains_key("securitypolicies") && all.len() == 8,
            "{:?}",
            all.keys()
        );
    }
}
