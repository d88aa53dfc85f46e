//! The provider: where its endpoints are, what its answers say, and what of them is shared by all rules and workers.
//!
//! Owns what outlives a version of the configuration: the provider's metadata, its keys, refreshes under way. Asking is
//! the forwarder's business.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures::future::{BoxFuture, Shared};
use http::{HeaderValue, Uri};
use serde::Deserialize;
use sluice_config::v1;

use super::session::TokenSet;
use crate::filter::Lookup;
use crate::filter::jwt::keys::RemoteKeys;
use crate::upstream::Slot;
use crate::upstream::outside::{Outside, Reached};

/// Where metadata is, beneath the issuer (OpenID Connect Discovery 1.0 section 4).
const METADATA: &str = "/.well-known/openid-configuration";
/// How long metadata is used before it is fetched anew.
const FRESH: Duration = Duration::from_hours(1);
/// How long it may take for an answer if the configuration does not say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed fetch of metadata.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the outcome of a refresh serves requests that come with the old refresh token: those that the browser had
/// sent before it got the new one.
const AFTERGLOW: Duration = Duration::from_secs(30);
/// Most refreshes that are remembered.
const REFRESHES: usize = 10_000;

/// Why there is no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The provider says no, or what it says is not to be believed.
    Refused,
    /// The provider cannot be asked.
    Unavailable,
    /// The proxy lacks a secret.
    Unready,
}

/// Tokens that were given anew, with the user's identifier if it was told, and for how many seconds.
#[derive(Clone)]
pub struct Granted {
    /// The tokens.
    pub tokens: TokenSet,
    /// The user's identifier at the provider; `None`: there was no new ID token.
    pub subject: Option<String>,
    /// Seconds for which the access token is good.
    pub seconds: u64,
}

/// A refresh that several requests may wait for.
pub type Refreshing = Shared<BoxFuture<'static, Result<Arc<Granted>, Fault>>>;

/// Something of the provider's that can be asked.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where.
    pub slot: Arc<Slot>,
    /// For the Host header.
    pub host: HeaderValue,
    /// Path and query.
    pub path: Box<str>,
    /// The host, if no resource names it.
    pub reached: Option<Arc<Reached>>,
}

/// What metadata and configuration say together.
#[derive(Debug)]
pub struct Endpoints {
    /// Where browsers are sent to log in.
    pub authorization: String,
    /// Where codes are spent.
    pub token: Target,
    /// Where browsers are sent to log out.
    pub end_session: Option<String>,
    /// The keys of ID tokens.
    pub keys: Arc<RemoteKeys>,
    /// The host of the keys.
    pub keys_host: Option<Arc<Reached>>,
    /// True: the client shows its secret as a password (RFC 6749 section 2.3.1) rather than in the form.
    pub basic: bool,
}

struct Known {
    endpoints: Arc<Endpoints>,
    from: Metadata,
    at: Instant,
}

/// The part of the metadata that is needed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Metadata {
    issuer: String,
    #[serde(default)]
    authorization_endpoint: String,
    #[serde(default)]
    token_endpoint: String,
    #[serde(default)]
    end_session_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
}

/// A provider.
pub struct Provider {
    /// As it names itself.
    pub issuer: Box<str>,
    /// How long it may take for an answer.
    pub timeout: Duration,
    /// Held while metadata is fetched; when that failed last.
    pub fetching: tokio::sync::Mutex<Option<Instant>>,
    config: v1::OidcProvider,
    backend: Option<Arc<Slot>>,
    outside: Outside,
    hosts: Mutex<HashMap<String, Arc<Reached>>>,
    known: ArcSwapOption<Known>,
    refreshes: Mutex<HashMap<String, (Instant, Refreshing)>>,
    down: AtomicBool,
}

impl Provider {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn new(config: &v1::OidcProvider, lookup: &mut dyn Lookup) -> Result<Self, String> {
        for (field, url) in [
            ("issuer", &config.issuer),
            ("authorization_endpoint", &config.authorization_endpoint),
            ("token_endpoint", &config.token_endpoint),
            ("end_session_endpoint", &config.end_session_endpoint),
        ] {
            if field == "issuer" || !url.is_empty() {
                parts(url).map_err(|e| format!("{field}: {e}"))?;
            }
        }
        Ok(Self {
            issuer: config.issuer.as_str().into(),
            timeout: match config.timeout_ms {
                0 => TIMEOUT,
                ms => Duration::from_millis(ms),
            },
            fetching: tokio::sync::Mutex::default(),
            backend: (!config.backend.is_empty()).then(|| lookup.backend(&config.backend)),
            config: config.clone(),
            outside: lookup.outside(),
            hosts: Mutex::default(),
            known: ArcSwapOption::empty(),
            refreshes: Mutex::default(),
            down: AtomicBool::new(false),
        })
    }

    /// True if the other is the same provider, reached alike.
    pub fn is_same(&self, other: &Self) -> bool {
        self.config == other.config
    }

    /// Where its metadata is.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn metadata(&self) -> Result<Target, String> {
        self.target(&format!("{}{METADATA}", self.issuer.trim_end_matches('/')))
    }

    /// The endpoints, if they have been learnt lately.
    pub fn fresh(&self) -> Option<Arc<Endpoints>> {
        let known = self.known.load();
        let known = known.as_ref()?;
        (known.at.elapsed() < FRESH).then(|| Arc::clone(&known.endpoints))
    }

    /// The endpoints as they were known last.
    pub fn stale(&self) -> Option<Arc<Endpoints>> {
        self.known
            .load()
            .as_ref()
            .map(|known| Arc::clone(&known.endpoints))
    }

    /// True if a fetch that failed then has to be waited for before the next.
    pub fn rests(failed: Option<Instant>) -> bool {
        failed.is_some_and(|at| at.elapsed() < PAUSE)
    }

    /// Takes metadata in.
    ///
    /// # Errors
    /// If it is none, or another's.
    pub fn learn(&self, json: &[u8]) -> Result<Arc<Endpoints>, String> {
        let from: Metadata = serde_json::from_slice(json).map_err(|e| format!("no metadata: {e}"))?;
        if from.issuer.trim_end_matches('/') != self.issuer.trim_end_matches('/') {
            return Err(format!("it is the metadata of {:?}", from.issuer));
        }
        let held = self.known.load();
        let endpoints = match &*held {
            Some(known) if known.from == from => Arc::clone(&known.endpoints),
            _ => Arc::new(self.endpoints(&from)?),
        };
        self.known.store(Some(Arc::new(Known {
            endpoints: Arc::clone(&endpoints),
            from,
            at: Instant::now(),
        })));
        Ok(endpoints)
    }

    fn endpoints(&self, from: &Metadata) -> Result<Endpoints, String> {
        let either = |field: &str, configured: &String, told: &String| {
            if !configured.is_empty() {
                return Ok(configured.clone());
            }
            self.check_told(field, told).map(|()| told.clone())
        };
        let config = &self.config;
        let authorization = either(
            "authorization_endpoint",
            &config.authorization_endpoint,
            &from.authorization_endpoint,
        )?;
        let token = either("token_endpoint", &config.token_endpoint, &from.token_endpoint)?;
        let end_session = either(
            "end_session_endpoint",
            &config.end_session_endpoint,
            &from.end_session_endpoint,
        );
        self.check_told("jwks_uri", &from.jwks_uri)?;
        let keys = self.target(&from.jwks_uri)?;
        let methods = &from.token_endpoint_auth_methods_supported;
        let takes = |method: &str| methods.iter().any(|known| known == method);
        Ok(Endpoints {
            authorization,
            token: self.target(&token)?,
            end_session: end_session.ok(),
            keys: Arc::new(RemoteKeys::at(
                Arc::clone(&keys.slot),
                keys.host.to_str().unwrap_or_default(),
                &keys.path,
                self.timeout,
            )),
            keys_host: keys.reached,
            basic: takes("client_secret_basic") && !takes("client_secret_post"),
        })
    }

    /// A provider that speaks TLS does not send anybody where nobody does.
    fn check_told(&self, field: &str, url: &str) -> Result<(), String> {
        let (https, ..) = parts(url).map_err(|e| format!("{field}: {e}"))?;
        if !https && self.issuer.starts_with("https:") {
            return Err(format!("{field}: {url:?} is not https"));
        }
        Ok(())
    }

    fn target(&self, url: &str) -> Result<Target, String> {
        let (https, host, port, path) = parts(url)?;
        let authority = url.parse::<Uri>().ok().and_then(|uri| uri.authority().cloned());
        let authority = authority.ok_or("no host")?;
        let (slot, reached) = if let Some(backend) = &self.backend {
            (Arc::clone(backend), None)
        } else {
            let reached = self.reach(&host, port, https)?;
            (Arc::clone(&reached.slot), Some(reached))
        };
        Ok(Target {
            slot,
            host: HeaderValue::from_str(authority.as_str()).map_err(|e| e.to_string())?,
            path: path.into(),
            reached,
        })
    }

    fn reach(&self, host: &str, port: u16, https: bool) -> Result<Arc<Reached>, String> {
        let key = format!("{https} {host}:{port}");
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reached) = hosts.get(&key) {
            return Ok(Arc::clone(reached));
        }
        let reached = Arc::new(self.outside.reach(host, port, https)?);
        hosts.insert(key, Arc::clone(&reached));
        Ok(reached)
    }

    /// The refresh with this refresh token, given by its digest: the one that is under way or has just ended, or `begin`.
    pub fn refresh(&self, digest: &str, begin: impl FnOnce() -> Refreshing) -> Refreshing {
        let mut held = self.refreshes.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, (at, _)| at.elapsed() < AFTERGLOW);
        if let Some((_, refreshing)) = held.get(digest) {
            return refreshing.clone();
        }
        let refreshing = begin();
        if held.len() < REFRESHES {
            held.insert(digest.to_owned(), (Instant::now(), refreshing.clone()));
        }
        refreshing
    }

    /// Forgets a refresh that the provider has not decided: the token may still be good.
    pub fn forget_refresh(&self, digest: &str) {
        self.refreshes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(digest);
    }

    /// Notes that it answers.
    pub fn note_up(&self) {
        if self.down.swap(false, Ordering::Relaxed) {
            tracing::info!(issuer = %self.issuer, "identity provider answers again");
        }
    }

    /// Notes that it does not answer: once in the log, until it answers again.
    pub fn note_down(&self, reason: &str) {
        if !self.down.swap(true, Ordering::Relaxed) {
            tracing::warn!(issuer = %self.issuer, reason, "identity provider cannot be asked");
        }
    }
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// Whether a URL is of HTTPS, its host, port, and path with query.
fn parts(url: &str) -> Result<(bool, String, u16, String), String> {
    let none = || format!("{url:?} is not a URL of HTTP");
    let uri: Uri = url.parse().map_err(|_| none())?;
    let https = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(none()),
    };
    let authority = uri
        .authority()
        .filter(|authority| !authority.as_str().contains('@'));
    let authority = authority.ok_or_else(none)?;
    let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((https, authority.host().to_owned(), port, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::super::tests::Nothing;
    use super::*;

    fn provider(change: impl FnOnce(&mut v1::OidcProvider)) -> Provider {
        let mut config = v1::OidcProvider {
            issuer: "https://op.example/realm".into(),
            backend: "backend/op".into(),
            ..Default::default()
        };
        change(&mut config);
        Provider::new(&config, &mut Nothing::default()).unwrap()
    }

    fn metadata(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut json = serde_json::json!({
            "issuer": "https://op.example/realm/",
            "authorization_endpoint": "https://op.example/auth",
            "token_endpoint": "https://op.example:8443/token?x=1",
            "jwks_uri": "https://op.example/jwks",
        });
        change(&mut json);
        serde_json::to_vec(&json).unwrap()
    }

    #[test]
    fn metadata_fills_in_what_is_not_configured() {
        let provider = provider(|config| config.authorization_endpoint = "https://other.example/a".into());
        assert!(provider.fresh().is_none());
        assert_eq!(
            &*provider.metadata().unwrap().path,
            "/realm/.well-known/openid-configuration"
        );
        let endpoints = provider.learn(&metadata(|_| {})).unwrap();
        assert_eq!(endpoints.authorization, "https://other.example/a");
        assert_eq!(endpoints.token.host, "op.example:8443");
        assert_eq!(&*endpoints.token.path, "/token?x=1");
        assert!(endpoints.end_session.is_none() && !endpoints.basic);
        let same = provider.learn(&metadata(|_| {})).unwrap();
        assert!(Arc::ptr_eq(&same.keys, &endpoints.keys), "keys stay");
        let basic = metadata(|json| {
            json["token_endpoint_auth_methods_supported"] = serde_json::json!(["client_secret_basic"]);
        });
        assert!(provider.learn(&basic).unwrap().basic);
    }

    #[test]
    fn foreign_and_downgraded_metadata_is_refused() {
        let provider = provider(|_| {});
        for (field, value) in [
            ("issuer", "https://evil.example"),
            ("token_endpoint", "http://op.example/token"),
            ("token_endpoint", "https://user@op.example/token"),
            ("jwks_uri", "file:///etc/passwd"),
            ("authorization_endpoint", "javascript:alert(1)"),
        ] {
            let json = metadata(|json| json[field] = value.into());
            assert!(provider.learn(&json).is_err(), "{field}: {value}");
        }
        assert!(provider.learn(b"{}").is_err());
        assert!(provider.stale().is_none());
    }
}
