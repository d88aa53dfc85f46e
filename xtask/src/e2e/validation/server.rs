//! A Kubernetes API server of the check's own: etcd and kube-apiserver on ports of loopback, nothing else of a cluster.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use uuid::Uuid;

use crate::bench::live::api::trusting;
use crate::build::programs;
use crate::host;
use crate::process::{Process, bound, wait_for_port};

/// How long one answer may take: the first ones wait until rules are compiled.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long the server may take to start.
const START: Duration = Duration::from_mins(2);
/// The name in the server's certificate.
const NAME: &str = "localhost";

/// The running programs; they end with this value.
pub struct Server {
    _etcd: Process,
    apiserver: Process,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    token: String,
}

impl Server {
    /// Starts both, with their files in a directory.
    pub fn start(directory: &Path) -> Result<Self> {
        let [clients, peers, port] = host::free_ports()?;
        let mut etcd = start_etcd(directory, clients, peers)?;
        wait_for_port(&mut etcd, clients)?;
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec![NAME.to_owned()])?;
        let accounts = rcgen::KeyPair::generate()?;
        let token = Uuid::new_v4().simple().to_string();
        // Members of system:masters are not throttled.
        let users = format!("{token},admin,admin,\"system:masters\"\n");
        for (name, content) in [
            ("server.crt", cert.pem()),
            ("server.key", signing_key.serialize_pem()),
            ("accounts.key", accounts.serialize_pem()),
            ("accounts.pub", accounts.public_key_pem()),
            ("tokens.csv", users),
        ] {
            fs::write(directory.join(name), content).with_context(|| format!("cannot write {name}"))?;
        }
        let mut apiserver = start_apiserver(directory, clients, port)?;
        wait_for_port(&mut apiserver, port)?;
        Ok(Self {
            _etcd: etcd,
            apiserver,
            address: ([127, 0, 0, 1], port).into(),
            tls: trusting(cert.pem().as_bytes(), &[b"h2"])?,
            token,
        })
    }

    /// A connection, for many requests at a time, to a server that is ready.
    pub async fn connect(&mut self) -> Result<Api> {
        let deadline = Instant::now() + START;
        loop {
            self.apiserver.check()?;
            let reason = match self.try_connect().await {
                Ok(api) => return Ok(api),
                Err(error) => error,
            };
            if Instant::now() > deadline {
                return Err(reason.context("the API server does not get ready"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn try_connect(&self) -> Result<Api> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(ServerName::try_from(NAME)?, stream).await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // Its end is seen by the requests.
        tokio::spawn(connection);
        let api = Api {
            sender,
            origin: format!("https://{NAME}:{}", self.address.port()),
            authorization: format!("Bearer {}", self.token),
        };
        // Objects are created in this namespace, which the server makes by itself.
        let path = "/api/v1/namespaces/default";
        let (status, answer) = api.send(Method::GET, path, Bytes::new()).await?;
        ensure!(status.is_success(), "{path}: {status} {}", answer["message"]);
        Ok(api)
    }
}

fn start_etcd(directory: &Path, clients: u16, peers: u16) -> Result<Process> {
    let (clients, peers) = (
        format!("http://127.0.0.1:{clients}"),
        format!("http://127.0.0.1:{peers}"),
    );
    let mut command = bound(programs::ETCD.ensure()?);
    command
        .arg("--data-dir")
        .arg(directory.join("etcd"))
        .args(["--unsafe-no-fsync", "--log-level=warn"])
        .args([
            "--listen-client-urls",
            &clients,
            "--advertise-client-urls",
            &clients,
        ])
        .args([
            "--listen-peer-urls",
            &peers,
            "--initial-advertise-peer-urls",
            &peers,
        ])
        .args(["--initial-cluster", &format!("default={peers}")]);
    Process::start("etcd", &mut command, directory, Stdio::null())
}

fn start_apiserver(directory: &Path, etcd: u16, port: u16) -> Result<Process> {
    let file = |name: &str| directory.join(name).display().to_string();
    let mut command = bound(programs::APISERVER.ensure()?);
    command.args([
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--tls-cert-file={}", file("server.crt")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--cert-dir={}", file("generated")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=AlwaysAllow".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-signing-key-file={}", file("accounts.key")),
        format!("--service-account-key-file={}", file("accounts.pub")),
        "--service-cluster-ip-range=10.43.0.0/16".to_owned(),
        // There is no address to tell others.
        "--endpoint-reconciler-type=none".to_owned(),
    ]);
    Process::start("kube-apiserver", &mut command, directory, Stdio::null())
}

/// A connection to the API server.
#[derive(Clone)]
pub struct Api {
    sender: SendRequest<Full<Bytes>>,
    origin: String,
    authorization: String,
}

impl Api {
    /// Sends a request and waits for the answer.
    pub async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Value)> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.origin))
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(Full::new(body))?;
        let mut sender = self.sender.clone();
        let answer = async {
            sender.ready().await?;
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            Ok::<_, hyper::Error>((status, answer.into_body().collect().await?.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(PATIENCE, answer)
            .await
            .with_context(|| format!("{path}: no answer"))??;
        // What the server does not know of it answers in plain text.
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        let value = serde_json::from_slice(&body).unwrap_or_else(|_| text());
        Ok((status, value))
    }

    /// Creates an object.
    pub async fn create(&self, path: &str, object: &Value) -> Result<()> {
        let (status, answer) = self.send(Method::POST, path, object.to_string().into()).await?;
        ensure!(status.is_success(), "{path}: {status} {}", answer["message"]);
        Ok(())
    }
}
