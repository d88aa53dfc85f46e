//! OpenID Connect.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::{BackendCluster, StringMatch};
use super::rules::{NO_BACKEND_REF, NO_RETRY_STATUS, NO_RETRY_TIMEOUT};
use crate::cel::Cel;
use crate::duration::Duration;
use crate::gateway::SecretObjectReference;
use crate::patterns;

/// Login by OpenID Connect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.clientID) != has(self.clientIDRef)", "exactly one of clientID and clientIDRef must be set"),
        ("!self.?forwardAccessToken.orValue(false) || !has(self.forwardIDToken) || self.forwardIDToken.header.lowerAscii() != 'authorization'", "forwardIDToken.header cannot be Authorization if forwardAccessToken is true"),
    ]))]
pub struct OIDC {
    /// Provider.
    pub provider: OIDCProvider,
    /// Client ID.
    #[schemars(length(min = 1))]
    #[serde(rename = "clientID", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Client ID ref.
    #[serde(rename = "clientIDRef", skip_serializing_if = "Option::is_none")]
    pub client_id_ref: Option<SecretObjectReference>,
    /// Client secret.
    pub client_secret: SecretObjectReference,
    /// Cookie names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie_names: Option<OIDCCookieNames>,
    /// Cookie config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<OIDCCookieConfig>,
    /// Cookie domain.
    #[schemars(regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie_domain: Option<String>,
    /// Scopes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Redirect URL.
    #[serde(rename = "redirectURL", skip_serializing_if = "Option::is_none")]
    pub redirect_url: Option<String>,
    /// Deny redirect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny_redirect: Option<OIDCDenyRedirect>,
    /// Logout path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logout_path: Option<String>,
    /// Forward access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_access_token: Option<bool>,
    /// Forward ID token.
    #[serde(rename = "forwardIDToken", skip_serializing_if = "Option::is_none")]
    pub forward_id_token: Option<OIDCTokenForwarding>,
    /// Default token TTL.
    #[serde(rename = "defaultTokenTTL", skip_serializing_if = "Option::is_none")]
    pub default_token_ttl: Option<Duration>,
    /// Refresh token.
    #[schemars(extend("default" = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<bool>,
    /// Default refresh token TTL.
    #[serde(rename = "defaultRefreshTokenTTL", skip_serializing_if = "Option::is_none")]
    pub default_refresh_token_ttl: Option<Duration>,
    /// CSRF token TTL.
    #[serde(rename = "csrfTokenTTL", skip_serializing_if = "Option::is_none")]
    pub csrf_token_ttl: Option<Duration>,
    /// Disable token encryption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_token_encryption: Option<bool>,
    /// Pass through auth header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_through_auth_header: Option<bool>,
}

/// OIDC provider.
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
    /// Issuer.
    #[schemars(regex(pattern = r"^https://[^/?#@]+(/[^?#]*)?$"))]
    pub issuer: String,
    /// Authorization endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_endpoint: Option<String>,
    /// Token endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// End session endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_session_endpoint: Option<String>,
}

/// OIDC cookie names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OIDCCookieNames {
    /// Access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// ID token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_token: Option<String>,
}

/// OIDC cookie config.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OIDCCookieConfig {
    /// Same site.
    #[schemars(extend("enum" = ["Lax", "Strict", "None"]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_site: Option<String>,
}

/// OIDC deny redirect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OIDCDenyRedirect {
    /// Headers.
    #[schemars(length(min = 1, max = 16))]
    pub headers: Vec<OIDCDenyRedirectHeader>,
}

/// OIDC deny redirect header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OIDCDenyRedirectHeader {
    /// Name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// String match.
    #[serde(flatten)]
    pub matches: StringMatch,
}

/// OIDC token forwarding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OIDCTokenForwarding {
    /// Header.
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = patterns::HEADER_NAME),
        transform = Cel(&[("self.lowerAscii() != 'host'", "header cannot be Host")])
    )]
    pub header: String,
}
