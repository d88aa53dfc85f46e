//! What filters of several routes share, and what outlives a change of a route: Secrets by their keys, key
//! sets that are fetched, counts of requests.
//!
//! Owned by the configuration's state; filters hold what they have asked for. What nobody holds any more is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::jwt::keys::RemoteKeys;
use super::oidc::provider::Provider;
use super::rate_limit::Buckets;
use super::secret::{Entries, SecretSlot};

/// Slots that are never worth a sweep.
const FEW: usize = 64;

/// The store.
#[derive(Debug, Default)]
pub struct Store {
    secrets: HashMap<String, Arc<SecretSlot>>,
    remote_keys: Vec<Weak<RemoteKeys>>,
    oidc_providers: Vec<Weak<Provider>>,
    buckets: HashMap<String, Weak<Buckets>>,
    sweep_at: usize,
}

impl Store {
    /// The place of the Secret with this key. It may be filled later.
    pub fn secret(&mut self, key: &str) -> Arc<SecretSlot> {
        if let Some(slot) = self.secrets.get(key) {
            return Arc::clone(slot);
        }
        let slot = Arc::<SecretSlot>::default();
        self.secrets.insert(key.to_owned(), Arc::clone(&slot));
        slot
    }

    /// Puts a Secret into its place, or takes it away.
    pub fn put_secret(&mut self, key: &str, entries: Option<Entries>) {
        match entries {
            Some(entries) => self.secret(key).store(Some(Arc::new(entries))),
            None => {
                if let Some(slot) = self.secrets.get(key) {
                    slot.store(None);
                }
            }
        }
    }

    /// The buckets of this name. They are as they are left while any rule holds them.
    pub fn buckets(&mut self, name: &str) -> Arc<Buckets> {
        if let Some(held) = self.buckets.get(name).and_then(Weak::upgrade) {
            return held;
        }
        let buckets = Arc::<Buckets>::default();
        self.buckets.insert(name.to_owned(), Arc::downgrade(&buckets));
        buckets
    }

    /// The one set of keys that is fetched as `wanted` is.
    pub fn remote_keys(&mut self, wanted: RemoteKeys) -> Arc<RemoteKeys> {
        self.remote_keys.retain(|held| held.strong_count() > 0);
        let mut held = self.remote_keys.iter().filter_map(Weak::upgrade);
        if let Some(same) = held.find(|held| held.is_fetched_as(&wanted)) {
            return same;
        }
        let keys = Arc::new(wanted);
        self.remote_keys.push(Arc::downgrade(&keys));
        keys
    }

    /// The one provider that is reached as `wanted` is.
    pub fn oidc_provider(&mut self, wanted: Provider) -> Arc<Provider> {
        self.oidc_providers.retain(|held| held.strong_count() > 0);
        let mut held = self.oidc_providers.iter().filter_map(Weak::upgrade);
        if let Some(same) = held.find(|held| held.is_same(&wanted)) {
            return same;
        }
        let provider = Arc::new(wanted);
        self.oidc_providers.push(Arc::downgrade(&provider));
        provider
    }

    /// Forgets what is empty and held by nobody, when there is much of it.
    pub fn sweep(&mut self) {
        if self.secrets.len() + self.buckets.len() < self.sweep_at.max(FEW) {
            return;
        }
        self.buckets.retain(|_, buckets| buckets.strong_count() > 0);
        self.secrets
            .retain(|_, slot| !slot.is_empty() || Arc::strong_count(slot) > 1);
        self.sweep_at = 2 * (self.secrets.len() + self.buckets.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_used_stays() {
        let mut store = Store::default();
        let held = store.secret("secret/held");
        store.put_secret("secret/full", Some(Entries::new()));
        for i in 0..10 * FEW {
            store.secret(&format!("secret/{i}"));
            store.sweep();
        }
        assert!(store.secrets.len() <= 2 * FEW, "{}", store.secrets.len());
        assert!(Arc::ptr_eq(&held, &store.secret("secret/held")));
        assert!(!store.secret("secret/full").is_empty());
    }
}
