//! Calls of gRPC methods of the proxy's own: one message there, one message back.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderValue, TE};
use http::{Method, Uri};
use prost::Message;

use super::subrequest::Answer;

/// A call of the method at `path`, made to `authority`.
pub(super) fn request(
    path: &'static str,
    authority: &'static str,
    message: &impl Message,
) -> http::Request<Bytes> {
    let mut request = http::Request::new(frame(message));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static(authority));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    request
}

/// A message as gRPC frames it: not compressed, its length, the message.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + message.encoded_len());
    out.put_u8(0);
    out.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    // Only fails for want of room, which a growing buffer has.
    let _ = message.encode(&mut out);
    out.freeze()
}

/// The message that the call was answered with.
///
/// # Errors
/// Why there is none.
pub(super) fn message<M: Message + Default>(answer: &Answer) -> Result<M, String> {
    let status = answer
        .trailers
        .get("grpc-status")
        .or_else(|| answer.head.headers.get("grpc-status"));
    if status.is_none_or(|status| status != "0") {
        return Err(format!("grpc-status {status:?}"));
    }
    let message = answer
        .body
        .get(5..)
        .filter(|_| answer.body.first() == Some(&0))
        .ok_or("no message")?;
    M::decode(message).map_err(|e| e.to_string())
}
