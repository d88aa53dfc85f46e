//! Active health checks: asks the endpoints of a backend, one task a backend for the whole process.
//!
//! Owns the schedule and what counts as an answer. What follows from it is the balancer's business. A task ends with its
//! handle or its backend.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, TE, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rand::Rng;
use sluice_config::v1;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::health::Member;
use super::{Backend, Endpoint, Protocol, connect};
use crate::wire::Socket;

/// Checks of one backend under way at once.
const AT_ONCE: usize = 32;
/// Bytes of an answer that are looked at.
const MAX_ANSWER: usize = 1 << 20;
/// `SERVING` of grpc.health.v1.
const SERVING: i32 = 1;

/// Starts checks.
#[derive(Debug, Clone)]
pub struct Prober(Handle);

/// Checks that go on until this is dropped.
#[derive(Debug)]
pub struct Watch(#[allow(dead_code, reason = "held for its drop")] AbortOnDropHandle<()>);

/// What an endpoint's answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Healthy,
    /// Counts with the threshold.
    Failed,
    /// Is enough by itself.
    Down,
}

#[derive(Debug)]
enum Check {
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

#[derive(Debug)]
struct Plan {
    check: Check,
    timeout: Duration,
    interval: Duration,
    jitter: Duration,
    unhealthy: u32,
    healthy: u32,
    port: Option<u16>,
}

impl Prober {
    /// Checks run on this runtime.
    pub fn new(runtime: Handle) -> Self {
        Self(runtime)
    }

    /// Checks the endpoints of a backend as it asks for; `None` if it does not.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn watch(&self, config: &v1::Backend, backend: &Arc<Backend>) -> Result<Option<Watch>, String> {
        let Some(active) = config
            .health_check
            .as_ref()
            .and_then(|health| health.active.as_ref())
        else {
            return Ok(None);
        };
        let plan = Plan::compile(active).map_err(|e| format!("health_check.active.{e}"))?;
        let task = self.0.spawn(run(Arc::downgrade(backend), plan));
        Ok(Some(Watch(AbortOnDropHandle::new(task))))
    }
}

impl Plan {
    fn compile(config: &v1::ActiveHealthCheck) -> Result<Self, String> {
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
        let check = match config.check.as_ref().ok_or("check: not set")? {
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
                Check::Http {
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
            v1::active_health_check::Check::Tcp(tcp) => Check::Tcp {
                send: tcp.send.clone().into(),
                receive: tcp.receive.clone().into(),
            },
            v1::active_health_check::Check::Grpc(grpc) => Check::Grpc {
                service: grpc.service.clone(),
                authority: host("grpc.authority", &grpc.authority)?,
            },
        };
        let port = match config.port {
            0 => None,
            port => Some(u16::try_from(port).map_err(|_| format!("port: {port} is not a port"))?),
        };
        Ok(Self {
            check,
            timeout: Duration::from_millis(config.timeout_ms.max(1)),
            interval: Duration::from_millis(config.interval_ms.max(10)),
            jitter: Duration::from_millis(config.initial_jitter_ms),
            unhealthy: config.unhealthy_threshold.max(1),
            healthy: config.healthy_threshold.max(1),
            port,
        })
    }
}

/// How checks of one endpoint have gone: failures or successes in a row.
#[derive(Debug, Default, Clone, Copy)]
struct Run {
    failed: u32,
    passed: u32,
}

async fn run(backend: Weak<Backend>, plan: Plan) {
    if !plan.jitter.is_zero() {
        let pause = plan.jitter.mul_f64(rand::rng().random_range(0.0..1.0));
        tokio::time::sleep(pause).await;
    }
    let mut tick = tokio::time::interval(plan.interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut runs: HashMap<SocketAddr, Run> = HashMap::new();
    loop {
        tick.tick().await;
        let Some(backend) = backend.upgrade() else { return };
        let Some(balancer) = &backend.balancer else { return };
        let members = balancer.members(&backend.endpoints);
        runs.retain(|address, _| members.iter().any(|m| m.endpoint().address() == *address));
        let checks = members.into_iter().map(|member| {
            let (plan, backend) = (&plan, &backend);
            async move {
                let checked = tokio::time::timeout(plan.timeout, check(backend, &member, plan)).await;
                (member, checked.unwrap_or(Verdict::Failed))
            }
        });
        let mut checks = futures::stream::iter(checks).buffer_unordered(AT_ONCE);
        while let Some((member, verdict)) = checks.next().await {
            let run = runs.entry(member.endpoint().address()).or_default();
            if let Some(failing) = judge(run, verdict, &plan) {
                balancer.set_failing(&member, failing);
            }
        }
    }
}

/// Whether the endpoint is failing now, if the check settles it.
fn judge(run: &mut Run, verdict: Verdict, plan: &Plan) -> Option<bool> {
    match verdict {
        Verdict::Healthy => {
            *run = Run {
                failed: 0,
                passed: run.passed.saturating_add(1),
            };
            (run.passed >= plan.healthy).then_some(false)
        }
        Verdict::Failed | Verdict::Down => {
            *run = Run {
                failed: run.failed.saturating_add(1),
                passed: 0,
            };
            (verdict == Verdict::Down || run.failed >= plan.unhealthy).then_some(true)
        }
    }
}

async fn check(backend: &Backend, member: &Member, plan: &Plan) -> Verdict {
    let mut address = member.endpoint().address();
    if let Some(port) = plan.port {
        address.set_port(port);
    }
    let asked = match &plan.check {
        Check::Tcp { send, receive } => tcp(backend, member.endpoint(), address, send, receive).await,
        check => http(backend, member.endpoint(), address, check).await,
    };
    asked.unwrap_or_else(|error| {
        tracing::debug!(backend = &*backend.name, %address, %error, "health check");
        Verdict::Failed
    })
}

type Error = Box<dyn std::error::Error + Send + Sync>;

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
        Verdict::Failed
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
                    Verdict::Failed
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
            Ok(if found { Verdict::Healthy } else { Verdict::Failed })
        }
        Check::Grpc { .. } => grpc_verdict(response).await,
        Check::Tcp { .. } => Ok(Verdict::Failed),
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

async fn exchange<I>(io: I, http2: bool, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error>
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
        return Ok(Verdict::Failed);
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
        Verdict::Failed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(change: impl FnOnce(&mut v1::ActiveHealthCheck)) -> Result<Plan, String> {
        let mut config = v1::ActiveHealthCheck {
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            check: Some(v1::active_health_check::Check::Http(
                v1::active_health_check::Http::default(),
            )),
            ..Default::default()
        };
        change(&mut config);
        Plan::compile(&config)
    }

    #[test]
    fn thresholds_are_runs() {
        let plan = plan(|_| {}).unwrap();
        let mut run = Run::default();
        let mut see = |verdict| judge(&mut run, verdict, &plan);
        assert_eq!(
            [see(Verdict::Failed), see(Verdict::Failed), see(Verdict::Failed)],
            [None, None, Some(true)]
        );
        assert_eq!(
            [see(Verdict::Healthy), see(Verdict::Healthy)],
            [None, Some(false)]
        );
        assert_eq!(see(Verdict::Down), Some(true));
    }

    #[test]
    fn reasons_name_the_field() {
        use v1::active_health_check::{Check as C, Http};
        let http = |path: &str, method: &str| {
            let http = Http {
                path: path.into(),
                method: method.into(),
                ..Default::default()
            };
            plan(|config| config.check = Some(C::Http(http))).unwrap_err()
        };
        assert!(http("no path", "").starts_with("http.path: "));
        assert!(http("/", "G T").starts_with("http.method: "));
        assert!(plan(|c| c.check = None).unwrap_err().starts_with("check: "));
        assert!(plan(|c| c.port = 70_000).unwrap_err().starts_with("port: "));
    }
}
