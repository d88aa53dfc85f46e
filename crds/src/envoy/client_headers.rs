//! Headers of clients that say something to or of proxies.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::HeaderFilter;
use crate::cel::Cel;
use crate::open_enum::open_enum;

/// What happens to headers that say something to or of proxies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("!has(self.preserveXRequestID) || !has(self.requestID)", "at most one of preserveXRequestID and requestID may be set"),
    ]))]
pub struct HeaderSettings {
    /// Whether `X-Envoy-*` headers are added; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_envoy_headers: Option<bool>,
    /// Whether answers go without `X-RateLimit-*` headers; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_rate_limit_headers: Option<bool>,
    /// What happens to X-Forwarded-Client-Cert; see `mode` for what does if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x_forwarded_client_cert: Option<XForwardedClientCert>,
    /// What happens to headers with underscores in their names; `RejectRequest` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_underscores_action: Option<WithUnderscoresAction>,
    /// Old form of `requestID`: whether a client's X-Request-ID is kept; false if absent.
    #[serde(rename = "preserveXRequestID", skip_serializing_if = "Option::is_none")]
    pub preserve_x_request_id: Option<bool>,
    /// What happens to X-Request-ID; `Generate` if absent, save behind trusted hops.
    #[serde(rename = "requestID", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestIDAction>,
    /// Changes of requests before they are routed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_request_headers: Option<HeaderFilter>,
    /// Changes of answers, after all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_response_headers: Option<HeaderFilter>,
    /// How hosts are normalized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostSettings>,
}

/// What happens to X-Forwarded-Client-Cert.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("!has(self.certDetailsToAdd) || self.certDetailsToAdd.size() == 0 || (has(self.mode) && self.mode in ['AppendForward', 'SanitizeSet'])", "certDetailsToAdd needs mode AppendForward or SanitizeSet"),
    ]))]
pub struct XForwardedClientCert {
    /// Whether the header is kept, taken away or set; `Sanitize` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<XFCCForwardMode>,
    /// What of the client's certificate is said, beside its hash; with modes that say anything.
    #[schemars(length(max = 5))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cert_details_to_add: Vec<XFCCCertData>,
}

open_enum! {
    /// Whether X-Forwarded-Client-Cert is kept, taken away or set.
    XFCCForwardMode {
        /// It is taken away.
        Sanitize = "Sanitize",
        /// It is kept where the client has shown a certificate.
        ForwardOnly = "ForwardOnly",
        /// The client's certificate is appended where it has shown one.
        AppendForward = "AppendForward",
        /// It is set to the client's certificate alone.
        SanitizeSet = "SanitizeSet",
        /// It is kept.
        AlwaysForwardOnly = "AlwaysForwardOnly",
    }
}

open_enum! {
    /// A part of a client's certificate.
    XFCCCertData {
        /// Subject.
        Subject = "Subject",
        /// The certificate itself, in URL-encoded PEM.
        Cert = "Cert",
        /// The certificate with its chain, in URL-encoded PEM.
        Chain = "Chain",
        /// DNS names.
        Dns = "DNS",
        /// URI.
        Uri = "URI",
    }
}

open_enum! {
    /// What happens to headers with underscores in their names.
    WithUnderscoresAction {
        /// They are kept.
        Allow = "Allow",
        /// The request is answered with 400.
        RejectRequest = "RejectRequest",
        /// They are taken away.
        DropHeader = "DropHeader",
    }
}

open_enum! {
    /// What happens to X-Request-ID.
    RequestIDAction {
        /// It is kept, and set where it is missing.
        PreserveOrGenerate = "PreserveOrGenerate",
        /// It is kept.
        Preserve = "Preserve",
        /// It is set, whatever the client says.
        Generate = "Generate",
        /// It is taken away.
        Disable = "Disable",
    }
}

/// How hosts are normalized.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostSettings {
    /// Whether the dot at the end of a host is taken away; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strip_trailing_host_dot: Option<bool>,
}
