//! A try of a request, for logs that have a line of each, and for what is counted of each.
//!
//! Owns what is known of the try that is under way. Where nobody asks for tries nothing is kept of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, StatusCode, Version, request, response};

use super::{Record, protocol};
use crate::forward::Conn;
use crate::forward::answer::own_reply;
use crate::forward::edge::{X_FORWARDED_FOR, X_REQUEST_ID};
use crate::forward::exchange::Flow;
use crate::forward::limits::Stop;
use crate::forward::upstream::Upstream;
use crate::telemetry::access_log::Entry;
use crate::telemetry::access_log::template::{Kind, Subject, Times};

/// The try that is under way.
pub(super) struct Try {
    began: Instant,
    wall: SystemTime,
    version: Option<Version>,
    local: Option<SocketAddr>,
    pub(super) response: Option<(StatusCode, HeaderMap)>,
    /// After its beginning.
    answered: Option<Duration>,
    pub(super) flags: &'static str,
    details: &'static str,
    transport_failure: Option<String>,
}

impl Record {
    /// A try begins.
    pub(in crate::forward) fn begin_try(&mut self, began: Instant) {
        let Some(told) = &mut self.told else { return };
        if !told.settings.logs_tries && !told.settings.details.counts_tries() {
            return;
        }
        told.tried = Some(Box::new(Try {
            began,
            wall: SystemTime::now(),
            version: None,
            local: None,
            response: None,
            answered: None,
            flags: "",
            details: "",
            transport_failure: None,
        }));
    }

    fn tried(&mut self) -> Option<&mut Try> {
        self.told.as_mut()?.tried.as_deref_mut()
    }

    /// There is a connection for it.
    pub(in crate::forward) fn note_upstream(&mut self, up: &Upstream) {
        self.upstream_local = Some(up.local());
        if let Some(tried) = self.tried() {
            (tried.version, tried.local) = (Some(up.version()), Some(up.local()));
        }
    }

    /// The backend has answered.
    pub(in crate::forward) fn note_answer(&mut self, response: &response::Parts) {
        if let Some(tried) = self.tried() {
            tried.answered = Some(tried.began.elapsed());
            tried.response = Some((response.status, response.headers.clone()));
            tried.details = "via_upstream";
        }
    }

    /// It has failed, or has been broken off.
    pub(in crate::forward) fn note_stop(&mut self, stop: &Stop) {
        let Some(tried) = self.tried() else { return };
        (tried.flags, tried.details) = match stop {
            Stop::Client(_) => ("DC", "downstream_remote_disconnect"),
            Stop::Answer(reply) => (reply.flags, reply.details),
            other => {
                let reply = own_reply(other);
                let begun = tried.response.is_some();
                let after = "upstream_reset_after_response_started";
                (reply.flags, if begun { after } else { reply.details })
            }
        };
        if let Stop::Upstream(failure) = stop {
            tried.transport_failure = Some(failure.to_string());
        }
    }

    /// There is no connection for it.
    pub(in crate::forward) fn note_failure(
        &mut self,
        flags: &'static str,
        details: &'static str,
        failure: &impl ToString,
    ) {
        if let Some(tried) = self.tried() {
            (tried.flags, tried.details) = (flags, details);
            tried.transport_failure = Some(failure.to_string());
        }
    }

    /// Writes the lines of the try that has ended; `head` is what the backend got.
    pub(in crate::forward) fn end_try(&mut self, conn: &Conn, head: &request::Parts, flow: &Flow<'_>) {
        let Some(tried) = self.told.as_mut().and_then(|told| told.tried.take()) else {
            return;
        };
        let Some(told) = &self.told else { return };
        self.count_try(told.settings.details, &tried, head, flow);
        if !told.settings.logs_tries {
            return;
        }
        let get = |name| head.headers.get(name).map(HeaderValue::as_bytes);
        let (status, response) = match &tried.response {
            Some((status, headers)) => (status.as_u16(), Some(headers)),
            None => (0, None),
        };
        let entry = Entry {
            start: tried.wall,
            method: head.method.as_str(),
            path: head.uri.path_and_query().map_or("", |p| p.as_str()).as_bytes(),
            protocol: tried.version.map_or("", protocol),
            status,
            flags: tried.flags,
            details: tried.details,
            transport_failure: tried.transport_failure.as_deref(),
            // Seen from the backend's side, as Envoy has it: the response is what is received.
            received: flow.down.bytes_sent(),
            sent: flow.source.received(),
            duration: tried.began.elapsed(),
            upstream_time: tried.answered,
            forwarded_for: get(X_FORWARDED_FOR),
            user_agent: get(USER_AGENT),
            request_id: get(X_REQUEST_ID),
            authority: get(HOST).unwrap_or_default(),
            upstream_local: tried.local,
            ..self.around(conn)
        };
        let ids = told.span.as_ref().map(|span| (span.trace_id(), span.span_id()));
        let subject = Subject {
            kind: Kind::Try,
            head: Some(head),
            response,
            trailers: told.trailers.as_ref(),
            times: Times {
                upstream_sent: Some(Duration::ZERO),
                responded: None,
                attempts: self.attempts,
            },
            ..self.subject(conn, told, &entry, ids.as_ref())
        };
        told.settings
            .log(conn.worker.shared.metrics.telemetry(), &subject);
    }
}
