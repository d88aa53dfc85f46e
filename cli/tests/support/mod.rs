//! The binary on a folder of manifests, and requests to it over loopback.
#![allow(dead_code, reason = "each test uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Anything that takes longer never happens.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The GatewayClass that Gateways name.
pub const CLASS: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: sluice}
spec: {controllerName: sluice.dev/gateway-controller}
";

/// The running binary; killed when dropped.
pub struct Sluice {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Sluice {
    pub fn standalone(dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args(["--log-level", "warn", "standalone", "--workers", "1", "--config"])
            .arg(dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let (out, sink) = (child.stdout.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        Self { child, lines }
    }

    /// Waits for a line that contains all of `words`, and forgets everything up to it.
    pub fn expect(&self, words: &[&str]) -> String {
        until(|| {
            let mut lines = self.lines.lock().unwrap();
            let at = lines
                .iter()
                .position(|line| words.iter().all(|word| line.contains(word)))?;
            Some(lines.drain(..=at).next_back().unwrap())
        })
        .unwrap_or_else(|| panic!("{words:?} is not in {:#?}", self.lines.lock().unwrap()))
    }

    pub fn stop(mut self) -> std::process::ExitStatus {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        until(|| self.child.try_wait().unwrap()).expect("it does not stop")
    }
}

impl Drop for Sluice {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn until<T>(mut poll: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(found) = poll() {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Status and body of a GET; `None` if nobody answers.
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    get_from(port, "example.com", path)
}

/// The same from this host.
pub fn get_from(port: u16, host: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}
