//! Many connections that have each served a request and then do nothing.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::backend::{field, read_head};
use super::{Kind, tell, tls};
use crate::bench::peer::HOST;

/// Connections that are opened at the same time.
const BATCH: u32 = 50;
/// Source addresses 127.0.0.1 and up that take turns, so that no port is needed twice.
const SOURCES: u32 = 20;

/// Opens the connections, says `ready`, and waits to be ended.
pub(super) async fn hold(port: u16, kind: Kind, connections: u32, certificate: &Path) -> Result<()> {
    let tls = Arc::new(tls::connector(certificate)?);
    let mut held = Vec::new();
    let mut next = 0;
    while next < connections {
        let mut batch = JoinSet::new();
        for number in next..connections.min(next + BATCH) {
            let tls = Arc::clone(&tls);
            batch.spawn(async move { open(port, kind, number, &tls).await });
        }
        next += BATCH;
        while let Some(opened) = batch.join_next().await {
            held.push(opened?.with_context(|| format!("after {} connections", held.len()))?);
        }
    }
    tell("ready")?;
    std::future::pending::<()>().await;
    drop(held);
    Ok(())
}

async fn open(port: u16, kind: Kind, number: u32, tls: &tls::Connector) -> Result<Box<dyn Stream>> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    let source = [127, 0, 0, u8::try_from(1 + number % SOURCES)?];
    socket.bind((source, 0).into())?;
    let stream: TcpStream = socket.connect(([127, 0, 0, 1], port).into()).await?;
    stream.set_nodelay(true)?;
    let mut stream: Box<dyn Stream> = match kind {
        Kind::Plain | Kind::Websocket => Box::new(stream),
        Kind::Tls => Box::new(tls.connect(stream).await?),
    };
    if kind == Kind::Websocket {
        websocket(&mut stream).await?;
    } else {
        request(&mut stream).await?;
    }
    Ok(stream)
}

async fn request(stream: &mut Box<dyn Stream>) -> Result<()> {
    let head = format!("GET /bytes/64 HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let (head, rest) = read_head(stream).await?.context("no answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("answered with {head:?}");
    }
    let length: usize = field(&head, "content-length")
        .context("an answer without length")?
        .parse()?;
    let mut left = vec![0; length - rest.len()];
    stream.read_exact(&mut left).await?;
    Ok(())
}

async fn websocket(stream: &mut Box<dyn Stream>) -> Result<()> {
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let (head, _) = read_head(stream).await?.context("no answer")?;
    if !head.starts_with("HTTP/1.1 101") {
        bail!("the upgrade was answered with {head:?}");
    }
    // "hi" in a text frame, masked with zeros.
    stream.write_all(b"\x81\x82\0\0\0\0hi").await?;
    let mut frame = [0; 4];
    stream.read_exact(&mut frame).await?;
    if &frame != b"\x81\x02ok" {
        bail!("the WebSocket answered with {frame:?}");
    }
    Ok(())
}

/// A connection of any kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}
