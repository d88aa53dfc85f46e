//! Hostnames as Gateway API has them: `foo.example.com`, `*.example.com` (anything below, however deep), or empty (any).

use std::sync::Arc;

use super::split::SplitMap;

/// No longer name exists in DNS (RFC 1035, 2.3.4). What is longer matches no name, and costs no search for one.
const MAX_NAME: usize = 255;

/// How specific a hostname is; the greater one takes precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    exact: bool,
    len: usize,
}

impl Specificity {
    /// Of a hostname as it is written in a listener or route.
    pub fn of(hostname: &str) -> Self {
        Self {
            exact: !hostname.is_empty() && !hostname.starts_with("*."),
            len: hostname.len(),
        }
    }
}

/// Something for each hostname.
#[derive(Debug, Clone)]
pub struct HostMap<V> {
    exact: SplitMap<V>,
    /// By what follows the `*`: `.example.com`.
    wildcard: SplitMap<V>,
    any: Option<V>,
}

impl<V> Default for HostMap<V> {
    fn default() -> Self {
        Self {
            exact: SplitMap::default(),
            wildcard: SplitMap::default(),
            any: None,
        }
    }
}

impl<V> HostMap<V> {
    /// What is under exactly this hostname.
    pub fn get(&self, hostname: &str) -> Option<&V> {
        match Spelling::of(hostname) {
            Spelling::Any => self.any.as_ref(),
            Spelling::Wildcard(suffix) => self.wildcard.get(suffix),
            Spelling::Exact(name) => self.exact.get(name),
        }
    }

    /// Everything whose hostname covers `host`, the most specific first.
    pub fn covering<'a>(&'a self, host: &str) -> impl Iterator<Item = &'a V> {
        let name = if host.len() > MAX_NAME { "" } else { host };
        let exact = self.exact.get(name);
        // Without wildcards no dot is looked for.
        let below = if self.wildcard.is_empty() { "" } else { name };
        let wildcards = below
            .bytes()
            .enumerate()
            .filter(|(at, byte)| *byte == b'.' && *at > 0)
            .filter_map(move |(at, _)| self.wildcard.get(&name[at..]));
        exact.into_iter().chain(wildcards).chain(self.any.as_ref())
    }

    /// True if there is nothing.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty() && self.any.is_none()
    }

    /// Everything, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        let exact = self.exact.iter().map(|(_, value)| value);
        self.any
            .iter()
            .chain(exact)
            .chain(self.wildcard.iter().map(|(_, value)| value))
    }
}

impl<V: Clone> HostMap<V> {
    /// Puts something under a hostname and returns what was there.
    pub fn insert(&mut self, hostname: &Arc<str>, value: V) -> Option<V> {
        match Spelling::of(hostname) {
            Spelling::Any => self.any.replace(value),
            Spelling::Wildcard(suffix) => self.wildcard.insert(suffix.into(), value),
            Spelling::Exact(_) => self.exact.insert(Arc::clone(hostname), value),
        }
    }

    /// Takes out what is under a hostname.
    pub fn remove(&mut self, hostname: &str) -> Option<V> {
        match Spelling::of(hostname) {
            Spelling::Any => self.any.take(),
            Spelling::Wildcard(suffix) => self.wildcard.remove(suffix),
            Spelling::Exact(name) => self.exact.remove(name),
        }
    }

    /// What is under a hostname, to be changed.
    pub fn get_mut(&mut self, hostname: &str) -> Option<&mut V> {
        match Spelling::of(hostname) {
            Spelling::Any => self.any.as_mut(),
            Spelling::Wildcard(suffix) => self.wildcard.get_mut(suffix),
            Spelling::Exact(name) => self.exact.get_mut(name),
        }
    }
}

enum Spelling<'a> {
    Any,
    /// With the dot.
    Wildcard(&'a str),
    Exact(&'a str),
}

impl<'a> Spelling<'a> {
    fn of(hostname: &'a str) -> Self {
        match hostname.strip_prefix('*') {
            _ if hostname.is_empty() => Self::Any,
            Some(suffix) if suffix.starts_with('.') => Self::Wildcard(suffix),
            _ => Self::Exact(hostname),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_comes_first() {
        let mut map = HostMap::default();
        for name in ["", "*.com", "*.example.com", "a.example.com", "example.com"] {
            map.insert(&name.into(), name);
        }
        let covering = |host| map.covering(host).copied().collect::<Vec<_>>();
        assert_eq!(
            covering("a.example.com"),
            ["a.example.com", "*.example.com", "*.com", ""]
        );
        assert_eq!(covering("x.y.example.com"), ["*.example.com", "*.com", ""]);
        assert_eq!(covering("example.com"), ["example.com", "*.com", ""]);
        assert_eq!(covering("com"), [""]);
        assert_eq!(covering(".com"), [""]);
        assert_eq!(covering(""), [""]);
        assert_eq!(covering(&format!("{}.com", "a".repeat(300))), [""]);
    }

    #[test]
    fn precedence_of_names() {
        let order = ["a.example.com", "a.b.io", "*.example.com", "*.com", ""];
        assert!(
            order
                .windows(2)
                .all(|pair| Specificity::of(pair[0]) > Specificity::of(pair[1]))
        );
    }
}
