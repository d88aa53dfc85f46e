//! The proxy's own HTTP server: health, metrics, and what configuration it holds.
//!
//! Answers GET on its own port and changes nothing. Key material never leaves through it.

use std::convert::Infallible;
use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::Dataplane;

/// How long a client may take to send a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept: most likely no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The admin server of a dataplane.
#[derive(Clone)]
pub struct Admin(Dataplane);

impl Admin {
    /// Speaks for `dataplane`.
    pub fn new(dataplane: Dataplane) -> Self {
        Self(dataplane)
    }

    /// Serves `listener` until the future is dropped.
    pub async fn serve(self, listener: TcpListener) {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "admin: accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let admin = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let gzip = request
                        .headers()
                        .get(ACCEPT_ENCODING)
                        .and_then(|accepted| accepted.to_str().ok())
                        .is_some_and(|accepted| accepted.contains("gzip"));
                    let response = admin.answer(request.method(), request.uri().path(), gzip);
                    async { Ok::<_, Infallible>(response) }
                });
                let mut server = http1::Builder::new();
                server
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT);
                // A client that goes away is its own affair.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    fn answer(&self, method: &Method, path: &str, gzip: bool) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            response
                .headers_mut()
                .insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/healthz/live" => text(StatusCode::OK, "live\n"),
            "/healthz/ready" => self.ready(),
            "/metrics" => self.metrics(gzip),
            "/config_dump" => reply(
                StatusCode::OK,
                "application/json",
                format!("{:#}\n", self.0.dump()),
            ),
            _ => text(
                StatusCode::NOT_FOUND,
                "/healthz/live\n/healthz/ready\n/metrics\n/config_dump\n",
            ),
        }
    }

    fn metrics(&self, gzip: bool) -> Response<Full<Bytes>> {
        let (off, compress) = self.0.fetching_metrics();
        if off {
            return text(StatusCode::NOT_FOUND, "metrics are switched off\n");
        }
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let metrics = self.0.metrics().encode();
        if !(gzip && compress) {
            return reply(StatusCode::OK, kind, metrics);
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let zipped = encoder
            .write_all(metrics.as_bytes())
            .and_then(|()| encoder.finish());
        let Ok(zipped) = zipped else {
            return reply(StatusCode::OK, kind, metrics);
        };
        let mut response = reply(StatusCode::OK, kind, zipped);
        response
            .headers_mut()
            .insert(CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
        response
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        if self.0.is_ready() {
            text(StatusCode::OK, "ready\n")
        } else {
            text(
                StatusCode::SERVICE_UNAVAILABLE,
                "waiting for configuration, or draining\n",
            )
        }
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    reply(status, "text/plain; charset=utf-8", body)
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
