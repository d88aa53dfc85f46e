//! Clients: hyper's, and raw bytes.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::backend::Seen;

/// A response, read to its end.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub version: http::Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Got {
    /// The request as the echo backend saw it.
    pub fn seen(&self) -> Seen {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A pooling client.
#[derive(Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    port: u16,
}

impl Http {
    /// HTTP/1.1.
    pub fn new(port: u16) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            port,
        }
    }

    /// HTTP/2 with prior knowledge.
    pub fn h2(port: u16) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new())
                .http2_only(true)
                .build_http(),
            port,
        }
    }

    pub async fn get(&self, path: &str) -> Got {
        self.send(self.request("GET", path), "").await
    }

    /// GET with these headers; a `host` among them is honoured.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Got {
        self.send_with("GET", path, headers, "").await
    }

    pub async fn send_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Got {
        let mut request = self.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request, body).await
    }

    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}{path}", self.port))
    }

    pub async fn send(&self, request: http::request::Builder, body: impl Into<Bytes>) -> Got {
        self.try_send(request, body).await.unwrap()
    }

    pub async fn try_send(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Result<Got, Box<dyn std::error::Error + Send + Sync>> {
        let request = request.body(Full::new(body.into()))?;
        let response = tokio::time::timeout(Duration::from_secs(30), self.client.request(request)).await??;
        read(response).await
    }
}

/// Reads a response to its end.
pub async fn read(
    response: Response<hyper::body::Incoming>,
) -> Result<Got, Box<dyn std::error::Error + Send + Sync>> {
    let (head, body) = response.into_parts();
    let body = tokio::time::timeout(Duration::from_secs(30), body.collect()).await??;
    let trailers = body.trailers().cloned();
    Ok(Got {
        status: head.status.as_u16(),
        version: head.version,
        headers: head.headers,
        body: body.to_bytes(),
        trailers,
    })
}

/// A connection on which bytes are sent and received as they are.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn connect(port: u16) -> Self {
        Self(TcpStream::connect(("127.0.0.1", port)).await.unwrap())
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads until what was read ends with `end`.
    pub async fn read_until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        let reading = async {
            while !read.ends_with(end.as_bytes()) {
                let mut byte = [0; 1];
                if self.0.read(&mut byte).await.unwrap_or(0) == 0 {
                    break;
                }
                read.push(byte[0]);
            }
        };
        let timely = tokio::time::timeout(Duration::from_secs(20), reading).await;
        let text = String::from_utf8_lossy(&read).into_owned();
        assert!(timely.is_ok(), "no {end:?} in {text:?}");
        text
    }

    /// Reads a head.
    pub async fn head(&mut self) -> String {
        self.read_until("\r\n\r\n").await
    }

    /// Reads until the other side closes.
    pub async fn rest(&mut self) -> String {
        let mut read = Vec::new();
        // A reset ends the connection as well as anything.
        let _ = tokio::time::timeout(Duration::from_secs(20), self.0.read_to_end(&mut read))
            .await
            .expect("not closed");
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Reads exactly so many bytes.
    pub async fn exactly(&mut self, n: usize) -> Vec<u8> {
        let mut read = vec![0; n];
        tokio::time::timeout(Duration::from_secs(20), self.0.read_exact(&mut read))
            .await
            .expect("too few")
            .unwrap();
        read
    }
}
