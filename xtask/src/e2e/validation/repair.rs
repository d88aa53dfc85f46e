//! Makes an object that the peer refuses into one that it admits, by small changes where it says that something is wrong. Nothing is
//! known here of what rules say.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;
use serde_json::Value;

use super::crds::Kind;
use super::judge::{Cause, Judge, Verdict};
use super::schema::{Node, Path, Step};
use super::values::{Hints, Values};

/// Changes on top of each other.
const DEPTH: usize = 4;
/// Objects that are changed further.
const WIDTH: usize = 6;
/// Requests for one object.
const TRIES: usize = 900;

/// Whom it asks, and about what.
pub struct Repair<'a> {
    pub judge: &'a Judge<'a>,
    pub kind: &'a Kind,
    pub values: &'a Values,
}

/// An object with a change, and why it is refused.
struct Attempt {
    object: Value,
    causes: Vec<Cause>,
}

impl Repair<'_> {
    /// The object itself if it is admitted, else one near to it in which `keep` still has a value.
    pub async fn admitted(&self, object: Value, keep: &Path) -> Result<Option<Value>> {
        let causes = match self.judge.theirs(self.kind, &object).await? {
            Verdict::Admitted(_) => return Ok(Some(object)),
            Verdict::Refused(causes) => causes,
        };
        let mut tried = HashSet::from([digest(&object)]);
        let mut edge = vec![Attempt { object, causes }];
        for _ in 0..DEPTH {
            let mut next = Vec::new();
            for attempt in &edge {
                for object in self.changed(attempt, keep) {
                    if tried.len() > TRIES {
                        return Ok(None);
                    }
                    if !tried.insert(digest(&object)) {
                        continue;
                    }
                    match self.judge.theirs(self.kind, &object).await? {
                        Verdict::Admitted(_) => return Ok(Some(object)),
                        Verdict::Refused(causes) if causes != attempt.causes => {
                            next.push(Attempt { object, causes });
                        }
                        Verdict::Refused(_) => {}
                    }
                }
            }
            next.sort_by_key(|attempt| (attempt.causes.len(), attempt.object.to_string().len()));
            next.truncate(WIDTH);
            edge = next;
        }
        Ok(None)
    }

    fn changed(&self, attempt: &Attempt, keep: &Path) -> Vec<Value> {
        let schema = self.kind.schema();
        let mut places: Vec<Path> = Vec::new();
        for cause in &attempt.causes {
            let mut place = Path::parse(&cause.field);
            while schema.at(&place).names().is_empty() {
                match place.parent() {
                    Some(parent) => place = parent,
                    None => break,
                }
            }
            if place.0.is_empty() {
                place = Path::parse("spec");
            }
            if !places.contains(&place) {
                places.push(place);
            }
        }
        let mut objects = Vec::new();
        for place in places {
            let hints = Hints::of(schema.at(&place).main_only().rules());
            self.at(&attempt.object, &place, keep, &hints, 2, &mut objects);
        }
        objects
    }

    /// Changes of the fields of the object at a place, and of objects in it.
    fn at(
        &self,
        object: &Value,
        place: &Path,
        keep: &Path,
        hints: &Hints,
        depth: usize,
        found: &mut Vec<Value>,
    ) {
        let node = self.kind.schema().at(place);
        let mut inner = Vec::new();
        for name in node.main_only().names() {
            let path = place.then(Step::Field(name.to_owned()));
            let field = node.step(&Step::Field(name.to_owned()));
            let present = path.get(object);
            let mut change = |value: Option<Value>| {
                let mut changed = object.clone();
                path.put(&mut changed, value);
                found.push(changed);
            };
            match present {
                None => change(Some(self.values.sample(field, 0))),
                Some(value) => {
                    for other in self
                        .alternatives(field, hints)
                        .into_iter()
                        .filter(|other| other != value)
                    {
                        change(Some(other));
                    }
                    if !keep.is_within(&path) {
                        change(None);
                    }
                }
            }
            if present.is_some() {
                if field.is("array") {
                    inner.push(path.then(Step::Item));
                }
                inner.push(path);
            }
        }
        if depth > 0 {
            for place in inner {
                if !self.kind.schema().at(&place).names().is_empty() {
                    self.at(object, &place, keep, hints, depth - 1, found);
                }
            }
        }
    }

    /// Other values of a leaf: what it may be chosen from, what rules mention.
    fn alternatives(&self, field: Node, hints: &Hints) -> Vec<Value> {
        let field = field.main_only();
        if !field.choices().is_empty() {
            return field.choices().into_iter().cloned().collect();
        }
        if field.is("boolean") {
            return vec![true.into(), false.into()];
        }
        if field.is("string") {
            let samples = (0..4).map(|nth| self.values.sample(field, nth));
            return samples
                .chain(hints.texts.iter().cloned().map(Value::from))
                .collect();
        }
        if field.is("integer") {
            let near = [0, 1, 2, 100].into_iter().chain(hints.numbers.iter().copied());
            return near.map(Value::from).collect();
        }
        Vec::new()
    }
}

/// What stands for an object among those that were tried.
pub fn digest(object: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.to_string().hash(&mut hasher);
    hasher.finish()
}
