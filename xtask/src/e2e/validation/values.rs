//! Values for a place: one that the schema allows, and many that it may or may not.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::hints::Hints;
use super::schema::{KEY, Node, Step};
use super::texts;

/// Longer lists are not tried: their bounds are there to bound the cost of rules.
const MOST_ITEMS: u64 = 300;
/// The same for strings.
const MOST_CHARACTERS: u64 = 70_000;

/// Odd strings that are tried where a schema is not new.
const SOME_TEXTS: usize = 12;

const NUMBERS: &[i64] = &[
    -1,
    0,
    1,
    2,
    5,
    10,
    99,
    100,
    101,
    199,
    200,
    299,
    399,
    429,
    499,
    500,
    599,
    600,
    1000,
    1024,
    65_535,
    65_536,
    2_147_483_647,
    2_147_483_648,
    4_294_967_295,
    4_294_967_296,
];

/// Makes values.
#[derive(Default)]
pub struct Values {
    patterns: RefCell<HashMap<String, Option<Rc<Regex>>>>,
    samples: RefCell<HashMap<String, Vec<String>>>,
}

impl Values {
    /// The `nth` value that the schema allows, as far as it tells; those of different numbers differ where that is possible.
    pub fn sample(&self, node: Node, nth: usize) -> Value {
        let node = node.main_only();
        let choices = node.choices();
        if !choices.is_empty() {
            return choices[nth % choices.len()].clone();
        }
        if node.is("object") || !node.names().is_empty() {
            return self.object(node, nth);
        }
        if node.is("array") {
            let least = bound(node, "minItems").into_iter().max().unwrap_or(0).max(1);
            let item = node.step(&Step::Item);
            return (0..least)
                .map(|i| self.sample(item, nth + usize::try_from(i).unwrap_or_default()))
                .collect();
        }
        if node.is("string") {
            return self.text(node, nth).into();
        }
        if node.is("integer") || node.is("number") {
            let least = node.all("minimum").into_iter().filter_map(Value::as_i64).max();
            let most = node.all("maximum").into_iter().filter_map(Value::as_i64).min();
            let wanted = least.unwrap_or(0).max(1) + i64::try_from(nth).unwrap_or_default();
            return most.map_or(wanted, |most| wanted.min(most)).into();
        }
        if node.is("boolean") {
            return true.into();
        }
        json!({"a": {"b": 1}})
    }

    fn object(&self, node: Node, nth: usize) -> Value {
        let mut fields = Map::new();
        for name in node.required() {
            let field = self.sample(node.step(&Step::Field(name.to_owned())), nth);
            fields.insert(name.to_owned(), field);
        }
        let entry = node.step(&Step::Key);
        if entry.main().is_some() {
            let name = if nth == 0 {
                KEY.to_owned()
            } else {
                format!("{KEY}{nth}")
            };
            fields.insert(name, self.sample(entry, nth));
        } else if !node.all("x-kubernetes-preserve-unknown-fields").is_empty() {
            fields.insert("a".to_owned(), json!({"b": 1}));
        }
        Value::Object(fields)
    }

    fn text(&self, node: Node, nth: usize) -> String {
        let patterns = strings(node, "pattern");
        let formats = strings(node, "format");
        let generated = patterns.iter().flat_map(|pattern| self.matching(pattern));
        let fits = |text: &String| {
            let length = text.chars().count() as u64;
            patterns.iter().all(|pattern| self.matches(pattern, text))
                && bound(node, "minLength").iter().all(|least| length >= *least)
                && bound(node, "maxLength").iter().all(|most| length <= *most)
                && formats.iter().all(|format| texts::has_format(format, text))
        };
        let all = texts::ODD.iter().map(|&text| text.to_owned()).chain(generated);
        let mut fitting: Vec<String> = all.filter(|text| !text.is_empty()).filter(fits).collect();
        let more = fitting.first().cloned().unwrap_or_default();
        if fitting.len() <= nth {
            let numbered = [format!("{more}{nth}"), format!("{nth}{more}")];
            fitting.extend(numbered.into_iter().filter(fits));
            return fitting.last().cloned().unwrap_or_default();
        }
        fitting.swap_remove(nth)
    }

    /// Whether a pattern is in a text; one that cannot be read is in every one.
    pub fn matches(&self, pattern: &str, text: &str) -> bool {
        let mut known = self.patterns.borrow_mut();
        let compiled = known
            .entry(pattern.to_owned())
            .or_insert_with(|| Regex::new(pattern).ok().map(Rc::new));
        compiled.as_ref().is_none_or(|pattern| pattern.is_match(text))
    }

    fn matching(&self, pattern: &str) -> Vec<String> {
        let mut known = self.samples.borrow_mut();
        let texts = known
            .entry(pattern.to_owned())
            .or_insert_with(|| texts::matching(pattern));
        texts.clone()
    }

    /// Values that tell one schema from another; with the `whole` table of odd strings or with some of them.
    pub fn variants(&self, node: Node, hints: &Hints, whole: bool, rng: &mut StdRng) -> Vec<Value> {
        let mut all: Vec<Value> = node.choices().into_iter().cloned().collect();
        all.extend(node.all("default").into_iter().cloned());
        if node.is("string") {
            let texts = self.texts(node, hints, whole, rng);
            all.extend(texts.into_iter().map(Value::String));
        }
        if node.is("integer") || node.is("number") {
            let bounds = node.all("minimum").into_iter().chain(node.all("maximum"));
            let near = bounds
                .filter_map(Value::as_i64)
                .flat_map(|bound| [bound.saturating_sub(1), bound, bound.saturating_add(1)]);
            let numbers = NUMBERS
                .iter()
                .copied()
                .chain(near)
                .chain(hints.numbers.iter().copied());
            all.extend(numbers.map(Value::from));
            all.push(json!(1.5));
        }
        if node.is("array") {
            all.extend(self.lists(node));
        }
        if node.step(&Step::Key).main().is_some() {
            all.extend(self.maps(node));
        }
        all.extend(Self::others());
        let mut distinct: Vec<Value> = Vec::new();
        for value in all {
            if !distinct.contains(&value) {
                distinct.push(value);
            }
        }
        distinct
    }

    /// One value of each type, and none.
    pub fn others() -> [Value; 8] {
        [
            json!(null),
            json!(""),
            json!("a"),
            json!(1),
            json!(false),
            json!(true),
            json!([]),
            json!({}),
        ]
    }

    fn texts(&self, node: Node, hints: &Hints, whole: bool, rng: &mut StdRng) -> Vec<String> {
        let number = if whole { texts::ODD.len() } else { SOME_TEXTS };
        let odd = texts::ODD.choose_multiple(rng, number);
        let mut all: Vec<String> = odd.map(|&text| text.to_owned()).collect();
        for choice in node.choices().into_iter().filter_map(Value::as_str) {
            all.extend([choice.to_lowercase(), choice.to_uppercase(), format!("{choice}x")]);
        }
        let mut patterns = strings(node, "pattern");
        patterns.extend(
            hints
                .texts
                .iter()
                .map(String::as_str)
                .filter(|text| text.contains(['^', '[', '\\'])),
        );
        for pattern in patterns {
            for text in self.matching(pattern) {
                all.push(texts::spoilt(&text, rng));
                all.push(text);
            }
        }
        for hint in &hints.texts {
            all.extend([
                hint.clone(),
                format!("{hint}a"),
                format!("a{hint}"),
                format!("a{hint}a"),
            ]);
        }
        let fitting = self.text(node, 0);
        let lengths = bound(node, "minLength")
            .into_iter()
            .chain(bound(node, "maxLength"));
        for length in lengths
            .chain([63, 253])
            .filter(|length| *length < MOST_CHARACTERS)
        {
            for length in [length.saturating_sub(1), length, length + 1] {
                let length = usize::try_from(length).unwrap_or_default();
                all.extend([texts::stretched(&fitting, length), "a".repeat(length)]);
            }
        }
        all
    }

    fn lists(&self, node: Node) -> Vec<Value> {
        let item = node.step(&Step::Item);
        let some = |number: u64| -> Value {
            (0..number)
                .map(|i| self.sample(item, usize::try_from(i).unwrap_or_default()))
                .collect()
        };
        let first = self.sample(item, 0);
        let mut lists = vec![some(2), json!([first, first]), json!([null])];
        for bound in bound(node, "minItems").into_iter().chain(bound(node, "maxItems")) {
            if bound <= MOST_ITEMS {
                lists.extend([bound.saturating_sub(1), bound, bound + 1].map(some));
            }
        }
        lists
    }

    fn maps(&self, node: Node) -> Vec<Value> {
        let value = self.sample(node.step(&Step::Key), 0);
        let mut maps: Vec<Value> = ["", "a b", "example.com/a", "A", "-"]
            .into_iter()
            .map(|name| json!({name: value}))
            .collect();
        for bound in bound(node, "minProperties")
            .into_iter()
            .chain(bound(node, "maxProperties"))
        {
            if bound <= MOST_ITEMS {
                for number in [bound.saturating_sub(1), bound, bound + 1] {
                    let entries = (0..number).map(|i| (format!("{KEY}{i}"), value.clone()));
                    maps.push(Value::Object(entries.collect()));
                }
            }
        }
        maps
    }

    /// One of a place's values, at random: mostly one that is allowed.
    pub fn any(&self, node: Node, hints: &Hints, rng: &mut StdRng) -> Value {
        if rng.random_bool(0.4) {
            return self.sample(node, rng.random_range(0..3));
        }
        let all = self.variants(node, hints, false, rng);
        all.choose(rng).cloned().unwrap_or_default()
    }
}

fn strings<'a>(node: Node<'a>, keyword: &str) -> Vec<&'a str> {
    node.all(keyword).into_iter().filter_map(Value::as_str).collect()
}

fn bound(node: Node, keyword: &str) -> Vec<u64> {
    node.all(keyword).into_iter().filter_map(Value::as_u64).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn node(schema: &Value) -> Node<'_> {
        Node {
            theirs: Some(schema),
            ours: None,
        }
    }

    #[test]
    fn a_sample_fulfils_its_schema() {
        let schema = json!({
            "type": "object", "required": ["name", "ports", "mode"],
            "properties": {
                "name": {"type": "string", "pattern": "^[A-Z]{3}-\\d+$", "maxLength": 9},
                "ports": {"type": "array", "minItems": 2, "items": {"type": "integer", "minimum": 7, "maximum": 8}},
                "mode": {"type": "string", "enum": ["On", "Off"]},
                "other": {"type": "string"},
            },
        });
        let sample = Values::default().sample(node(&schema), 0);
        assert!(
            Regex::new("^[A-Z]{3}-\\d+$")
                .unwrap()
                .is_match(sample["name"].as_str().unwrap())
        );
        assert_eq!(sample["ports"], json!([7, 8]));
        assert_eq!(sample["mode"], "On");
        assert_eq!(sample.as_object().unwrap().len(), 3);
    }

    #[test]
    fn variants_are_at_and_beyond_the_bounds_of_both() {
        let (theirs, ours) = (
            json!({"type": "integer", "maximum": 4000}),
            json!({"type": "integer", "minimum": 77}),
        );
        let node = Node {
            theirs: Some(&theirs),
            ours: Some(&ours),
        };
        let all = Values::default().variants(node, &Hints::default(), true, &mut StdRng::seed_from_u64(1));
        for number in [76, 77, 78, 3999, 4000, 4001] {
            assert!(all.contains(&json!(number)), "{number}");
        }
        assert!(all.contains(&Value::Null) && all.contains(&json!("a")));
    }
}
