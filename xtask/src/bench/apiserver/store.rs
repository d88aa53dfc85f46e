//! The objects of the API server in memory, their versions and who watches them. Does no I/O.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// Why a request is not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    NotFound,
    Conflict,
    Bad,
}

/// An object's place, or with an empty name a collection's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// `/apis/GROUP/VERSION/PLURAL`.
    pub collection: String,
    pub namespace: String,
    pub name: String,
}

impl Place {
    pub(super) fn new(collection: &str, namespace: &str, name: &str) -> Self {
        Self {
            collection: collection.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The place that an object belongs to.
    pub(super) fn of(object: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let version = text(&object["apiVersion"]).context("an object without apiVersion")?;
        let kind = text(&object["kind"])
            .context("an object without kind")?
            .to_lowercase();
        let root = if version.contains('/') { "apis" } else { "api" };
        let ending = if kind.ends_with('s') { "es" } else { "s" };
        let namespace = text(&object["metadata"]["namespace"]).unwrap_or_default();
        let name = text(&object["metadata"]["name"]).context("an object without name")?;
        Ok(Self::new(
            &format!("/{root}/{version}/{kind}{ending}"),
            &namespace,
            &name,
        ))
    }

    /// The place that a path names, and the subresource.
    pub(super) fn parse(path: &str) -> Option<(Self, Option<String>)> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, rest) = match *parts.first()? {
            "api" => parts.split_at_checked(2)?,
            "apis" => parts.split_at_checked(3)?,
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, rest) = rest.split_first()?;
        let name = rest.first().copied().unwrap_or_default();
        let subresource = rest.get(1).map(|&subresource| subresource.to_owned());
        let collection = format!("/{}/{plural}", group.join("/"));
        Some((Self::new(&collection, namespace, name), subresource))
    }

    fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }
}

/// Labels that must be there; of all that selectors can say, equality.
#[derive(Debug, Default)]
pub(super) struct Selector(Vec<(String, String)>);

impl Selector {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        Self(
            pairs
                .map(|(key, value)| (key.to_owned(), value.trim_start_matches('=').to_owned()))
                .collect(),
        )
    }

    fn selects(&self, labels: &Value) -> bool {
        self.0
            .iter()
            .all(|(key, value)| labels[key.as_str()] == value.as_str())
    }
}

struct Stored {
    version: u64,
    labels: Value,
    json: Bytes,
}

struct Event {
    version: u64,
    labels: Value,
    line: Bytes,
}

#[derive(Default)]
struct Collection {
    objects: BTreeMap<(String, String), Stored>,
    log: Vec<Event>,
    watches: Vec<(Selector, UnboundedSender<Bytes>)>,
}

impl Collection {
    fn tell(&mut self, event: Event) {
        self.watches.retain(|(selector, watch)| {
            !selector.selects(&event.labels) || watch.send(event.line.clone()).is_ok()
        });
        self.log.push(event);
    }
}

/// All objects.
#[derive(Default)]
pub(super) struct Store {
    version: u64,
    collections: HashMap<String, Collection>,
}

impl Store {
    pub(super) fn get(&self, place: &Place) -> Option<Bytes> {
        let stored = self
            .collections
            .get(&place.collection)?
            .objects
            .get(&place.key())?;
        Some(stored.json.clone())
    }

    /// A page of a collection; it goes on at the key that `from` names.
    pub(super) fn list(
        &mut self,
        place: &Place,
        selector: &Selector,
        limit: Option<usize>,
        from: &str,
    ) -> Bytes {
        let version = self.version;
        let collection = self.collections.entry(place.collection.clone()).or_default();
        let from = from.split_once('/').unwrap_or_default();
        let mut chosen = collection
            .objects
            .range((from.0.to_owned(), from.1.to_owned())..)
            .filter(|(key, stored)| {
                (place.namespace.is_empty() || key.0 == place.namespace) && selector.selects(&stored.labels)
            });
        let mut items = Vec::new();
        for (_, stored) in chosen
            .by_ref()
            .take(limit.filter(|&limit| limit > 0).unwrap_or(usize::MAX))
        {
            if !items.is_empty() {
                items.push(b',');
            }
            items.extend_from_slice(&stored.json);
        }
        let next = chosen.next().map(|(key, _)| format!("{}/{}", key.0, key.1));
        let metadata =
            json!({ "resourceVersion": version.to_string(), "continue": next.unwrap_or_default() });
        let mut list =
            format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{metadata},"items":["#).into_bytes();
        list.extend_from_slice(&items);
        list.extend_from_slice(b"]}");
        list.into()
    }

    /// What happens to a collection after a version.
    pub(super) fn watch(
        &mut self,
        collection: &str,
        selector: Selector,
        since: u64,
    ) -> UnboundedReceiver<Bytes> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let collection = self.collections.entry(collection.to_owned()).or_default();
        let start = collection.log.partition_point(|event| event.version <= since);
        for event in &collection.log[start..] {
            if selector.selects(&event.labels) {
                // The receiver is at hand.
                let _ = sender.send(event.line.clone());
            }
        }
        collection.watches.push((selector, sender));
        receiver
    }

    /// Tells every watch the present version.
    pub(super) fn bookmark(&mut self) {
        let object = json!({
            "kind": "Bookmark", "apiVersion": "v1",
            "metadata": { "resourceVersion": self.version.to_string() },
        });
        let line = Bytes::from(format!("{}\n", json!({ "type": "BOOKMARK", "object": object })));
        for collection in self.collections.values_mut() {
            collection
                .watches
                .retain(|(_, watch)| watch.send(line.clone()).is_ok());
        }
    }

    pub(super) fn create(&mut self, place: &Place, object: Value) -> Result<Bytes, Refused> {
        let name = object["metadata"]["name"].as_str().ok_or(Refused::Bad)?;
        let place = Place::new(&place.collection, &place.namespace, name);
        match self.get(&place) {
            Some(_) => Err(Refused::Conflict),
            None => Ok(self.put(&place, object)),
        }
    }

    pub(super) fn replace(&mut self, place: &Place, object: Value) -> Result<Bytes, Refused> {
        self.check(place, &object["metadata"]["resourceVersion"])?;
        Ok(self.put(place, object))
    }

    /// Merges (RFC 7386) or applies a patch; what is applied and not there is created.
    pub(super) fn patch(
        &mut self,
        place: &Place,
        subresource: Option<&str>,
        patch: &Value,
        apply: bool,
    ) -> Result<Bytes, Refused> {
        let mut object = match self.get(place) {
            Some(json) => serde_json::from_slice(&json).map_err(|_| Refused::Bad)?,
            None if apply && subresource.is_none() => json!({}),
            None => return Err(Refused::NotFound),
        };
        self.check(place, &patch["metadata"]["resourceVersion"])?;
        match subresource {
            Some(part) if apply => object[part] = patch[part].clone(),
            Some(part) => merge(&mut object[part], &patch[part]),
            None => merge(&mut object, patch),
        }
        Ok(self.put(place, object))
    }

    pub(super) fn delete(&mut self, place: &Place) -> Result<Bytes, Refused> {
        self.version += 1;
        let version = self.version;
        let collection = self
            .collections
            .get_mut(&place.collection)
            .ok_or(Refused::NotFound)?;
        let gone = collection.objects.remove(&place.key()).ok_or(Refused::NotFound)?;
        let line = line("DELETED", &gone.json);
        collection.tell(Event {
            version,
            labels: gone.labels,
            line,
        });
        Ok(gone.json)
    }

    /// Fails if another version is asked for than the one that is there.
    fn check(&self, place: &Place, wanted: &Value) -> Result<(), Refused> {
        let stored = self.collections.get(&place.collection);
        let stored = stored.and_then(|collection| collection.objects.get(&place.key()));
        match (stored, wanted.as_str()) {
            (Some(stored), Some(wanted)) if stored.version.to_string() != wanted => Err(Refused::Conflict),
            _ => Ok(()),
        }
    }

    /// Puts an object with a new version; its generation counts changes of the spec.
    pub(super) fn put(&mut self, place: &Place, mut object: Value) -> Bytes {
        self.version += 1;
        let version = self.version;
        let collection = self.collections.entry(place.collection.clone()).or_default();
        let before = collection.objects.get(&place.key());
        let before: Value = before
            .and_then(|stored| serde_json::from_slice(&stored.json).ok())
            .unwrap_or_default();
        let kept = &before["metadata"];
        let generation = kept["generation"].as_u64().unwrap_or(0);
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = version.to_string().into();
        if before.is_null() {
            metadata["uid"] = uuid::Uuid::new_v4().to_string().into();
            metadata["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        } else {
            metadata["uid"] = kept["uid"].clone();
            metadata["creationTimestamp"] = kept["creationTimestamp"].clone();
        }
        let changed = before["spec"] != object["spec"];
        object["metadata"]["generation"] = (generation + u64::from(before.is_null() || changed)).into();
        let labels = object["metadata"]["labels"].clone();
        let json = Bytes::from(object.to_string());
        let kind = if before.is_null() { "ADDED" } else { "MODIFIED" };
        let event = Event {
            version,
            labels: labels.clone(),
            line: line(kind, &json),
        };
        let stored = Stored {
            version,
            labels,
            json: json.clone(),
        };
        collection.objects.insert(place.key(), stored);
        collection.tell(event);
        json
    }
}

fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut line = format!(r#"{{"type":"{kind}","object":"#).into_bytes();
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        match (value, target.as_object_mut()) {
            (Value::Null, Some(target)) => _ = target.remove(key),
            _ => merge(&mut target[key.as_str()], value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, port: u16) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "n" },
            "spec": { "port": port },
        })
    }

    fn put(store: &mut Store, object: &Value) -> Value {
        let json = store.put(&Place::of(object).unwrap(), object.clone());
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn paths_are_places() {
        let parse = |path| Place::parse(path).unwrap();
        let routes = "/apis/gateway.networking.k8s.io/v1/httproutes";
        assert_eq!(
            parse("/apis/gateway.networking.k8s.io/v1/namespaces/n/httproutes/r/status"),
            (Place::new(routes, "n", "r"), Some("status".to_owned()))
        );
        assert_eq!(parse(routes), (Place::new(routes, "", ""), None));
        assert_eq!(
            parse("/api/v1/namespaces"),
            (Place::new("/api/v1/namespaces", "", ""), None)
        );
        assert!(Place::parse("/version").is_none());
        assert_eq!(
            Place::of(&object("a", 1)).unwrap(),
            Place::new("/api/v1/services", "n", "a")
        );
    }

    #[test]
    fn lists_come_in_pages() {
        let mut store = Store::default();
        for name in ["a", "b", "c"] {
            put(&mut store, &object(name, 1));
        }
        let all = Place::new("/api/v1/services", "", "");
        let mut page = |from: &str| -> Value {
            serde_json::from_slice(&store.list(&all, &Selector::default(), Some(2), from)).unwrap()
        };
        let first = page("");
        assert_eq!(first["items"].as_array().unwrap().len(), 2);
        let rest = page(first["metadata"]["continue"].as_str().unwrap());
        assert_eq!(rest["items"][0]["metadata"]["name"], "c");
        assert_eq!(rest["metadata"]["continue"], "");
    }

    #[test]
    fn a_watch_tells_what_came_after_its_version() {
        let mut store = Store::default();
        put(&mut store, &object("a", 1));
        let mut watch = store.watch("/api/v1/services", Selector::default(), 1);
        let changed = put(&mut store, &object("a", 2));
        assert_eq!(changed["metadata"]["generation"], 2);
        let event: Value = serde_json::from_slice(&watch.try_recv().unwrap()).unwrap();
        assert_eq!((&event["type"], &event["object"]), (&json!("MODIFIED"), &changed));
        assert!(watch.try_recv().is_err());
    }

    #[test]
    fn patches_touch_what_they_name_unless_somebody_was_faster() {
        let mut store = Store::default();
        let first = put(&mut store, &object("a", 1));
        let place = Place::new("/api/v1/services", "n", "a");
        let patch = json!({ "metadata": { "resourceVersion": first["metadata"]["resourceVersion"] }, "status": { "x": 1 } });
        let stated = store.patch(&place, Some("status"), &patch, false).unwrap();
        let stated: Value = serde_json::from_slice(&stated).unwrap();
        assert_eq!(
            (&stated["spec"]["port"], &stated["status"]["x"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(stated["metadata"]["generation"], 1);
        assert_eq!(
            store.patch(&place, Some("status"), &patch, false),
            Err(Refused::Conflict)
        );
    }
}
