//! TLS towards clients.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::{StringMatch, TLSSettings};
use crate::cel::Cel;
use crate::gateway::SecretObjectReference;
use crate::open_enum::open_enum;

/// Client TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientTLSSettings {
    /// Client validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_validation: Option<ClientValidationContext>,
    /// TLS settings.
    #[serde(flatten)]
    pub settings: TLSSettings,
    /// Session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<TLSSession>,
}

/// Client validation context.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("!has(self.allowExpiredCertificate) || !self.allowExpiredCertificate || !has(self.mode) || self.mode in ['VerifyIfGiven', 'RequireAndVerify']", "allowExpiredCertificate needs mode VerifyIfGiven or RequireAndVerify"),
    ]))]
pub struct ClientValidationContext {
    /// Whether it may be missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
    /// Mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ClientValidationModeType>,
    /// CA certificate refs.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ca_certificate_refs: Vec<SecretObjectReference>,
    /// SPKI hashes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spki_hashes: Vec<String>,
    /// Certificate hashes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificate_hashes: Vec<String>,
    /// Subject alt names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_alt_names: Option<SubjectAltNames>,
    /// CRL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<CrlContext>,
    /// Allow expired certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_expired_certificate: Option<bool>,
}

open_enum! {
    /// Client validation mode type.
    ClientValidationModeType {
        /// `Request`.
        Request = "Request",
        /// `RequireAny`.
        RequireAny = "RequireAny",
        /// `VerifyIfGiven`.
        VerifyIfGiven = "VerifyIfGiven",
        /// `RequireAndVerify`.
        RequireAndVerify = "RequireAndVerify",
    }
}

/// Subject alt names.
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
    /// Other names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_names: Vec<OtherSANMatch>,
}

/// Other san match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtherSANMatch {
    /// Oid.
    pub oid: String,
    /// String match.
    #[serde(flatten)]
    pub matches: StringMatch,
}

/// CRL context.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrlContext {
    /// Refs.
    #[schemars(length(min = 1, max = 8))]
    pub refs: Vec<SecretObjectReference>,
    /// Only verify leaf certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_verify_leaf_certificate: Option<bool>,
}

/// TLS session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TLSSession {
    /// Resumption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumption: Option<SessionResumption>,
}

/// Session resumption.
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

/// Stateless TLS session resumption.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatelessTLSSessionResumption {}

/// Stateful TLS session resumption.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatefulTLSSessionResumption {}
