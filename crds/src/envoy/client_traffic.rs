//! ClientTrafficPolicy: how the connections and requests of clients are treated.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client_headers::HeaderSettings;
use super::client_tls::ClientTLSSettings;
use super::connection::{HTTP2Settings, TCPKeepalive};
use super::policy::{PolicyTargetReferences, StringMatch};
use crate::cel::Cel;
use crate::duration::Duration;
use crate::gateway::PolicyStatus;
use crate::int_or_string::IntOrString;
use crate::open_enum::open_enum;
use crate::patterns;
use crate::shape::Long;

/// How listeners treat the connections and requests of clients.
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
    /// Probes of idle TCP connections; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_keepalive: Option<TCPKeepalive>,
    /// Old form of `proxyProtocol`, which goes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_proxy_protocol: Option<bool>,
    /// Clients come with a PROXY protocol header, which tells their address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocolSettings>,
    /// Where the address of a client is taken from; from X-Forwarded-For without trusted hops if absent.
    #[serde(rename = "clientIPDetection", skip_serializing_if = "Option::is_none")]
    pub client_ip_detection: Option<ClientIPDetectionSettings>,
    /// How TLS of clients is terminated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTLSSettings>,
    /// How paths are normalized before they are routed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathSettings>,
    /// What happens to headers that say something to or of proxies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeaderSettings>,
    /// How long clients may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<ClientTimeout>,
    /// Limits of connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<ClientConnection>,
    /// HTTP/1.1 and before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http1: Option<HTTP1Settings>,
    /// HTTP/2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2: Option<HTTP2Settings>,
    /// Serves HTTP/3 beside HTTPS, on the UDP port of the same number; off if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http3: Option<HTTP3Settings>,
    /// gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GRPCSettings>,
    /// A path that the listener answers by itself, for those that ask whether it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheckSettings>,
    /// The scheme that backends are told; `Preserve` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<SchemeHeaderTransform>,
}

/// PROXY protocol of clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyProtocolSettings {
    /// Whether connections without the header are served too; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// Where the address of a client is taken from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("[has(self.xForwardedFor), has(self.customHeader), has(self.directSourceIP)].exists_one(set, set)", "exactly one of xForwardedFor, customHeader and directSourceIP must be set"),
    ]))]
pub struct ClientIPDetectionSettings {
    /// From X-Forwarded-For.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x_forwarded_for: Option<XForwardedForSettings>,
    /// From a header that a trusted proxy in front sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_header: Option<CustomHeaderExtensionSettings>,
    /// From the connection alone, whatever headers say.
    #[serde(rename = "directSourceIP", skip_serializing_if = "Option::is_none")]
    pub direct_source_ip: Option<DirectSourceIPSettings>,
}

/// How far X-Forwarded-For is believed.
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
    /// Whether the client's address is not appended to X-Forwarded-For; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_x_forwarded_for_append: Option<bool>,
}

/// A header with the address of the client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomHeaderExtensionSettings {
    /// Name of the header.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub name: String,
    /// Whether a request without a valid address is refused with 403; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_closed: Option<bool>,
}

/// Nothing to set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectSourceIPSettings {}

/// How paths are normalized.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathSettings {
    /// What happens to `%2F` and `%5C` in paths; `UnescapeAndRedirect` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escaped_slashes_action: Option<PathEscapedSlashAction>,
    /// Whether adjacent slashes are left as they are; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_merge_slashes: Option<bool>,
}

open_enum! {
    /// What happens to `%2F` and `%5C` in paths.
    PathEscapedSlashAction {
        /// They are left as they are.
        KeepUnchanged = "KeepUnchanged",
        /// The request is answered with 400.
        RejectRequest = "RejectRequest",
        /// They become slashes, and the client is redirected there with 307.
        UnescapeAndRedirect = "UnescapeAndRedirect",
        /// They become slashes.
        UnescapeAndForward = "UnescapeAndForward",
    }
}

/// How long clients may take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientTimeout {
    /// Connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TCPClientTimeout>,
    /// Requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HTTPClientTimeout>,
}

/// How long connections may take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TCPClientTimeout {
    /// How long nothing may come and go on a connection of TCP or TLS routes; 1 h if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// How long a TLS handshake may take; 10 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_handshake_timeout: Option<Duration>,
    /// How long the PROXY protocol header and the ClientHello may take from the beginning of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_inspection_timeout: Option<Duration>,
}

/// How long requests may take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPClientTimeout {
    /// Until a request has come as a whole; any time if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_received_timeout: Option<Duration>,
    /// Until the headers of a request have come; 1 min if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_headers_received_timeout: Option<Duration>,
    /// How long a connection may be without a request; 1 h if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// How long nothing may move in a request and its answer; 5 min if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_idle_timeout: Option<Duration>,
}

/// Limits of connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientConnection {
    /// How many there may be, and for how long; no limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<ConnectionLimit>,
    /// Bytes that wait in a connection at most, as `32Ki`; the proxy's choice if absent.
    #[schemars(extend("pattern" = patterns::SIZE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer_limit: Option<IntOrString>,
    /// Bytes in a socket's buffers in the kernel; the kernel's choice if absent.
    #[schemars(extend("pattern" = patterns::SIZE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_buffer_limit: Option<IntOrString>,
    /// Connections that are accepted at once before others have their turn.
    #[schemars(extend("default" = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_accept_per_socket_event: Option<i64>,
}

/// How many connections there may be, and for how long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[
        ("!has(self.closeDelay) || has(self.value)", "closeDelay needs value"),
    ]))]
pub struct ConnectionLimit {
    /// Connections at one time; any number if absent.
    #[schemars(with = "Option<Long>", range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
    /// How long a connection too many is held before it is closed; it is closed at once if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_delay: Option<Duration>,
    /// How long a connection may live; any time if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connection_duration: Option<Duration>,
    /// Requests on one connection; any number if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests_per_connection: Option<i64>,
    /// How long a request with its answer may take; any time if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_stream_duration: Option<Duration>,
}

/// HTTP/1.1 and before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTP1Settings {
    /// Whether trailers are passed on; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_trailers: Option<bool>,
    /// Whether names of headers keep their case; they are in lower case if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preserve_header_case: Option<bool>,
    /// Serves HTTP/1.0; answered with 426 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http10: Option<HTTP10Settings>,
    /// Whether a connection past its `maxConnectionDuration` is closed without waiting for one more request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_safe_max_connection_duration: Option<bool>,
    /// Upgrades that are taken for plain requests rather than refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_upgrade_types: Vec<StringMatch>,
}

/// HTTP/1.0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTP10Settings {
    /// Whether requests without a host get the listener's or route's; they are answered with 400 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_default_host: Option<bool>,
}

/// Nothing to set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTP3Settings {}

/// gRPC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GRPCSettings {
    /// Whether requests of gRPC-Web reach backends as gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_web: Option<bool>,
}

/// A path that the listener answers by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheckSettings {
    /// The path: 200 is the answer.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
}

open_enum! {
    /// The scheme that backends are told.
    SchemeHeaderTransform {
        /// The client's.
        Preserve = "Preserve",
        /// That of the connection to the backend.
        MatchBackend = "MatchBackend",
    }
}
