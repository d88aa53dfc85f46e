//! Load in the background, each request of which must succeed: one request at a time and thread, with a pause.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

use super::{LOADED, api};
use crate::bench::client::Client;
use crate::netns::Netns;

/// Between two requests of a thread.
const PAUSE: Duration = Duration::from_millis(2);
/// Bound on a request of HTTP/2; those of HTTP/1.1 have their client's.
const PATIENCE: Duration = Duration::from_secs(5);
/// Failures that are told in words.
const TOLD: usize = 5;

/// How requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1.1, one connection for all.
    KeepAlive,
    /// HTTP/1.1, a connection for each.
    Connecting,
    /// TLS and HTTP/1.1, a connection for each.
    Handshaking,
    /// TLS and HTTP/2, one connection for all.
    Http2,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::KeepAlive, Self::Connecting, Self::Handshaking, Self::Http2];
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::KeepAlive => "HTTP/1.1 keep-alive",
            Self::Connecting => "HTTP/1.1 new connections",
            Self::Handshaking => "TLS new connections",
            Self::Http2 => "TLS HTTP/2",
        })
    }
}

/// What a kind of load has seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub answered: u64,
    pub failed: u64,
    /// The first failures.
    pub told: Vec<String>,
}

impl Seen {
    fn note(&mut self, result: Result<()>) -> bool {
        match result {
            Ok(()) => self.answered += 1,
            Err(error) => {
                self.failed += 1;
                if self.told.len() < TOLD {
                    self.told.push(format!("{error:#}"));
                }
                return false;
            }
        }
        true
    }
}

/// Load that runs; it ends with [`Load::finish`].
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<(Kind, JoinHandle<Result<Seen>>)>,
}

impl Load {
    /// Starts one thread a kind, outside the cluster, to the loaded route at the Gateway's address.
    pub fn start(kinds: &[Kind], outside: IpAddr, trusted: &str) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for &kind in kinds {
            let alpn: &[&[u8]] = if kind == Kind::Http2 {
                &[b"h2"]
            } else {
                &[b"http/1.1"]
            };
            let tls = api::trusting(trusted.as_bytes(), alpn)?;
            let stop = Arc::clone(&stop);
            let thread = std::thread::spawn(move || {
                Netns::Client.enter()?;
                let plain = (outside, 80).into();
                let secure = (outside, 443).into();
                match kind {
                    Kind::KeepAlive => Ok(keep_alive(plain, &stop)),
                    Kind::Connecting => Ok(connecting(&stop, || Client::connect(plain))),
                    Kind::Handshaking => Ok(connecting(&stop, || Client::connect_tls(secure, &tls, LOADED))),
                    Kind::Http2 => {
                        let runtime = tokio::runtime::Builder::new_current_thread()
                            .enable_all()
                            .build()?;
                        Ok(runtime.block_on(http2(secure, &tls, &stop)))
                    }
                }
            });
            threads.push((kind, thread));
        }
        Ok(Self { stop, threads })
    }

    /// Ends the load and says what each kind has seen.
    pub fn finish(self) -> Result<Vec<(Kind, Seen)>> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.threads.into_iter().map(|(kind, thread)| {
            let seen = thread
                .join()
                .map_err(|_| anyhow!("the load's thread panicked"))??;
            ensure!(seen.answered > 0, "{kind}: no request succeeded: {:?}", seen.told);
            Ok((kind, seen))
        });
        ended.collect()
    }
}

fn goes_on(stop: &AtomicBool) -> bool {
    std::thread::sleep(PAUSE);
    !stop.load(Ordering::Relaxed)
}

fn one(client: &mut Client) -> Result<bool> {
    let answer = client.get(LOADED, "/")?;
    ensure!(answer.status == 200, "status {}", answer.status);
    Ok(answer.says("connection", "close"))
}

fn keep_alive(address: SocketAddr, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut connection = None;
    while goes_on(stop) {
        let sent = match connection.take() {
            Some(client) => Ok(client),
            None => Client::connect(address),
        };
        let sent = sent.and_then(|mut client| Ok((one(&mut client)?, client)));
        let done = sent.map(|(closes, client)| connection = (!closes).then_some(client));
        seen.note(done);
    }
    seen
}

fn connecting(stop: &AtomicBool, connect: impl Fn() -> Result<Client>) -> Seen {
    let mut seen = Seen::default();
    while goes_on(stop) {
        seen.note(connect().and_then(|mut client| one(&mut client)).map(drop));
    }
    seen
}

type Sender = SendRequest<Empty<Bytes>>;

async fn http2(address: SocketAddr, tls: &Arc<ClientConfig>, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut connection: Option<Sender> = None;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(PAUSE).await;
        // One that was told to go is no failure: nothing is sent on it.
        let open = connection.take().filter(|sender| !sender.is_closed());
        let done = tokio::time::timeout(PATIENCE, async {
            let mut sender = match open {
                Some(sender) => sender,
                None => open_http2(address, tls).await?,
            };
            let request = hyper::Request::get(format!("https://{LOADED}/")).body(Empty::new())?;
            let answer = sender.send_request(request).await.context("HTTP/2")?;
            let status = answer.status();
            answer.into_body().collect().await.context("HTTP/2 body")?;
            ensure!(status == 200, "status {status}");
            Ok(sender)
        });
        match done.await.unwrap_or_else(|_| Err(anyhow!("timeout"))) {
            Ok(sender) => {
                connection = Some(sender);
                seen.note(Ok(()));
            }
            Err(error) => _ = seen.note(Err(error)),
        }
    }
    seen
}

async fn open_http2(address: SocketAddr, tls: &Arc<ClientConfig>) -> Result<Sender> {
    let stream = TcpStream::connect(address).await.context("connect")?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(LOADED)?;
    let stream = TlsConnector::from(Arc::clone(tls))
        .connect(name, stream)
        .await
        .context("TLS")?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        bail!("HTTP/2 was not agreed on");
    }
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
