//! A keep-alive HTTP/1.1 connection on which one request follows the other: to see when a change is in effect, and what
//! a request costs that waits for nobody.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls_pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

/// Bound on each read and write.
const PATIENCE: Duration = Duration::from_secs(5);

/// A response: its status, its head and its body as text.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Whether the head has a line that says so; the name in lower case or as it was configured.
    pub fn says(&self, name: &str, value: &str) -> bool {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .any(|(field, said)| field.eq_ignore_ascii_case(name) && said.trim() == value)
    }
}

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// The connection.
pub struct Client {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        Ok(Self::over(open(address)?))
    }

    /// Connects by TLS and asks for a name.
    pub fn connect_tls(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Result<Self> {
        let name = ServerName::try_from(name.to_owned())?;
        let session = ClientConnection::new(Arc::clone(config), name)?;
        Ok(Self::over(StreamOwned::new(session, open(address)?)))
    }

    fn over(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: Vec::with_capacity(4096),
        }
    }

    /// Sends a GET and waits for its answer.
    pub fn get(&mut self, host: &str, path: &str) -> Result<Answer> {
        self.send("GET", host, path, "", "")
    }

    /// Sends a request and waits for its answer. `fields` are lines of the head, each with its line end.
    pub fn send(&mut self, method: &str, host: &str, path: &str, fields: &str, body: &str) -> Result<Answer> {
        let length = match body.len() {
            0 => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\n{fields}{length}\r\n{body}"
        );
        self.stream.write_all(request.as_bytes())?;
        self.stream.flush()?;
        self.buffer.clear();
        loop {
            if let Some(answer) = whole(&self.buffer)? {
                return Ok(answer);
            }
            let mut block = [0; 4096];
            match self.stream.read(&mut block)? {
                0 => bail!("the connection ended before the answer did"),
                read => self.buffer.extend_from_slice(&block[..read]),
            }
        }
    }
}

fn open(address: SocketAddr) -> Result<TcpStream> {
    let stream =
        TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("connect {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The answer, if it is there to its end.
fn whole(bytes: &[u8]) -> Result<Option<Answer>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let body = &bytes[end + 4..];
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    };
    let is_whole = match field("content-length").map(str::parse::<usize>) {
        Some(length) => body.len() >= length.context("Content-Length is no number")?,
        None if field("transfer-encoding").is_some() => body.ends_with(b"0\r\n\r\n"),
        None => bail!("an answer without a length: {head}"),
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no status line: {head}"))?;
    let body = String::from_utf8_lossy(body).into_owned();
    Ok(is_whole.then_some(Answer { status, head, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_is_there() {
        assert_eq!(
            whole(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no").unwrap(),
            None
        );
        let answer = whole(b"HTTP/1.1 404 Not Found\r\nX-V: 7\r\ncontent-length: 2\r\n\r\nok");
        let answer = answer.unwrap().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (404, "ok"));
        assert!(answer.says("x-v", "7") && !answer.says("x-v", "8"));
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        assert!(whole(chunked).unwrap().is_some());
        assert!(whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
