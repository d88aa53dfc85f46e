//! JSON Web Key Sets (RFC 7517): read leniently, for a key that is not understood says nothing of the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Header};
use serde_json::Value;
use sluice_config::v1;
use tokio::sync::Notify;

use super::super::Lookup;
use crate::upstream::Slot;

/// How long a set is used if the configuration does not say; Envoy Gateway's default.
const DEFAULT_CACHE: Duration = Duration::from_mins(5);
/// Pause after a failed fetch if the configuration does not say; Envoy's default.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);
/// How long a fetch may take if the configuration does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// A set is fetched for the sake of a key that it does not hold at most once in this time.
const ROTATION_PAUSE: Duration = Duration::from_secs(5);

/// The keys of one issuer.
#[derive(Debug, Default)]
pub struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    verifies: DecodingKey,
}

impl KeySet {
    /// Reads a set. `None` if it is none.
    pub fn parse(json: &[u8]) -> Option<Self> {
        let set: Value = serde_json::from_slice(json).ok()?;
        let keys = set.get("keys")?.as_array()?;
        Some(Self(keys.iter().filter_map(Key::parse).collect()))
    }

    /// The keys that may have signed a token with this header.
    pub fn matching<'k>(&'k self, header: &'k Header) -> impl Iterator<Item = &'k DecodingKey> {
        self.0
            .iter()
            .filter(|key| key.algorithms.contains(&header.alg))
            .filter(|key| match (&key.id, &header.kid) {
                (Some(id), Some(wanted)) => id == wanted,
                _ => true,
            })
            .map(|key| &key.verifies)
    }
}

impl Key {
    fn parse(json: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(json.clone()).ok()?;
        if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let algorithms = match json.get("alg").and_then(Value::as_str) {
            Some(named) => vec![named.parse().ok()?],
            None => match (&jwk.algorithm, key.family()) {
                (AlgorithmParameters::EllipticCurve(of), _) if of.curve == EllipticCurve::P384 => {
                    vec![Algorithm::ES384]
                }
                (_, AlgorithmFamily::Ec) => vec![Algorithm::ES256],
                (_, family) => family.algorithms().to_vec(),
            },
        };
        Some(Self {
            id: jwk.common.key_id,
            algorithms,
            verifies: key,
        })
    }
}

struct Fetched {
    keys: Arc<KeySet>,
    at: Instant,
}

/// A set that is fetched, for all rules and workers.
pub struct RemoteKeys {
    /// Where it is fetched from.
    pub backend: Arc<Slot>,
    /// For the Host header.
    pub host: Box<str>,
    /// Path and query.
    pub path: Box<str>,
    /// How long a fetch may take.
    pub timeout: Duration,
    /// Told when a fetch has ended.
    pub ended: Notify,
    fetching: AtomicBool,
    cache: Duration,
    pause: Duration,
    fetched: ArcSwapOption<Fetched>,
    tried: Mutex<Option<Instant>>,
}

impl RemoteKeys {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn new(config: &v1::RemoteJwks, lookup: &mut dyn Lookup) -> Result<Self, String> {
        let path = match config.path.as_str() {
            "" => "/",
            path => path,
        };
        if http::uri::PathAndQuery::try_from(path).is_err() || !path.starts_with('/') {
            return Err(format!("path: `{path}` is not a path"));
        }
        http::HeaderValue::from_str(&config.host)
            .map_err(|_| format!("host: `{}` is no host", config.host.escape_debug()))?;
        let or = |ms: u64, default| match ms {
            0 => default,
            ms => Duration::from_millis(ms),
        };
        Ok(Self {
            backend: lookup.backend(&config.backend),
            host: config.host.as_str().into(),
            path: path.into(),
            timeout: or(config.timeout_ms, DEFAULT_TIMEOUT),
            ended: Notify::new(),
            fetching: AtomicBool::new(false),
            cache: or(config.cache_ms, DEFAULT_CACHE),
            pause: or(config.failed_refetch_ms, DEFAULT_PAUSE),
            fetched: ArcSwapOption::empty(),
            tried: Mutex::new(None),
        })
    }

    /// A set at an address that another answer has told.
    pub fn at(backend: Arc<Slot>, host: &str, path: &str, timeout: Duration) -> Self {
        Self {
            backend,
            host: host.into(),
            path: path.into(),
            timeout,
            ended: Notify::new(),
            fetching: AtomicBool::new(false),
            cache: DEFAULT_CACHE,
            pause: DEFAULT_PAUSE,
            fetched: ArcSwapOption::empty(),
            tried: Mutex::new(None),
        }
    }

    /// True if the other is the same set, fetched alike.
    pub fn is_fetched_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.backend, &other.backend)
            && (&self.host, &self.path) == (&other.host, &other.path)
            && (self.timeout, self.cache, self.pause) == (other.timeout, other.cache, other.pause)
    }

    /// The set, if it is young enough.
    pub fn fresh(&self) -> Option<Arc<KeySet>> {
        self.younger_than(self.cache)
    }

    /// The set, if it may still serve because its successor could not be had: for as long again.
    pub fn stale(&self) -> Option<Arc<KeySet>> {
        self.younger_than(self.cache.saturating_mul(2))
    }

    fn younger_than(&self, age: Duration) -> Option<Arc<KeySet>> {
        let fetched = self.fetched.load();
        let fetched = fetched.as_ref()?;
        (fetched.at.elapsed() < age).then(|| Arc::clone(&fetched.keys))
    }

    /// True if a set is needed and the last try is long enough ago for another.
    pub fn may_fetch(&self) -> bool {
        self.fresh().is_none() && self.last_try().is_none_or(|at| at.elapsed() >= self.pause)
    }

    /// True if the set may be fetched for the sake of a key that it does not hold.
    pub fn may_rotate(&self) -> bool {
        let pause = ROTATION_PAUSE.max(self.pause);
        self.last_try().is_none_or(|at| at.elapsed() >= pause)
    }

    /// Begins a fetch, if none is under way: one is enough for all who wait.
    pub fn begin(self: &Arc<Self>) -> Option<Fetching> {
        let free = self
            .fetching
            .compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire);
        free.ok().map(|_| Fetching(Arc::clone(self)))
    }

    /// Puts a set into use.
    pub fn store(&self, keys: KeySet) {
        self.fetched.store(Some(Arc::new(Fetched {
            keys: Arc::new(keys),
            at: Instant::now(),
        })));
    }

    /// The set, however old, unless it is `known`.
    pub fn other_than(&self, known: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        let fetched = self.fetched.load();
        let keys = &fetched.as_ref()?.keys;
        (!Arc::ptr_eq(keys, known)).then(|| Arc::clone(keys))
    }

    /// Notes that the set is asked for now.
    pub fn note_try(&self) {
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn last_try(&self) -> Option<Instant> {
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fetch that is under way. Its end is told however it ends.
pub struct Fetching(Arc<RemoteKeys>);

impl Fetching {
    /// What is fetched.
    pub fn keys(&self) -> &RemoteKeys {
        &self.0
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.fetching.store(false, Ordering::Release);
        self.0.ended.notify_waiters();
    }
}

impl std::fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteKeys")
            .field("host", &self.host)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
