//! What a check works with: a directory, free ports, `sluice standalone` on manifests, other programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::process::{Process, bound, wait_for_port};

/// One check's surroundings.
#[derive(Debug)]
pub struct World {
    directory: PathBuf,
    binary: PathBuf,
}

impl World {
    /// Makes the directory.
    pub fn new(directory: &Path, binary: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(Self {
            directory: directory.to_owned(),
            binary: binary.to_owned(),
        })
    }

    /// Where the check's files are; removed at the end of the run.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts `sluice standalone` on manifests, with the GatewayClass `sluice`, and waits until it listens at `port`. Its
    /// log is `sluice.log` and its access log `access.log`, both in the check's directory.
    pub fn sluice(&self, manifests: &str, port: u16) -> Result<Process> {
        let config = self.directory.join("manifests");
        write_manifests(&config, manifests)?;
        let mut command = bound(&self.binary);
        command.args(["standalone", "--workers", "1", "--access-log", "--config"]);
        command.arg(&config);
        let log = fs::File::create(self.directory.join("access.log"))?;
        let mut process = Process::start("sluice", &mut command, &self.directory, log.into())?;
        wait_for_port(&mut process, port)?;
        Ok(process)
    }

    /// A command for the program `sluice` itself, for [`Self::start`].
    pub fn program(&self) -> Command {
        bound(&self.binary)
    }

    /// Starts a command made by [`bound`] and waits until it listens at `port`. Its standard error is `NAME.log`.
    pub fn start(&self, name: &str, command: &mut Command, port: u16) -> Result<Process> {
        let mut process = Process::start(name, command, &self.directory, Stdio::null())?;
        wait_for_port(&mut process, port)?;
        Ok(process)
    }

    /// What a program has written so far to a file in the check's directory.
    pub fn read(&self, file: &str) -> Result<String> {
        let path = self.directory.join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// The class of every Gateway.
const CLASS: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: sluice}
spec: {controllerName: sluice.dev/gateway-controller}
";

/// Makes a folder of manifests: these, and the GatewayClass `sluice`.
pub fn write_manifests(folder: &Path, manifests: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::write(folder.join("class.yaml"), CLASS).context("cannot write the class")?;
    fs::write(folder.join("check.yaml"), manifests).context("cannot write the manifests")
}

/// Manifests of the Service `echo`, with the built-in echo backend at `port`; they follow others.
pub fn echo_service(port: u16) -> String {
    format!(
        "\
---
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec: {{ports: [{{name: http, port: 80, targetPort: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: echo-1
  labels: {{kubernetes.io/service-name: echo}}
  annotations: {{sluice.dev/echo: \"true\"}}
addressType: IPv4
ports: [{{name: http, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"
    )
}
