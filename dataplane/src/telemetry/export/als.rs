//! Envoy's gRPC access log service: the part of its messages that is spoken, with the names and numbers that Envoy has
//! published.
#![allow(missing_docs, reason = "Envoy documents them")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::UNIX_EPOCH;

use http::HeaderMap;
use http::header::{HeaderName, REFERER};

use crate::filter::auth::proto::{Address, SocketAddress};
use crate::telemetry::access_log::Entry;
use crate::telemetry::access_log::template::Subject;

/// The gRPC method.
pub const STREAM: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// `envoy.service.accesslog.v3.StreamAccessLogsMessage`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamAccessLogsMessage {
    #[prost(message, optional, tag = "1")]
    pub identifier: Option<Identifier>,
    #[prost(message, optional, tag = "2")]
    pub http_logs: Option<HttpEntries>,
    #[prost(message, optional, tag = "3")]
    pub tcp_logs: Option<TcpEntries>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Identifier {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    #[prost(string, tag = "2")]
    pub log_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    #[prost(string, tag = "1")]
    pub id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpEntries {
    #[prost(message, repeated, tag = "1")]
    pub log_entry: Vec<HttpEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct TcpEntries {
    #[prost(message, repeated, tag = "1")]
    pub log_entry: Vec<TcpEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpEntry {
    #[prost(message, optional, tag = "1")]
    pub common_properties: Option<Common>,
    #[prost(int32, tag = "2")]
    pub protocol_version: i32,
    #[prost(message, optional, tag = "3")]
    pub request: Option<RequestProperties>,
    #[prost(message, optional, tag = "4")]
    pub response: Option<ResponseProperties>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct TcpEntry {
    #[prost(message, optional, tag = "1")]
    pub common_properties: Option<Common>,
    #[prost(message, optional, tag = "2")]
    pub connection_properties: Option<ConnectionProperties>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ConnectionProperties {
    #[prost(uint64, tag = "1")]
    pub received_bytes: u64,
    #[prost(uint64, tag = "2")]
    pub sent_bytes: u64,
}

/// `google.protobuf.Timestamp` and `Duration` alike.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Time {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Common {
    #[prost(message, optional, tag = "2")]
    pub downstream_remote_address: Option<Address>,
    #[prost(message, optional, tag = "3")]
    pub downstream_local_address: Option<Address>,
    #[prost(message, optional, tag = "5")]
    pub start_time: Option<Time>,
    #[prost(message, optional, tag = "12")]
    pub time_to_last_downstream_tx_byte: Option<Time>,
    #[prost(message, optional, tag = "13")]
    pub upstream_remote_address: Option<Address>,
    #[prost(message, optional, tag = "14")]
    pub upstream_local_address: Option<Address>,
    #[prost(string, tag = "15")]
    pub upstream_cluster: String,
    #[prost(message, optional, tag = "16")]
    pub response_flags: Option<Flags>,
    #[prost(string, tag = "18")]
    pub upstream_transport_failure_reason: String,
    #[prost(string, tag = "19")]
    pub route_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Flags {
    #[prost(bool, tag = "2")]
    pub no_healthy_upstream: bool,
    #[prost(bool, tag = "3")]
    pub upstream_request_timeout: bool,
    #[prost(bool, tag = "6")]
    pub upstream_connection_failure: bool,
    #[prost(bool, tag = "7")]
    pub upstream_connection_termination: bool,
    #[prost(bool, tag = "8")]
    pub upstream_overflow: bool,
    #[prost(bool, tag = "9")]
    pub no_route_found: bool,
    #[prost(bool, tag = "15")]
    pub downstream_connection_termination: bool,
    #[prost(bool, tag = "17")]
    pub stream_idle_timeout: bool,
    #[prost(bool, tag = "19")]
    pub downstream_protocol_error: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestProperties {
    #[prost(int32, tag = "1")]
    pub request_method: i32,
    #[prost(string, tag = "2")]
    pub scheme: String,
    #[prost(string, tag = "3")]
    pub authority: String,
    #[prost(string, tag = "5")]
    pub path: String,
    #[prost(string, tag = "6")]
    pub user_agent: String,
    #[prost(string, tag = "7")]
    pub referer: String,
    #[prost(string, tag = "8")]
    pub forwarded_for: String,
    #[prost(string, tag = "9")]
    pub request_id: String,
    #[prost(uint64, tag = "12")]
    pub request_body_bytes: u64,
    #[prost(btree_map = "string, string", tag = "13")]
    pub request_headers: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResponseProperties {
    #[prost(message, optional, tag = "1")]
    pub response_code: Option<u32>,
    #[prost(uint64, tag = "3")]
    pub response_body_bytes: u64,
    #[prost(btree_map = "string, string", tag = "4")]
    pub response_headers: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "5")]
    pub response_trailers: BTreeMap<String, String>,
    #[prost(string, tag = "6")]
    pub response_code_details: String,
}

/// A message of the log of this name.
pub fn message(
    name: &str,
    http_logs: Option<HttpEntries>,
    tcp_logs: Option<TcpEntries>,
) -> StreamAccessLogsMessage {
    let node = Node {
        id: std::env::var("HOSTNAME").unwrap_or_default(),
    };
    StreamAccessLogsMessage {
        identifier: Some(Identifier {
            node: Some(node),
            log_name: name.to_owned(),
        }),
        http_logs,
        tcp_logs,
    }
}

/// Which fields of requests are told besides the usual ones.
#[derive(Debug, Default)]
pub struct Fields {
    /// Headers of requests.
    pub request: Vec<HeaderName>,
    /// Headers of responses.
    pub response: Vec<HeaderName>,
    /// Trailers of responses.
    pub trailers: Vec<HeaderName>,
}

/// What is told of a request.
pub fn http(subject: &Subject<'_>, fields: &Fields) -> HttpEntry {
    let entry = subject.entry;
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let referer = subject.head.and_then(|head| head.headers.get(REFERER));
    HttpEntry {
        common_properties: Some(common(entry)),
        protocol_version: match entry.protocol {
            "HTTP/1.0" => 1,
            "HTTP/1.1" => 2,
            "HTTP/2" => 3,
            _ => 0,
        },
        request: Some(RequestProperties {
            request_method: method(entry.method),
            scheme: if subject.https { "https" } else { "http" }.into(),
            authority: text(Some(entry.authority)),
            path: text(Some(entry.path)),
            user_agent: text(entry.user_agent),
            referer: text(referer.map(http::HeaderValue::as_bytes)),
            forwarded_for: text(entry.forwarded_for),
            request_id: text(entry.request_id),
            request_body_bytes: entry.received,
            request_headers: chosen(subject.head.map(|head| &head.headers), &fields.request),
        }),
        response: Some(ResponseProperties {
            response_code: (entry.status != 0).then(|| entry.status.into()),
            response_body_bytes: entry.sent,
            response_headers: chosen(subject.response, &fields.response),
            response_trailers: chosen(subject.trailers, &fields.trailers),
            response_code_details: entry.details.to_owned(),
        }),
    }
}

/// What is told of a session.
pub fn tcp(entry: &Entry<'_>) -> TcpEntry {
    TcpEntry {
        common_properties: Some(common(entry)),
        connection_properties: Some(ConnectionProperties {
            received_bytes: entry.received,
            sent_bytes: entry.sent,
        }),
    }
}

fn chosen(headers: Option<&HeaderMap>, names: &[HeaderName]) -> BTreeMap<String, String> {
    let value = |name: &HeaderName| {
        let value = headers?.get(name)?;
        Some((
            name.to_string(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        ))
    };
    names.iter().filter_map(value).collect()
}

fn method(name: &str) -> i32 {
    const METHODS: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    let place = METHODS.iter().position(|known| *known == name);
    place
        .and_then(|at| i32::try_from(at + 1).ok())
        .unwrap_or_default()
}

fn common(entry: &Entry<'_>) -> Common {
    let time = |of: std::time::Duration| Time {
        seconds: i64::try_from(of.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(of.subsec_nanos()).unwrap_or_default(),
    };
    Common {
        downstream_remote_address: Some(address(entry.downstream_remote)),
        downstream_local_address: Some(address(entry.downstream_local)),
        start_time: Some(time(entry.start.duration_since(UNIX_EPOCH).unwrap_or_default())),
        time_to_last_downstream_tx_byte: Some(time(entry.duration)),
        upstream_remote_address: entry
            .upstream_host
            .and_then(|host| host.parse().ok())
            .map(address),
        upstream_local_address: entry.upstream_local.map(address),
        upstream_cluster: entry.upstream_cluster.unwrap_or_default().to_owned(),
        response_flags: (!entry.flags.is_empty()).then(|| Flags {
            no_healthy_upstream: entry.flags == "UH",
            upstream_request_timeout: entry.flags == "UT",
            upstream_connection_failure: entry.flags == "UF",
            upstream_connection_termination: entry.flags == "UC",
            upstream_overflow: entry.flags == "UO",
            no_route_found: entry.flags == "NR",
            downstream_connection_termination: entry.flags == "DC",
            stream_idle_timeout: entry.flags == "SI",
            downstream_protocol_error: entry.flags == "DPE",
        }),
        upstream_transport_failure_reason: entry.transport_failure.unwrap_or_default().to_owned(),
        route_name: entry.route.unwrap_or_default().to_owned(),
    }
}

fn address(address: SocketAddr) -> Address {
    Address {
        socket_address: Some(SocketAddress {
            address: address.ip().to_canonical().to_string(),
            port_value: address.port().into(),
        }),
    }
}
