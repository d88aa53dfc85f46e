//! The matches of one hostname by path.

use std::sync::Arc;

use http::request;
use sluice_config::v1;

use super::Candidate;
use crate::rule::Rule;

type Bucket = Arc<Vec<Arc<Candidate>>>;
type Persistent = imbl::GenericHashMap<Box<str>, Bucket, ahash::RandomState, imbl::shared_ptr::DefaultSharedPtr>;

/// Where a match is kept, by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathKey {
    /// The whole path.
    Exact(Box<str>),
    /// A prefix without its trailing slash; empty: every path.
    Prefix(Box<str>),
    /// A regular expression, which the candidate holds.
    Regex,
}

impl PathKey {
    /// The place of a match.
    ///
    /// # Errors
    /// `field: reason` of what is no path.
    pub fn of(config: &v1::HttpMatch) -> Result<Self, String> {
        use v1::path_match::Kind;
        let Some(path) = &config.path else { return Ok(Self::Prefix("".into())) };
        match path.kind() {
            Kind::Regex => Ok(Self::Regex),
            _ if !path.value.starts_with('/') => Err(format!("path.value: `{}` does not begin with /", path.value)),
            Kind::Exact => Ok(Self::Exact(path.value.as_str().into())),
            Kind::Prefix => Ok(Self::Prefix(path.value.strip_suffix('/').unwrap_or(&path.value).into())),
            Kind::Unspecified => Err("path.kind: unspecified".into()),
        }
    }
}

/// The matches of one hostname. Cloning is cheap: clones share what they have in common.
#[derive(Clone, Default)]
pub struct Table {
    exact: Persistent,
    prefix: Persistent,
    /// Number of prefixes by their number of elements: a long request path is not looked up further than they reach.
    depths: imbl::OrdMap<usize, usize>,
    regex: Bucket,
}

impl Table {
    /// Adds a match.
    pub fn insert(&mut self, path: &PathKey, candidate: Arc<Candidate>) {
        match path {
            PathKey::Regex => {
                let bucket = Arc::make_mut(&mut self.regex);
                let at = bucket.partition_point(|c| c.compare_regex(&candidate).is_lt());
                bucket.insert(at, candidate);
            }
            PathKey::Exact(path) => into(&mut self.exact, path, candidate),
            PathKey::Prefix(path) => {
                if !self.prefix.contains_key(path) {
                    *self.depths.entry(depth(path)).or_insert(0) += 1;
                }
                into(&mut self.prefix, path, candidate);
            }
        }
    }

    /// Removes the matches of a route at this path.
    pub fn remove(&mut self, path: &PathKey, owner: &str) {
        match path {
            PathKey::Regex => Arc::make_mut(&mut self.regex).retain(|c| c.owner() != owner),
            PathKey::Exact(path) => out_of(&mut self.exact, path, owner),
            PathKey::Prefix(path) => {
                let had = self.prefix.contains_key(path);
                out_of(&mut self.prefix, path, owner);
                if had && !self.prefix.contains_key(path) {
                    let depth = depth(path);
                    match self.depths.get(&depth).copied() {
                        Some(count) if count > 1 => drop(self.depths.insert(depth, count - 1)),
                        _ => drop(self.depths.remove(&depth)),
                    }
                }
            }
        }
    }

    /// True if there is no match.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefix.is_empty() && self.regex.is_empty()
    }

    /// The rule that serves the request, and the length of the prefix that matched, if it was one.
    pub fn find(&self, head: &request::Parts) -> Option<(Arc<Rule>, Option<usize>)> {
        let path = head.uri.path();
        let matching = |bucket: &Bucket| bucket.iter().find(|c| c.matches(head)).map(|c| Arc::clone(&c.rule));
        if !self.exact.is_empty()
            && let Some(rule) = self.exact.get(path).and_then(matching)
        {
            return Some((rule, None));
        }
        let by_regex = self.regex.iter().find(|c| {
            c.path_regex.as_ref().is_some_and(|regex| regex.is_match(path)) && c.matches(head)
        });
        if let Some(candidate) = by_regex {
            return Some((Arc::clone(&candidate.rule), None));
        }
        self.prefixes_of(path).find_map(|prefix| {
            let rule = self.prefix.get(prefix).and_then(matching)?;
            Some((rule, Some(prefix.len())))
        })
    }

    /// The prefixes of a path, by element, the longest first; not longer than any that is held.
    fn prefixes_of<'p>(&self, path: &'p str) -> impl Iterator<Item = &'p str> {
        let deepest = self.depths.get_max().map(|(depth, _)| *depth);
        let cut = deepest.and_then(|deepest| path.match_indices('/').nth(deepest)).map(|(at, _)| at);
        let (whole, rest) = match (deepest, cut) {
            (None, _) => (None, ""),
            // The path has more elements than any prefix.
            (Some(_), Some(at)) => (Some(&path[..at]), &path[..at]),
            (Some(_), None) => (Some(path), path),
        };
        whole.into_iter().chain(rest.rmatch_indices('/').map(move |(at, _)| &path[..at]))
    }
}

/// Number of elements of a prefix.
fn depth(prefix: &str) -> usize {
    prefix.matches('/').count()
}

fn into(map: &mut Persistent, path: &str, candidate: Arc<Candidate>) {
    let mut bucket = map.get(path).cloned().unwrap_or_default();
    let held = Arc::make_mut(&mut bucket);
    let at = held.partition_point(|c| c.compare(&candidate).is_lt());
    held.insert(at, candidate);
    map.insert(path.into(), bucket);
}

fn out_of(map: &mut Persistent, path: &str, owner: &str) {
    let Some(mut bucket) = map.get(path).cloned() else { return };
    let held = Arc::make_mut(&mut bucket);
    held.retain(|c| c.owner() != owner);
    if held.is_empty() {
        map.remove(path);
    } else {
        map.insert(path.into(), bucket);
    }
}
