//! All objects that the controller has heard of, typed, with the reverse index "which objects point at this one".
//!
//! The store owns the objects and nothing derived from them. It never talks to an API server and never decides
//! anything: it answers look-ups. Adding a watched kind takes one line in [`kinds`].

mod kinds;
mod parse;
mod targets;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

pub use kinds::{Kind, Stored};
pub use parse::{Document, Fault, Problem, admit, parse};
pub use targets::selected;

type Map<K, V> = HashMap<K, V, ahash::RandomState>;
/// By namespace and name.
type Named = BTreeMap<(Arc<str>, Arc<str>), Object>;

/// Names one object. Cluster-scoped objects have an empty namespace.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// What it is.
    pub kind: Kind,
    /// Where it is; empty if it is cluster-scoped.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ObjectRef {
    /// A reference from its parts.
    pub fn new(kind: Kind, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The reference of an object.
    pub fn of<T: Stored>(object: &T) -> Self {
        let meta = object.meta();
        Self::new(
            T::KIND,
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

impl fmt::Debug for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// An object of any stored kind.
#[derive(Clone)]
pub struct Object {
    reference: ObjectRef,
    value: Arc<dyn Any + Send + Sync>,
    targets: Vec<ObjectRef>,
}

impl Object {
    /// Wraps a typed object.
    pub fn new<T: Stored>(object: T) -> Self {
        Self {
            reference: ObjectRef::of(&object),
            targets: object.targets(),
            value: Arc::new(object),
        }
    }

    /// Which object it is.
    pub fn reference(&self) -> &ObjectRef {
        &self.reference
    }

    /// The objects that it attaches itself to.
    pub fn targets(&self) -> &[ObjectRef] {
        &self.targets
    }

    /// The typed object, if it is of this kind.
    pub fn downcast<T: Stored>(&self) -> Option<Arc<T>> {
        Arc::clone(&self.value).downcast().ok()
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The content may be a Secret's.
        write!(f, "{}", self.reference)
    }
}

/// The objects by kind, namespace and name.
#[derive(Default)]
pub struct Store {
    objects: Map<Kind, Named>,
    pointing: Map<(Kind, ObjectRef), BTreeSet<ObjectRef>>,
}

impl Store {
    /// Adds or replaces an object; gives back what was there before.
    pub fn insert(&mut self, object: Object) -> Option<Object> {
        let reference = object.reference.clone();
        let previous = self.remove(&reference);
        for target in &object.targets {
            self.pointing
                .entry((reference.kind, target.clone()))
                .or_default()
                .insert(reference.clone());
        }
        self.objects
            .entry(reference.kind)
            .or_default()
            .insert((reference.namespace, reference.name), object);
        previous
    }

    /// Removes an object; gives it back if it was there.
    pub fn remove(&mut self, reference: &ObjectRef) -> Option<Object> {
        let of_kind = self.objects.get_mut(&reference.kind)?;
        let removed = of_kind.remove(&(Arc::clone(&reference.namespace), Arc::clone(&reference.name)))?;
        for target in &removed.targets {
            let key = (reference.kind, target.clone());
            if let Some(set) = self.pointing.get_mut(&key) {
                set.remove(reference);
                if set.is_empty() {
                    self.pointing.remove(&key);
                }
            }
        }
        Some(removed)
    }

    /// The object with this name.
    pub fn get(&self, reference: &ObjectRef) -> Option<&Object> {
        self.objects
            .get(&reference.kind)?
            .get(&(Arc::clone(&reference.namespace), Arc::clone(&reference.name)))
    }

    /// All objects of a kind, by namespace and name.
    pub fn list(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    /// All objects of a kind in a namespace, by name.
    pub fn list_in(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = &Object> {
        let start: (Arc<str>, Arc<str>) = (namespace.into(), "".into());
        self.objects
            .get(&kind)
            .into_iter()
            .flat_map(move |objects| objects.range(start.clone()..))
            .take_while(move |((ns, _), _)| **ns == *namespace)
            .map(|(_, object)| object)
    }

    /// All objects of a kind that point at `target` (see [`Stored::targets`]), by namespace and name.
    pub fn pointing_at(&self, kind: Kind, target: &ObjectRef) -> impl Iterator<Item = &Object> {
        let found = self.pointing.get(&(kind, target.clone()));
        found
            .into_iter()
            .flatten()
            .filter_map(|reference| self.get(reference))
    }
}
