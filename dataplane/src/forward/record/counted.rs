//! What is counted of requests and tries only where the configuration asks for it.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, request};

use super::tried::Try;
use super::{Record, Told};
use crate::forward::exchange::Flow;
use crate::route::Site;
use crate::telemetry::BackendMetrics;
use crate::telemetry::access_log::Entry;
use crate::telemetry::details::{Details, Size};

impl Record {
    /// Remembers the host that a request was routed by, if hosts are counted.
    pub(in crate::forward) fn note_host(&mut self, site: &Site, host: &str, head: &request::Parts) {
        if let Some(told) = &mut self.told
            && told.settings.details.hosts
        {
            told.host = site.host(host, head).map(Arc::clone);
        }
    }

    /// What counts requests to the backend.
    fn backend_metrics(&self) -> Option<&Arc<BackendMetrics>> {
        let backend = self.backend.as_ref()?;
        let of_rule = self.rule.as_ref().and_then(|rule| rule.backend_metrics.as_ref());
        Some(of_rule.unwrap_or(&backend.metrics))
    }

    /// The request has ended.
    pub(super) fn count(&self, told: &Told, entry: &Entry<'_>) {
        if let (Some(host), Some(listener)) = (&told.host, &self.listener) {
            listener.metrics.host(host, entry.status, entry.duration);
        }
        if told.settings.details.grpc
            && let (Some(metrics), Some(head)) = (self.backend_metrics(), &told.head)
            && is_grpc(&head.headers)
        {
            let status =
                |headers: Option<&HeaderMap>| headers?.get("grpc-status")?.to_str().ok()?.parse::<u16>().ok();
            let status = status(told.trailers.as_ref()).or_else(|| status(told.response.as_ref()));
            metrics.grpc(head.uri.path(), status);
        }
    }

    /// A try has ended; `head` is what the backend got.
    pub(super) fn count_try(&self, details: Details, tried: &Try, head: &request::Parts, flow: &Flow<'_>) {
        let (Some(metrics), Some(endpoint)) = (self.backend_metrics(), &self.endpoint) else {
            return;
        };
        let response = tried.response.as_ref();
        if details.endpoints {
            let status = response.map_or(0, |(status, _)| status.as_u16());
            let connect_failed = tried.flags == "UF";
            metrics.endpoint(endpoint.display(), endpoint, status, connect_failed);
        }
        if details.sizes {
            let request = Size {
                headers: size(&head.headers),
                body: flow.source.received(),
            };
            let response = response.map(|(_, headers)| Size {
                headers: size(headers),
                body: flow.down.bytes_sent(),
            });
            metrics.sizes(request, response);
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// Names and values.
fn size(headers: &HeaderMap) -> u64 {
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
