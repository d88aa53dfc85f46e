//! Backends: hyper servers that speak HTTP/1.1 and HTTP/2, with a handler of the test's own.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

pub type Body = BoxBody<Bytes, Infallible>;
type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A running backend; it stops, connections included, when it is dropped.
pub struct Backend {
    pub address: SocketAddr,
    hits: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl Backend {
    /// Serves with `handler`.
    pub async fn start<F, R>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::start_tls(None, handler).await
    }

    /// Serves over TLS.
    pub async fn start_tls<F, R>(tls: Option<tokio_rustls::TlsAcceptor>, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hits = Arc::<AtomicUsize>::default();
        let connections = Arc::<AtomicUsize>::default();
        let handler: Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync> = {
            let hits = Arc::clone(&hits);
            Arc::new(move |request| {
                hits.fetch_add(1, Ordering::SeqCst);
                Box::pin(handler(request))
            })
        };
        let counted = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (handler, tls) = (Arc::clone(&handler), tls.clone());
                serving.spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let answer = handler(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = match tls {
                        None => {
                            builder
                                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                                .await
                        }
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else {
                                return;
                            };
                            builder
                                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                                .await
                        }
                    };
                });
            }
        })
        .abort_handle();
        Self {
            address,
            hits,
            connections,
            accepting,
        }
    }

    /// Answers every request with a description of it (see [`Seen`]) and `backend: name`.
    pub async fn echo(name: &'static str) -> Self {
        Self::start(move |request| describe(name, request)).await
    }

    /// Answers with a status only.
    pub async fn status(status: u16) -> Self {
        Self::start(move |_| async move { response(status, "") }).await
    }

    /// Requests so far.
    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

pub fn response(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    Response::builder()
        .status(status)
        .body(Full::new(body.into()).boxed())
        .unwrap()
}

/// A request as the echo backend describes it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Seen {
    pub backend: String,
    pub method: String,
    pub uri: String,
    pub version: String,
    pub headers: Vec<(String, String)>,
    pub trailers: Vec<(String, String)>,
    pub body_len: usize,
    pub body_sum: u64,
}

impl Seen {
    /// The value of the only header with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(n, _)| n == name);
        let first = all.next();
        assert!(all.next().is_none(), "{name} came more than once");
        first.map(|(_, value)| value.as_str())
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
        .collect()
}

/// Tells bodies apart that differ in content or order.
pub fn sum(data: &[u8]) -> u64 {
    data.iter().fold(7, |sum: u64, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    })
}

pub async fn describe(name: &'static str, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return response(400, "");
    };
    let trailers = body.trailers().map(pairs).unwrap_or_default();
    let body = body.to_bytes();
    let seen = Seen {
        backend: name.into(),
        method: head.method.to_string(),
        uri: head.uri.to_string(),
        version: format!("{:?}", head.version),
        headers: pairs(&head.headers),
        trailers,
        body_len: body.len(),
        body_sum: sum(&body),
    };
    let mut response = response(200, serde_json::to_vec(&seen).unwrap());
    response
        .headers_mut()
        .insert("content-type", "application/json".parse().unwrap());
    response.headers_mut().insert("backend", name.parse().unwrap());
    response
}
