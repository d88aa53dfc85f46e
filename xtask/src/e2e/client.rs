//! A minimal HTTP/1.1 client for plain requests from inside a network namespace: one connection a request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Long enough for a busy machine; a hung request must still end.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A response's status code and its body.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub body: String,
}

/// Sends `GET path` on a connection of its own.
pub fn get(address: SocketAddr, host: &str, path: &str) -> Result<Response> {
    let mut stream =
        TcpStream::connect_timeout(&address, TIMEOUT).with_context(|| format!("connect {address}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sluice-e2e\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .with_context(|| format!("read from {address}"))?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Result<Response> {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        bail!("the connection ended inside the header")
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status =
        status.with_context(|| format!("no status line: {}", head.lines().next().unwrap_or_default()))?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| length != body.len()) {
        bail!("the body has {} bytes instead of {length:?}", body.len());
    }
    Ok(Response {
        status,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_read_and_a_short_one_refused() {
        let response = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        assert_eq!(
            response,
            Response {
                status: 200,
                body: "ok".to_owned()
            }
        );
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_err());
        assert!(parse(b"").is_err());
    }
}
