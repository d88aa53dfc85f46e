//! Walks the schemas of a kind and makes the cases: for every field an object that the peer admits and that has the field, and
//! changes of it.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use anyhow::{Context, Result};
use futures::future;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use serde_json::{Value, json};

use super::case::{Case, Edit, merge};
use super::crds::Kind;
use super::hints::Hints;
use super::judge::Judge;
use super::repair::Repair;
use super::schema::{Node, Path, Step};
use super::values::Values;
use crate::progress::say;

/// How far up rules are that may speak of a field.
const REACH: usize = 3;
/// Values of each kind for a field whose like has been seen.
const FEW: usize = 3;
/// Pairs of siblings where no rule is near.
const FEW_PAIRS: usize = 12;

/// What a walk has found.
#[derive(Default)]
pub struct Walked {
    pub cases: Vec<Case>,
    /// Fields that no admitted object was found for.
    unreached: Vec<String>,
    fields: usize,
}

/// A place that is still to be walked, with an object that has it.
struct Place<'a> {
    node: Node<'a>,
    path: Path,
    base: Rc<Value>,
    /// The nodes that it is in, the nearest last.
    above: Vec<Node<'a>>,
}

impl Place<'_> {
    /// The same for places at which the schemas say the same, and the rules that may speak of them.
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.node.digest().hash(&mut hasher);
        let steps = self.path.0.iter().rev();
        // Of what has no rules, what lies around the place is of no concern.
        let ruling = self.above.iter().rev().take(REACH).map(|node| node.rules());
        let mut reach = ruling.enumerate().filter(|(_, rules)| !rules.is_empty());
        if let Some((furthest, _)) = reach.next_back() {
            for (node, step) in self.above.iter().rev().zip(steps).take(furthest + 1) {
                (node.rules(), node.required(), step).hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

/// A field of an object, the object that has it, and its value there.
struct Field<'a> {
    name: &'a str,
    node: Node<'a>,
    path: Path,
    base: Rc<Value>,
    value: Value,
}

/// The walk.
pub struct Walk<'a> {
    repair: Repair<'a>,
    values: &'a Values,
    number: usize,
    rng: StdRng,
    /// Places that were walked, and schemas wherever they stand.
    seen: HashSet<u64>,
    schemas: HashSet<u64>,
    /// Every field that was reached.
    reached: Vec<(Node<'a>, Path, Rc<Value>, Rc<Hints>)>,
    walked: Walked,
}

impl<'a> Walk<'a> {
    /// The walk of the kind with a number.
    pub fn new(judge: &'a Judge<'a>, values: &'a Values, number: usize, seed: u64) -> Self {
        let kind: &Kind = &judge.kinds[number];
        Self {
            repair: Repair { judge, kind, values },
            values,
            number,
            rng: StdRng::seed_from_u64(seed.wrapping_add(number as u64)),
            seen: HashSet::new(),
            schemas: HashSet::new(),
            reached: Vec::new(),
            walked: Walked::default(),
        }
    }

    /// Walks, and makes `random` cases more at random.
    pub async fn run(mut self, random: usize) -> Result<Walked> {
        let path = Path::parse("spec");
        let node = self.repair.kind.schema().at(&path);
        let minimal = json!({"spec": self.values.sample(node, 0)});
        let base = self.repair.admitted(minimal, &path).await?;
        let base = base.with_context(|| format!("{}: no object is admitted", self.repair.kind.name))?;
        let mut places = vec![Place {
            node,
            path,
            base: Rc::new(base),
            above: Vec::new(),
        }];
        while let Some(place) = places.pop() {
            self.place(place, &mut places).await?;
        }
        for _ in 0..random {
            if self.rng.random_bool(0.5) {
                self.merged();
            } else {
                self.several();
            }
        }
        let Walked {
            cases,
            unreached,
            fields,
        } = &self.walked;
        say(format!(
            "{}: {fields} fields, {} cases; no object was found that is admitted with {}",
            self.repair.kind.name,
            cases.len(),
            if unreached.is_empty() {
                "none".to_owned()
            } else {
                unreached.join(", ")
            }
        ));
        Ok(self.walked)
    }

    fn case(&mut self, base: &Rc<Value>, edits: Vec<Edit>) {
        self.walked.cases.push(Case {
            kind: self.number,
            base: Rc::clone(base),
            edits,
        });
    }

    async fn place(&mut self, place: Place<'a>, more: &mut Vec<Place<'a>>) -> Result<()> {
        self.walked.fields += 1;
        let near = place.above.iter().rev().take(REACH).chain([&place.node]);
        let rules: Vec<&str> = near.flat_map(|node| node.rules()).collect();
        let hints = Rc::new(Hints::of(rules.iter().copied()));
        let full = self.seen.insert(place.digest());
        self.leaf(&place, &hints, full);
        self.reached
            .push((place.node, place.path.clone(), Rc::clone(&place.base), hints));
        if !full {
            return Ok(());
        }
        let mut above = place.above.clone();
        above.push(place.node);
        let fields = self.fields(&place).await?;
        let parent = place.above.last();
        let ruled = [Some(&place.node), parent]
            .into_iter()
            .flatten()
            .any(|node| !node.rules().is_empty());
        self.pairs(&fields, !ruled);
        more.extend(fields.into_iter().map(|field| Place {
            node: field.node,
            path: field.path,
            base: field.base,
            above: above.clone(),
        }));
        for step in [Step::Item, Step::Key] {
            let (node, path) = (place.node.step(&step), place.path.then(step));
            let there = path.get(&place.base).is_some();
            if there && node.theirs.is_some() && node.ours.is_some() {
                more.push(Place {
                    node,
                    path,
                    base: Rc::clone(&place.base),
                    above: above.clone(),
                });
            }
        }
        Ok(())
    }

    /// Changes of the value itself.
    fn leaf(&mut self, place: &Place, hints: &Hints, full: bool) {
        let new = self.schemas.insert(place.node.digest());
        let mut values = self.values.variants(place.node, hints, new, &mut self.rng);
        if !full {
            values = values.into_iter().choose_multiple(&mut self.rng, FEW);
        }
        values.push(Value::Null);
        self.case(&place.base, Vec::new());
        self.case(&place.base, vec![(place.path.clone(), None)]);
        for value in values {
            self.case(&place.base, vec![(place.path.clone(), Some(value))]);
        }
    }

    /// The fields of an object, each with an object that has it.
    async fn fields(&mut self, place: &Place<'a>) -> Result<Vec<Field<'a>>> {
        let wanted: Vec<Field> = place
            .node
            .names()
            .into_iter()
            .map(|name| {
                let step = Step::Field(name.to_owned());
                let (node, path) = (place.node.step(&step), place.path.then(step));
                let mut object = (*place.base).clone();
                if path.get(&object).is_none() {
                    path.put(&mut object, Some(self.values.sample(node, 0)));
                }
                let (base, value) = (Rc::new(object), Value::Null);
                Field {
                    name,
                    node,
                    path,
                    base,
                    value,
                }
            })
            .collect();
        // Where one side alone has a field, that is all there is to tell.
        let (shared, alone): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .partition(|field| field.node.theirs.is_some() && field.node.ours.is_some());
        for field in alone {
            self.case(&field.base, Vec::new());
        }
        let repaired = shared
            .iter()
            .map(|field| self.repair.admitted((*field.base).clone(), &field.path));
        let repaired = future::try_join_all(repaired).await?;
        let mut fields = Vec::new();
        for (mut field, object) in shared.into_iter().zip(repaired) {
            if let Some(object) = object {
                field.value = field.path.get(&object).cloned().unwrap_or_default();
                field.base = Rc::new(object);
                fields.push(field);
            } else {
                self.case(&field.base, Vec::new());
                self.walked.unreached.push(field.path.to_string());
            }
        }
        Ok(fields)
    }

    /// Two fields of an object at a time.
    fn pairs(&mut self, fields: &[Field], few: bool) {
        let mut pairs: Vec<(&Field, &Field)> = Vec::new();
        for one in fields {
            pairs.extend(
                fields
                    .iter()
                    .filter(|other| other.name != one.name)
                    .map(|other| (one, other)),
            );
        }
        if few {
            pairs = pairs.into_iter().choose_multiple(&mut self.rng, FEW_PAIRS);
        }
        for (one, other) in pairs {
            let set = |value: &Value| (other.path.clone(), Some(value.clone()));
            let away = (other.path.clone(), None);
            self.case(&one.base, vec![set(&other.value)]);
            self.case(&one.base, vec![away.clone()]);
            for value in one.node.choices() {
                let choice = (one.path.clone(), Some(value.clone()));
                self.case(&one.base, vec![choice.clone(), set(&other.value)]);
                self.case(&one.base, vec![choice, away.clone()]);
            }
            if one.node.is("boolean") {
                let no = (one.path.clone(), Some(Value::Bool(false)));
                self.case(&one.base, vec![no, set(&other.value)]);
            }
            for empty in [json!({}), json!([]), json!(""), json!(0)] {
                let fits = match &empty {
                    Value::Object(_) => other.node.is("object"),
                    Value::Array(_) => other.node.is("array"),
                    Value::String(_) => other.node.is("string"),
                    _ => other.node.is("integer"),
                };
                if fits && !few {
                    self.case(&one.base, vec![set(&empty)]);
                }
            }
        }
    }

    /// Two objects in one: a field of either, wherever it is.
    fn merged(&mut self) {
        let Some((_, path, base, _)) = self.reached.choose(&mut self.rng) else {
            return;
        };
        let (path, base) = (path.clone(), Rc::clone(base));
        let level = self.rng.random_range(1..=path.0.len());
        let part = Path(path.0[..level].to_vec());
        let beside = self.reached.iter().filter(|(_, path, ..)| path.is_within(&part));
        let Some((node, other, second, hints)) = beside.choose(&mut self.rng) else {
            return;
        };
        let mut object = (*base).clone();
        let (node, other, hints) = (*node, other.clone(), Rc::clone(hints));
        merge(&mut object, second);
        let mut edits = Vec::new();
        if self.rng.random_bool(0.5) {
            edits.push((other, Some(self.values.any(node, &hints, &mut self.rng))));
        }
        self.case(&Rc::new(object), edits);
    }

    /// Some fields of one object, each with any value or none.
    fn several(&mut self) {
        let Some((_, path, base, _)) = self.reached.choose(&mut self.rng) else {
            return;
        };
        let (base, parent) = (Rc::clone(base), path.parent().unwrap_or_default());
        let siblings: Vec<_> = self
            .reached
            .iter()
            .filter(|(_, path, ..)| path.parent().as_ref() == Some(&parent))
            .map(|(node, path, _, hints)| (*node, path.clone(), Rc::clone(hints)))
            .collect();
        let number = self.rng.random_range(2..=4);
        let chosen: Vec<_> = siblings.into_iter().choose_multiple(&mut self.rng, number);
        let mut edits = Vec::new();
        for (node, path, hints) in chosen {
            let value = if self.rng.random_bool(0.25) {
                None
            } else {
                Some(self.values.any(node, &hints, &mut self.rng))
            };
            edits.push((path, value));
        }
        self.case(&base, edits);
    }
}
