//! ClientTrafficPolicy: how the connections and requests of clients are treated.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client_tls::ClientTLSSettings;
use super::policy::{HTTP2Settings, HeaderFilter, PolicyTargetReferences, StringMatch, TCPKeepalive};
use crate::cel::Cel;
use crate::duration::Duration;
use crate::gateway::PolicyStatus;
use crate::int_or_string::IntOrString;
use crate::open_enum::open_enum;
use crate::patterns;
use crate::shape::Long;

/// How listeners treat the connections and requests of clients..
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "gateway.envoyproxy.io",
    version = "v1alpha1",
    kind = "ClientTrafficPolicy",
    plural = "clienttrafficpolicies",
    shortname = "ctp",
    category = "envoy-gateway",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "How listeners treat the connections and requests of clients.",
    schema = "derived"
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("!has(self.targetRef) || self.targetRef.kind in ['Gateway', 'ListenerSet']", "targetRef must be of kind Gateway or ListenerSet"),
        ("!has(self.targetRefs) || self.targetRefs.all(ref, ref.kind in ['Gateway', 'ListenerSet'])", "targetRefs must be of kind Gateway or ListenerSet"),
    ]))]
pub struct ClientTrafficPolicySpec {
    /// Policy target references.
    #[serde(flatten)]
    pub targets: PolicyTargetReferences,
    /// TCP keepalive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_keepalive: Option<TCPKeepalive>,
    /// Enable proxy protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_proxy_protocol: Option<bool>,
    /// Proxy protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocolSettings>,
    /// Client IP detection.
    #[serde(rename = "clientIPDetection", skip_serializing_if = "Option::is_none")]
    pub client_ip_detection: Option<ClientIPDetectionSettings>,
    /// TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTLSSettings>,
    /// Path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathSettings>,
    /// Headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeaderSettings>,
    /// Timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<ClientTimeout>,
    /// Connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<ClientConnection>,
    /// HTTP/1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http1: Option<HTTP1Settings>,
    /// HTTP/2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2: Option<HTTP2Settings>,
    /// HTTP/3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http3: Option<HTTP3Settings>,
    /// GRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GRPCSettings>,
    /// Health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheckSettings>,
    /// Scheme.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<SchemeHeaderTransform>,
}

/// Proxy protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyProtocolSettings {
    /// Whether it may be missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// Client IP detection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("[has(self.xForwardedFor), has(self.customHeader), has(self.directSourceIP)].exists_one(set, set)", "exactly one of xForwardedFor, customHeader and directSourceIP must be set"),
    ]))]
pub struct ClientIPDetectionSettings {
    /// X forwarded for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x_forwarded_for: Option<XForwardedForSettings>,
    /// Custom header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_header: Option<CustomHeaderExtensionSettings>,
    /// Direct source IP.
    #[serde(rename = "directSourceIP", skip_serializing_if = "Option::is_none")]
    pub direct_source_ip: Option<DirectSourceIPSettings>,
}

/// X forwarded for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("has(self.numTrustedHops) != has(self.trustedCIDRs)", "exactly one of numTrustedHops and trustedCIDRs must be set"),
    ]))]
pub struct XForwardedForSettings {
    /// Proxies in front that append to X-Forwarded-For.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_trusted_hops: Option<i64>,
    /// Networks whose entries in X-Forwarded-For are believed.
    #[schemars(length(min = 1), inner(regex(pattern = patterns::CIDR)))]
    #[serde(rename = "trustedCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_cidrs: Vec<String>,
    /// Disable x forwarded for append.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_x_forwarded_for_append: Option<bool>,
}

/// Custom header extension.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomHeaderExtensionSettings {
    /// Name.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub name: String,
    /// Whether a request without a valid address is refused with 403.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_closed: Option<bool>,
}

/// Direct source IP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectSourceIPSettings {}

/// Path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathSettings {
    /// What happens to `%2F` and `%5C` in paths; `UnescapeAndRedirect` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escaped_slashes_action: Option<PathEscapedSlashAction>,
    /// Whether adjacent slashes are left as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_merge_slashes: Option<bool>,
}

open_enum! {
    /// Path escaped slash action.
    PathEscapedSlashAction {
        /// `KeepUnchanged`.
        KeepUnchanged = "KeepUnchanged",
        /// `RejectRequest`.
        RejectRequest = "RejectRequest",
        /// `UnescapeAndRedirect`.
        UnescapeAndRedirect = "UnescapeAndRedirect",
        /// `UnescapeAndForward`.
        UnescapeAndForward = "UnescapeAndForward",
    }
}

/// Header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("!has(self.preserveXRequestID) || !has(self.requestID)", "at most one of preserveXRequestID and requestID may be set"),
    ]))]
pub struct HeaderSettings {
    /// Enable envoy headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_envoy_headers: Option<bool>,
    /// Disable rate limit headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_rate_limit_headers: Option<bool>,
    /// X forwarded client cert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x_forwarded_client_cert: Option<XForwardedClientCert>,
    /// With underscores action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_underscores_action: Option<WithUnderscoresAction>,
    /// Preserve x request ID.
    #[serde(rename = "preserveXRequestID", skip_serializing_if = "Option::is_none")]
    pub preserve_x_request_id: Option<bool>,
    /// Request ID.
    #[serde(rename = "requestID", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestIDAction>,
    /// Early request headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_request_headers: Option<HeaderFilter>,
    /// Late response headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_response_headers: Option<HeaderFilter>,
    /// Host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostSettings>,
}

/// X forwarded client cert.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("!has(self.certDetailsToAdd) || self.certDetailsToAdd.size() == 0 || (has(self.mode) && self.mode in ['AppendForward', 'SanitizeSet'])", "certDetailsToAdd needs mode AppendForward or SanitizeSet"),
    ]))]
pub struct XForwardedClientCert {
    /// Mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<XFCCForwardMode>,
    /// Cert details to add.
    #[schemars(length(max = 5))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cert_details_to_add: Vec<XFCCCertData>,
}

open_enum! {
    /// Xfcc forward mode.
    XFCCForwardMode {
        /// `Sanitize`.
        Sanitize = "Sanitize",
        /// `ForwardOnly`.
        ForwardOnly = "ForwardOnly",
        /// `AppendForward`.
        AppendForward = "AppendForward",
        /// `SanitizeSet`.
        SanitizeSet = "SanitizeSet",
        /// `AlwaysForwardOnly`.
        AlwaysForwardOnly = "AlwaysForwardOnly",
    }
}

open_enum! {
    /// Xfcc cert data.
    XFCCCertData {
        /// `Subject`.
        Subject = "Subject",
        /// `Cert`.
        Cert = "Cert",
        /// `Chain`.
        Chain = "Chain",
        /// `DNS`.
        Dns = "DNS",
        /// `URI`.
        Uri = "URI",
    }
}

open_enum! {
    /// With underscores action.
    WithUnderscoresAction {
        /// `Allow`.
        Allow = "Allow",
        /// `RejectRequest`.
        RejectRequest = "RejectRequest",
        /// `DropHeader`.
        DropHeader = "DropHeader",
    }
}

open_enum! {
    /// Request ID action.
    RequestIDAction {
        /// `PreserveOrGenerate`.
        PreserveOrGenerate = "PreserveOrGenerate",
        /// `Preserve`.
        Preserve = "Preserve",
        /// `Generate`.
        Generate = "Generate",
        /// `Disable`.
        Disable = "Disable",
    }
}

/// Host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostSettings {
    /// Strip trailing host dot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strip_trailing_host_dot: Option<bool>,
}

/// Client timeout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientTimeout {
    /// TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TCPClientTimeout>,
    /// HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HTTPClientTimeout>,
}

/// TCP client timeout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TCPClientTimeout {
    /// Idle timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// TLS handshake timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_handshake_timeout: Option<Duration>,
    /// Connection inspection timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_inspection_timeout: Option<Duration>,
}

/// HTTP client timeout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPClientTimeout {
    /// Request received timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_received_timeout: Option<Duration>,
    /// Request headers received timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_headers_received_timeout: Option<Duration>,
    /// Idle timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// Stream idle timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_idle_timeout: Option<Duration>,
}

/// Client connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientConnection {
    /// Connection limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<ConnectionLimit>,
    /// Bytes that wait in a connection at most.
    #[schemars(extend("pattern" = patterns::SIZE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer_limit: Option<IntOrString>,
    /// Socket buffer limit.
    #[schemars(extend("pattern" = patterns::SIZE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_buffer_limit: Option<IntOrString>,
    /// Max accept per socket event.
    #[schemars(extend("default" = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_accept_per_socket_event: Option<i64>,
}

/// Connection limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("!has(self.closeDelay) || has(self.value)", "closeDelay needs value"),
    ]))]
pub struct ConnectionLimit {
    /// Value.
    #[schemars(with = "Option<Long>", range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
    /// How long a connection too many is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_delay: Option<Duration>,
    /// How long a connection may live; any time if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connection_duration: Option<Duration>,
    /// Requests on one connection; any number if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests_per_connection: Option<i64>,
    /// Max stream duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_stream_duration: Option<Duration>,
}

/// HTTP/1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTP1Settings {
    /// Enable trailers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_trailers: Option<bool>,
    /// Preserve header case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preserve_header_case: Option<bool>,
    /// Http10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http10: Option<HTTP10Settings>,
    /// Disable safe max connection duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_safe_max_connection_duration: Option<bool>,
    /// Ignored upgrade types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_upgrade_types: Vec<StringMatch>,
}

/// Http10.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTP10Settings {
    /// Use default host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_default_host: Option<bool>,
}

/// HTTP/3.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTP3Settings {}

/// GRPC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GRPCSettings {
    /// Enable web.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_web: Option<bool>,
}

/// Health check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheckSettings {
    /// Path.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
}

open_enum! {
    /// Scheme header transform.
    SchemeHeaderTransform {
        /// `Preserve`.
        Preserve = "Preserve",
        /// `MatchBackend`.
        MatchBackend = "MatchBackend",
    }
}
