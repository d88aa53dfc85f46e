//! What is said to processors and to clients in single messages.

use bytes::Bytes;
use http::StatusCode;

use super::super::reply::Reply;
use super::session::Way;
use crate::filter::ext_proc;
use crate::filter::ext_proc::proto::{self, Shown};

/// A piece of a body, as it is shown.
pub(super) fn piece(way: Way, body: Bytes, end_of_stream: bool) -> Shown {
    let body = proto::HttpBody { body, end_of_stream };
    match way {
        Way::Request => Shown::RequestBody(body),
        Way::Response => Shown::ResponseBody(body),
    }
}

/// The answer where a body that is to be shown as a whole is longer than what is held.
pub(super) fn too_long(way: Way) -> Reply {
    match way {
        Way::Request => Reply::error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Payload Too Large",
            "",
            "request_payload_too_large",
        ),
        Way::Response => Reply::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "",
            "",
            "response_payload_too_large",
        ),
    }
}

/// The response that a processor has made itself.
pub(super) fn answered(from: proto::ImmediateResponse) -> Reply {
    let grpc = from.grpc_status;
    let (status, headers, body) = ext_proc::immediate(from);
    let mut reply = Reply::direct(status, headers);
    reply.body = body;
    reply.details = "ext_proc_immediate_response";
    // To gRPC clients a status of HTTP says little.
    reply.intended = grpc.is_some();
    if let Some(grpc) = grpc {
        reply
            .headers
            .insert("grpc-status", http::HeaderValue::from(grpc.status));
    }
    reply
}
