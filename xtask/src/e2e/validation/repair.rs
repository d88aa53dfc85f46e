//! Makes an object that the peer refuses into one that it admits, by small changes where it says that something is wrong. Nothing is
//! known here of what rules say.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;
use futures::future;
use serde_json::{Value, json};

use super::case::Edit;
use super::crds::Kind;
use super::hints::Hints;
use super::judge::{Cause, Judge, Verdict};
use super::schema::{Node, Path, Step};
use super::values::Values;

/// Changes on top of each other.
const DEPTH: usize = 4;
/// Objects that are changed further.
const WIDTH: usize = 6;
/// Requests at once.
const AT_ONCE: usize = 16;
/// Requests for one object, after which no change is added.
const TRIES: usize = 1500;

/// Values of one field among which the others of a rule are sought.
const SAMPLES: usize = 6;
/// Pairs of changes of one object.
const PAIRS: usize = 700;

/// Whom it asks, and about what.
pub struct Repair<'a> {
    pub judge: &'a Judge<'a>,
    pub kind: &'a Kind,
    pub values: &'a Values,
}

/// What came of some objects.
enum Tried {
    Admitted(Value),
    Refused(Vec<Attempt>),
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
                let edits = self.edits(attempt, keep);
                let singles = edits.iter().map(|edit| edited(&attempt.object, [edit]));
                let mut found = self.attempts(attempt, singles.collect(), &mut tried).await?;
                if let Tried::Refused(all) = &found
                    && all.is_empty()
                {
                    // One rule may ask for two things.
                    let pairs = pairs(&edits, &attempt.object);
                    found = self.attempts(attempt, pairs, &mut tried).await?;
                }
                match found {
                    Tried::Admitted(object) => return Ok(Some(object)),
                    Tried::Refused(attempts) => next.extend(attempts),
                }
                if tried.len() > TRIES {
                    return Ok(None);
                }
            }
            next.sort_by_key(|attempt| (attempt.causes.len(), attempt.object.to_string().len()));
            next.truncate(WIDTH);
            edge = next;
        }
        Ok(None)
    }

    /// Tries objects; those that are refused for the same reasons as before lead nowhere.
    async fn attempts(
        &self,
        before: &Attempt,
        mut objects: Vec<Value>,
        tried: &mut HashSet<u64>,
    ) -> Result<Tried> {
        objects.retain(|object| tried.insert(digest(object)));
        let mut refused = Vec::new();
        for some in objects.chunks(AT_ONCE) {
            let verdicts = some.iter().map(|object| self.judge.theirs(self.kind, object));
            for (object, verdict) in some.iter().zip(future::try_join_all(verdicts).await?) {
                let object = object.clone();
                match verdict {
                    Verdict::Admitted(_) => return Ok(Tried::Admitted(object)),
                    Verdict::Refused(causes) if causes != before.causes => {
                        refused.push(Attempt { object, causes });
                    }
                    Verdict::Refused(_) => {}
                }
            }
        }
        Ok(Tried::Refused(refused))
    }

    fn edits(&self, attempt: &Attempt, keep: &Path) -> Vec<Edit> {
        let schema = self.kind.schema();
        let mut places: Vec<Path> = Vec::new();
        for cause in &attempt.causes {
            let mut place = Path::parse(&cause.field);
            if schema.at(&place).is("array") {
                places.push(place.clone());
            }
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
        let mut edits = Vec::new();
        for place in places {
            let node = schema.at(&place).main_only();
            let hints = Hints::of(node.rules());
            if node.is("array") {
                let lists = self.alternatives(node, &hints);
                edits.extend(lists.into_iter().map(|list| (place.clone(), Some(list))));
            } else {
                self.at(&attempt.object, &place, keep, &hints, 2, &mut edits);
            }
        }
        edits
    }

    /// Changes of the fields of the object at a place, and of objects in it.
    fn at(
        &self,
        object: &Value,
        place: &Path,
        keep: &Path,
        hints: &Hints,
        depth: usize,
        found: &mut Vec<Edit>,
    ) {
        let node = self.kind.schema().at(place);
        let mut inner = Vec::new();
        for name in node.main_only().names() {
            let path = place.then(Step::Field(name.to_owned()));
            let field = node.step(&Step::Field(name.to_owned()));
            let present = path.get(object);
            if present.is_some() && !keep.is_within(&path) {
                found.push((path.clone(), None));
            }
            if present.is_none() {
                let mut samples: Vec<Value> = Vec::new();
                for sample in (0..SAMPLES).map(|nth| self.values.sample(field, nth)) {
                    if !samples.contains(&sample) {
                        samples.push(sample);
                    }
                }
                found.extend(samples.into_iter().map(|sample| (path.clone(), Some(sample))));
            }
            for other in self.alternatives(field, hints) {
                if present != Some(&other) {
                    found.push((path.clone(), Some(other)));
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

    /// Other values of a field: what it may be chosen from, what rules mention.
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
        if field.is("array") {
            let choices = field.step(&Step::Item).choices();
            let lists = choices.iter().enumerate().flat_map(|(first, one)| {
                let pairs = choices[first + 1..].iter().map(move |other| json!([one, other]));
                [json!([one])].into_iter().chain(pairs)
            });
            return lists.collect();
        }
        Vec::new()
    }
}

fn edited<'e>(object: &Value, edits: impl IntoIterator<Item = &'e Edit>) -> Value {
    let mut object = object.clone();
    for (path, value) in edits {
        path.put(&mut object, value.clone());
    }
    object
}

/// The object with two edits each.
fn pairs(edits: &[Edit], object: &Value) -> Vec<Value> {
    let mut objects = Vec::new();
    let mut chosen: Vec<&Edit> = Vec::new();
    for edit in edits {
        if chosen.iter().filter(|other| other.0 == edit.0).count() < SAMPLES {
            chosen.push(edit);
        }
    }
    for (first, one) in chosen.iter().enumerate() {
        for other in &chosen[first + 1..] {
            if one.0 != other.0 && objects.len() < PAIRS {
                objects.push(edited(object, [*one, *other]));
            }
        }
    }
    objects
}

/// What stands for an object among those that were tried.
pub fn digest(object: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_of_different_fields() {
        let edit = |path: &str, value: u8| (Path::parse(path), Some(json!(value)));
        let edits = [edit("a", 1), edit("a", 2), edit("b", 3)];
        let objects = pairs(&edits, &json!({}));
        assert_eq!(objects, [json!({"a": 1, "b": 3}), json!({"a": 2, "b": 3})]);
    }
}
