//! What is remembered of a request for the access log and the metrics.

mod counted;
mod tried;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Uri, Version, request};

use super::Conn;
use super::downstream::Downstream;
use super::edge::{X_FORWARDED_FOR, X_REQUEST_ID};
use crate::filter::metadata::Metadata;
use crate::listen::{Client, Fingerprints};
use crate::route::Listener;
use crate::rule::Rule;
use crate::telemetry::access_log::Entry;
use crate::telemetry::access_log::template::{Kind, Subject, Times};
use crate::telemetry::settings::Settings;
use crate::telemetry::trace::Context;
use crate::upstream::{Backend, Endpoint};

/// One request's record.
pub(super) struct Record {
    start: Instant,
    wall: SystemTime,
    method: Method,
    target: Uri,
    version: Version,
    authority: Option<HeaderValue>,
    forwarded_for: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    /// Status of the response; 0: none.
    pub(super) status: u16,
    pub(super) flags: &'static str,
    pub(super) details: Cow<'static, str>,
    pub(super) transport_failure: Option<String>,
    pub(super) upstream_time: Option<Duration>,
    /// When it has been begun to be sent to the backend, for the last time; how often it has been.
    pub(super) sent: Option<Instant>,
    pub(super) attempts: u32,
    pub(super) endpoint: Option<Arc<Endpoint>>,
    pub(super) backend: Option<Arc<Backend>>,
    pub(super) upstream_local: Option<SocketAddr>,
    pub(super) rule: Option<Arc<Rule>>,
    pub(super) listener: Option<Arc<Listener>>,
    pub(super) received: u64,
    /// What the listener says of clients, if anything.
    pub(super) client: Option<Arc<Client>>,
    /// What the configuration asks to be told, if anything.
    told: Option<Box<Told>>,
}

/// What is kept of a request for those who are told of it.
struct Told {
    settings: Arc<Settings>,
    /// The head as it was routed.
    head: Option<request::Parts>,
    response: Option<HeaderMap>,
    trailers: Option<HeaderMap>,
    /// When the response has been begun to be sent, after the request's beginning.
    responded: Option<Duration>,
    span: Option<Context>,
    metadata: Metadata,
    /// The try that is under way, if there are lines of tries.
    tried: Option<Box<tried::Try>>,
    /// The host that the request was routed by, if hosts are counted.
    host: Option<Arc<str>>,
}

impl Record {
    /// A request whose head has just been read.
    pub(super) fn begin(head: &request::Parts) -> Self {
        Self {
            start: Instant::now(),
            wall: SystemTime::now(),
            method: head.method.clone(),
            target: head.uri.clone(),
            version: head.version,
            authority: None,
            forwarded_for: None,
            user_agent: None,
            request_id: None,
            status: 0,
            flags: "",
            details: Cow::Borrowed(""),
            transport_failure: None,
            upstream_time: None,
            sent: None,
            attempts: 0,
            endpoint: None,
            backend: None,
            upstream_local: None,
            rule: None,
            listener: None,
            received: 0,
            client: None,
            told: None,
        }
    }

    /// Remembers what of the head is logged, as it is before filters change it.
    pub(super) fn note_head(&mut self, head: &request::Parts) {
        let get = |name| head.headers.get(name).cloned();
        self.authority = get(HOST);
        self.user_agent = get(USER_AGENT);
        self.forwarded_for = head.headers.get(X_FORWARDED_FOR).cloned();
        self.request_id = head.headers.get(X_REQUEST_ID).cloned();
    }

    /// Looks whether somebody is told of the request.
    pub(super) fn look(&mut self, conn: &Conn, head: &request::Parts) {
        let settings = conn.worker.shared.telemetry.load();
        let Some(settings) = settings.as_ref() else { return };
        self.told = Some(Box::new(Told {
            head: settings.keeps_heads.then(|| head.clone()),
            settings: Arc::clone(settings),
            response: None,
            trailers: None,
            responded: None,
            span: None,
            metadata: Metadata::default(),
            tried: None,
            host: None,
        }));
    }

    /// Remembers what has been said of the request.
    pub(super) fn know(&mut self, metadata: Metadata) {
        if let Some(told) = &mut self.told {
            told.metadata = metadata;
        }
    }

    /// Begins the request's span, if there are traces and it has none.
    pub(super) fn trace(&mut self, head: &mut request::Parts) {
        let Some(told) = &mut self.told else { return };
        let Some(tracing) = told.settings.tracing.as_ref().filter(|_| told.span.is_none()) else {
            return;
        };
        let of_rule = self.rule.as_ref().and_then(|rule| rule.tracing.as_deref());
        told.span = Some(tracing.tracer.begin(head, of_rule));
        // It may say now that the request is traced.
        let id = head.headers.get(X_REQUEST_ID);
        if id != self.request_id.as_ref() {
            if let (Some(kept), Some(id)) = (&mut told.head, id) {
                kept.headers.insert(X_REQUEST_ID, id.clone());
            }
            self.request_id = id.cloned();
        }
    }

    /// Remembers what of the response may be told.
    pub(super) fn note_response(&mut self, headers: &HeaderMap) {
        if let Some(told) = &mut self.told {
            told.responded = Some(self.start.elapsed());
            if told.settings.keeps_heads {
                told.response = Some(headers.clone());
            }
        }
    }

    /// True if trailers of the response may be told.
    pub(super) fn keeps_trailers(&self) -> bool {
        self.told
            .as_ref()
            .is_some_and(|told| told.settings.keeps_trailers)
    }

    /// Remembers trailers of the response.
    pub(super) fn note_trailers(&mut self, trailers: Option<HeaderMap>) {
        if let Some(told) = &mut self.told {
            told.trailers = trailers;
        }
    }

    /// Says what went wrong, unless something has been said already.
    pub(super) fn blame(&mut self, flags: &'static str, details: impl Into<Cow<'static, str>>) {
        if self.flags.is_empty() {
            self.flags = flags;
            self.details = details.into();
        }
    }

    /// Counts the request and writes its line.
    pub(super) fn end(&self, conn: &Conn, down: &Downstream) {
        let status = if down.responded() { self.status } else { 0 };
        self.close(conn, status, down.bytes_sent());
    }

    /// The same for a request of which nothing more is at hand; `sent` are bytes of the response's body.
    pub(super) fn close(&self, conn: &Conn, status: u16, sent: u64) {
        let duration = self.start.elapsed();
        if let Some(rule) = &self.rule {
            rule.metrics.request(status, duration);
        }
        if let Some(listener) = &self.listener {
            listener.metrics.received(self.received);
            listener.metrics.sent(sent);
        }
        let log = &conn.worker.shared.access_log;
        if !log.is_on() && self.told.is_none() {
            return;
        }
        let entry = Entry {
            start: self.wall,
            method: self.method.as_str(),
            path: self.target.path_and_query().map_or("", |p| p.as_str()).as_bytes(),
            protocol: protocol(self.version),
            status,
            flags: self.flags,
            details: &self.details,
            transport_failure: self.transport_failure.as_deref(),
            received: self.received,
            sent,
            duration,
            upstream_time: self.upstream_time,
            forwarded_for: self.forwarded_for.as_ref().map(HeaderValue::as_bytes),
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            request_id: self.request_id.as_ref().map(HeaderValue::as_bytes),
            authority: self.authority.as_ref().map_or(b"", HeaderValue::as_bytes),
            upstream_local: self.upstream_local,
            ..self.around(conn)
        };
        match &self.told {
            None => log.write(&entry),
            Some(told) => self.tell(conn, told, &entry),
        }
    }

    /// What a line says of where request and tries come from and go to.
    fn around<'s>(&'s self, conn: &'s Conn) -> Entry<'s> {
        Entry {
            upstream_host: self.endpoint.as_ref().map(|e| e.display()),
            upstream_cluster: self.backend.as_ref().map(|b| &*b.name),
            server_name: conn.tls.as_ref().and_then(|tls| tls.sni.as_deref()),
            fingerprints: conn.fingerprints().map(Fingerprints::texts).unwrap_or_default(),
            route: self.rule.as_ref().map(|rule| &*rule.route_name),
            ..Entry::began(self.wall, conn.wire.local(), conn.wire.peer())
        }
    }

    /// What formats may speak of besides the line itself; `ids` are those of trace and span.
    fn subject<'s>(
        &'s self,
        conn: &'s Conn,
        told: &'s Told,
        entry: &'s Entry<'s>,
        ids: Option<&'s (String, String)>,
    ) -> Subject<'s> {
        Subject {
            entry,
            kind: Kind::Request,
            head: told.head.as_ref(),
            response: told.response.as_ref(),
            trailers: told.trailers.as_ref(),
            https: conn.tls.is_some(),
            tls: conn.around().wire.tls,
            metadata: Some(&told.metadata),
            rule: self.rule.as_deref(),
            upstream_name: self
                .endpoint
                .as_ref()
                .map(|endpoint| endpoint.hostname())
                .filter(|name| !name.is_empty()),
            times: Times {
                upstream_sent: self.sent.map(|at| at.duration_since(self.start)),
                responded: told.responded,
                attempts: self.attempts,
            },
            trace: ids.map(|(trace, span)| (&**trace, &**span)),
        }
    }

    fn tell(&self, conn: &Conn, told: &Told, entry: &Entry<'_>) {
        let shared = &conn.worker.shared;
        self.count(told, entry);
        let counts = shared.metrics.telemetry();
        let ids = told.span.as_ref().map(|span| (span.trace_id(), span.span_id()));
        let subject = self.subject(conn, told, entry, ids.as_ref());
        if told.settings.logs.is_some() {
            told.settings.log(counts, &subject);
        } else {
            shared.access_log.write(entry);
        }
        if let (Some(tracing), Some(span)) = (&told.settings.tracing, &told.span)
            && span.sampled
        {
            let of_rule = self.rule.as_ref().and_then(|rule| rule.tracing.as_deref());
            tracing.push(counts, tracing.tracer.end(span, of_rule, &subject));
        }
    }
}

/// The version as Envoy writes it.
pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_3 => "HTTP/3",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}
