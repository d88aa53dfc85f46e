//! Settings of connections that clients and backends share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cel::Cel;
use crate::duration::Duration;
use crate::int_or_string::IntOrString;
use crate::open_enum::open_enum;
use crate::patterns;

/// Probes that find dead connections; none are sent if absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TCPKeepalive {
    /// Unanswered probes after which the connection is dead; 9 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<i64>,
    /// How long nothing must have been received before the first probe; 2 h if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_time: Option<Duration>,
    /// Time between probes; 75 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
}

/// Settings of HTTP/2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTP2Settings {
    /// Bytes that a stream may send ahead, such as `256Ki`.
    #[schemars(extend("pattern" = patterns::SIZE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_stream_window_size: Option<IntOrString>,
    /// Bytes that a connection may send ahead, such as `1Mi`.
    #[schemars(extend("pattern" = patterns::SIZE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_connection_window_size: Option<IntOrString>,
    /// Streams at once on one connection.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_streams: Option<i64>,
    /// What a malformed message ends: `TerminateConnection`, the default, or `TerminateStream`.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_invalid_message: Option<InvalidMessageAction>,
    /// Pings that find dead connections; none are sent if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_keepalive: Option<HTTP2KeepaliveSettings>,
}

open_enum! {
    /// Invalid message action.
    InvalidMessageAction {
        /// `TerminateConnection`.
        TerminateConnection = "TerminateConnection",
        /// `TerminateStream`.
        TerminateStream = "TerminateStream",
    }
}

/// Pings of HTTP/2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[(
    "!has(self.timeout) || !has(self.interval) || duration(self.timeout) < duration(self.interval)",
    "timeout must be less than interval",
)]))]
#[serde(rename_all = "camelCase")]
pub struct HTTP2KeepaliveSettings {
    /// Time between pings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// How long the answer may take before the connection is closed; less than `interval`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Percent of the interval by which each is lengthened at random; 15 if absent.
    #[schemars(range(min = 0, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_jitter: Option<i64>,
    /// How long a connection may be idle before a ping precedes the next request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_interval: Option<Duration>,
}
