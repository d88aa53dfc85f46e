//! A folder of manifests in the place of an API server: reads it, and says what has changed since it was last read.
//!
//! Owns what a file with a mistake means: its last good objects stay. It never translates anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace;
use sluice_controller::engine::Event;
use sluice_controller::store::{self, Document, Kind, ObjectRef, Problem};

/// The manifests of a folder.
pub(crate) struct Folder {
    dir: PathBuf,
    files: BTreeMap<PathBuf, ManifestFile>,
    /// What was last said to be there. Two values that are equal stand for the same object.
    told: BTreeMap<ObjectRef, serde_yaml_ng::Value>,
}

struct ManifestFile {
    text: String,
    documents: Vec<Document>,
}

/// What has changed.
#[derive(Default)]
pub(crate) struct Reload {
    /// Changed objects.
    pub events: Vec<Event>,
    /// What is wrong in files that have changed, one line each.
    pub problems: Vec<String>,
}

impl Folder {
    /// A folder that has not been read yet.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            files: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// Reads the files that have changed.
    ///
    /// # Errors
    /// If the folder cannot be listed. A file that cannot be read is a problem of that file.
    pub(crate) fn reload(&mut self) -> anyhow::Result<Reload> {
        let mut problems = Vec::new();
        let paths = self.paths()?;
        self.files.retain(|path, _| paths.contains(path));
        for path in paths {
            self.read(path, &mut problems);
        }
        let events = self.compare(&mut problems);
        Ok(Reload { events, problems })
    }

    fn paths(&self) -> anyhow::Result<Vec<PathBuf>> {
        let entries =
            std::fs::read_dir(&self.dir).with_context(|| format!("folder {}", self.dir.display()))?;
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let hidden = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            let is_yaml = path
                .extension()
                .is_some_and(|extension| extension == "yaml" || extension == "yml");
            if is_yaml && !hidden && path.is_file() {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn read(&mut self, path: PathBuf, problems: &mut Vec<String>) {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => return problems.push(format!("{}: {error}", path.display())),
        };
        if self.files.get(&path).is_some_and(|file| file.text == text) {
            return;
        }
        let (mut documents, found) = store::parse(&text);
        let broken = found.iter().any(Problem::breaks_file);
        problems.extend(
            found
                .iter()
                .map(|problem| format!("{}, {problem}", path.display())),
        );
        if broken && let Some(before) = self.files.get_mut(&path) {
            problems.push(format!("{}: its last good objects stay", path.display()));
            documents = std::mem::take(&mut before.documents);
        }
        self.files.insert(path, ManifestFile { text, documents });
    }

    fn compare(&mut self, problems: &mut Vec<String>) -> Vec<Event> {
        let mut now: BTreeMap<ObjectRef, (&Path, &Document)> = BTreeMap::new();
        for (path, file) in &self.files {
            for document in &file.documents {
                let reference = document.object.reference().clone();
                if let Some((other, before)) = now.insert(reference.clone(), (path, document))
                    && self.told.get(&reference) == Some(&before.value)
                    && before.value != document.value
                {
                    problems.push(format!(
                        "{}: {reference} is in {} too; this one counts",
                        path.display(),
                        other.display()
                    ));
                }
            }
        }
        let mut events = Vec::new();
        let mut told = BTreeMap::new();
        for namespace in namespaces(now.keys()) {
            let reference = ObjectRef::new(Kind::Namespace, "", namespace.as_str());
            if !now.contains_key(&reference) {
                if !self.told.contains_key(&reference) {
                    // Used but not described: there it is nevertheless.
                    let mut implied = Namespace::default();
                    implied.metadata.name = Some(namespace);
                    events.push(Event::Upsert(store::admit(implied)));
                }
                told.insert(reference, serde_yaml_ng::Value::Null);
            }
        }
        for (reference, (_, document)) in now {
            if self.told.get(&reference) != Some(&document.value) {
                events.push(Event::Upsert(document.object.clone()));
            }
            told.insert(reference, document.value.clone());
        }
        let gone = self.told.keys().filter(|reference| !told.contains_key(reference));
        events.extend(gone.cloned().map(Event::Delete));
        self.told = told;
        events
    }
}

fn namespaces<'a>(references: impl Iterator<Item = &'a ObjectRef>) -> Vec<String> {
    let mut namespaces: Vec<_> = references
        .filter(|r| !r.namespace.is_empty())
        .map(|r| r.namespace.to_string())
        .collect();
    namespaces.sort();
    namespaces.dedup();
    namespaces
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: sluice
  listeners: [{name: http, port: 8080, protocol: HTTP}]
";

    fn names(events: &[Event]) -> Vec<String> {
        let name = |event: &Event| match event {
            Event::Upsert(object) => format!("+{}", object.reference()),
            Event::Delete(reference) => format!("-{reference}"),
            Event::Proxies(..) => unreachable!(),
        };
        events.iter().map(name).collect()
    }

    #[test]
    fn only_what_changed_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        std::fs::write(&file, GATEWAY).unwrap();
        let mut folder = Folder::new(dir.path());
        let first = folder.reload().unwrap();
        assert_eq!(
            names(&first.events),
            ["+Namespace default", "+Gateway default/gw"]
        );
        assert!(first.problems.is_empty(), "{:?}", first.problems);
        assert!(folder.reload().unwrap().events.is_empty());
        std::fs::write(&file, format!("# a comment\n---\n{GATEWAY}")).unwrap();
        assert!(folder.reload().unwrap().events.is_empty());
        std::fs::write(&file, GATEWAY.replace("8080", "8081")).unwrap();
        assert_eq!(names(&folder.reload().unwrap().events), ["+Gateway default/gw"]);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(
            names(&folder.reload().unwrap().events),
            ["-Gateway default/gw", "-Namespace default"]
        );
    }

    #[test]
    fn a_broken_file_keeps_its_last_good_objects() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), GATEWAY).unwrap();
        std::fs::write(dir.path().join("b.yaml"), GATEWAY.replace("gw", "other")).unwrap();
        let mut folder = Folder::new(dir.path());
        folder.reload().unwrap();
        std::fs::write(dir.path().join("a.yaml"), format!("{GATEWAY}---\nkind: [\n")).unwrap();
        std::fs::write(dir.path().join("b.yaml"), GATEWAY.replace("gw", "third")).unwrap();
        let reload = folder.reload().unwrap();
        assert_eq!(
            names(&reload.events),
            ["+Gateway default/third", "-Gateway default/other"]
        );
        assert!(
            reload.problems[0].contains("a.yaml, document 2: "),
            "{:?}",
            reload.problems
        );
        assert!(folder.reload().unwrap().problems.is_empty());
    }
}
