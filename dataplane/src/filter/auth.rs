//! External authorization: what is asked, of whom, and what is taken from the answer.
//!
//! Owns the settings and the two forms of the question (HTTP, and Envoy's ext_authz over gRPC in [`proto`]). Sending
//! it is the forwarder's business.

pub mod proto;

use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName};
use http::uri::PathAndQuery;
use http::{HeaderMap, request};
use sluice_config::v1;

use super::{Lookup, headers};
use crate::upstream::Slot;

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
    allowed_response_headers: Vec<HeaderName>,
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
        Ok(Self {
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
        *question.uri_mut() = format!("{}{target}", self.prefix)
            .parse()
            .unwrap_or_else(|_| head.uri.clone());
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

    /// Copies what the authorizer's answer adds to the request.
    pub fn take_headers(&self, answer: &HeaderMap, request: &mut HeaderMap) {
        for name in answer.keys() {
            let taken = if self.allowed_response_headers.is_empty() {
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
            allowed_response_headers: names(response),
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
    }
}
