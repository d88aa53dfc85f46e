//! Requests by curl, from this machine or one of the harness's namespaces.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::cmd::Run;
use crate::netns::Netns;

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

/// Sends a request to `url` from a namespace; `arguments` go to curl. An answer of any status is no error.
pub fn send(cluster: &Cluster, netns: Netns, url: &str, arguments: &[&str]) -> Result<Answer> {
    ask(&mut cluster.command_from(netns, "curl"), url, arguments)
}

/// As [`send`], to a server on this machine.
pub fn local(url: &str, arguments: &[&str]) -> Result<Answer> {
    ask(&mut Command::new("curl"), url, arguments)
}

/// Sends a request to `url` by this command, which runs curl somewhere.
pub fn ask(curl: &mut Command, url: &str, arguments: &[&str]) -> Result<Answer> {
    let text = curl
        .args(["--silent", "--show-error", "--max-time", "15", "--include"])
        .args(arguments)
        .arg(url)
        .text()?;
    parse(&text)
}

fn parse(text: &str) -> Result<Answer> {
    let (head, body) = text.split_once("\r\n\r\n").context("curl printed no header")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(':'));
    Ok(Answer {
        status: status.context("curl printed no status")?,
        headers: headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect(),
        body: body.to_owned(),
    })
}

impl Answer {
    /// The response's first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// All of the response's headers of this name, in lower case.
    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.headers.iter().filter(move |(key, _)| key == name);
        named.map(|(_, value)| value.as_str())
    }

    /// The request as the echo backend saw it; fails unless the status is 200.
    pub fn seen(&self) -> Result<Seen> {
        ensure!(self.status == 200, "status {}: {}", self.status, self.body);
        serde_json::from_str(&self.body)
            .map(Seen)
            .with_context(|| format!("no JSON: {}", self.body))
    }
}

/// The request as the echo backend saw it.
#[derive(Debug)]
pub struct Seen(Value);

impl Seen {
    /// The pod that answered.
    pub fn pod(&self) -> &str {
        self.0["pod"].as_str().unwrap_or_default()
    }

    /// The path that was asked for.
    pub fn path(&self) -> &str {
        self.0["path"].as_str().unwrap_or_default()
    }

    /// The host that was asked for.
    pub fn host(&self) -> &str {
        self.0["host"].as_str().unwrap_or_default()
    }

    /// The server name of the TLS connection to the backend.
    pub fn server_name(&self) -> &str {
        self.0["tls"]["serverName"].as_str().unwrap_or_default()
    }

    /// The request's first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.0["headers"].as_object()?.iter();
        headers
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .and_then(|(_, values)| values[0].as_str())
    }

    /// Fails unless the header has this value.
    pub fn expect(&self, name: &str, value: Option<&str>) -> Result<()> {
        let found = self.header(name);
        ensure!(
            found == value,
            "the backend saw {name} {found:?} instead of {value:?}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let body = r#"{"pod": "echo-1", "headers": {"X-Auth-User": ["alice"]}}"#;
        let answer = parse(&format!("HTTP/1.1 200 OK\r\nX-A: b\r\n\r\n{body}")).unwrap();
        assert_eq!((answer.status, answer.header("x-a")), (200, Some("b")));
        let seen = answer.seen().unwrap();
        assert_eq!(seen.pod(), "echo-1");
        seen.expect("x-auth-user", Some("alice")).unwrap();
        assert!(seen.expect("x-auth-user", None).is_err());
        assert!(
            parse("HTTP/1.1 503 Service Unavailable\r\n\r\n{}")
                .unwrap()
                .seen()
                .is_err()
        );
        assert!(parse("").is_err());
    }
}
