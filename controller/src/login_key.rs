//! The secret that cookies of logins are sealed with: made once, for all replicas and all proxies.
//!
//! It lives in a Secret beside the controller. Proxies never get it: each login's key is made from it, so that the
//! proxies of one Gateway can neither read nor make sessions of another's.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// Secret of the key, in the controller's namespace.
const SECRET: &str = "sluice-oidc-hmac";
/// The entry with the key.
const ENTRY: &str = "hmac-secret";
/// Bytes of the key.
const LENGTH: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum LoginKeyError {
    /// The Secret could not be read or written.
    #[error("Secret {SECRET}: {0}")]
    Api(#[from] kube::Error),
    /// The Secret holds no key.
    #[error("Secret {SECRET}: it has no key {ENTRY} of at least {LENGTH} bytes")]
    Invalid,
    /// The system has no randomness.
    #[error("there is no randomness to make a key of")]
    Random,
}

impl LoginKeyError {
    /// True if trying again is of no use.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Api(kube::Error::Api(status)) => matches!(status.code, 401 | 403),
            Self::Api(_) => false,
            Self::Invalid | Self::Random => true,
        }
    }
}

/// The key that those of logins are made from.
#[derive(Clone)]
pub struct LoginKey(Arc<hmac::Key>);

impl LoginKey {
    /// From its bytes; `None` if there are too few.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= LENGTH).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, bytes).into()))
    }

    /// Reads the Secret, or makes it if there is none.
    ///
    /// # Errors
    /// If it can be neither read nor made, or holds something else.
    pub async fn open(client: Client, namespace: &str) -> Result<Self, LoginKeyError> {
        let api: Api<Secret> = Api::namespaced(client, namespace);
        if let Some(secret) = api.get_opt(SECRET).await? {
            return Self::from_secret(&secret);
        }
        let mut bytes = vec![0; LENGTH];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| LoginKeyError::Random)?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some([(ENTRY.to_owned(), ByteString(bytes))].into()),
            ..Secret::default()
        };
        match api.create(&PostParams::default(), &secret).await {
            Ok(_) => Self::from_secret(&secret),
            // Another replica was faster; its key is everybody's.
            Err(kube::Error::Api(status)) if status.code == 409 => Self::from_secret(&api.get(SECRET).await?),
            Err(error) => Err(error.into()),
        }
    }

    fn from_secret(secret: &Secret) -> Result<Self, LoginKeyError> {
        let bytes = secret.data.as_ref().and_then(|data| data.get(ENTRY));
        bytes
            .and_then(|bytes| Self::new(&bytes.0))
            .ok_or(LoginKeyError::Invalid)
    }

    /// The key of one login.
    pub fn of(&self, login: &str) -> Vec<u8> {
        hmac::sign(&self.0, login.as_bytes()).as_ref().to_vec()
    }
}

impl fmt::Debug for LoginKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_login_has_a_key_of_its_own() {
        let key = LoginKey::new(&[1; LENGTH]).unwrap();
        assert_eq!(key.of("a"), key.of("a"));
        assert_ne!(key.of("a"), key.of("b"));
        assert_ne!(key.of("a"), LoginKey::new(&[2; LENGTH]).unwrap().of("a"));
        assert_eq!(key.of("a").len(), LENGTH);
        assert!(LoginKey::new(&[1; LENGTH - 1]).is_none());
        let empty = Secret::default();
        assert!(matches!(
            LoginKey::from_secret(&empty),
            Err(LoginKeyError::Invalid)
        ));
    }
}
