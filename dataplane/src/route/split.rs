//! A map that is cheap to copy and to change a little.
//!
//! Entries are spread over shards that copies share; a change copies the one shard that it falls into. Readers hold a
//! copy of their own, so neither side ever waits for the other.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// Entries in a shard, on average, before there are more shards.
const SHARD: usize = 64;

/// Decides the shard; seeded once, so that no outsider can aim at one.
static SPREAD: LazyLock<ahash::RandomState> = LazyLock::new(ahash::RandomState::new);

type Shard<V> = HashMap<Arc<str>, V, ahash::RandomState>;

/// A map from strings.
#[derive(Debug, Clone)]
pub struct SplitMap<V> {
    /// The only entry: most maps have one, and there are several for each route.
    only: Option<(Arc<str>, V)>,
    /// None, or a power of two.
    shards: Vec<Arc<Shard<V>>>,
    len: usize,
}

impl<V> Default for SplitMap<V> {
    fn default() -> Self {
        Self {
            only: None,
            shards: Vec::new(),
            len: 0,
        }
    }
}

impl<V> SplitMap<V> {
    fn shard(&self, key: &str) -> usize {
        match self.shards.len() {
            0 | 1 => 0,
            // The mask keeps it below the number of shards, which fits a usize.
            #[allow(clippy::cast_possible_truncation)]
            n => (SPREAD.hash_one(key) as usize) & (n - 1),
        }
    }

    /// The entry of this key.
    pub fn get(&self, key: &str) -> Option<&V> {
        if let Some((only, value)) = &self.only {
            return (**only == *key).then_some(value);
        }
        self.shards.get(self.shard(key))?.get(key)
    }

    /// True if there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &V)> {
        let only = self.only.iter().map(|(key, value)| (key, value));
        only.chain(self.shards.iter().flat_map(|shard| shard.iter()))
    }
}

impl<V: Clone> SplitMap<V> {
    /// Puts an entry in and returns the one that was there.
    pub fn insert(&mut self, key: Arc<str>, value: V) -> Option<V> {
        if self.len == 0 {
            self.shards = Vec::new();
            self.len = 1;
            self.only = Some((key, value));
            return None;
        }
        if let Some((only, old)) = &mut self.only
            && *only == key
        {
            return Some(std::mem::replace(old, value));
        }
        if let Some((first, old)) = self.only.take() {
            self.grow();
            Arc::make_mut(&mut self.shards[0]).insert(first, old);
        }
        if self.len >= self.shards.len() * SHARD {
            self.grow();
        }
        let at = self.shard(&key);
        let old = Arc::make_mut(&mut self.shards[at]).insert(key, value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &str) -> Option<V> {
        self.get(key)?;
        if let Some((_, old)) = self.only.take() {
            self.len = 0;
            return Some(old);
        }
        let at = self.shard(key);
        let old = Arc::make_mut(&mut self.shards[at]).remove(key);
        self.len -= usize::from(old.is_some());
        old
    }

    /// The entry of this key, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        self.get(key)?;
        let at = self.shard(key);
        match &mut self.only {
            Some((_, value)) => Some(value),
            None => Arc::make_mut(&mut self.shards[at]).get_mut(key),
        }
    }

    fn grow(&mut self) {
        let count = (self.shards.len() * 2).max(1);
        let shards = std::iter::repeat_with(Arc::default).take(count).collect();
        let old = std::mem::replace(
            self,
            Self {
                only: None,
                shards,
                len: self.len,
            },
        );
        for shard in old.shards {
            for (key, value) in Arc::unwrap_or_clone(shard) {
                let at = self.shard(&key);
                Arc::make_mut(&mut self.shards[at]).insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_do_not_see_later_changes() {
        let mut map = SplitMap::default();
        for i in 0..1000 {
            assert_eq!(map.insert(i.to_string().into(), i), None);
        }
        let copy = map.clone();
        assert_eq!(map.insert("7".into(), 70), Some(7));
        assert_eq!(map.remove("8"), Some(8));
        *map.get_mut("9").unwrap() = 90;
        assert_eq!(
            (copy.get("7"), copy.get("8"), copy.get("9")),
            (Some(&7), Some(&8), Some(&9))
        );
        assert_eq!(
            (map.get("7"), map.get("8"), map.get("9")),
            (Some(&70), None, Some(&90))
        );
        assert_eq!((copy.len, map.len, map.iter().count()), (1000, 999, 999));
    }

    #[test]
    fn a_map_of_few() {
        let mut map = SplitMap::default();
        assert_eq!(map.insert("a".into(), 1), None);
        assert_eq!((map.insert("a".into(), 2), map.get("b")), (Some(1), None));
        *map.get_mut("a").unwrap() = 3;
        assert!(map.get_mut("b").is_none());
        assert_eq!(map.insert("b".into(), 4), None);
        assert_eq!(
            (map.get("a"), map.get("b"), map.iter().count()),
            (Some(&3), Some(&4), 2)
        );
        assert_eq!(
            (map.remove("a"), map.remove("b"), map.remove("b")),
            (Some(3), Some(4), None)
        );
        assert!(map.is_empty() && map.iter().next().is_none());
        assert_eq!((map.insert("c".into(), 5), map.remove("c")), (None, Some(5)));
        assert!(map.is_empty() && map.get("c").is_none());
    }

    #[test]
    fn a_change_copies_one_shard() {
        let mut map = SplitMap::default();
        for i in 0..1000 {
            map.insert(i.to_string().into(), i);
        }
        let copy = map.clone();
        map.insert("7".into(), 70);
        let shared = map
            .shards
            .iter()
            .zip(&copy.shards)
            .filter(|(a, b)| Arc::ptr_eq(a, b))
            .count();
        assert_eq!(shared, map.shards.len() - 1);
    }
}
