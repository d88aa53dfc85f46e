//! Cross-site request forgery: requests that may change something have to come from a page of the own origin.

use std::borrow::Cow;

use http::header::{HOST, HeaderMap, ORIGIN, REFERER};
use http::request::Parts;
use http::{Method, StatusCode, Uri};
use sluice_config::v1;

use super::Denial;
use super::text::TextMatch;

/// A compiled filter.
#[derive(Debug)]
pub struct Csrf {
    additional: Box<[TextMatch]>,
}

impl Csrf {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::Csrf) -> Result<Self, String> {
        let origin =
            |(i, config)| TextMatch::compile(config).map_err(|e| format!("additional_origins[{i}]: {e}"));
        Ok(Self {
            additional: config
                .additional_origins
                .iter()
                .enumerate()
                .map(origin)
                .collect::<Result<_, _>>()?,
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
        if !changes || source(&head.headers).is_some_and(|source| self.accepts(&source, head)) {
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
