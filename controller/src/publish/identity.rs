//! Who a proxy is: the service account that its projected token proves.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};

/// Audience of the tokens that proxies present.
pub const AUDIENCE: &str = "sluice-controller";
/// How long an answer of the API server is believed.
const CACHED: Duration = Duration::from_mins(1);
const CACHE_ENTRIES: usize = 4096;

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
}

/// Why a caller is not known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuthError {
    /// The token is not valid.
    #[error("token not accepted: {0}")]
    Refused(String),
    /// The token could not be checked; the caller may try again.
    #[error("token cannot be checked now: {0}")]
    Unavailable(String),
}

type Answer = Result<Identity, AuthError>;

/// Verifies bearer tokens.
pub trait Authenticator: Send + Sync + 'static {
    /// Whose token it is.
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>>;
}

/// Asks the API server (`TokenReview`), and remembers answers for a minute.
pub struct TokenReviewer {
    api: Api<TokenReview>,
    /// By digest of the token: when it was asked, and the answer.
    cache: Mutex<HashMap<[u8; 32], (Instant, Answer)>>,
}

impl TokenReviewer {
    /// A reviewer that asks by this client.
    pub fn new(client: Client) -> Self {
        Self {
            api: Api::all(client),
            cache: Mutex::default(),
        }
    }

    async fn review(&self, token: &str) -> Result<Identity, AuthError> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.cached(&digest) {
            return known;
        }
        let spec = TokenReviewSpec {
            audiences: Some(vec![AUDIENCE.to_owned()]),
            token: token.to_owned(),
        };
        let review = TokenReview {
            spec,
            ..Default::default()
        };
        let answer = self.api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| AuthError::Unavailable(error.to_string()))?;
        let result = identity(&answer.status.unwrap_or_default());
        self.remember(digest, result.clone());
        result
    }

    fn cached(&self, digest: &[u8; 32]) -> Option<Answer> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache
            .get(digest)
            .filter(|(at, _)| at.elapsed() < CACHED)
            .map(|(_, result)| result.clone())
    }

    fn remember(&self, digest: [u8; 32], result: Answer) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_ENTRIES {
            cache.retain(|_, (at, _)| at.elapsed() < CACHED);
        }
        if cache.len() < CACHE_ENTRIES {
            cache.insert(digest, (Instant::now(), result));
        }
    }
}

impl Authenticator for TokenReviewer {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>> {
        Box::pin(self.review(token))
    }
}

fn identity(status: &TokenReviewStatus) -> Result<Identity, AuthError> {
    if status.authenticated != Some(true) {
        let reason = status
            .error
            .clone()
            .unwrap_or_else(|| "not authenticated".to_owned());
        return Err(AuthError::Refused(reason));
    }
    // A server that ignores audiences must not make a token for another service valid here.
    if !status
        .audiences
        .iter()
        .flatten()
        .any(|audience| audience == AUDIENCE)
    {
        return Err(AuthError::Refused(format!(
            "token is not for audience {AUDIENCE}"
        )));
    }
    let user = status
        .user
        .as_ref()
        .and_then(|user| user.username.as_deref())
        .unwrap_or_default();
    let account = user
        .strip_prefix("system:serviceaccount:")
        .and_then(|account| account.split_once(':'));
    let (namespace, name) =
        account.ok_or_else(|| AuthError::Refused(format!("{user:?} is no service account")))?;
    Ok(Identity {
        namespace: namespace.to_owned(),
        service_account: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn status(user: &str, audience: &str) -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![audience.to_owned()]),
            user: Some(UserInfo {
                username: Some(user.to_owned()),
                ..Default::default()
            }),
            error: None,
        }
    }

    #[test]
    fn a_service_account_with_our_audience_is_known() {
        let known = identity(&status("system:serviceaccount:ns:gw-sluice", AUDIENCE)).unwrap();
        assert_eq!(
            known,
            Identity {
                namespace: "ns".into(),
                service_account: "gw-sluice".into()
            }
        );
    }

    #[test]
    fn everybody_else_is_refused() {
        for status in [
            status("system:serviceaccount:ns:gw-sluice", "other"),
            status("alice", AUDIENCE),
            TokenReviewStatus {
                authenticated: Some(false),
                ..status("system:serviceaccount:a:b", AUDIENCE)
            },
        ] {
            assert!(
                matches!(identity(&status), Err(AuthError::Refused(_))),
                "{status:?}"
            );
        }
    }
}
