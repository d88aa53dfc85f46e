//! Sealing: what a cookie or a `state` says can be neither read nor changed by whoever carries it.
//!
//! AES-256-GCM under a key of its own for each text, made by HKDF from the login's secret, the purpose of the text and a
//! random salt. So no nonce is ever used twice under one key, however many texts there are, and a text that was sealed
//! for one purpose opens for no other.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};

/// Shortest secret, in bytes.
const SECRET: usize = 32;
/// Bytes of the salt.
const SALT: usize = 16;

/// Seals and opens.
pub struct Sealer(Prk);

impl Sealer {
    /// From a secret, for one login. `None` if the secret is too short to be one.
    pub fn new(secret: &[u8], login: &str) -> Option<Self> {
        (secret.len() >= SECRET).then(|| Self(Salt::new(HKDF_SHA256, login.as_bytes()).extract(secret)))
    }

    /// From a secret that this process has made, and forgets at its end. `None` if there is no randomness.
    pub fn of_process(login: &str) -> Option<Self> {
        static KEY: OnceLock<Option<[u8; SECRET]>> = OnceLock::new();
        let key = KEY.get_or_init(random).as_ref()?;
        Self::new(key, login)
    }

    /// Seals a text. `None` if there is no randomness.
    pub fn seal(&self, purpose: &str, text: &[u8]) -> Option<String> {
        let salt: [u8; SALT] = random()?;
        let mut sealed = text.to_vec();
        self.key(purpose, &salt)?
            .seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed)
            .ok()?;
        let mut whole = salt.to_vec();
        whole.append(&mut sealed);
        Some(URL_SAFE_NO_PAD.encode(whole))
    }

    /// Opens what was sealed for this purpose.
    pub fn open(&self, purpose: &str, sealed: &str) -> Option<Vec<u8>> {
        let mut whole = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (salt, sealed) = whole.split_at_mut_checked(SALT)?;
        let salt: &[u8; SALT] = (&*salt).try_into().ok()?;
        let key = self.key(purpose, salt)?;
        let opened = key.open_in_place(nonce(), Aad::empty(), sealed).ok()?;
        Some(opened.to_vec())
    }

    fn key(&self, purpose: &str, salt: &[u8; SALT]) -> Option<LessSafeKey> {
        let info = [purpose.as_bytes(), &[0], salt];
        let key = self.0.expand(&info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    }
}

/// Each key seals one text.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Random bytes; `None` if the system has none.
pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sealed_so_opens() {
        let secret = [7; 32];
        let sealer = Sealer::new(&secret, "a").unwrap();
        let sealed = sealer.seal("session", b"text").unwrap();
        assert_ne!(sealed, sealer.seal("session", b"text").unwrap());
        assert_eq!(sealer.open("session", &sealed).as_deref(), Some(&b"text"[..]));
        assert_eq!(sealer.open("state", &sealed), None, "another purpose");
        let other = Sealer::new(&secret, "b").unwrap();
        assert_eq!(other.open("session", &sealed), None, "another login");
        let other = Sealer::new(&[8; 32], "a").unwrap();
        assert_eq!(other.open("session", &sealed), None, "another secret");
        for at in 0..sealed.len() - 1 {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(sealer.open("session", &changed), None, "changed at {at}");
        }
        for broken in ["", "A", "!", &sealed[..20], &sealed[..sealed.len() - 4]] {
            assert_eq!(sealer.open("session", broken), None, "{broken}");
        }
        assert!(Sealer::new(&[7; 31], "a").is_none());
    }
}
