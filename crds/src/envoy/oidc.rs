//! OpenID Connect.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::{BackendCluster, StringMatch};
use super::rules::{NO_BACKEND_REF, NO_RETRY_STATUS, NO_RETRY_TIMEOUT};
use crate::cel::Cel;
use crate::duration::Duration;
use crate::gateway::SecretObjectReference;
use crate::patterns;

/// Clients log in by OpenID Connect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.clientID) != has(self.clientIDRef)", "exactly one of clientID and clientIDRef must be set"),
        ("!self.?forwardAccessToken.orValue(false) || !has(self.forwardIDToken) || self.forwardIDToken.header.lowerAscii() != 'authorization'", "forwardIDToken.header cannot be Authorization if forwardAccessToken is true"),
    ]))]
pub struct OIDC {
    /// Who knows the users.
    pub provider: OIDCProvider,
    /// Client ID that the provider has given.
    #[schemars(length(min = 1))]
    #[serde(rename = "clientID", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Secret with the client ID, in the key `client-id`.
    #[serde(rename = "clientIDRef", skip_serializing_if = "Option::is_none")]
    pub client_id_ref: Option<SecretObjectReference>,
    /// Secret with the client secret, in the key `client-secret`.
    pub client_secret: SecretObjectReference,
    /// Names of the cookies that hold the tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie_names: Option<OIDCCookieNames>,
    /// Attributes of the cookies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<OIDCCookieConfig>,
    /// Domain of the cookies; the host of the request alone if absent.
    #[schemars(regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie_domain: Option<String>,
    /// Scopes that are asked for, beside `openid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Resources that are asked for (RFC 8707).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Where the provider sends the client back to; `/oauth2/callback` of the request's host if absent.
    #[serde(rename = "redirectURL", skip_serializing_if = "Option::is_none")]
    pub redirect_url: Option<String>,
    /// Requests that are answered with 401 rather than sent to log in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny_redirect: Option<OIDCDenyRedirect>,
    /// Path that logs out; `/logout` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logout_path: Option<String>,
    /// Whether backends get the access token, in Authorization; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_access_token: Option<bool>,
    /// Header in which backends get the ID token; they do not if absent.
    #[serde(rename = "forwardIDToken", skip_serializing_if = "Option::is_none")]
    pub forward_id_token: Option<OIDCTokenForwarding>,
    /// Lifetime of tokens whose provider names none; without it these give no session.
    #[serde(rename = "defaultTokenTTL", skip_serializing_if = "Option::is_none")]
    pub default_token_ttl: Option<Duration>,
    /// Whether tokens that have ended are fetched anew by the refresh token.
    #[schemars(extend("default" = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<bool>,
    /// Lifetime of refresh tokens where they name none; a week if absent.
    #[serde(rename = "defaultRefreshTokenTTL", skip_serializing_if = "Option::is_none")]
    pub default_refresh_token_ttl: Option<Duration>,
    /// How long a login may take; 10 min if absent.
    #[serde(rename = "csrfTokenTTL", skip_serializing_if = "Option::is_none")]
    pub csrf_token_ttl: Option<Duration>,
    /// Whether cookies hold the tokens in the clear; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_token_encryption: Option<bool>,
    /// Whether requests that have a token for `jwt` pass without logging in; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_through_auth_header: Option<bool>,
}

/// Who knows the users.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        NO_BACKEND_REF,
        NO_RETRY_TIMEOUT,
        NO_RETRY_STATUS,
    ]))]
pub struct OIDCProvider {
    /// Backend cluster.
    #[serde(flatten)]
    pub cluster: BackendCluster,
    /// Issuer: an https URL without query and fragment.
    #[schemars(regex(pattern = r"^https://[^/?#@]+(/[^?#]*)?$"))]
    pub issuer: String,
    /// Where clients log in; what the provider publishes if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_endpoint: Option<String>,
    /// Where tokens are fetched; what the provider publishes if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// Where clients log out; what the provider publishes if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_session_endpoint: Option<String>,
}

/// Names of the cookies that hold the tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OIDCCookieNames {
    /// That of the access token; made up for each policy if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// That of the ID token; made up for each policy if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_token: Option<String>,
}

/// Attributes of the cookies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OIDCCookieConfig {
    /// SameSite of the cookies.
    #[schemars(extend("enum" = ["Lax", "Strict", "None"]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_site: Option<String>,
}

/// Requests that are answered with 401 rather than sent to log in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OIDCDenyRedirect {
    /// Headers of which one must match.
    #[schemars(length(min = 1, max = 16))]
    pub headers: Vec<OIDCDenyRedirectHeader>,
}

/// What a header must be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OIDCDenyRedirectHeader {
    /// Name of the header.
    #[schemars(length(min = 1))]
    pub name: String,
    /// String match.
    #[serde(flatten)]
    pub matches: StringMatch,
}

/// How backends get a token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OIDCTokenForwarding {
    /// Name of the header; in Authorization the token comes after `Bearer `.
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = patterns::HEADER_NAME),
        transform = Cel(&[("self.lowerAscii() != 'host'", "header cannot be Host")])
    )]
    pub header: String,
}
