//! External authorization: what is asked, of whom, and what is taken from the answer.
//!
//! Owns the settings and the two forms of the question (HTTP, and Envoy's ext_authz over gRPC in [`proto`]). Sending
//! it is the forwarder's business.

pub mod proto;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName};
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode, request};
use sluice_config::v1;

use super::secret::Derived;
use super::{Lookup, headers, status};
use crate::upstream::Slot;

/// How long an authorizer may take if the configuration does not say; Envoy Gateway's default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// How the authorizer is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// By the request's own method and path.
    Http,
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc,
}

/// A compiled external authorization filter.
#[derive(Debug)]
pub struct ExternalAuth {
    /// How the authorizer is asked.
    pub protocol: Protocol,
    /// Where it is.
    pub backend: Arc<Slot>,
    /// Bytes of the request's body that it is shown; 0: none.
    pub max_body_bytes: usize,
    allowed_request_headers: Vec<HeaderName>,
    prefix: Box<str>,
    /// Takes the place of the request's path.
    path_override: Option<PathAndQuery>,
    allowed_response_headers: Vec<HeaderName>,
    /// True: none of them means none.
    only_allowed_response_headers: bool,
    /// How long the authorizer may take.
    pub timeout: Duration,
    /// True: a request passes whose authorizer cannot be asked.
    pub fail_open: bool,
    /// True: the route is chosen anew by what the authorizer has changed.
    pub recompute_route: bool,
    /// The answer if the authorizer cannot be asked.
    pub status_on_error: StatusCode,
    /// True: over gRPC it is told which route the request has met.
    pub include_route_metadata: bool,
    context_extensions: Box<[(Box<str>, Context)]>,
}

/// What an authorizer is told besides the request.
#[derive(Debug)]
enum Context {
    Text(Box<str>),
    Secret(Derived<Option<String>>),
}

impl ExternalAuth {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::ExternalAuth, lookup: &mut dyn Lookup) -> Result<Self, String> {
        use v1::external_auth::Protocol as P;
        let names = |list: &[String]| {
            list.iter()
                .map(|n| headers::name(n))
                .collect::<Result<Vec<_>, _>>()
        };
        let protocol = match config.protocol() {
            P::Grpc => Protocol::Grpc,
            P::Http => Protocol::Http,
            P::Unspecified => return Err("protocol: not set".into()),
        };
        let prefix = config.path.trim_end_matches('/');
        if !prefix.is_empty() && (!prefix.starts_with('/') || PathAndQuery::try_from(prefix).is_err()) {
            return Err(format!("path: `{}` is not a path", config.path));
        }
        let path_override = match config.path_override.as_str() {
            "" => None,
            path if !path.starts_with('/') => return Err(format!("path_override: `{path}` is not a path")),
            path => Some(
                PathAndQuery::try_from(path).map_err(|_| format!("path_override: `{path}` is not a path"))?,
            ),
        };
        let status_on_error = match config.status_on_error {
            0 => StatusCode::FORBIDDEN,
            code => status(code).map_err(|e| format!("status_on_error: {e}"))?,
        };
        let mut context_extensions = Vec::with_capacity(config.context_extensions.len());
        for (i, extension) in config.context_extensions.iter().enumerate() {
            let context = Context::compile(extension, lookup);
            let context = context.map_err(|e| format!("context_extensions[{i}]: {e}"))?;
            context_extensions.push((extension.name.as_str().into(), context));
        }
        Ok(Self {
            path_override,
            only_allowed_response_headers: config.only_allowed_response_headers,
            timeout: match config.timeout_ms {
                0 => DEFAULT_TIMEOUT,
                ms => Duration::from_millis(ms),
            },
            fail_open: config.fail_open,
            recompute_route: config.recompute_route,
            status_on_error,
            include_route_metadata: config.include_route_metadata,
            context_extensions: context_extensions.into(),
            protocol,
            backend: lookup.backend(&config.backend),
            max_body_bytes: config.max_body_bytes as usize,
            allowed_request_headers: names(&config.allowed_request_headers)
                .map_err(|e| format!("allowed_request_headers: {e}"))?,
            prefix: prefix.into(),
            allowed_response_headers: names(&config.allowed_response_headers)
                .map_err(|e| format!("allowed_response_headers: {e}"))?,
        })
    }

    /// The question over HTTP: the request's own head with few of its headers.
    pub fn http_question(&self, head: &request::Parts, body_len: usize) -> http::Request<()> {
        let mut question = http::Request::new(());
        *question.method_mut() = head.method.clone();
        let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        *question.uri_mut() = match &self.path_override {
            Some(path) => path.clone().into(),
            None => format!("{}{target}", self.prefix)
                .parse()
                .unwrap_or_else(|_| head.uri.clone()),
        };
        for name in [HOST, AUTHORIZATION].iter().chain(&self.allowed_request_headers) {
            for value in head.headers.get_all(name) {
                question.headers_mut().append(name, value.clone());
            }
        }
        question.headers_mut().insert(CONTENT_LENGTH, body_len.into());
        question
    }

    /// True if the authorizer over gRPC is to see this header of the request.
    pub fn shows(&self, name: &HeaderName) -> bool {
        self.allowed_request_headers.is_empty() || self.allowed_request_headers.contains(name)
    }

    /// What the authorizer over gRPC is told besides the request.
    pub fn context_extensions(&self) -> HashMap<String, String> {
        let pair = |(name, context): &(Box<str>, Context)| {
            let text = match context {
                Context::Text(text) => Some(text.to_string()),
                Context::Secret(secret) => (*secret.get()).clone(),
            };
            text.map(|text| (name.to_string(), text))
        };
        self.context_extensions.iter().filter_map(pair).collect()
    }

    /// Copies what the authorizer's answer adds to the request.
    pub fn take_headers(&self, answer: &HeaderMap, request: &mut HeaderMap) {
        for name in answer.keys() {
            let taken = if self.allowed_response_headers.is_empty() && !self.only_allowed_response_headers {
                !is_about_message(name)
            } else {
                self.allowed_response_headers.contains(name)
            };
            if taken {
                request.remove(name);
                for value in answer.get_all(name) {
                    request.append(name, value.clone());
                }
            }
        }
    }
}

impl Context {
    fn compile(config: &v1::ContextExtension, lookup: &mut dyn Lookup) -> Result<Self, String> {
        use v1::context_extension::Source;
        Ok(match config.source.as_ref().ok_or("has no value")? {
            Source::Value(text) => Self::Text(text.as_str().into()),
            Source::Secret(entry) => Self::Secret(Derived::of_entry(Some(entry), lookup, |entry| {
                entry.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            })?),
        })
    }
}

/// True for headers that speak of the answer itself and would be wrong on a request.
fn is_about_message(name: &HeaderName) -> bool {
    const OWN: &[&str] = &[
        "host",
        "content-length",
        "content-type",
        "content-encoding",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "upgrade",
        "trailer",
        "te",
        "date",
        "server",
    ];
    OWN.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(request: &[&str], response: &[&str]) -> ExternalAuth {
        let names = |list: &[&str]| list.iter().map(|n| n.parse().unwrap()).collect();
        ExternalAuth {
            protocol: Protocol::Http,
            backend: Arc::default(),
            max_body_bytes: 0,
            allowed_request_headers: names(request),
            prefix: "/check".into(),
            path_override: None,
            allowed_response_headers: names(response),
            only_allowed_response_headers: false,
            timeout: DEFAULT_TIMEOUT,
            fail_open: false,
            recompute_route: false,
            status_on_error: StatusCode::FORBIDDEN,
            include_route_metadata: false,
            context_extensions: Box::default(),
        }
    }

    #[test]
    fn the_question_carries_only_what_it_may() {
        let (head, ()) = http::Request::get("/a?b=c")
            .header(HOST, "h.example")
            .header(AUTHORIZATION, "Bearer x")
            .header("cookie", "secret")
            .header("x-tenant", "t")
            .header(CONTENT_LENGTH, "99")
            .body(())
            .unwrap()
            .into_parts();
        let question = auth(&["x-tenant"], &[]).http_question(&head, 0);
        assert_eq!(question.uri(), "/check/a?b=c");
        assert_eq!(question.headers()[CONTENT_LENGTH], "0");
        assert_eq!(question.headers()["x-tenant"], "t");
        assert_eq!(question.headers()[HOST], "h.example");
        assert!(!question.headers().contains_key("cookie"));
    }

    #[test]
    fn the_answer_replaces_headers() {
        let mut answer = HeaderMap::new();
        answer.insert("x-user", "alice".parse().unwrap());
        answer.insert("content-length", "3".parse().unwrap());
        let mut request = HeaderMap::new();
        request.insert("x-user", "forged".parse().unwrap());
        auth(&[], &[]).take_headers(&answer, &mut request);
        assert_eq!(request["x-user"], "alice");
        assert!(!request.contains_key("content-length"));
        let mut request = HeaderMap::new();
        auth(&[], &["x-other"]).take_headers(&answer, &mut request);
        assert!(request.is_empty());
        let mut strict = auth(&[], &[]);
        strict.only_allowed_response_headers = true;
        strict.take_headers(&answer, &mut request);
        assert!(request.is_empty());
    }
}
