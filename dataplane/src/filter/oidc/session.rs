//! A session: what its cookies say, and which tokens belong to it.
//!
//! The record is sealed and holds digests of the tokens, so cookies of two sessions cannot be mixed, and tokens that are
//! not sealed cannot be exchanged. There is no other memory of a session anywhere.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use ring::digest;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::cookies::{Cookies, Holds};
use super::seal::Sealer;

const PURPOSE: &str = "session";

/// What is known of a session. All times are seconds since the epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    #[serde(rename = "i")]
    issued: u64,
    /// When the access token ends.
    #[serde(rename = "e")]
    expires: u64,
    /// When nothing can prolong the session any more.
    #[serde(rename = "x")]
    ends: u64,
    /// Digest of the user's identifier at the provider.
    #[serde(rename = "u")]
    subject: String,
    /// Digests of access, ID and refresh token.
    #[serde(rename = "t")]
    tokens: [String; 3],
}

/// The tokens of a session.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TokenSet {
    /// Access token.
    pub access: String,
    /// ID token.
    pub id: String,
    /// Refresh token; empty: none.
    pub refresh: String,
}

impl std::fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenSet([redacted])")
    }
}

impl Record {
    /// A session that begins, or goes on, now: the access token is good for `seconds`, the refresh token, if there is
    /// one, for `refresh_seconds`.
    pub fn new(tokens: &TokenSet, subject: &str, seconds: u64, refresh_seconds: u64) -> Self {
        let now = now();
        let expires = now.saturating_add(seconds);
        let ends = if tokens.refresh.is_empty() {
            expires
        } else {
            expires.max(now.saturating_add(refresh_seconds))
        };
        Self {
            issued: now,
            expires,
            ends,
            subject: hash(subject),
            tokens: [&tokens.access, &tokens.id, &tokens.refresh].map(|token| hash(token)),
        }
    }

    /// The same user's session with new tokens.
    #[must_use]
    pub fn prolonged(&self, tokens: &TokenSet, seconds: u64, refresh_seconds: u64) -> Self {
        Self {
            subject: self.subject.clone(),
            ..Self::new(tokens, "", seconds, refresh_seconds)
        }
    }

    /// Reads the session that a request carries. One that is over is none.
    pub fn read(sealer: &Sealer, cookies: &Cookies, headers: &HeaderMap) -> Option<Self> {
        let sealed = cookies.read(headers, Holds::Session)?;
        let record: Self = serde_json::from_slice(&sealer.open(PURPOSE, &sealed)?).ok()?;
        (now() < record.ends).then_some(record)
    }

    /// Writes it, with its tokens. `None`: a token is too long for cookies.
    pub fn write(
        &self,
        sealer: &Sealer,
        cookies: &Cookies,
        request: &HeaderMap,
        tokens: &TokenSet,
        into: &mut Vec<(HeaderName, HeaderValue)>,
    ) -> Option<()> {
        let seconds = self.ends.saturating_sub(now());
        let record = serde_json::to_vec(self).ok()?;
        let record = sealer.seal(PURPOSE, &record)?;
        cookies.set(request, Holds::Session, &record, seconds, into)?;
        for (holds, token) in [(Holds::Access, &tokens.access), (Holds::Id, &tokens.id)] {
            if !cookies.plain || cookies.set(request, holds, token, seconds, into).is_none() {
                let sealed = sealer.seal(purpose(holds), token.as_bytes())?;
                cookies.set(request, holds, &sealed, seconds, into)?;
            }
        }
        if tokens.refresh.is_empty() {
            cookies.clear_from(request, Holds::Refresh, 0, into);
            return Some(());
        }
        let sealed = sealer.seal(purpose(Holds::Refresh), tokens.refresh.as_bytes())?;
        cookies.set(request, Holds::Refresh, &sealed, seconds, into)
    }

    /// A token of this session that a request carries.
    pub fn token(
        &self,
        sealer: &Sealer,
        cookies: &Cookies,
        headers: &HeaderMap,
        holds: Holds,
    ) -> Option<String> {
        let wanted = match holds {
            Holds::Access => &self.tokens[0],
            Holds::Id => &self.tokens[1],
            Holds::Refresh => &self.tokens[2],
            Holds::Session | Holds::Login => return None,
        };
        let is_wanted = |token: &str| bool::from(hash(token).as_bytes().ct_eq(wanted.as_bytes()));
        let carried = cookies.read(headers, holds)?;
        // It may have been written under other settings.
        if holds != Holds::Refresh && is_wanted(&carried) {
            return Some(carried);
        }
        let opened = sealer.open(purpose(holds), &carried)?;
        String::from_utf8(opened).ok().filter(|token| is_wanted(token))
    }

    /// True if the access token is good now. It counts as ended a little early, so that it is good for the backend too.
    pub fn is_current(&self) -> bool {
        let margin = (self.expires.saturating_sub(self.issued) / 10).min(30);
        now() < self.expires.saturating_sub(margin)
    }

    /// True if the access token has not ended, be it about to.
    pub fn is_valid(&self) -> bool {
        now() < self.expires
    }

    /// True if it is this user's.
    pub fn is_of(&self, subject: &str) -> bool {
        hash(subject).as_bytes().ct_eq(self.subject.as_bytes()).into()
    }
}

fn purpose(holds: Holds) -> &'static str {
    match holds {
        Holds::Session => PURPOSE,
        Holds::Access => "access",
        Holds::Id => "id",
        Holds::Refresh => "refresh",
        Holds::Login => "login",
    }
}

/// SHA-256, as text.
pub fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;
    use sluice_config::v1;

    use super::*;

    fn tokens(name: &str) -> TokenSet {
        TokenSet {
            access: format!("{name}-access"),
            id: format!("{name}.id.token"),
            refresh: format!("{name}-refresh"),
        }
    }

    fn carried(set: &[(HeaderName, HeaderValue)]) -> Vec<String> {
        let pairs = set.iter().map(|(_, value)| value.to_str().unwrap());
        pairs
            .map(|set| set.split(';').next().unwrap().to_owned())
            .collect()
    }

    fn request(pairs: &[String]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, pairs.join("; ").parse().unwrap());
        headers
    }

    #[test]
    fn a_session_comes_back_whole_and_unmixed() {
        let sealer = Sealer::new(&[1; 32], "x").unwrap();
        for plain in [false, true] {
            let config = v1::OidcCookies {
                plain,
                ..Default::default()
            };
            let cookies = Cookies::compile(&config, "x").unwrap();
            let write = |name: &str| {
                let record = Record::new(&tokens(name), name, 60, 600);
                let mut set = Vec::new();
                record
                    .write(&sealer, &cookies, &HeaderMap::new(), &tokens(name), &mut set)
                    .unwrap();
                carried(&set)
            };
            let (alice, bob) = (write("alice"), write("bob"));
            assert_eq!(alice.iter().any(|pair| pair.ends_with("=alice-access")), plain);
            assert!(!alice.iter().any(|pair| pair.contains("alice-refresh")));
            let read = |pairs: &[String]| {
                let headers = request(pairs);
                let record = Record::read(&sealer, &cookies, &headers).unwrap();
                let token = |holds| record.token(&sealer, &cookies, &headers, holds);
                let all = [Holds::Access, Holds::Id, Holds::Refresh].map(token);
                (record, all)
            };
            let (record, all) = read(&alice);
            assert!(record.is_current() && record.is_of("alice") && !record.is_of("bob"));
            let expected = tokens("alice");
            assert_eq!(all, [expected.access, expected.id, expected.refresh].map(Some));
            let mixed = [&alice[..1], &bob[1..]].concat();
            assert_eq!(read(&mixed).1, [None, None, None], "tokens of another session");
        }
    }

    #[test]
    fn sessions_end() {
        let sealer = Sealer::new(&[1; 32], "x").unwrap();
        let cookies = Cookies::compile(&v1::OidcCookies::default(), "x").unwrap();
        let read = |record: &Record| {
            let mut set = Vec::new();
            record
                .write(&sealer, &cookies, &HeaderMap::new(), &tokens("a"), &mut set)
                .unwrap();
            Record::read(&sealer, &cookies, &request(&carried(&set)))
        };
        let over = Record::new(&TokenSet::default(), "a", 0, 600);
        assert_eq!(read(&over), None, "nothing prolongs it");
        let stale = read(&Record::new(&tokens("a"), "a", 0, 600)).unwrap();
        assert!(!stale.is_current() && !stale.is_valid());
        let mut ending = Record::new(&tokens("a"), "a", 100, 600);
        ending.issued -= 95;
        ending.expires -= 95;
        let ending = read(&ending).unwrap();
        assert!(!ending.is_current() && ending.is_valid(), "about to end");
    }
}
