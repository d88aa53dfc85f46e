//! JSON Web Tokens (RFC 7519): which are asked for, where they are found, and what is made of their claims.
//!
//! Owns the settings and the judgement of a token against a set of keys. Fetching keys is the forwarder's business.

pub mod keys;
mod verify;

use std::collections::HashSet;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::Value;
use sluice_config::v1;

use self::keys::{KeySet, RemoteKeys};
use super::basic_auth::realm;
use super::carrier::Carrier;
use super::secret::Derived;
use super::tokens::{self, Claims};
use super::{Denial, Facts, Lookup, headers};

/// Seconds by which clocks may differ; Envoy's default.
const SKEW: u64 = 60;

/// A compiled filter.
#[derive(Debug)]
pub struct Jwt {
    /// One of them has to vouch for the request.
    pub providers: Box<[Provider]>,
    /// True: a request without a token passes.
    pub optional: bool,
    /// True: every request passes; valid tokens are used.
    pub fail_open: bool,
}

/// One issuer.
#[derive(Debug)]
pub struct Provider {
    /// Its name.
    pub name: Arc<str>,
    /// Its keys.
    pub keys: Keys,
    /// True: the route is chosen anew by the headers that claims have been put into.
    pub recompute_route: bool,
    validation: Validation,
    carriers: Box<[Carrier]>,
    claims: Box<[(HeaderName, Box<str>)]>,
}

/// Where keys come from.
#[derive(Debug)]
pub enum Keys {
    /// The configuration. `None` while there is no set.
    Local(Derived<Option<Arc<KeySet>>>),
    /// They are fetched.
    Remote(Arc<RemoteKeys>),
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is none.
    Missing,
    /// It is not of the form of a token.
    BadFormat,
    /// Another issuer's.
    UnknownIssuer,
    /// Meant for others.
    Audience,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYet,
    /// No key fits it.
    UnknownKey,
    /// The signature is wrong.
    Signature,
    /// The keys could not be had.
    NoKeys,
}

impl Fault {
    /// True if it tells more of a request than `other`, which another provider has found: that one sees no token, or one
    /// of another's, says little. A request that shows a token is never taken for one without.
    pub fn outranks(self, other: Self) -> bool {
        let rank = |fault| match fault {
            Self::Missing => 0,
            Self::UnknownIssuer => 1,
            _ => 2,
        };
        rank(self) > rank(other)
    }

    /// What the client is told, in Envoy's words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Missing => "Jwt is missing",
            Self::BadFormat => {
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
            }
            Self::UnknownIssuer => "Jwt issuer is not configured",
            Self::Audience => "Audiences in Jwt are not allowed",
            Self::Expired => "Jwt is expired",
            Self::NotYet => "Jwt not yet valid",
            Self::UnknownKey => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::Signature => "Jwt verification fails",
            Self::NoKeys => "Jwks remote fetch is failed",
        }
    }

    fn details(self) -> &'static str {
        match self {
            Self::Missing => "jwt_authn_access_denied{Jwt_is_missing}",
            Self::BadFormat => "jwt_authn_access_denied{Jwt_is_not_in_the_form}",
            Self::UnknownIssuer => "jwt_authn_access_denied{Jwt_issuer_is_not_configured}",
            Self::Audience => "jwt_authn_access_denied{Audiences_in_Jwt_are_not_allowed}",
            Self::Expired => "jwt_authn_access_denied{Jwt_is_expired}",
            Self::NotYet => "jwt_authn_access_denied{Jwt_not_yet_valid}",
            Self::UnknownKey => "jwt_authn_access_denied{Jwks_doesn't_have_key_to_match_kid_or_alg_from_Jwt}",
            Self::Signature => "jwt_authn_access_denied{Jwt_verification_fails}",
            Self::NoKeys => "jwt_authn_access_denied{Jwks_remote_fetch_is_failed}",
        }
    }

    /// The answer to a request with this fault.
    pub fn denial(self, head: &Parts, facts: &Facts<'_>) -> Box<Denial> {
        let error = match self {
            Self::Missing => "",
            _ => ", error=\"invalid_token\"",
        };
        let challenge = format!("Bearer realm=\"{}\"{error}", realm(head, facts));
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::try_from(challenge) {
            headers.insert(WWW_AUTHENTICATE, value);
        }
        Box::new(Denial {
            status: match self {
                Self::Audience => StatusCode::FORBIDDEN,
                _ => StatusCode::UNAUTHORIZED,
            },
            headers,
            body: self.text().into(),
            flags: "UAEX",
            details: self.details(),
        })
    }
}

impl Jwt {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::Jwt, lookup: &mut dyn Lookup) -> Result<Self, String> {
        verify::install();
        if config.providers.is_empty() {
            return Err("providers: empty".into());
        }
        let mut providers = Vec::with_capacity(config.providers.len());
        for (i, provider) in config.providers.iter().enumerate() {
            providers.push(Provider::compile(provider, lookup).map_err(|e| format!("providers[{i}].{e}"))?);
        }
        Ok(Self {
            providers: providers.into(),
            optional: config.optional,
            fail_open: config.fail_open,
        })
    }

    /// Removes what only a verified token may say.
    pub fn clear_claims(&self, head: &mut Parts) {
        for (header, _) in self.providers.iter().flat_map(|provider| &provider.claims) {
            head.headers.remove(header);
        }
    }
}

impl Provider {
    fn compile(config: &v1::JwtProvider, lookup: &mut dyn Lookup) -> Result<Self, String> {
        use v1::jwt_provider::Keys as K;
        let keys = match &config.keys {
            None => return Err("keys: not set".into()),
            Some(K::Local(entry)) => Keys::Local(
                Derived::of_entry(Some(entry), lookup, |json| {
                    let set = KeySet::parse(json?);
                    if set.is_none() {
                        tracing::warn!("a local JWKS is not a key set");
                    }
                    set.map(Arc::new)
                })
                .map_err(|e| format!("keys: {e}"))?,
            ),
            Some(K::Remote(remote)) => {
                let remote = RemoteKeys::new(remote, lookup).map_err(|e| format!("keys.{e}"))?;
                Keys::Remote(lookup.store().remote_keys(remote))
            }
        };
        let issuer = config.issuer.as_str();
        let issuers = if issuer.is_empty() { &[][..] } else { &[issuer][..] };
        let audiences: Vec<_> = config.audiences.iter().map(String::as_str).collect();
        let claim = |config: &v1::ClaimToHeader| {
            Ok::<_, String>((headers::name(&config.header)?, config.claim.as_str().into()))
        };
        Ok(Self {
            name: config.name.as_str().into(),
            recompute_route: config.recompute_route,
            keys,
            validation: expectations(issuers, &audiences),
            carriers: Carrier::compile_all(&config.sources)?,
            claims: config
                .claims_to_headers
                .iter()
                .map(claim)
                .collect::<Result<_, _>>()
                .map_err(|e| format!("claims_to_headers: {e}"))?,
        })
    }

    /// The tokens that a request carries for it.
    pub fn tokens(&self, head: &Parts) -> Vec<String> {
        let values = self.carriers.iter().filter_map(|carrier| carrier.read(head));
        values.map(std::borrow::Cow::into_owned).collect()
    }

    /// Judges a token.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(&self, token: &str, keys: &KeySet) -> Result<Claims, Fault> {
        verify(token, keys, &self.validation)
    }

    /// Puts claims into the headers that they go to.
    pub fn forward_claims(&self, claims: &Claims, head: &mut Parts) {
        for (header, name) in &self.claims {
            let text = match tokens::claim(claims, name) {
                Some(Value::String(text)) => text.clone(),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                _ => continue,
            };
            if let Ok(value) = HeaderValue::try_from(text) {
                head.headers.insert(header, value);
            }
        }
    }
}

/// Judges a token.
///
/// # Errors
/// Why it is not accepted.
pub fn verify(token: &str, keys: &KeySet, validation: &Validation) -> Result<Claims, Fault> {
    let header = decode_header(token).map_err(|_| Fault::BadFormat)?;
    let mut validation = validation.clone();
    validation.algorithms = vec![header.alg];
    let mut fault = Fault::UnknownKey;
    for key in keys.matching(&header) {
        match decode::<Claims>(token, key, &validation) {
            Ok(token) => return Ok(token.claims),
            Err(error) => fault = fault_of(error.kind()),
        }
        if fault != Fault::Signature {
            break;
        }
    }
    Err(fault)
}

/// What a token is to say of its issuer, which is one of these, and its audience; none: nothing.
pub fn expectations(issuers: &[&str], audiences: &[&str]) -> Validation {
    verify::install();
    let mut validation = Validation {
        leeway: SKEW,
        validate_nbf: true,
        required_spec_claims: HashSet::new(),
        ..Validation::default()
    };
    if !issuers.is_empty() {
        validation.set_issuer(issuers);
        validation.required_spec_claims.insert("iss".into());
    }
    validation.validate_aud = !audiences.is_empty();
    if validation.validate_aud {
        validation.set_audience(audiences);
        validation.required_spec_claims.insert("aud".into());
    }
    validation
}

fn fault_of(kind: &ErrorKind) -> Fault {
    match kind {
        ErrorKind::ExpiredSignature => Fault::Expired,
        ErrorKind::ImmatureSignature => Fault::NotYet,
        ErrorKind::InvalidAudience => Fault::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => Fault::Audience,
        ErrorKind::InvalidIssuer | ErrorKind::MissingRequiredClaim(_) => Fault::UnknownIssuer,
        ErrorKind::InvalidSignature
        | ErrorKind::InvalidAlgorithm
        | ErrorKind::InvalidEcdsaKey
        | ErrorKind::InvalidKeyFormat => Fault::Signature,
        _ => Fault::BadFormat,
    }
}
