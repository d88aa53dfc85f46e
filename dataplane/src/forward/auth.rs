//! Asking an external authorizer.
//!
//! Owns the question's journey and what the answer does to the request. A question that cannot be answered is a no,
//! unless the configuration says otherwise.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode, request};

use super::edge::X_REQUEST_ID;
use super::record::protocol;
use super::reply::Reply;
use super::subrequest::{self, Answer, Call};
use super::{Conn, grpc};
use crate::filter::auth::{Protocol, proto};
use crate::filter::metadata::{self, Metadata};
use crate::filter::{ExternalAuth, Facts};
use crate::rule::{self, Rule};
use crate::upstream::connect::Version;

/// Headers that the response to the client gets.
pub(super) type ResponseHeaders = Vec<(HeaderName, HeaderValue)>;

/// Of what request an authorizer is asked.
pub(super) struct Asked<'r> {
    pub(super) conn: &'r Conn,
    pub(super) facts: &'r Facts<'r>,
    /// `None`: none has been chosen.
    pub(super) rule: Option<&'r Rule>,
}

/// Why there is no verdict.
enum Refused {
    /// The authorizer says no.
    Denied(Box<Reply>),
    /// It could not be asked, or its answer is none.
    Failed(String),
}

/// Asks; changes the request as the answer says, or returns what the client is told instead.
pub(super) async fn check(
    asked: &Asked<'_>,
    auth: &ExternalAuth,
    head: &mut request::Parts,
    body: Bytes,
    metadata: &mut Metadata,
) -> Result<ResponseHeaders, Box<Reply>> {
    match ask(asked, auth, head, body, metadata).await {
        Ok(headers) => Ok(headers),
        Err(Refused::Denied(reply)) => Err(reply),
        Err(Refused::Failed(reason)) => {
            tracing::debug!(
                reason,
                fail_open = auth.fail_open,
                "external authorization failed"
            );
            if auth.fail_open {
                return Ok(Vec::new());
            }
            Err(Box::new(Reply::error(
                auth.status_on_error,
                "",
                "UAEX",
                "ext_authz_error",
            )))
        }
    }
}

async fn ask(
    asked: &Asked<'_>,
    auth: &ExternalAuth,
    head: &mut request::Parts,
    body: Bytes,
    metadata: &mut Metadata,
) -> Result<ResponseHeaders, Refused> {
    let (question, version) = match auth.protocol {
        Protocol::Http => (auth.http_question(head, body.len()).map(|()| body), Version::Any),
        Protocol::Grpc => (grpc_question(asked, auth, head, &body), Version::Http2),
    };
    let how = Call {
        version,
        timeout: auth.timeout,
        client: Some(asked.facts.client),
    };
    let answer = subrequest::call(&asked.conn.worker, &auth.backend, question, how)
        .await
        .map_err(Refused::Failed)?;
    match auth.protocol {
        Protocol::Http => http_verdict(auth, answer, head),
        Protocol::Grpc => grpc_verdict(&answer, head, metadata),
    }
}

fn http_verdict(
    auth: &ExternalAuth,
    answer: Answer,
    head: &mut request::Parts,
) -> Result<ResponseHeaders, Refused> {
    let status = answer.head.status;
    if status == StatusCode::OK {
        auth.take_headers(&answer.head.headers, &mut head.headers);
        return Ok(Vec::new());
    }
    if status.is_server_error() || status.is_informational() {
        return Err(Refused::Failed(format!("status {status}")));
    }
    let mut headers = answer.head.headers;
    super::edge::strip_response(&mut headers);
    Err(Refused::Denied(denied(status, headers, answer.body).into()))
}

fn denied(status: StatusCode, headers: HeaderMap, body: Bytes) -> Reply {
    Reply {
        status,
        headers,
        body,
        flags: "UAEX",
        details: "ext_authz_denied",
        intended: false,
        replaced: false,
    }
}

fn grpc_question(
    asked: &Asked<'_>,
    auth: &ExternalAuth,
    head: &request::Parts,
    body: &Bytes,
) -> http::Request<Bytes> {
    let text = |name: &HeaderName| {
        head.headers
            .get(name)
            .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
            .unwrap_or_default()
    };
    let shown = head.headers.keys().filter(|name| auth.shows(name)).map(|name| {
        let values: Vec<_> = head
            .headers
            .get_all(name)
            .iter()
            .map(|v| String::from_utf8_lossy(v.as_bytes()))
            .collect();
        (name.as_str().to_owned(), values.join(","))
    });
    let conn = asked.conn;
    let http = proto::HttpRequest {
        id: text(&X_REQUEST_ID),
        method: head.method.to_string(),
        headers: shown.collect(),
        path: head
            .uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        host: text(&HOST),
        scheme: if conn.tls.is_some() { "https" } else { "http" }.to_owned(),
        size: i64::try_from(body.len()).unwrap_or(-1),
        protocol: protocol(head.version).to_owned(),
        body: String::from_utf8_lossy(body).into_owned(),
    };
    let check = proto::CheckRequest {
        attributes: Some(proto::AttributeContext {
            source: Some(peer(conn.wire.peer())),
            destination: Some(peer(conn.wire.local())),
            request: Some(proto::Request { http: Some(http) }),
            context_extensions: auth.context_extensions(),
            route_metadata_context: asked
                .rule
                .filter(|_| auth.include_route_metadata)
                .map(route_metadata),
        }),
    };
    grpc::request(proto::CHECK, "ext-authz", &check)
}

fn route_metadata(rule: &Rule) -> proto::Metadata {
    let value = metadata::proto(rule.resources());
    let fields = [("resources".to_owned(), value)].into();
    let fields = prost_types::Struct { fields };
    proto::Metadata {
        filter_metadata: [(rule::NAMESPACE.to_owned(), fields)].into(),
    }
}

fn peer(address: SocketAddr) -> proto::Peer {
    let socket_address = proto::SocketAddress {
        address: address.ip().to_canonical().to_string(),
        port_value: u32::from(address.port()),
    };
    proto::Peer {
        address: Some(proto::Address {
            socket_address: Some(socket_address),
        }),
    }
}

fn grpc_verdict(
    answer: &Answer,
    head: &mut request::Parts,
    metadata: &mut Metadata,
) -> Result<ResponseHeaders, Refused> {
    let check: proto::CheckResponse = grpc::message(answer).map_err(Refused::Failed)?;
    if let Some(said) = check.dynamic_metadata {
        metadata.say(metadata::AUTHORIZER, said);
    }
    if check.status.as_ref().is_none_or(|status| status.code != 0) {
        let response = check.denied_response.unwrap_or_default();
        return Err(Refused::Denied(grpc_denied(response).into()));
    }
    let Some(ok) = check.ok_response else {
        return Ok(Vec::new());
    };
    for name in &ok.headers_to_remove {
        if !name.starts_with(':') && !name.eq_ignore_ascii_case("host") {
            head.headers.remove(name);
        }
    }
    set_all(&ok.headers, &mut head.headers);
    Ok(ok.response_headers_to_add.iter().filter_map(pair).collect())
}

fn grpc_denied(response: proto::DeniedHttpResponse) -> Reply {
    let status = response
        .status
        .and_then(|status| u16::try_from(status.code).ok())
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(|status| !status.is_informational())
        .unwrap_or(StatusCode::FORBIDDEN);
    let mut headers = HeaderMap::new();
    set_all(&response.headers, &mut headers);
    denied(status, headers, Bytes::from(response.body))
}

fn set_all(options: &[proto::HeaderValueOption], headers: &mut HeaderMap) {
    for option in options {
        let Some((name, value)) = pair(option) else {
            continue;
        };
        if option.append.as_ref().is_some_and(|append| append.value) {
            headers.append(name, value);
        } else {
            headers.insert(name, value);
        }
    }
}

fn pair(option: &proto::HeaderValueOption) -> Option<(HeaderName, HeaderValue)> {
    let header = option.header.as_ref()?;
    let name = HeaderName::from_bytes(header.key.as_bytes()).ok()?;
    let raw = if header.raw_value.is_empty() {
        header.value.as_bytes()
    } else {
        &header.raw_value
    };
    Some((name, HeaderValue::from_bytes(raw).ok()?))
}
