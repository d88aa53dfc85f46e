//! A bounded load in the background: a few requests a second from the client's namespace, each of which must succeed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail};

use super::client;
use crate::netns::Netns;
use crate::progress::say;

/// 20 requests a second: enough to hit a gap of 100 ms, too few to load the machine.
const PAUSE: Duration = Duration::from_millis(50);

/// What the load has seen.
#[derive(Debug, Default)]
struct Seen {
    answered: u64,
    failures: Vec<String>,
}

/// A running load; [`Load::finish`] ends it.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Seen>>,
}

impl Load {
    /// Starts to send `GET path`.
    pub fn start(address: SocketAddr, path: &str) -> Self {
        Self::for_host(address, &address.to_string(), path)
    }

    /// Starts to send `GET path` for a host.
    pub fn for_host(address: SocketAddr, host: &str, path: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, host, path) = (Arc::clone(&stop), host.to_owned(), path.to_owned());
        let thread = std::thread::spawn(move || {
            Netns::Client.enter()?;
            Ok(send(address, &host, &path, &flag))
        });
        Self { stop, thread }
    }

    /// Ends the load; fails if any request has failed or none was sent.
    pub fn finish(self, what: &str) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let Ok(seen) = self.thread.join() else {
            bail!("the load's thread panicked")
        };
        let seen = seen?;
        if !seen.failures.is_empty() {
            bail!(
                "{what}: {} requests failed, {} succeeded: {:?}",
                seen.failures.len(),
                seen.answered,
                seen.failures
            );
        }
        if seen.answered == 0 {
            bail!("{what}: no request was sent");
        }
        say(format!("{what}: {} requests, none failed", seen.answered));
        Ok(())
    }
}

fn send(address: SocketAddr, host: &str, path: &str, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    // A dozen failures tell as much as a thousand.
    while !stop.load(Ordering::Relaxed) && seen.failures.len() < 12 {
        match client::get(address, host, path) {
            Ok(response) if response.status == 200 => seen.answered += 1,
            Ok(response) => seen.failures.push(format!("status {}", response.status)),
            Err(error) => seen.failures.push(format!("{error:#}")),
        }
        std::thread::sleep(PAUSE);
    }
    seen
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_failed_request_is_counted_among_good_ones() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let server = std::thread::spawn(move || {
            for status in ["200 OK", "503 Service Unavailable"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).unwrap();
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
                flag.store(status.starts_with("503"), Ordering::Relaxed);
            }
        });
        let seen = send(address, "a.test", "/", &stop);
        server.join().unwrap();
        assert_eq!((seen.answered, seen.failures), (1, vec!["status 503".to_owned()]));
    }
}
