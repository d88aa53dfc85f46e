//! All matches on one host, by path.
//!
//! Precedence: the exact path; then regular expressions, the longest first; then prefixes, the longest first. Gateway
//! API leaves the place of regular expressions open; Envoy Gateway has them there too. Matches of routes that keep their
//! own order go before all of these, one after the other.

use std::cmp::Reverse;
use std::sync::Arc;

use http::request::Parts;

use super::candidate::{Candidate, Order, Path};
use super::split::SplitMap;

/// Matches of one path, the first to be tried first.
type Bucket = Arc<Vec<Arc<Candidate>>>;

/// The matches.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    exact: SplitMap<Bucket>,
    prefix: SplitMap<Bucket>,
    /// How many prefixes there are of each length: no other length is looked up.
    lengths: Vec<u32>,
    regex: Bucket,
    /// Those of routes that keep their own order.
    in_order: Option<Bucket>,
}

/// Place among regular expressions.
fn regex_order(candidate: &Candidate) -> (Reverse<usize>, &Order) {
    let length = match &candidate.path {
        Path::Regex(regex) => regex.as_str().len(),
        Path::Exact(path) | Path::Prefix(path) => path.len(),
    };
    (Reverse(length), &candidate.order)
}

impl Paths {
    /// The first match that takes the request, with the length of the prefix if it has one.
    pub fn find(&self, path: &str, head: &Parts) -> Option<(&Arc<Candidate>, Option<usize>)> {
        for candidate in self.in_order.iter().flat_map(|bucket| bucket.iter()) {
            if candidate.path.covers(path) && candidate.accepts(head) {
                return Some((candidate, candidate.path.prefix()));
            }
        }
        let first = |bucket: &'_ Bucket| bucket.iter().position(|candidate| candidate.accepts(head));
        if let Some(bucket) = self.exact.get(path)
            && let Some(at) = first(bucket)
        {
            return Some((&bucket[at], None));
        }
        let is_match = |candidate: &Candidate| match &candidate.path {
            Path::Regex(regex) => regex.is_match(path.as_bytes()),
            Path::Exact(_) | Path::Prefix(_) => false,
        };
        if let Some(found) = self
            .regex
            .iter()
            .find(|candidate| is_match(candidate) && candidate.accepts(head))
        {
            return Some((found, None));
        }
        for end in ends(path, self.lengths.len()) {
            if self.lengths[end] > 0
                && let Some(bucket) = self.prefix.get(&path[..end])
                && let Some(at) = first(bucket)
            {
                return Some((&bucket[at], Some(end)));
            }
        }
        None
    }

    /// Adds a match.
    pub fn insert(&mut self, candidate: &Arc<Candidate>) {
        if candidate.in_order {
            let all = Arc::make_mut(self.in_order.get_or_insert_default());
            let place = candidate.order.in_route();
            let at = all.partition_point(|other| other.order.in_route() < place);
            all.insert(at, Arc::clone(candidate));
            return;
        }
        match &candidate.path {
            Path::Exact(path) => {
                add(&mut self.exact, path, candidate);
            }
            Path::Prefix(path) => {
                if add(&mut self.prefix, path, candidate) {
                    let needed = self.lengths.len().max(path.len() + 1);
                    self.lengths.reserve_exact(needed - self.lengths.len());
                    self.lengths.resize(needed, 0);
                    self.lengths[path.len()] += 1;
                }
            }
            Path::Regex(_) => {
                let all = Arc::make_mut(&mut self.regex);
                let at = all.partition_point(|other| regex_order(other) < regex_order(candidate));
                all.insert(at, Arc::clone(candidate));
            }
        }
    }

    /// Takes out what the route of this match has under the path of this match.
    pub fn remove(&mut self, candidate: &Candidate) {
        if candidate.in_order {
            if let Some(all) = &mut self.in_order {
                Arc::make_mut(all).retain(|other| other.route() != candidate.route());
                self.in_order = self.in_order.take().filter(|all| !all.is_empty());
            }
            return;
        }
        match &candidate.path {
            Path::Exact(path) => {
                take(&mut self.exact, path, candidate);
            }
            Path::Prefix(path) => {
                if take(&mut self.prefix, path, candidate) {
                    self.lengths[path.len()] -= 1;
                    let used = self
                        .lengths
                        .iter()
                        .rposition(|n| *n > 0)
                        .map_or(0, |last| last + 1);
                    self.lengths.truncate(used);
                }
            }
            Path::Regex(_) => {
                Arc::make_mut(&mut self.regex).retain(|other| other.route() != candidate.route());
            }
        }
    }

    /// True if nothing is left.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefix.is_empty() && self.regex.is_empty() && self.in_order.is_none()
    }
}

/// Adds to the bucket of a path; true if it is new.
fn add(map: &mut SplitMap<Bucket>, path: &Arc<str>, candidate: &Arc<Candidate>) -> bool {
    let Some(bucket) = map.get_mut(path) else {
        map.insert(Arc::clone(path), Arc::new(vec![Arc::clone(candidate)]));
        return true;
    };
    let all = Arc::make_mut(bucket);
    match all.binary_search_by(|other| other.order.cmp(&candidate.order)) {
        Ok(at) => all[at] = Arc::clone(candidate),
        Err(at) => all.insert(at, Arc::clone(candidate)),
    }
    false
}

/// Takes a route out of the bucket of a path; true if that was the end of it.
fn take(map: &mut SplitMap<Bucket>, path: &str, candidate: &Candidate) -> bool {
    let Some(bucket) = map.get_mut(path) else {
        return false;
    };
    Arc::make_mut(bucket).retain(|other| other.route() != candidate.route());
    bucket.is_empty() && map.remove(path).is_some()
}

/// Where a prefix may end, the longest first: at the end and before each slash, but not beyond `limit`.
fn ends(path: &str, limit: usize) -> impl Iterator<Item = usize> {
    let whole = (path.len() < limit).then_some(path.len());
    let slashes = path
        .as_bytes()
        .iter()
        .take(limit)
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(at, _)| at);
    // A path without a slash in front (`*`, or none with CONNECT) is covered by `/` alone.
    let root = (limit > 0 && !path.is_empty() && !path.starts_with('/')).then_some(0);
    whole.into_iter().chain(slashes).chain(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_path_elements() {
        let all = |path, limit| ends(path, limit).collect::<Vec<_>>();
        assert_eq!(all("/a/bc/", 100), [6, 5, 2, 0]);
        assert_eq!(all("/a/bc", 3), [2, 0]);
        assert_eq!(all("/", 1), [0]);
        assert_eq!(all("*", 100), [1, 0]);
        assert_eq!(all("", 1), [0]);
        assert_eq!(all("/a", 0), [0; 0]);
    }
}
