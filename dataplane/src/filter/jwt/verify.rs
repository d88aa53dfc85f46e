//! Signatures of tokens, by ring: the cryptography that the jsonwebtoken crate is given.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::hmac;
use ring::signature as keys;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _: &EncodingKey| -> Result<Box<dyn JwtSigner>, Error> {
        Err(ErrorKind::UnsupportedAlgorithm.into())
    },
    verifier_factory: |algorithm, key| {
        if algorithm.family() != key.family() {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        Ok(Box::new(Check {
            algorithm: *algorithm,
            key: key.clone(),
        }))
    },
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
        rsa_pub_components_from_public_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
        ec_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        ed_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        compute_digest: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    },
};

/// Makes ring the cryptography of all tokens of this process.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if PROVIDER.install_default().is_err() {
            tracing::warn!("tokens are verified by another provider than ring");
        }
    });
}

struct Check {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for Check {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                let key = keys::RsaPublicKeyComponents { n, e };
                rsa(self.algorithm).is_some_and(|by| key.verify(by, message, signature).is_ok())
            }
            DecodingKeyKind::SecretOrDer(bytes) => match self.algorithm.family() {
                AlgorithmFamily::Hmac => hmac_of(self.algorithm)
                    .is_some_and(|by| hmac::verify(&hmac::Key::new(by, bytes), message, signature).is_ok()),
                _ => curve(self.algorithm).is_some_and(|by| {
                    keys::UnparsedPublicKey::new(by, bytes)
                        .verify(message, signature)
                        .is_ok()
                }),
            },
        };
        if verified {
            Ok(())
        } else {
            Err(signature::Error::new())
        }
    }
}

impl JwtVerifier for Check {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static keys::RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &keys::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &keys::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &keys::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &keys::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &keys::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &keys::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn curve(algorithm: Algorithm) -> Option<&'static dyn keys::VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::ES256 => &keys::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &keys::ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDSA => &keys::ED25519,
        _ => return None,
    })
}

fn hmac_of(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    Some(match algorithm {
        Algorithm::HS256 => hmac::HMAC_SHA256,
        Algorithm::HS384 => hmac::HMAC_SHA384,
        Algorithm::HS512 => hmac::HMAC_SHA512,
        _ => return None,
    })
}
