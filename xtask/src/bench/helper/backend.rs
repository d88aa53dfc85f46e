//! A backend for large bodies and WebSockets. It speaks as much HTTP/1.1 as proxies send it here.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::tell;

/// Size of the buffers that bodies go through.
pub(super) const BLOCK: usize = 256 * 1024;
/// How long a stalled upload is held.
const STALL: Duration = Duration::from_secs(10);
/// The answer to the key of RFC 6455, section 1.3, which the client sends.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Serves until the process is ended.
pub(super) async fn serve(port: u16) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port).into())?;
    let listener = socket.listen(4096)?;
    tell("listening")?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // Clients that go away in the middle are part of the measurement's end.
            let _ = connection(stream).await;
        });
    }
}

async fn connection(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut block = Vec::new();
    while let Some((head, rest)) = read_head(&mut stream).await? {
        let request = Request::parse(&head)?;
        if request.upgrade {
            return websocket(stream).await;
        }
        if block.is_empty() && (request.length > 0 || request.download > 0) {
            block.resize(BLOCK, 0);
        }
        let left = request.length.saturating_sub(rest.len() as u64);
        if request.stall {
            tokio::time::sleep(STALL).await;
            return Ok(());
        }
        drain(&mut stream, left, &mut block).await?;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.download);
        stream.write_all(head.as_bytes()).await?;
        let mut left = request.download;
        // What is sent is zeros, whatever was received.
        block.fill(0);
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            stream.write_all(&block[..part]).await?;
            left -= part as u64;
        }
    }
    Ok(())
}

async fn websocket(mut stream: TcpStream) -> Result<()> {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut frame = [0; 64];
    while stream.read(&mut frame).await? > 0 {
        // A text frame, final and not masked.
        stream.write_all(b"\x81\x02ok").await?;
    }
    Ok(())
}

/// Reads and drops `left` bytes.
async fn drain(stream: &mut TcpStream, mut left: u64, block: &mut [u8]) -> Result<()> {
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        match stream.read(&mut block[..part]).await? {
            0 => bail!("the body ended too early"),
            read => left -= read as u64,
        }
    }
    Ok(())
}

/// Reads a head; gives it and what came behind it. None at the end of the connection.
pub(super) async fn read_head<S: AsyncReadExt + Unpin>(stream: &mut S) -> Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok(Some((String::from_utf8(bytes)?, rest)));
        }
        if bytes.len() > 16 * 1024 {
            bail!("a head without end");
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            if bytes.is_empty() {
                return Ok(None);
            }
            bail!("a head was cut off");
        }
    }
}

/// The value of a header field.
pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

#[derive(Debug, PartialEq, Eq)]
struct Request {
    /// Bytes of the request's body.
    length: u64,
    /// Bytes of the answer's body.
    download: u64,
    upgrade: bool,
    stall: bool,
}

impl Request {
    fn parse(head: &str) -> Result<Self> {
        if field(head, "transfer-encoding").is_some() {
            bail!("bodies of unknown length are not for here");
        }
        let path = head.split(' ').nth(1).context("no path")?;
        let download = match path.strip_prefix("/bytes/") {
            Some(number) => number.parse().context("a number of bytes")?,
            None => 0,
        };
        Ok(Self {
            length: field(head, "content-length").map_or(Ok(0), str::parse)?,
            download,
            upgrade: field(head, "upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")),
            stall: path == "/stall",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_say_what_they_want() {
        let download = Request::parse("GET /bytes/10 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!((download.download, download.length), (10, 0));
        let upload = Request::parse("POST / HTTP/1.1\r\ncontent-length: 7\r\n\r\n").unwrap();
        assert_eq!((upload.download, upload.length), (0, 7));
        assert!(
            Request::parse("GET / HTTP/1.1\r\nUpgrade: WebSocket\r\n\r\n")
                .unwrap()
                .upgrade
        );
        assert!(Request::parse("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}
