//! Filters: what a listener, a rule or a backendRef does to a request and to its response.
//!
//! Each is compiled once from its resource, so that a request meets parsed header names and ready values. Filters
//! change heads and answer requests; only [`auth`] and [`mirror`] name backends, and neither opens a connection here.

pub mod admission;
pub mod api_key;
pub mod auth;
pub mod authorization;
pub mod bandwidth;
pub mod basic_auth;
pub mod carrier;
pub mod cel;
pub mod compress;
pub mod cors;
pub mod credential;
pub mod csrf;
pub mod direct;
pub mod ext_proc;
pub mod fault;
pub mod format;
pub mod geo;
pub mod headers;
pub mod jwt;
pub mod metadata;
pub mod mirror;
pub mod oidc;
pub mod order;
pub mod overrides;
pub mod path;
pub mod policy;
pub mod rate_limit;
pub mod redirect;
pub mod secret;
pub mod session;
pub mod store;
pub mod text;
pub mod tokens;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use sluice_config::v1;

use crate::telemetry::metrics::{BackendMetrics, RouteMetrics};
use crate::upstream;

pub use api_key::ApiKeyAuth;
pub use auth::ExternalAuth;
pub use authorization::Authorization;
pub use basic_auth::BasicAuth;
pub use cors::Cors;
pub use credential::CredentialInjection;
pub use csrf::Csrf;
pub use direct::DirectResponse;
pub use fault::Fault;
pub use headers::HeaderModifier;
pub use jwt::Jwt;
pub use mirror::Mirror;
pub use oidc::Oidc;
pub use rate_limit::{GlobalRateLimit, RateLimit};
pub use redirect::Redirect;
pub use store::Store;

/// Resolves what a resource names.
pub trait Lookup {
    /// The place of the backend with this key. It may be filled later.
    fn backend(&mut self, key: &str) -> Arc<upstream::Slot>;

    /// Counters of a route, by its name (`HTTPRoute/namespace/name`).
    fn route_metrics(&mut self, route: &str) -> Arc<RouteMetrics>;

    /// The counters of a backend.
    fn backend_metrics(&mut self, backend: &str) -> Arc<BackendMetrics>;

    /// What filters of several routes share.
    fn store(&mut self) -> &mut Store;

    /// The way to hosts that no resource names.
    fn outside(&self) -> upstream::outside::Outside;
}

/// One filter, ready to be applied.
#[derive(Debug)]
pub enum Filter {
    /// Changes the request's headers.
    RequestHeaders(HeaderModifier),
    /// Changes the response's headers.
    ResponseHeaders(HeaderModifier),
    /// Answers with a redirect.
    Redirect(Box<Redirect>),
    /// Changes host and path of the request.
    UrlRewrite(path::UrlRewrite),
    /// Sends a copy of the request to another backend.
    Mirror(Mirror),
    /// Cross-origin resource sharing.
    Cors(Box<Cors>),
    /// Asks another service for leave.
    ExternalAuth(Box<ExternalAuth>),
    /// Answers with this status.
    FixedResponse(StatusCode),
    /// Answers without a backend.
    DirectResponse(Box<DirectResponse>),
    /// Puts a credential into the request.
    CredentialInjection(Box<CredentialInjection>),
    /// Disturbs a share of the requests.
    Fault(Box<Fault>),
    /// Lets pass what changes nothing, or comes from the own origin.
    Csrf(Box<Csrf>),
    /// Lets clients with known keys pass.
    ApiKeyAuth(Box<ApiKeyAuth>),
    /// Lets known users pass.
    BasicAuth(Box<BasicAuth>),
    /// Lets clients pass that have logged in.
    Oidc(Arc<Oidc>),
    /// Lets requests with valid tokens pass.
    Jwt(Box<Jwt>),
    /// Lets pass what its rules allow.
    Authorization(Box<Authorization>),
    /// Lets processors see the request and its response.
    ExtProc(Box<[Arc<ext_proc::Processor>]>),
    /// Holds the request back until all of its body has come, which must not be longer than this.
    RequestBuffer(usize),
    /// Lets pass what its limits leave room for.
    RateLimit(Box<RateLimit>),
    /// Lets pass what a service has counted to be within its limits.
    GlobalRateLimit(Box<GlobalRateLimit>),
    /// From here on the rule's overrides take the place of responses.
    ResponseOverrides,
    /// Here the request's session is read.
    Session,
    /// Here it is seen which codings of the response the client takes.
    Compression,
}

impl Filter {
    /// True if it only takes note of the request as it comes by.
    pub fn only_notes(&self) -> bool {
        matches!(self, Self::ResponseOverrides | Self::Session | Self::Compression)
    }

    /// Compiles one filter.
    ///
    /// # Errors
    /// `field: reason` of what cannot be honoured.
    pub fn compile(filter: &v1::Filter, lookup: &mut dyn Lookup) -> Result<Self, String> {
        use v1::filter::Filter as F;
        Ok(
            match filter
                .filter
                .as_ref()
                .ok_or("filter: not set, or of a kind that this version does not know")?
            {
                F::RequestHeaders(m) => {
                    Self::RequestHeaders(field("request_headers", HeaderModifier::compile(m))?)
                }
                F::ResponseHeaders(m) => {
                    Self::ResponseHeaders(field("response_headers", HeaderModifier::compile(m))?)
                }
                F::Redirect(r) => Self::Redirect(Box::new(field("redirect", Redirect::compile(r))?)),
                F::UrlRewrite(r) => Self::UrlRewrite(field("url_rewrite", path::UrlRewrite::compile(r))?),
                F::Mirror(m) => Self::Mirror(Mirror::compile(m, lookup)),
                F::Cors(c) => Self::Cors(Box::new(field("cors", Cors::compile(c))?)),
                F::ExternalAuth(a) if a.recompute_route => {
                    return Err("external_auth.recompute_route: is for policies".into());
                }
                F::ExternalAuth(a) => Self::ExternalAuth(Box::new(field(
                    "external_auth",
                    ExternalAuth::compile(a, lookup),
                )?)),
                F::DirectResponse(d) => {
                    Self::DirectResponse(Box::new(field("direct_response", DirectResponse::compile(d))?))
                }
                F::CredentialInjection(c) => Self::CredentialInjection(Box::new(field(
                    "credential_injection",
                    CredentialInjection::compile(c, lookup),
                )?)),
                F::FixedResponse(f) => Self::FixedResponse(field("fixed_response.status", status(f.status))?),
            },
        )
    }

    /// Compiles a list of filters.
    ///
    /// # Errors
    /// As [`Filter::compile`], with the index of the filter in front.
    pub fn compile_all(filters: &[v1::Filter], lookup: &mut dyn Lookup) -> Result<Vec<Self>, String> {
        let compile = |(i, filter)| Self::compile(filter, lookup).map_err(|e| format!("filters[{i}].{e}"));
        filters.iter().enumerate().map(compile).collect()
    }
}

fn field<T>(name: &str, result: Result<T, String>) -> Result<T, String> {
    result.map_err(|reason| format!("{name}: {reason}"))
}

/// A status code from its number.
fn status(code: u32) -> Result<StatusCode, String> {
    u16::try_from(code)
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(|status| !status.is_informational())
        .ok_or_else(|| format!("{code} is not a status code"))
}

/// Why a filter does not let a request pass.
#[derive(Debug)]
pub struct Denial {
    /// Status of the answer.
    pub status: StatusCode,
    /// Headers of the answer.
    pub headers: HeaderMap,
    /// Body of the answer.
    pub body: Bytes,
    /// Envoy's response flag; empty: none.
    pub flags: &'static str,
    /// Envoy's response code details.
    pub details: &'static str,
}

/// What a filter may know of a request besides its head.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The host that was asked for, lower case and without port.
    pub host: &'a str,
    /// The client's address as far as it can be trusted.
    pub client: IpAddr,
    /// `HTTPRoute/namespace/name`; empty for a listener's filters.
    pub route: &'a str,
    /// True: clients are told of limits on their rate, where the rule does not say.
    pub shows_limits: bool,
    /// The path that was routed on.
    pub path: &'a str,
    /// True if the client spoke TLS.
    pub https: bool,
    /// The listener's port as clients know it.
    pub listener_port: u16,
    /// Length of what the rule's path prefix matched of `path`.
    pub prefix: Option<usize>,
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::telemetry::Metrics;

    /// Finds places for everything, all of them empty.
    #[derive(Default)]
    pub(crate) struct Nothing(HashMap<String, Arc<upstream::Slot>>, Metrics, Store);

    impl Lookup for Nothing {
        fn backend(&mut self, key: &str) -> Arc<upstream::Slot> {
            Arc::clone(self.0.entry(key.into()).or_default())
        }

        fn route_metrics(&mut self, route: &str) -> Arc<RouteMetrics> {
            self.1.route(route)
        }

        fn backend_metrics(&mut self, backend: &str) -> Arc<BackendMetrics> {
            self.1.backend(backend)
        }

        fn store(&mut self) -> &mut Store {
            &mut self.2
        }

        fn outside(&self) -> upstream::outside::Outside {
            upstream::outside::Outside::new(None, Arc::default())
        }
    }
}
