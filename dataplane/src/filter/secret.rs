//! Secrets that filters name: users, credentials, key sets.
//!
//! A slot is the stable place of one Secret; updates swap what is in it, so that a new password touches no route. What
//! filters need of it is derived once for each content. Nothing in here can be printed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use sluice_config::v1;

use super::Lookup;

/// The entries of a Secret by their keys.
pub type Entries = BTreeMap<String, Vec<u8>>;

/// Where a Secret lives. Empty while there is no such resource.
#[derive(Default)]
pub struct SecretSlot(ArcSwapOption<Entries>);

impl SecretSlot {
    /// The Secret as it is now.
    pub fn load(&self) -> Option<Arc<Entries>> {
        self.0.load_full()
    }

    /// Replaces the Secret.
    pub fn store(&self, entries: Option<Arc<Entries>>) {
        self.0.store(entries);
    }

    /// True if there is no such resource.
    pub fn is_empty(&self) -> bool {
        self.0.load().is_none()
    }
}

impl fmt::Debug for SecretSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretSlot([redacted])")
    }
}

/// What one Secret's content was at the time.
type Content = Option<Arc<Entries>>;

/// What is made of the contents of some Secrets.
type Derive<T> = Box<dyn Fn(&[Content]) -> T + Send + Sync>;

struct Cached<T> {
    from: Box<[Content]>,
    value: Arc<T>,
}

/// Something that is made of Secrets, anew whenever one of them changes.
pub struct Derived<T> {
    slots: Box<[Arc<SecretSlot>]>,
    derive: Derive<T>,
    cached: ArcSwapOption<Cached<T>>,
}

impl<T> Derived<T> {
    /// `derive` gets the Secrets in the order of `keys`; it is not called before the first use.
    pub fn new<'k>(
        keys: impl IntoIterator<Item = &'k str>,
        lookup: &mut dyn Lookup,
        derive: impl Fn(&[Content]) -> T + Send + Sync + 'static,
    ) -> Self {
        Self {
            slots: keys.into_iter().map(|key| lookup.store().secret(key)).collect(),
            derive: Box::new(derive),
            cached: ArcSwapOption::empty(),
        }
    }

    /// From one entry of one Secret.
    ///
    /// # Errors
    /// If the configuration names none.
    pub fn of_entry(
        config: Option<&v1::SecretEntry>,
        lookup: &mut dyn Lookup,
        derive: impl Fn(Option<&[u8]>) -> T + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let config = config
            .filter(|named| !named.secret.is_empty())
            .ok_or("no Secret is named")?;
        let entry = config.entry.clone();
        Ok(Self::new([config.secret.as_str()], lookup, move |contents| {
            let entries = contents.first().and_then(Option::as_ref);
            derive(entries.and_then(|entries| entries.get(&entry)).map(Vec::as_slice))
        }))
    }

    /// The value that fits the Secrets as they are now.
    pub fn get(&self) -> Arc<T> {
        let cached = self.cached.load();
        if let Some(cached) = &*cached
            && self.is_current(&cached.from)
        {
            return Arc::clone(&cached.value);
        }
        drop(cached);
        let from: Box<[Content]> = self.slots.iter().map(|slot| slot.load()).collect();
        let value = Arc::new((self.derive)(&from));
        self.cached.store(Some(Arc::new(Cached {
            from,
            value: Arc::clone(&value),
        })));
        value
    }

    fn is_current(&self, from: &[Content]) -> bool {
        self.slots.iter().zip(from).all(|(slot, then)| {
            let now = slot.0.load();
            match (&*now, then) {
                (None, None) => true,
                (Some(now), Some(then)) => Arc::ptr_eq(now, then),
                _ => false,
            }
        })
    }
}

impl<T> fmt::Debug for Derived<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Derived([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Nothing;
    use super::*;

    #[test]
    fn derived_values_follow_their_secrets() {
        let mut lookup = Nothing::default();
        let entry = v1::SecretEntry {
            secret: "secret/s".into(),
            entry: "e".into(),
        };
        let derived =
            Derived::of_entry(Some(&entry), &mut lookup, |entry| entry.map(<[u8]>::to_vec)).unwrap();
        assert_eq!(*derived.get(), None);
        for content in ["one", "two"] {
            let entries = Entries::from([("e".into(), content.into())]);
            lookup.store().put_secret("secret/s", Some(entries));
            assert_eq!(derived.get().as_deref(), Some(content.as_bytes()));
            assert!(Arc::ptr_eq(&derived.get(), &derived.get()), "derived once");
        }
        lookup.store().put_secret("secret/s", None);
        assert_eq!(*derived.get(), None);
        assert!(Derived::of_entry(None, &mut lookup, |_| ()).is_err());
        assert!(!format!("{derived:?}").contains("two"));
    }
}
