//! Cross-site request forgery: requests that may change something have to come from a page of the own origin.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{HOST, HeaderMap, ORIGIN, REFERER};
use http::request::Parts;
use http::{Method, StatusCode, Uri};
use rand::Rng;
use sluice_config::v1;

use super::Denial;
use super::text::TextMatch;
use crate::telemetry::metrics::RouteMetrics;

/// A compiled filter.
#[derive(Debug)]
pub struct Csrf {
    additional: Box<[TextMatch]>,
    /// Share of the requests that pass in any case.
    shadow: Option<(u32, u32)>,
    metrics: Arc<RouteMetrics>,
}

impl Csrf {
    /// Reads the resource; what it finds is counted for the route.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::Csrf, metrics: Arc<RouteMetrics>) -> Result<Self, String> {
        let origin =
            |(i, config)| TextMatch::compile(config).map_err(|e| format!("additional_origins[{i}]: {e}"));
        Ok(Self {
            additional: config
                .additional_origins
                .iter()
                .enumerate()
                .map(origin)
                .collect::<Result<_, _>>()?,
            shadow: (config.shadow_denominator != 0 && config.shadow_numerator != 0)
                .then_some((config.shadow_numerator, config.shadow_denominator)),
            metrics,
        })
    }

    /// Lets a request pass that changes nothing, or comes from where it may.
    ///
    /// # Errors
    /// What the client is told otherwise.
    pub fn check(&self, head: &Parts) -> Result<(), Box<Denial>> {
        let changes = matches!(
            head.method,
            Method::POST | Method::PUT | Method::DELETE | Method::PATCH
        );
        if !changes {
            return Ok(());
        }
        let valid = source(&head.headers).is_some_and(|source| self.accepts(&source, head));
        self.metrics.csrf(valid);
        if valid {
            return Ok(());
        }
        if self.only_watches() {
            tracing::info!(
                method = %head.method,
                path = head.uri.path(),
                host = ?head.headers.get(HOST),
                origin = ?head.headers.get(ORIGIN),
                "a request of another origin passes, for the rule only watches it"
            );
            return Ok(());
        }
        Err(Box::new(Denial {
            status: StatusCode::FORBIDDEN,
            headers: HeaderMap::new(),
            body: "Invalid origin".into(),
            flags: "",
            details: "csrf_origin_mismatch",
        }))
    }

    fn only_watches(&self) -> bool {
        self.shadow
            .is_some_and(|(part, whole)| rand::rng().random_range(0..whole) < part)
    }

    fn accepts(&self, source: &Uri, head: &Parts) -> bool {
        let Some(authority) = source.authority() else {
            return false;
        };
        let own = head.headers.get(HOST).and_then(|host| host.to_str().ok());
        if own.is_some_and(|own| own.eq_ignore_ascii_case(authority.as_str())) {
            return true;
        }
        let scheme = source.scheme_str().unwrap_or_default();
        let whole = format!("{scheme}://{authority}");
        let ways = [authority.host(), authority.as_str(), &whole].map(lower);
        self.additional
            .iter()
            .any(|wanted| ways.iter().any(|way| wanted.accepts(way)))
    }
}

/// Where the request comes from. A page that must not be told of sends `null` as its origin; then its referrer counts, if
/// there is one.
fn source(headers: &HeaderMap) -> Option<Uri> {
    [ORIGIN, REFERER]
        .iter()
        .filter_map(|name| headers.get(name))
        .filter_map(|value| Uri::try_from(value.as_bytes()).ok())
        .find(|uri| uri.scheme().is_some() && uri.authority().is_some())
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        text.to_ascii_lowercase().into()
    } else {
        text.into()
    }
}
