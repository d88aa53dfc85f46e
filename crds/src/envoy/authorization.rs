//! Authorization by address, token, header and operation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::PathMatch;
use crate::cel::Cel;
use crate::open_enum::open_enum;
use crate::patterns;

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    /// In this order; the first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<AuthorizationRule>,
    /// What happens to a request that no rule matches; `Deny` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_action: Option<AuthorizationAction>,
}

/// What happens to the requests that match; all that is set must.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.principal) || has(self.cel)", "at least one of principal and cel must be set"),
    ]))]
pub struct AuthorizationRule {
    /// A name for logs and statistics.
    #[schemars(length(min = 1, max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What happens to a request that matches.
    pub action: AuthorizationAction,
    /// What is asked for; anything if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Who asks; anybody if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    /// An expression over the request's attributes that must be true, in CEL.
    #[schemars(length(min = 1, max = 4096))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cel: Option<String>,
}

open_enum! {
    /// What happens to a request.
    AuthorizationAction {
        /// It passes.
        Allow = "Allow",
        /// It is answered with 403.
        Deny = "Deny",
    }
}

/// What is asked for; all that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.methods) || has(self.path)", "at least one of methods and path must be set"),
    ]))]
pub struct Operation {
    /// Methods of which one must be that of the request; any if absent.
    #[schemars(
        length(min = 1, max = 16),
        extend("items" = {
            "type": "string",
            "enum": ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"],
        })
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// What the path must match; any if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
}

/// Who asks; all that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.clientCIDRs) || has(self.jwt) || has(self.headers) || has(self.clientIPGeoLocations)", "at least one of clientCIDRs, jwt, headers and clientIPGeoLocations must be set"),
    ]))]
pub struct Principal {
    /// Networks of which one must hold the client's address.
    #[schemars(length(min = 1), inner(regex(pattern = patterns::CIDR)))]
    #[serde(rename = "clientCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    pub client_cidrs: Vec<String>,
    /// What the client's token must say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JWTPrincipal>,
    /// Headers that must all match.
    #[schemars(length(min = 1, max = 256))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<AuthorizationHeaderMatch>,
    /// Places of which one must be where the client's address is.
    #[schemars(length(min = 1))]
    #[serde(
        rename = "clientIPGeoLocations",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    pub client_ip_geo_locations: Vec<ClientIPGeoLocation>,
}

/// What a token must say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.claims) || has(self.scopes)", "at least one of claims and scopes must be set"),
    ]))]
pub struct JWTPrincipal {
    /// Name of the issuer, one of `jwt.providers`, whose token it must be.
    #[schemars(length(min = 1, max = 253))]
    pub provider: String,
    /// Claims that must all match.
    #[schemars(length(min = 1, max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<JWTClaim>,
    /// Scopes that the token must all have.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 253)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// What a claim must be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JWTClaim {
    /// Name of the claim; dots lead into objects.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// What the claim is; a text if absent.
    #[schemars(extend("default" = "String"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_type: Option<JWTClaimValueType>,
    /// Of which one must be the claim, or in its list.
    #[schemars(length(min = 1, max = 128))]
    pub values: Vec<String>,
}

open_enum! {
    /// What a claim is.
    JWTClaimValueType {
        /// A text.
        String = "String",
        /// A list of texts.
        StringArray = "StringArray",
    }
}

/// What a header must be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationHeaderMatch {
    /// Name of the header; case does not matter.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Of which one must be the value.
    #[schemars(length(min = 1, max = 256))]
    pub values: Vec<String>,
}

/// A place of an address; all that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.country) || has(self.region) || has(self.city) || has(self.asn) || has(self.isp) || has(self.anonymous)", "at least one of country, region, city, asn, isp and anonymous must be set"),
    ]))]
pub struct ClientIPGeoLocation {
    /// Country, by its two letters (ISO 3166-1).
    #[schemars(length(min = 2, max = 2), regex(pattern = r"^[A-Za-z]{2}$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Part of a country, by its code (ISO 3166-2).
    #[schemars(length(min = 1, max = 16), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// City.
    #[schemars(length(min = 1, max = 128))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// Number of the autonomous system.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn: Option<i64>,
    /// Internet service provider.
    #[schemars(length(min = 1, max = 256))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isp: Option<String>,
    /// Whether the network hides its clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<GeoIPAnonymousMatch>,
}

/// Whether a network hides its clients, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.isAnonymous) || has(self.isVPN) || has(self.isHosting) || has(self.isTor) || has(self.isProxy)", "at least one of isAnonymous, isVPN, isHosting, isTor and isProxy must be set"),
    ]))]
pub struct GeoIPAnonymousMatch {
    /// Whether it hides them in any way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_anonymous: Option<bool>,
    /// Whether it is a VPN.
    #[serde(rename = "isVPN", skip_serializing_if = "Option::is_none")]
    pub is_vpn: Option<bool>,
    /// Whether it is that of a hosting provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_hosting: Option<bool>,
    /// Whether it is an exit of Tor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_tor: Option<bool>,
    /// Whether it is a public proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_proxy: Option<bool>,
}
