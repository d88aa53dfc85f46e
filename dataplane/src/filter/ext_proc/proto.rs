//! The part of Envoy's `envoy.service.ext_proc.v3` that is spoken with a processor, field numbers as published.

use std::collections::HashMap;

use prost_types::Struct;

pub use crate::filter::auth::proto::{HeaderValue, HttpStatus, Metadata};

/// Path of the call.
pub const PROCESS: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// `ProcessingRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessingRequest {
    /// What is shown.
    #[prost(oneof = "Shown", tags = "2, 3, 4, 5, 6, 7")]
    pub request: Option<Shown>,
    /// What of the request's metadata the processor is shown.
    #[prost(message, optional, tag = "8")]
    pub metadata_context: Option<Metadata>,
    /// Attributes, by the name of Envoy's filter.
    #[prost(map = "string, message", tag = "9")]
    pub attributes: HashMap<String, Struct>,
    /// True: no answer is wanted.
    #[prost(bool, tag = "10")]
    pub observability_mode: bool,
    /// In the first message of a stream.
    #[prost(message, optional, tag = "11")]
    pub protocol_config: Option<ProtocolConfiguration>,
}

/// `ProcessingRequest.request`.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Shown {
    /// The request's head.
    #[prost(message, tag = "2")]
    RequestHeaders(HttpHeaders),
    /// The response's head.
    #[prost(message, tag = "3")]
    ResponseHeaders(HttpHeaders),
    /// A piece of the request's body.
    #[prost(message, tag = "4")]
    RequestBody(HttpBody),
    /// A piece of the response's body.
    #[prost(message, tag = "5")]
    ResponseBody(HttpBody),
    /// The request's trailers.
    #[prost(message, tag = "6")]
    RequestTrailers(HttpTrailers),
    /// The response's trailers.
    #[prost(message, tag = "7")]
    ResponseTrailers(HttpTrailers),
}

/// `ProtocolConfiguration`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ProtocolConfiguration {
    /// `ProcessingMode.BodySendMode` of requests.
    #[prost(int32, tag = "1")]
    pub request_body_mode: i32,
    /// The same of responses.
    #[prost(int32, tag = "2")]
    pub response_body_mode: i32,
}

/// `HttpHeaders`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpHeaders {
    /// The headers.
    #[prost(message, optional, tag = "1")]
    pub headers: Option<HeaderMap>,
    /// True: there is no body.
    #[prost(bool, tag = "3")]
    pub end_of_stream: bool,
}

/// `HttpBody`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpBody {
    /// The bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub body: bytes::Bytes,
    /// True: nothing follows.
    #[prost(bool, tag = "2")]
    pub end_of_stream: bool,
}

/// `HttpTrailers`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpTrailers {
    /// The trailers.
    #[prost(message, optional, tag = "1")]
    pub trailers: Option<HeaderMap>,
}

/// `core.v3.HeaderMap`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderMap {
    /// In their order.
    #[prost(message, repeated, tag = "1")]
    pub headers: Vec<HeaderValue>,
}

/// `ProcessingResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessingResponse {
    /// What is answered.
    #[prost(oneof = "Answer", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub response: Option<Answer>,
    /// What the processor says of the request: by namespaces.
    #[prost(message, optional, tag = "8")]
    pub dynamic_metadata: Option<Struct>,
    /// What the processor sees from now on.
    #[prost(message, optional, tag = "9")]
    pub mode_override: Option<ProcessingMode>,
}

/// `ProcessingResponse.response`.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Answer {
    /// To the request's head.
    #[prost(message, tag = "1")]
    RequestHeaders(CommonAnswer),
    /// To the response's head.
    #[prost(message, tag = "2")]
    ResponseHeaders(CommonAnswer),
    /// To a piece of the request's body.
    #[prost(message, tag = "3")]
    RequestBody(CommonAnswer),
    /// To a piece of the response's body.
    #[prost(message, tag = "4")]
    ResponseBody(CommonAnswer),
    /// To the request's trailers.
    #[prost(message, tag = "5")]
    RequestTrailers(TrailersResponse),
    /// To the response's trailers.
    #[prost(message, tag = "6")]
    ResponseTrailers(TrailersResponse),
    /// The client is answered by the processor.
    #[prost(message, tag = "7")]
    Immediate(ImmediateResponse),
}

/// `HeadersResponse` and `BodyResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommonAnswer {
    /// What changes.
    #[prost(message, optional, tag = "1")]
    pub response: Option<CommonResponse>,
}

/// `CommonResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommonResponse {
    /// 1: the body is replaced and nothing more is shown.
    #[prost(int32, tag = "1")]
    pub status: i32,
    /// What becomes of the headers.
    #[prost(message, optional, tag = "2")]
    pub header_mutation: Option<HeaderMutation>,
    /// What becomes of the body.
    #[prost(message, optional, tag = "3")]
    pub body_mutation: Option<BodyMutation>,
    /// True: the route is chosen anew.
    #[prost(bool, tag = "5")]
    pub clear_route_cache: bool,
}

impl CommonResponse {
    /// True if the body is replaced and nothing more is shown.
    pub fn replaces(&self) -> bool {
        self.status == 1
    }
}

/// `HeaderMutation`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderMutation {
    /// Headers to set.
    #[prost(message, repeated, tag = "1")]
    pub set_headers: Vec<HeaderValueOption>,
    /// Headers to remove.
    #[prost(string, repeated, tag = "2")]
    pub remove_headers: Vec<String>,
}

/// `core.v3.HeaderValueOption`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValueOption {
    /// Name and value.
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    /// Append rather than overwrite; goes before `append_action`.
    #[prost(message, optional, tag = "2")]
    pub append: Option<crate::filter::auth::proto::BoolValue>,
    /// `HeaderAppendAction`.
    #[prost(int32, tag = "3")]
    pub append_action: i32,
}

/// `BodyMutation`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BodyMutation {
    /// What takes the place of the body.
    #[prost(oneof = "Body", tags = "1, 2, 3")]
    pub mutation: Option<Body>,
}

/// `BodyMutation.mutation`.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// These bytes.
    #[prost(bytes = "bytes", tag = "1")]
    Bytes(bytes::Bytes),
    /// Nothing.
    #[prost(bool, tag = "2")]
    Clear(bool),
    /// A piece of the processor's own.
    #[prost(message, tag = "3")]
    Streamed(HttpBody),
}

/// `TrailersResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TrailersResponse {
    /// What becomes of them.
    #[prost(message, optional, tag = "1")]
    pub header_mutation: Option<HeaderMutation>,
}

/// `ImmediateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImmediateResponse {
    /// Its status.
    #[prost(message, optional, tag = "1")]
    pub status: Option<HttpStatus>,
    /// Its headers.
    #[prost(message, optional, tag = "2")]
    pub headers: Option<HeaderMutation>,
    /// Its body.
    #[prost(bytes = "bytes", tag = "3")]
    pub body: bytes::Bytes,
    /// For gRPC clients.
    #[prost(message, optional, tag = "4")]
    pub grpc_status: Option<GrpcStatus>,
}

/// `GrpcStatus`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct GrpcStatus {
    /// The code.
    #[prost(uint32, tag = "1")]
    pub status: u32,
}

/// `ProcessingMode`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ProcessingMode {
    /// `HeaderSendMode` of response heads: 2 skips them.
    #[prost(int32, tag = "2")]
    pub response_header_mode: i32,
    /// `BodySendMode` of requests.
    #[prost(int32, tag = "3")]
    pub request_body_mode: i32,
    /// `BodySendMode` of responses.
    #[prost(int32, tag = "4")]
    pub response_body_mode: i32,
    /// `HeaderSendMode` of request trailers: 1 sends them.
    #[prost(int32, tag = "5")]
    pub request_trailer_mode: i32,
    /// `HeaderSendMode` of response trailers.
    #[prost(int32, tag = "6")]
    pub response_trailer_mode: i32,
}
