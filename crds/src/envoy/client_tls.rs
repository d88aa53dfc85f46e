//! TLS towards clients.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::{StringMatch, TLSSettings};
use crate::cel::Cel;
use crate::gateway::SecretObjectReference;
use crate::open_enum::open_enum;

/// How TLS of clients is terminated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientTLSSettings {
    /// Certificates of clients; none is asked for if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_validation: Option<ClientValidationContext>,
    /// TLS settings.
    #[serde(flatten)]
    pub settings: TLSSettings,
    /// How sessions are resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<TLSSession>,
}

/// Which certificates of clients are good.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("!has(self.allowExpiredCertificate) || !self.allowExpiredCertificate || !has(self.mode) || self.mode in ['VerifyIfGiven', 'RequireAndVerify']", "allowExpiredCertificate needs mode VerifyIfGiven or RequireAndVerify"),
    ]))]
pub struct ClientValidationContext {
    /// Old form of `mode`: whether clients without a certificate are served; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
    /// Whether a certificate is asked for, required and verified; `RequireAndVerify` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ClientValidationModeType>,
    /// ConfigMaps, Secrets or ClusterTrustBundles with the CA certificates, in the key `ca.crt`.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ca_certificate_refs: Vec<SecretObjectReference>,
    /// Base64 of SHA-256 of public keys (SPKI) of which the certificate's must be one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spki_hashes: Vec<String>,
    /// Hex of SHA-256 of certificates of which it must be one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificate_hashes: Vec<String>,
    /// Names of which the certificate must hold one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_alt_names: Option<SubjectAltNames>,
    /// Lists of certificates that are revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<CrlContext>,
    /// Whether certificates that have expired are good; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_expired_certificate: Option<bool>,
}

open_enum! {
    /// Whether a certificate is asked for, required and verified.
    ClientValidationModeType {
        /// It is asked for, and not verified.
        Request = "Request",
        /// It is required, and not verified.
        RequireAny = "RequireAny",
        /// It is verified if there is one.
        VerifyIfGiven = "VerifyIfGiven",
        /// It is required and verified.
        RequireAndVerify = "RequireAndVerify",
    }
}

/// Names of which a certificate must hold one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubjectAltNames {
    /// DNS names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<StringMatch>,
    /// Email addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub email_addresses: Vec<StringMatch>,
    /// IP addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_addresses: Vec<StringMatch>,
    /// URIs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<StringMatch>,
    /// Names of other types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_names: Vec<OtherSANMatch>,
}

/// A name of another type (`otherName`, RFC 5280 section 4.2.1.6).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtherSANMatch {
    /// The object identifier of the type, as `1.2.3.4`.
    pub oid: String,
    /// String match.
    #[serde(flatten)]
    pub matches: StringMatch,
}

/// Lists of certificates that are revoked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrlContext {
    /// ConfigMaps or Secrets with the lists in PEM, in the key `ca.crl`.
    #[schemars(length(min = 1, max = 8))]
    pub refs: Vec<SecretObjectReference>,
    /// Whether the client's own certificate alone is looked up; false if absent: all of its chain is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_verify_leaf_certificate: Option<bool>,
}

/// TLS sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TLSSession {
    /// Whether sessions are resumed; not if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumption: Option<SessionResumption>,
}

/// How sessions are resumed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionResumption {
    /// By tickets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stateless: Option<StatelessTLSSessionResumption>,
    /// By what the proxy remembers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stateful: Option<StatefulTLSSessionResumption>,
}

/// Nothing to set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatelessTLSSessionResumption {}

/// Nothing to set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatefulTLSSessionResumption {}
