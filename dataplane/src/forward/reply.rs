//! Responses that the proxy makes itself.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, StatusCode, response};

use super::downstream::{Downstream, Gone};
use crate::filter::Denial;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// A response of the proxy's own, and what the access log says about it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Envoy's response flag; empty: none.
    pub(super) flags: &'static str,
    /// Envoy's response code details.
    pub(super) details: &'static str,
    /// True if this is what the configuration asks for rather than an error: it is the same for gRPC.
    pub(super) intended: bool,
    /// True if it has taken the place of another one.
    pub(super) replaced: bool,
}

impl Reply {
    /// An error.
    pub(super) fn error(
        status: StatusCode,
        body: &'static str,
        flags: &'static str,
        details: &'static str,
    ) -> Self {
        let body = Bytes::from_static(body.as_bytes());
        Self {
            status,
            headers: HeaderMap::new(),
            body,
            flags,
            details,
            intended: false,
            replaced: false,
        }
    }

    /// What a filter answers.
    pub(super) fn direct(status: StatusCode, headers: HeaderMap) -> Self {
        Self {
            status,
            headers,
            body: Bytes::new(),
            flags: "",
            details: "direct_response",
            intended: true,
            replaced: false,
        }
    }

    /// A gRPC status; no body.
    pub(super) fn grpc(code: u32, message: &'static str, flags: &'static str, details: &'static str) -> Self {
        let mut reply = Self::direct(StatusCode::OK, HeaderMap::new());
        let headers = &mut reply.headers;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(code));
        headers.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
        reply.flags = flags;
        reply.details = details;
        reply
    }

    /// A redirect.
    pub(super) fn redirect(status: StatusCode, location: HeaderValue, details: &'static str) -> Self {
        let mut reply = Self::direct(status, HeaderMap::new());
        reply.headers.insert(LOCATION, location);
        reply.details = details;
        reply
    }

    /// Puts an error into the form that a gRPC client understands: status 200, the error in grpc-status.
    pub(super) fn into_grpc(mut self) -> Self {
        if self.intended {
            return self;
        }
        self.headers
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        self.headers
            .insert(GRPC_STATUS, HeaderValue::from(grpc_status(self.status)));
        if let Ok(message) = HeaderValue::from_bytes(&self.body)
            && !message.is_empty()
        {
            self.headers.insert(GRPC_MESSAGE, message);
        }
        self.status = StatusCode::OK;
        self.body = Bytes::new();
        self
    }

    /// Sends it.
    pub(super) fn send(self, down: &mut Downstream) -> Result<(), Gone> {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.status = self.status;
        head.headers = self.headers;
        if self.body.is_empty() {
            return send_empty(down, head);
        }
        head.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        if !head.headers.contains_key(CONTENT_TYPE) {
            head.headers
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        down.respond(head, false)?;
        down.push(self.body)?;
        down.finish(None)
    }
}

fn send_empty(down: &mut Downstream, mut head: response::Parts) -> Result<(), Gone> {
    head.headers.remove(CONTENT_LENGTH);
    down.respond(head, true)?;
    down.finish(None)
}

impl From<Denial> for Reply {
    fn from(denial: Denial) -> Self {
        Self {
            status: denial.status,
            headers: denial.headers,
            body: denial.body,
            flags: denial.flags,
            details: denial.details,
            intended: false,
            replaced: false,
        }
    }
}

/// The gRPC project's mapping of HTTP statuses.
fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_clients_get_grpc() {
        let reply =
            Reply::error(StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream", "UH", "").into_grpc();
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(reply.headers[GRPC_STATUS], "14");
        assert_eq!(reply.headers[GRPC_MESSAGE], "no healthy upstream");
        assert!(reply.body.is_empty());
        assert_eq!(
            Reply::direct(StatusCode::FOUND, HeaderMap::new())
                .into_grpc()
                .status,
            StatusCode::FOUND
        );
    }
}
