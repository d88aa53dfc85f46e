//! A login under way: what binds it to the browser that began it, and the addresses that the browser is sent to.
//!
//! The browser holds a random seed in a cookie. All that one login needs comes from that seed and the login's own
//! identifier: the mark in its `state`, its `nonce`, its PKCE verifier (RFC 7636). So several logins of one browser do
//! not disturb each other, and `state`, which is sealed, holds nothing that would be of use to another browser.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::{digest, hmac};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::cookies::{Cookies, Holds};
use super::seal::{Sealer, random};
use super::session::now;

/// RFC 3986 section 2.3.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// Longest path and query that is come back to; beyond it the query is forgotten.
const MAX_TARGET: usize = 2000;

/// What a browser holds while it logs in.
#[derive(Clone, Serialize, Deserialize)]
pub struct Seed {
    #[serde(rename = "s")]
    secret: String,
    #[serde(rename = "e")]
    expires: u64,
}

/// What `state` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    #[serde(rename = "f")]
    flow: String,
    #[serde(rename = "m")]
    mark: String,
    #[serde(rename = "e")]
    expires: u64,
    /// Scheme and authority that were asked for.
    #[serde(rename = "o")]
    pub origin: String,
    /// Path and query that were asked for.
    #[serde(rename = "p")]
    pub target: String,
}

impl Seed {
    /// The seed that a request carries.
    pub fn read(sealer: &Sealer, cookies: &Cookies, headers: &HeaderMap) -> Option<Self> {
        let sealed = cookies.read(headers, Holds::Login)?;
        let seed: Self = serde_json::from_slice(&sealer.open("login", &sealed)?).ok()?;
        (now() < seed.expires).then_some(seed)
    }

    /// A new one.
    pub fn new() -> Option<Self> {
        Some(Self {
            secret: URL_SAFE_NO_PAD.encode(random::<32>()?),
            expires: 0,
        })
    }

    /// Gives it to the browser, for so many seconds from now.
    pub fn write(
        mut self,
        sealer: &Sealer,
        cookies: &Cookies,
        request: &HeaderMap,
        seconds: u64,
        into: &mut Vec<(HeaderName, HeaderValue)>,
    ) -> Option<()> {
        self.expires = now().saturating_add(seconds);
        let sealed = sealer.seal("login", &serde_json::to_vec(&self).ok()?)?;
        cookies.set(request, Holds::Login, &sealed, seconds, into)
    }

    fn derive(&self, what: &str, flow: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        let tag = hmac::sign(&key, format!("{what} {flow}").as_bytes());
        URL_SAFE_NO_PAD.encode(tag)
    }

    /// Begins a login that is to end at this address.
    pub fn begin(&self, origin: String, target: &str, seconds: u64) -> Option<State> {
        let flow = URL_SAFE_NO_PAD.encode(random::<16>()?);
        let target = if target.len() <= MAX_TARGET {
            target
        } else {
            let path = target.split('?').next().unwrap_or_default();
            if path.len() <= MAX_TARGET { path } else { "/" }
        };
        Some(State {
            mark: self.derive("state", &flow),
            flow,
            expires: now().saturating_add(seconds),
            origin,
            target: target.to_owned(),
        })
    }

    /// True if this browser began the login.
    pub fn began(&self, state: &State) -> bool {
        let mark = self.derive("state", &state.flow);
        mark.as_bytes().ct_eq(state.mark.as_bytes()).into()
    }

    /// What the ID token has to repeat.
    pub fn nonce(&self, state: &State) -> String {
        self.derive("nonce", &state.flow)
    }

    /// What proves to the provider that the code is spent by who asked for it.
    pub fn verifier(&self, state: &State) -> String {
        self.derive("verifier", &state.flow)
    }

    /// What the provider is told of the verifier.
    pub fn challenge(&self, state: &State) -> String {
        let verifier = self.verifier(state);
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
    }
}

impl State {
    /// As the provider gets it.
    pub fn seal(&self, sealer: &Sealer) -> Option<String> {
        sealer.seal("state", &serde_json::to_vec(self).ok()?)
    }

    /// As the provider gives it back. None but this proxy's own can be opened.
    pub fn open(sealer: &Sealer, sealed: &str) -> Option<Self> {
        serde_json::from_slice(&sealer.open("state", sealed)?).ok()
    }

    /// True if the login has taken too long.
    pub fn is_over(&self) -> bool {
        now() >= self.expires
    }
}

/// An address with parameters added to those that it has.
pub fn with_parameters(address: &str, parameters: &[(&str, &str)]) -> String {
    let mut whole = address.split('#').next().unwrap_or_default().to_owned();
    let mut separator = if whole.contains('?') { '&' } else { '?' };
    for (name, value) in parameters {
        whole.push(separator);
        whole.push_str(name);
        whole.push('=');
        whole.extend(utf8_percent_encode(value, UNRESERVED));
        separator = '&';
    }
    whole
}

/// Parameters as a form sends them.
pub fn form(parameters: &[(&str, &str)]) -> String {
    let whole = with_parameters("", parameters);
    whole.trim_start_matches('?').to_owned()
}

/// A text as a form sends it.
pub fn form_encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use sluice_config::v1;

    use super::*;

    #[test]
    fn a_login_is_bound_to_its_browser() {
        let sealer = Sealer::new(&[1; 32], "x").unwrap();
        let (alice, mallory) = (Seed::new().unwrap(), Seed::new().unwrap());
        let state = alice.begin("https://a.example".into(), "/p?q=1", 60).unwrap();
        let other = alice.begin("https://a.example".into(), "/p?q=1", 60).unwrap();
        let opened = State::open(&sealer, &state.seal(&sealer).unwrap()).unwrap();
        assert_eq!(opened, state);
        assert!(alice.began(&opened) && !mallory.began(&opened) && !opened.is_over());
        assert_ne!(alice.nonce(&state), alice.nonce(&other));
        assert_ne!(alice.verifier(&state), alice.nonce(&state));
        assert_eq!(alice.verifier(&state).len(), 43, "RFC 7636 section 4.1");
        assert!(alice.begin(String::new(), "/", 0).unwrap().is_over());
        let sealed = state.seal(&sealer).unwrap();
        assert_eq!(State::open(&sealer, &sealed[1..]), None);
    }

    #[test]
    fn a_seed_is_kept_for_a_time() {
        let sealer = Sealer::new(&[1; 32], "x").unwrap();
        let cookies = Cookies::compile(&v1::OidcCookies::default(), "x").unwrap();
        for (seconds, stays) in [(60, true), (0, false)] {
            let seed = Seed::new().unwrap();
            let secret = seed.secret.clone();
            let mut set = Vec::new();
            seed.write(&sealer, &cookies, &HeaderMap::new(), seconds, &mut set)
                .unwrap();
            let pair = set[0].1.to_str().unwrap().split(';').next().unwrap();
            assert!(!pair.contains(&secret));
            let mut headers = HeaderMap::new();
            headers.insert(http::header::COOKIE, pair.parse().unwrap());
            let read = Seed::read(&sealer, &cookies, &headers);
            assert_eq!(read.map(|seed| seed.secret), stays.then_some(secret));
        }
    }

    #[test]
    fn long_targets_are_shortened() {
        let seed = Seed::new().unwrap();
        let target = |target: &str| seed.begin(String::new(), target, 1).unwrap().target;
        assert_eq!(target(&format!("/a?{}", "q".repeat(MAX_TARGET))), "/a");
        assert_eq!(target(&format!("/{}", "a".repeat(MAX_TARGET))), "/");
    }

    #[test]
    fn parameters_are_escaped() {
        let address = with_parameters(
            "https://op.example/auth?x=1#y",
            &[("a", "b c&d"), ("e", "\u{e4}")],
        );
        assert_eq!(address, "https://op.example/auth?x=1&a=b%20c%26d&e=%C3%A4");
        assert_eq!(form(&[("a", "1"), ("b", "+")]), "a=1&b=%2B");
    }
}
