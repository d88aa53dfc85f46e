//! Signatures in handshakes, where a resource says by which algorithms they may be made.
//!
//! Owns the choice among what the cryptography provider has, for our own signatures and for those of the other side; it
//! never adds anything to that. What signs certificates is not looked at.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{DigitallySignedStruct, Error, PeerMisbehaved, SignatureAlgorithm, SignatureScheme};
use sluice_config::v1;

/// The algorithms that may be used, in order of preference. `None`: all that the provider has.
pub type Schemes = Option<Arc<[SignatureScheme]>>;

/// Reads the resource.
///
/// # Errors
/// Names the field if it leaves nothing to choose from.
pub fn choose(config: Option<&v1::TlsParameters>, provider: &CryptoProvider) -> Result<Schemes, String> {
    let names = config
        .map(|config| config.signature_algorithms.as_slice())
        .unwrap_or_default();
    if names.is_empty() {
        return Ok(None);
    }
    let known = provider.signature_verification_algorithms.supported_schemes();
    let wanted = names.iter().flat_map(|names| names.split(':')).filter_map(scheme);
    let schemes: Arc<[_]> = wanted.filter(|scheme| known.contains(scheme)).collect();
    if schemes.is_empty() {
        return Err("tls.parameters.signature_algorithms: none that is known to this version".into());
    }
    Ok(Some(schemes))
}

/// An algorithm by its name in TLS, or by key and hash as OpenSSL has them.
fn scheme(name: &str) -> Option<SignatureScheme> {
    Some(match name.to_ascii_lowercase().as_str() {
        "rsa_pkcs1_sha256" | "rsa+sha256" => SignatureScheme::RSA_PKCS1_SHA256,
        "rsa_pkcs1_sha384" | "rsa+sha384" => SignatureScheme::RSA_PKCS1_SHA384,
        "rsa_pkcs1_sha512" | "rsa+sha512" => SignatureScheme::RSA_PKCS1_SHA512,
        "rsa_pss_rsae_sha256" | "rsa-pss+sha256" | "pss+sha256" => SignatureScheme::RSA_PSS_SHA256,
        "rsa_pss_rsae_sha384" | "rsa-pss+sha384" | "pss+sha384" => SignatureScheme::RSA_PSS_SHA384,
        "rsa_pss_rsae_sha512" | "rsa-pss+sha512" | "pss+sha512" => SignatureScheme::RSA_PSS_SHA512,
        "ecdsa_secp256r1_sha256" | "ecdsa+sha256" => SignatureScheme::ECDSA_NISTP256_SHA256,
        "ecdsa_secp384r1_sha384" | "ecdsa+sha384" => SignatureScheme::ECDSA_NISTP384_SHA384,
        "ecdsa_secp521r1_sha512" | "ecdsa+sha512" => SignatureScheme::ECDSA_NISTP521_SHA512,
        "ed25519" => SignatureScheme::ED25519,
        _ => return None,
    })
}

/// Refuses a signature of the other side that was made in another way.
///
/// # Errors
/// That one.
pub fn check(schemes: &Schemes, signature: &DigitallySignedStruct) -> Result<(), Error> {
    match schemes {
        Some(schemes) if !schemes.contains(&signature.scheme) => Err(Error::PeerMisbehaved(
            PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme,
        )),
        _ => Ok(()),
    }
}

/// A key that signs only so.
pub fn signing(certified: &Arc<CertifiedKey>, schemes: &Schemes) -> Arc<CertifiedKey> {
    let Some(schemes) = schemes else {
        return Arc::clone(certified);
    };
    let key = Choosy {
        key: Arc::clone(&certified.key),
        schemes: Arc::clone(schemes),
    };
    Arc::new(CertifiedKey {
        cert: certified.cert.clone(),
        key: Arc::new(key),
        ocsp: certified.ocsp.clone(),
    })
}

/// A verifier that takes only signatures that were made so.
pub fn verifying(verifier: Arc<dyn ServerCertVerifier>, schemes: Schemes) -> Arc<dyn ServerCertVerifier> {
    if schemes.is_none() {
        return verifier;
    }
    Arc::new(Strict { verifier, schemes })
}

#[derive(Debug)]
struct Choosy {
    key: Arc<dyn SigningKey>,
    schemes: Arc<[SignatureScheme]>,
}

impl SigningKey for Choosy {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let mut both = self.schemes.iter().filter(|scheme| offered.contains(scheme));
        both.find_map(|scheme| self.key.choose_scheme(&[*scheme]))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.key.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}

#[derive(Debug)]
struct Strict {
    verifier: Arc<dyn ServerCertVerifier>,
    schemes: Schemes,
}

impl ServerCertVerifier for Strict {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check(&self.schemes, dss)?;
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check(&self.schemes, dss)?;
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match &self.schemes {
            Some(schemes) => schemes.to_vec(),
            None => self.verifier.supported_verify_schemes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::material::provider;

    fn chosen(names: &[&str]) -> Result<Vec<SignatureScheme>, String> {
        let config = v1::TlsParameters {
            signature_algorithms: names.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let schemes = choose(Some(&config), &provider())?;
        Ok(schemes.map(|schemes| schemes.to_vec()).unwrap_or_default())
    }

    #[test]
    fn algorithms_are_chosen_by_name_and_in_order() {
        use SignatureScheme as S;
        assert_eq!(
            chosen(&["rsa_pss_rsae_sha512:ECDSA+SHA256", "rsa_pkcs1_sha1", "ed25519"]).unwrap(),
            [S::RSA_PSS_SHA512, S::ECDSA_NISTP256_SHA256, S::ED25519]
        );
        assert_eq!(chosen(&[]).unwrap(), []);
        assert!(
            chosen(&["rsa_pkcs1_sha1"])
                .unwrap_err()
                .contains("signature_algorithms")
        );
    }

    #[test]
    fn a_key_signs_as_it_may() {
        use SignatureScheme as S;
        let made = rcgen::generate_simple_self_signed(vec!["a.example".into()]).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let certified = CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider()).unwrap();
        let all = [S::RSA_PSS_SHA256, S::ECDSA_NISTP256_SHA256];
        let signs = |schemes: Schemes| {
            let key = signing(&Arc::new(certified.clone()), &schemes);
            key.key.choose_scheme(&all).map(|signer| signer.scheme())
        };
        assert_eq!(signs(None), Some(S::ECDSA_NISTP256_SHA256));
        assert_eq!(
            signs(Some([S::ECDSA_NISTP256_SHA256].into())),
            Some(S::ECDSA_NISTP256_SHA256)
        );
        assert_eq!(signs(Some([S::RSA_PSS_SHA256].into())), None);
    }
}
