//! Authorization by address, token, header and operation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::PathMatch;
use crate::cel::Cel;
use crate::open_enum::open_enum;
use crate::patterns;

/// Authorization.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    /// Rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<AuthorizationRule>,
    /// What happens to a request that no rule matches; `Deny` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_action: Option<AuthorizationAction>,
}

/// Authorization rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.principal) || has(self.cel)", "at least one of principal and cel must be set"),
    ]))]
pub struct AuthorizationRule {
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Action.
    pub action: AuthorizationAction,
    /// Operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    /// Cel.
    #[schemars(length(min = 1, max = 4096))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cel: Option<String>,
}

open_enum! {
    /// Authorization action.
    AuthorizationAction {
        /// `Allow`.
        Allow = "Allow",
        /// `Deny`.
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
    /// Methods.
    #[schemars(
        length(min = 1, max = 16),
        extend("items" = {
            "type": "string",
            "enum": ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"],
        })
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Path.
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
    /// JWT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JWTPrincipal>,
    /// Headers.
    #[schemars(length(min = 1, max = 256))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<AuthorizationHeaderMatch>,
    /// Client IP geo locations.
    #[schemars(length(min = 1))]
    #[serde(
        rename = "clientIPGeoLocations",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    pub client_ip_geo_locations: Vec<ClientIPGeoLocation>,
}

/// JWT principal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.claims) || has(self.scopes)", "at least one of claims and scopes must be set"),
    ]))]
pub struct JWTPrincipal {
    /// Provider.
    #[schemars(length(min = 1, max = 253))]
    pub provider: String,
    /// Claims.
    #[schemars(length(min = 1, max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<JWTClaim>,
    /// Scopes.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 253)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// JWT claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JWTClaim {
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Value type.
    #[schemars(extend("default" = "String"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_type: Option<JWTClaimValueType>,
    /// Values.
    #[schemars(length(min = 1, max = 128))]
    pub values: Vec<String>,
}

open_enum! {
    /// JWT claim value type.
    JWTClaimValueType {
        /// `String`.
        String = "String",
        /// `StringArray`.
        StringArray = "StringArray",
    }
}

/// Authorization header match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationHeaderMatch {
    /// Name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Values.
    #[schemars(length(min = 1, max = 256))]
    pub values: Vec<String>,
}

/// Client IP geo location.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.country) || has(self.region) || has(self.city) || has(self.asn) || has(self.isp) || has(self.anonymous)", "at least one of country, region, city, asn, isp and anonymous must be set"),
    ]))]
pub struct ClientIPGeoLocation {
    /// Country.
    #[schemars(length(min = 2, max = 2), regex(pattern = r"^[A-Za-z]{2}$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Region.
    #[schemars(length(min = 1, max = 16), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// City.
    #[schemars(length(min = 1, max = 128))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// ASN.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn: Option<i64>,
    /// ISP.
    #[schemars(length(min = 1, max = 256))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isp: Option<String>,
    /// Anonymous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<GeoIPAnonymousMatch>,
}

/// Geo IP anonymous match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.isAnonymous) || has(self.isVPN) || has(self.isHosting) || has(self.isTor) || has(self.isProxy)", "at least one of isAnonymous, isVPN, isHosting, isTor and isProxy must be set"),
    ]))]
pub struct GeoIPAnonymousMatch {
    /// Is anonymous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_anonymous: Option<bool>,
    /// Is VPN.
    #[serde(rename = "isVPN", skip_serializing_if = "Option::is_none")]
    pub is_vpn: Option<bool>,
    /// Is hosting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_hosting: Option<bool>,
    /// Is tor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_tor: Option<bool>,
    /// Is proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_proxy: Option<bool>,
}
