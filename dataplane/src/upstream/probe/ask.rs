//! One active health check: what is asked, and what the answer says.
//!
//! Owns a connection for the time of a check. What follows from an answer is not its business.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderValue, TE, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use sluice_config::v1;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::upstream::{Backend, Endpoint, Protocol, connect};
use crate::wire::Socket;

/// Bytes of an answer that are looked at.
const MAX_ANSWER: usize = 1 << 20;
/// `SERVING` of grpc.health.v1.
const SERVING: i32 = 1;

/// What an endpoint's answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Healthy,
    /// Counts with the threshold.
    Failed(Cause),
    /// Is enough by itself.
    Down,
}

/// Why a check has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The answer is not what it should be.
    Answer,
    /// There is no connection, or it broke off.
    Network,
    /// The answer did not come in time.
    Timeout,
}

/// What is asked.
#[derive(Debug)]
pub(super) enum Check {
    Http {
        method: Method,
        path: Box<str>,
        host: Option<HeaderValue>,
        expected: Vec<u16>,
        retriable: Vec<u16>,
        content: Bytes,
        body: Bytes,
    },
    Tcp {
        send: Bytes,
        receive: Bytes,
    },
    Grpc {
        service: String,
        authority: Option<HeaderValue>,
    },
}

impl Check {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub(super) fn compile(config: &v1::ActiveHealthCheck) -> Result<Self, String> {
        let host = |field: &str, text: &str| {
            if text.is_empty() {
                return Ok(None);
            }
            match text.parse::<http::uri::Authority>() {
                Ok(_) => Ok(HeaderValue::from_str(text).ok()),
                Err(_) => Err(format!("{field}: `{text}` is not a host")),
            }
        };
        let statuses = |all: &[u32]| all.iter().filter_map(|s| u16::try_from(*s).ok()).collect();
        Ok(match config.check.as_ref().ok_or("check: not set")? {
            v1::active_health_check::Check::Http(http) => {
                let path = if http.path.is_empty() { "/" } else { &http.path };
                if path.parse::<http::uri::PathAndQuery>().is_err() || !path.starts_with('/') {
                    return Err(format!("http.path: `{path}` is not a path"));
                }
                let method = if http.method.is_empty() {
                    "GET"
                } else {
                    &http.method
                };
                let mut expected: Vec<u16> = statuses(&http.expected_statuses);
                if expected.is_empty() {
                    expected.push(200);
                }
                Self::Http {
                    method: Method::from_bytes(method.as_bytes())
                        .map_err(|_| format!("http.method: `{method}` is not a method"))?,
                    path: path.into(),
                    host: host("http.host", &http.host)?,
                    expected,
                    retriable: statuses(&http.retriable_statuses),
                    content: http.expected_response.clone().into(),
                    body: http.request_body.clone().into(),
                }
            }
            v1::active_health_check::Check::Tcp(tcp) => Self::Tcp {
                send: tcp.send.clone().into(),
                receive: tcp.receive.clone().into(),
            },
            v1::active_health_check::Check::Grpc(grpc) => Self::Grpc {
                service: grpc.service.clone(),
                authority: host("grpc.authority", &grpc.authority)?,
            },
        })
    }
}

/// Asks an endpoint of the backend, at another port if there is one for checks.
pub(super) async fn ask(backend: &Backend, endpoint: &Endpoint, port: Option<u16>, check: &Check) -> Verdict {
    let mut address = endpoint.address();
    if let Some(port) = port {
        address.set_port(port);
    }
    let asked = match check {
        Check::Tcp { send, receive } => tcp(backend, endpoint, address, send, receive).await,
        check => http(backend, endpoint, address, check).await,
    };
    asked.unwrap_or_else(|error| {
        tracing::debug!(backend = &*backend.name, %address, %error, "health check");
        Verdict::Failed(Cause::Network)
    })
}

/// Why there is no answer.
pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

async fn tcp(
    backend: &Backend,
    endpoint: &Endpoint,
    address: SocketAddr,
    send: &[u8],
    receive: &[u8],
) -> Result<Verdict, Error> {
    let stream = connect::dial(backend, endpoint, address, None).await?;
    match &backend.tls {
        None => converse(stream, send, receive).await,
        Some(tls) => {
            let stream = tls
                .handshake_raw(Socket::new(stream), endpoint.server_name())
                .await?;
            converse(stream, send, receive).await
        }
    }
}

async fn converse(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    send: &[u8],
    receive: &[u8],
) -> Result<Verdict, Error> {
    if !send.is_empty() {
        io.write_all(send).await?;
        io.flush().await?;
    }
    let mut answer = vec![0; receive.len()];
    io.read_exact(&mut answer).await?;
    Ok(if answer == receive {
        Verdict::Healthy
    } else {
        Verdict::Failed(Cause::Answer)
    })
}

async fn http(
    backend: &Backend,
    endpoint: &Endpoint,
    address: SocketAddr,
    check: &Check,
) -> Result<Verdict, Error> {
    let name = endpoint.server_name();
    let grpc = matches!(check, Check::Grpc { .. });
    let http2 = grpc || backend.protocol == Protocol::H2c;
    let request = request(check, address, http2, backend.tls.is_some())?;
    let stream = connect::dial(backend, endpoint, address, None).await?;
    let response = match &backend.tls {
        None => exchange(stream, http2, request).await?,
        Some(tls) => {
            exchange(
                tls.handshake(Socket::new(stream), http2, name).await?,
                http2,
                request,
            )
            .await?
        }
    };
    match check {
        Check::Http {
            expected,
            retriable,
            content,
            ..
        } => {
            let status = response.status().as_u16();
            if !expected.contains(&status) {
                return Ok(if retriable.contains(&status) {
                    Verdict::Failed(Cause::Answer)
                } else {
                    Verdict::Down
                });
            }
            if content.is_empty() {
                return Ok(Verdict::Healthy);
            }
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await?
                .to_bytes();
            let found = body.windows(content.len()).any(|window| window == *content);
            Ok(if found {
                Verdict::Healthy
            } else {
                Verdict::Failed(Cause::Answer)
            })
        }
        Check::Grpc { .. } => grpc_verdict(response).await,
        Check::Tcp { .. } => Ok(Verdict::Failed(Cause::Answer)),
    }
}

fn request(
    check: &Check,
    address: SocketAddr,
    http2: bool,
    tls: bool,
) -> Result<Request<Full<Bytes>>, Error> {
    let (method, path, host, body) = match check {
        Check::Http {
            method,
            path,
            host,
            body,
            ..
        } => (method.clone(), &**path, host, body.clone()),
        Check::Grpc { service, authority } => {
            let message = GrpcRequest {
                service: service.clone(),
            }
            .encode_to_vec();
            let mut body = BytesMut::new();
            body.put_u8(0);
            body.put_u32(u32::try_from(message.len())?);
            body.extend_from_slice(&message);
            (
                Method::POST,
                "/grpc.health.v1.Health/Check",
                authority,
                body.freeze(),
            )
        }
        Check::Tcp { .. } => return Err("not an HTTP check".into()),
    };
    let host = match host {
        Some(host) => host.clone(),
        None => HeaderValue::try_from(address.to_string())?,
    };
    let uri = if http2 {
        http::Uri::builder()
            .scheme(if tls { "https" } else { "http" })
            .authority(host.as_bytes())
            .path_and_query(path)
            .build()?
    } else {
        path.parse()?
    };
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .header(USER_AGENT, "Envoy/HC");
    if !http2 {
        request = request.header(HOST, host);
    }
    if matches!(check, Check::Grpc { .. }) {
        request = request
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers");
    }
    Ok(request.body(Full::new(body))?)
}

/// Sends a request on a connection of its own.
pub(super) async fn exchange<I>(
    io: I,
    http2: bool,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(io);
    // The connection goes with the response's body.
    if http2 {
        let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok(send.send_request(request).await?)
    } else {
        let (mut send, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        Ok(send.send_request(request).await?)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct GrpcRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GrpcResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

async fn grpc_verdict(response: Response<Incoming>) -> Result<Verdict, Error> {
    if response.status() != StatusCode::OK {
        return Ok(Verdict::Failed(Cause::Answer));
    }
    let in_head = response.headers().get("grpc-status").cloned();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?;
    let status = body
        .trailers()
        .and_then(|trailers| trailers.get("grpc-status").cloned())
        .or(in_head);
    let message = body.to_bytes();
    let is_ok = status.is_some_and(|status| status == "0");
    let serves = message
        .get(5..)
        .and_then(|message| GrpcResponse::decode(message).ok())
        .is_some_and(|answer| answer.status == SERVING);
    Ok(if is_ok && serves {
        Verdict::Healthy
    } else {
        Verdict::Failed(Cause::Answer)
    })
}
