//! What a client's certificate has to be.
//!
//! Owns the decision in the handshake: whether there must be a certificate, who must have signed it, whether it is
//! revoked, and whether it is one of those or has one of the names that are asked for.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use sluice_config::v1::client_validation::Mode;
use sluice_config::v1::{self, subject_alt_name_match::Kind};
use x509_parser::der_parser::ber::BerObjectContent;
use x509_parser::der_parser::parse_der;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::signatures::{self, Schemes};
use crate::filter::text::TextMatch;

/// Certificates of a chain whose times are tried where expired ones are taken.
const MOST_DATED: usize = 4;

/// True if certificates are those that are listed, whoever has signed them.
pub fn only_pinned(config: &v1::ClientValidation) -> bool {
    let pinned = !config.certificate_hashes.is_empty() || !config.spki_hashes.is_empty();
    pinned && config.ca_secrets.is_empty()
}

/// Checks certificates of clients.
#[derive(Debug)]
pub struct ClientCheck {
    /// Whatever comes is taken.
    any: bool,
    /// `None`: whoever may have signed it.
    strict: Option<Arc<dyn ClientCertVerifier>>,
    mandatory: bool,
    /// SHA-256 of certificates and of public keys; one of them must be the client's, if there are any.
    certificates: Vec<[u8; 32]>,
    keys: Vec<[u8; 32]>,
    names: Vec<Name>,
    /// A certificate is taken although its time has passed, or has not come.
    allow_expired: bool,
    schemes: Schemes,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Name {
    kind: Kind,
    oid: Box<str>,
    value: TextMatch,
}

/// True if certificates need not be verified against anything.
pub fn takes_any(config: &v1::ClientValidation) -> bool {
    match config.mode() {
        Mode::Request | Mode::RequireAny => true,
        Mode::Unspecified => config.insecure_fallback,
        Mode::VerifyIfGiven | Mode::RequireAndVerify => false,
    }
}

impl ClientCheck {
    /// Reads the resource; `roots` are its anchors, `lists` its revocation lists, `parameters` those of the listener.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn build(
        config: &v1::ClientValidation,
        roots: RootCertStore,
        lists: Vec<CertificateRevocationListDer<'static>>,
        parameters: Option<&v1::TlsParameters>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, String> {
        let mandatory = match config.mode() {
            Mode::RequireAny | Mode::RequireAndVerify => true,
            Mode::Unspecified => !config.insecure_fallback,
            Mode::Request | Mode::VerifyIfGiven => false,
        };
        let any = takes_any(config);
        let strict = if any || only_pinned(config) {
            None
        } else {
            let mut builder =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
            builder = builder.with_crls(lists);
            if config.crl_leaf_only {
                builder = builder.only_check_end_entity_revocation();
            }
            let built = builder
                .build()
                .map_err(|e| format!("tls.client_validation.ca_secrets: {e}"))?;
            Some(built)
        };
        Ok(Arc::new(Self {
            any,
            strict,
            mandatory,
            certificates: hashes(&config.certificate_hashes, "certificate_hashes", hexadecimal)?,
            keys: hashes(&config.spki_hashes, "spki_hashes", |text| {
                STANDARD.decode(text).ok()
            })?,
            names: config
                .subject_alt_names
                .iter()
                .enumerate()
                .map(|(i, name)| {
                    Name::compile(name)
                        .map_err(|e| format!("tls.client_validation.subject_alt_names[{i}].{e}"))
                })
                .collect::<Result<_, _>>()?,
            allow_expired: config.allow_expired,
            schemes: signatures::choose(parameters, provider)?,
            provider: Arc::clone(provider),
        }))
    }

    fn check_particulars(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let refused = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        let pinned = !self.certificates.is_empty() || !self.keys.is_empty();
        if !pinned && self.names.is_empty() {
            return Ok(());
        }
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let is_one = |known: &[[u8; 32]], bytes: &[u8]| {
            let hash = digest(&SHA256, bytes);
            known.iter().any(|known| known == hash.as_ref())
        };
        if pinned && !is_one(&self.certificates, certificate) && !is_one(&self.keys, parsed.public_key().raw)
        {
            return Err(refused);
        }
        if self.names.is_empty() {
            return Ok(());
        }
        let names = parsed.subject_alternative_name().ok().flatten();
        let found = names.is_some_and(|names| {
            let mut general = names.value.general_names.iter();
            general.any(|name| self.names.iter().any(|wanted| wanted.is(name)))
        });
        if found { Ok(()) } else { Err(refused) }
    }
}

impl ClientCertVerifier for ClientCheck {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.strict
            .as_ref()
            .map_or(&[], |strict| strict.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.any {
            return Ok(ClientCertVerified::assertion());
        }
        if let Some(strict) = &self.strict {
            let verify = |at| strict.verify_client_cert(end_entity, intermediates, at);
            match verify(now) {
                Err(error) if self.allow_expired && is_of_time(&error) => {
                    let chain = std::iter::once(end_entity).chain(intermediates);
                    let timely = times(chain).any(|at| verify(at).is_ok());
                    timely.then_some(()).ok_or(error)?;
                }
                verified => {
                    verified?;
                }
            }
        }
        self.check_particulars(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signatures::check(&self.schemes, dss)?;
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signatures::check(&self.schemes, dss)?;
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let all = || {
            self.provider
                .signature_verification_algorithms
                .supported_schemes()
        };
        self.schemes.as_ref().map_or_else(all, |schemes| schemes.to_vec())
    }
}

/// True if it says no more than that a certificate's time has passed, or has not come.
fn is_of_time(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
        )
    )
}

/// When certificates of a chain begin and cease to be valid: if there is a time at which all of them are, it is among these.
fn times<'a>(chain: impl Iterator<Item = &'a CertificateDer<'a>>) -> impl Iterator<Item = UnixTime> {
    let parsed = chain
        .take(MOST_DATED)
        .filter_map(|one| X509Certificate::from_der(one).ok());
    let ends = parsed.map(|(_, one)| [one.validity().not_after, one.validity().not_before]);
    let seconds = ends
        .flatten()
        .filter_map(|time| u64::try_from(time.timestamp()).ok());
    seconds.map(|seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

fn hashes(
    all: &[String],
    field: &str,
    decode: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<Vec<[u8; 32]>, String> {
    all.iter()
        .enumerate()
        .map(|(i, text)| {
            decode(text)
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or_else(|| format!("tls.client_validation.{field}[{i}]: not a SHA-256 hash"))
        })
        .collect()
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|p| p.len() == 2)?, 16).ok())
        .collect()
}

impl Name {
    fn compile(config: &v1::SubjectAltNameMatch) -> Result<Self, String> {
        if config.kind() == Kind::Unspecified {
            return Err("kind: not set, or one that this version does not know".into());
        }
        let value = config.value.as_ref().ok_or("value: not set")?;
        Ok(Self {
            kind: config.kind(),
            oid: config.oid.as_str().into(),
            value: TextMatch::compile(value).map_err(|e| format!("value.{e}"))?,
        })
    }

    fn is(&self, name: &GeneralName<'_>) -> bool {
        match (self.kind, name) {
            (Kind::Dns, GeneralName::DNSName(dns)) => self.value.accepts(&dns.to_ascii_lowercase()),
            (Kind::Email, GeneralName::RFC822Name(email)) => self.value.accepts(email),
            (Kind::Uri, GeneralName::URI(uri)) => self.value.accepts(uri),
            (Kind::Ip, GeneralName::IPAddress(bytes)) => {
                address(bytes).is_some_and(|address| self.value.accepts(&address))
            }
            (Kind::OtherName, GeneralName::OtherName(oid, value)) => {
                oid.to_id_string() == *self.oid && text(value).is_some_and(|text| self.value.accepts(&text))
            }
            _ => false,
        }
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|v4| std::net::IpAddr::from(v4).to_string());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|v6| std::net::IpAddr::from(v6).to_string()))
        .ok()
}

/// The text inside the explicitly tagged value of an otherName (RFC 5280 section 4.2.1.6).
fn text(value: &[u8]) -> Option<String> {
    let (_, tagged) = parse_der(value).ok()?;
    let inner = match &tagged.content {
        BerObjectContent::Unknown(any) => parse_der(any.data).ok()?.1,
        BerObjectContent::Tagged(_, _, inner) => (**inner).clone(),
        _ => tagged,
    };
    inner.as_str().ok().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests;
