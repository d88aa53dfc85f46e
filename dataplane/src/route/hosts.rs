//! Values by hostname: exact ones, wildcards, and one for any host.

type Persistent<V> =
    imbl::GenericHashMap<Box<str>, V, ahash::RandomState, imbl::shared_ptr::DefaultSharedPtr>;

/// A map from hostnames. Cloning is cheap: clones share what they have in common.
#[derive(Clone)]
pub struct HostMap<V: Clone> {
    exact: Persistent<V>,
    /// By what follows `*.`.
    wildcard: Persistent<V>,
    any: Option<V>,
}

impl<V: Clone> Default for HostMap<V> {
    fn default() -> Self {
        Self { exact: Persistent::default(), wildcard: Persistent::default(), any: None }
    }
}

impl<V: Clone> HostMap<V> {
    /// The value of exactly this hostname (`*.` for a wildcard, empty for any host).
    pub fn get(&self, hostname: &str) -> Option<&V> {
        match (hostname, hostname.strip_prefix("*.")) {
            ("", _) => self.any.as_ref(),
            (_, Some(suffix)) => self.wildcard.get(suffix),
            (exact, None) => self.exact.get(exact),
        }
    }

    /// Sets the value of a hostname.
    pub fn insert(&mut self, hostname: &str, value: V) {
        match (hostname, hostname.strip_prefix("*.")) {
            ("", _) => self.any = Some(value),
            (_, Some(suffix)) => drop(self.wildcard.insert(suffix.into(), value)),
            (exact, None) => drop(self.exact.insert(exact.into(), value)),
        }
    }

    /// Removes the value of a hostname.
    pub fn remove(&mut self, hostname: &str) {
        match (hostname, hostname.strip_prefix("*.")) {
            ("", _) => self.any = None,
            (_, Some(suffix)) => drop(self.wildcard.remove(suffix)),
            (exact, None) => drop(self.exact.remove(exact)),
        }
    }

    /// True if there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty() && self.any.is_none()
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.exact.values().chain(self.wildcard.values()).chain(&self.any)
    }

    /// The values whose hostname matches `host`, the most specific first. A wildcard stands for one or more labels.
    pub fn levels<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a V> {
        let exact = if host.is_empty() || self.exact.is_empty() { None } else { self.exact.get(host) };
        let suffixes = host
            .match_indices('.')
            .take(if self.wildcard.is_empty() { 0 } else { usize::MAX })
            // A wildcard stands for at least one character.
            .filter(|(at, _)| *at > 0)
            .filter_map(|(at, _)| self.wildcard.get(&host[at + 1..]));
        exact.into_iter().chain(suffixes).chain(&self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_comes_first() {
        let mut map = HostMap::default();
        for name in ["a.b.example.com", "*.b.example.com", "*.example.com", ""] {
            map.insert(name, name);
        }
        let levels = |host: &'static str| map.levels(host).copied().collect::<Vec<_>>();
        assert_eq!(levels("a.b.example.com"), ["a.b.example.com", "*.b.example.com", "*.example.com", ""]);
        assert_eq!(levels("c.d.b.example.com"), ["*.b.example.com", "*.example.com", ""]);
        assert_eq!(levels("b.example.com"), ["*.example.com", ""]);
        assert_eq!(levels("example.com"), [""]);
        assert_eq!(levels(""), [""]);
        assert_eq!(levels(".example.com"), [""]);
    }

    #[test]
    fn what_was_removed_is_gone() {
        let mut map = HostMap::default();
        for name in ["a", "*.a", ""] {
            map.insert(name, 1);
            assert_eq!(map.get(name), Some(&1));
            map.remove(name);
            assert_eq!(map.get(name), None);
        }
        assert!(map.is_empty());
    }
}
