//! Versions, cipher suites, key exchange and application protocols, as a resource asks for them.
//!
//! Owns the choice among what the cryptography provider has; it never adds anything to that.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, NamedGroup, SupportedProtocolVersion};
use sluice_config::v1;

use super::material::provider;

/// What is left of the provider, and the versions that are spoken.
pub type Chosen = (Arc<CryptoProvider>, Vec<&'static SupportedProtocolVersion>);

/// Chooses as the resource asks.
///
/// # Errors
/// Names the field that leaves nothing to choose from.
pub fn choose(config: Option<&v1::TlsParameters>) -> Result<Chosen, String> {
    let Some(config) = config else {
        return Ok((provider(), vec![&TLS13, &TLS12]));
    };
    let versions = versions(config)?;
    if config.ciphers.is_empty() && config.curves.is_empty() {
        return Ok((provider(), versions));
    }
    let mut chosen = (*provider()).clone();
    if !config.ciphers.is_empty() {
        let wanted: Vec<CipherSuite> = config
            .ciphers
            .iter()
            .flat_map(|name| name.split('|'))
            .filter_map(cipher)
            .collect();
        chosen
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || wanted.contains(&suite.suite()));
        let speaks_12 = chosen.cipher_suites.iter().any(|suite| suite.tls13().is_none());
        if !speaks_12 && versions.contains(&&TLS12) {
            return Err("tls.parameters.ciphers: none that is known to this version".into());
        }
    }
    if !config.curves.is_empty() {
        let wanted: Vec<NamedGroup> = config.curves.iter().filter_map(|name| curve(name)).collect();
        chosen.kx_groups.retain(|group| wanted.contains(&group.name()));
        if chosen.kx_groups.is_empty() {
            return Err("tls.parameters.curves: none that is known to this version".into());
        }
    }
    Ok((Arc::new(chosen), versions))
}

/// The application protocols that are offered: those of the resource, or `default`.
pub fn alpn(config: Option<&v1::TlsParameters>, default: &[&[u8]]) -> Vec<Vec<u8>> {
    match config.and_then(|config| config.alpn.as_ref()) {
        Some(alpn) => alpn
            .protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect(),
        None => default.iter().map(|name| name.to_vec()).collect(),
    }
}

fn versions(config: &v1::TlsParameters) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let (least, most) = (config.min_version(), config.max_version());
    let with_12 = least != v1::TlsVersion::V13;
    let with_13 = match most {
        v1::TlsVersion::Unspecified | v1::TlsVersion::V13 => true,
        v1::TlsVersion::V12 => false,
        v1::TlsVersion::V10 | v1::TlsVersion::V11 => {
            return Err("tls.parameters.max_version: nothing older than TLS 1.2 is spoken".into());
        }
    };
    match (with_13, with_12) {
        (true, true) => Ok(vec![&TLS13, &TLS12]),
        (true, false) => Ok(vec![&TLS13]),
        (false, true) => Ok(vec![&TLS12]),
        (false, false) => Err("tls.parameters.max_version: older than min_version".into()),
    }
}

fn curve(name: &str) -> Option<NamedGroup> {
    match name {
        "X25519" => Some(NamedGroup::X25519),
        "P-256" => Some(NamedGroup::secp256r1),
        "P-384" => Some(NamedGroup::secp384r1),
        _ => None,
    }
}

/// A cipher suite of TLS 1.2 by its name in OpenSSL or at IANA; brackets are those of a group of equal preference.
fn cipher(name: &str) -> Option<CipherSuite> {
    Some(match name.trim_matches(['[', ']']) {
        "ECDHE-ECDSA-AES128-GCM-SHA256" | "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        }
        "ECDHE-RSA-AES128-GCM-SHA256" | "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        }
        "ECDHE-ECDSA-AES256-GCM-SHA384" | "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        }
        "ECDHE-RSA-AES256-GCM-SHA384" | "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        }
        "ECDHE-ECDSA-CHACHA20-POLY1305" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "ECDHE-RSA-CHACHA20-POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(change: impl FnOnce(&mut v1::TlsParameters)) -> Result<Chosen, String> {
        let mut config = v1::TlsParameters::default();
        change(&mut config);
        choose(Some(&config))
    }

    #[test]
    fn versions_have_bounds() {
        use v1::TlsVersion as V;
        let spoken = |min: v1::TlsVersion, max: v1::TlsVersion| {
            parameters(|c| (c.min_version, c.max_version) = (min.into(), max.into()))
                .map(|(_, versions)| versions)
        };
        assert_eq!(spoken(V::V10, V::Unspecified).unwrap(), [&TLS13, &TLS12]);
        assert_eq!(spoken(V::V13, V::Unspecified).unwrap(), [&TLS13]);
        assert_eq!(spoken(V::Unspecified, V::V12).unwrap(), [&TLS12]);
        assert!(
            spoken(V::V13, V::V12)
                .unwrap_err()
                .starts_with("tls.parameters.max_version: ")
        );
        assert!(
            spoken(V::V10, V::V11)
                .unwrap_err()
                .starts_with("tls.parameters.max_version: ")
        );
    }

    #[test]
    fn ciphers_and_curves_are_chosen() {
        let names = [
            "ECDHE-RSA-AES128-SHA",
            "[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]",
        ];
        let (chosen, _) = parameters(|c| c.ciphers = names.map(Into::into).to_vec()).unwrap();
        let older = chosen
            .cipher_suites
            .iter()
            .filter(|suite| suite.tls13().is_none());
        assert_eq!(older.count(), 2);
        assert_eq!(chosen.cipher_suites.len(), 5);
        assert!(parameters(|c| c.ciphers = vec!["AES128-SHA".into()]).is_err());
        let only_13 = |c: &mut v1::TlsParameters| {
            c.ciphers = vec!["AES128-SHA".into()];
            c.min_version = v1::TlsVersion::V13.into();
        };
        assert!(parameters(only_13).is_ok());
        let (chosen, _) = parameters(|c| c.curves = vec!["P-256".into(), "P-521".into()]).unwrap();
        assert_eq!(chosen.kx_groups.len(), 1);
        assert!(parameters(|c| c.curves = vec!["P-521".into()]).is_err());
    }
}
