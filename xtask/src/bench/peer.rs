//! The proxies that are compared, each with the same hundred routes and one worker on the proxies' core.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::host::{self, LOAD_CORE, PROXY_CORE};
use super::load::Scenario;
use super::template::render;
use crate::paths;
use crate::process::{Process, pinned, wait_for_port};

/// Routes that each proxy has loaded.
const ROUTES: u32 = 100;
/// The host that load asks for; it has the route in the middle.
pub const HOST: &str = "r57.bench.test";
/// A gRPC message of 64 bytes behind its prefix: not compressed, length in network byte order.
const MESSAGE_LENGTH: usize = 64;

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Peer {
    Sluice,
    Envoy,
    Haproxy,
    Nginx,
}

impl Peer {
    /// In the order of their turns.
    pub const ALL: [Self; 4] = [Self::Sluice, Self::Envoy, Self::Haproxy, Self::Nginx];

    /// Whether it can do what the scenario asks for. nginx keeps connections to gRPC backends but gives up on those whose
    /// window updates come after the end of a call, and answers with 502.
    pub fn can(self, scenario: Scenario) -> bool {
        !(self == Self::Nginx && scenario == Scenario::Grpc)
    }

    /// As tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sluice => "sluice",
            Self::Envoy => "envoy",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }
}

/// Where requests go that the proxies forward.
#[derive(Clone, Copy, Debug)]
pub struct Backends {
    pub http: u16,
    pub grpc: u16,
}

/// What all proxies of a run share: certificate, message, backends and programs.
#[derive(Debug)]
pub struct Setup {
    directory: PathBuf,
    backends: Backends,
    binary: PathBuf,
    certificate: String,
    key: String,
}

impl Setup {
    /// Writes the files that proxies and load tools share.
    pub fn new(directory: &Path, binary: PathBuf, backends: Backends) -> Result<Self> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let params = rcgen::CertificateParams::new(vec!["*.bench.test".to_owned()])?;
        let certificate = params.self_signed(&key)?.pem();
        let key = key.serialize_pem();
        fs::write(directory.join("tls.crt"), &certificate)?;
        fs::write(directory.join("tls.key"), &key)?;
        fs::write(directory.join("tls.pem"), format!("{certificate}{key}"))?;
        let mut message = vec![0, 0, 0, 0, u8::try_from(MESSAGE_LENGTH)?];
        // Field 1, a string, as protobuf encodes it.
        message.extend([0x0a, u8::try_from(MESSAGE_LENGTH - 2)?]);
        message.resize(5 + MESSAGE_LENGTH, b'x');
        fs::write(directory.join("message"), message)?;
        Ok(Self {
            directory: directory.to_owned(),
            backends,
            binary,
            certificate,
            key,
        })
    }

    /// Starts the backend for small replies, on the core of the load.
    pub fn small_backend(&self) -> Result<Process> {
        let config = write(
            "backend.conf.tmpl",
            &self.directory,
            &self.values(&self.directory, None),
        )?;
        let mut command = pinned(LOAD_CORE, &program("nginx")?);
        command.arg("-c").arg(config).args(["-e", "stderr"]);
        let mut process = Process::start("backend", &mut command, &self.directory, Stdio::null())?;
        wait_for_port(&mut process, self.backends.http)?;
        Ok(process)
    }

    /// Starts a proxy; its access log goes to `log`.
    pub fn start(&self, peer: Peer, log: Stdio) -> Result<Running> {
        let directory = self.directory.join(peer.name());
        fs::create_dir_all(&directory)?;
        for file in ["tls.crt", "tls.key", "tls.pem"] {
            fs::copy(self.directory.join(file), directory.join(file))?;
        }
        let [http, https, grpc, admin] = crate::host::free_ports()?;
        let ports = Ports { http, https, grpc };
        let values = self.values(&directory, Some((ports, admin)));
        let mut command = match peer {
            Peer::Sluice => {
                let manifests = directory.join("manifests");
                fs::create_dir_all(&manifests)?;
                write("sluice.yaml.tmpl", &manifests, &values)?;
                let mut command = pinned(PROXY_CORE, &self.binary);
                command.args(["standalone", "--workers", "1", "--access-log", "--config"]);
                command
                    .arg(manifests)
                    .args(["--admin-address", &format!("127.0.0.1:{admin}")]);
                command.env("SLUICE_LOG", "warn");
                command
            }
            Peer::Envoy => {
                let config = write("envoy.yaml.tmpl", &directory, &values)?;
                let mut command = pinned(PROXY_CORE, &host::envoy()?);
                command.arg("-c").arg(config);
                command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "warn"]);
                command
            }
            Peer::Haproxy => {
                write("haproxy.map.tmpl", &directory, &values)?;
                let config = write("haproxy.cfg.tmpl", &directory, &values)?;
                let mut command = pinned(PROXY_CORE, &program("haproxy")?);
                command.arg("-db").arg("-f").arg(config);
                command
            }
            Peer::Nginx => {
                let config = write("nginx.conf.tmpl", &directory, &values)?;
                let mut command = pinned(PROXY_CORE, &program("nginx")?);
                command.arg("-c").arg(config).args(["-e", "stderr"]);
                command
            }
        };
        let mut process = Process::start(peer.name(), &mut command, &directory, log)?;
        for port in [http, https, grpc] {
            wait_for_port(&mut process, port)?;
        }
        Ok(Running { peer, process, ports })
    }

    fn values(&self, directory: &Path, listening: Option<(Ports, u16)>) -> Vec<(&'static str, String)> {
        let mut values = vec![
            ("DIR", directory.display().to_string()),
            ("BACKEND", self.backends.http.to_string()),
            ("GRPC_BACKEND", self.backends.grpc.to_string()),
            ("CERTIFICATE", indented(&self.certificate)),
            ("KEY", indented(&self.key)),
        ];
        if let Some((ports, admin)) = listening {
            values.push(("HTTP", ports.http.to_string()));
            values.push(("HTTPS", ports.https.to_string()));
            values.push(("GRPC", ports.grpc.to_string()));
            values.push(("ADMIN", admin.to_string()));
        }
        values
    }
}

/// Fills in a template and writes it to `directory` under its name without the ending.
fn write(template: &str, directory: &Path, values: &[(&str, String)]) -> Result<PathBuf> {
    let source = paths::root().join("bench").join(template);
    let text = fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let text = render(&text, ROUTES, values).with_context(|| template.to_owned())?;
    let path = directory.join(template.trim_end_matches(".tmpl"));
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Ports of a proxy at 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub http: u16,
    pub https: u16,
    pub grpc: u16,
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Running {
    pub peer: Peer,
    pub process: Process,
    pub ports: Ports,
}

/// The body of a gRPC call.
pub fn message(directory: &Path) -> PathBuf {
    directory.join("message")
}

fn program(name: &str) -> Result<PathBuf> {
    crate::host::find(name).with_context(|| format!("there is no {name}"))
}

fn indented(pem: &str) -> String {
    pem.lines()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
