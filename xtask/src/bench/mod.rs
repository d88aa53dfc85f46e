//! Benchmarks beside other proxies: what a request, a byte, a connection, a route and a change cost.
//!
//! Owns the command line and what all benchmarks share. Load goes to loopback addresses alone, in bounded amounts, and
//! every process that a run starts ends with it.

mod apiserver;
mod bulk;
mod churn;
mod client;
mod connections;
mod helper;
mod host;
pub mod live;
mod load;
mod peer;
mod propagation;
mod proxy;
mod routes;
mod stats;
mod template;
mod verify;

pub use host::envoy;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::scratch::Scratch;
use helper::Started;
use peer::{Backends, Peer, Setup};

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// CPU and latency of a request: HTTP/1.1, TLS with HTTP/2, gRPC
    Proxy(proxy::Options),
    /// Throughput of large bodies, and memory while they go through
    Bulk(bulk::Options),
    /// Memory of idle connections, CPU of TLS handshakes
    Connections(connections::Options),
    /// Memory and CPU of many routes, in proxy and controller
    Routes(routes::Options),
    /// Time from a change in a cluster to its effect on requests
    Propagation(propagation::Options),
    /// Requests that fail while a cluster changes
    Churn(churn::Options),
    /// A process of a benchmark's own
    #[command(hide = true)]
    Helper {
        #[command(subcommand)]
        helper: helper::Helper,
    },
}

/// Options of all benchmarks.
#[derive(Debug, Args)]
pub struct Common {
    /// How many times each proxy has its turn; results are medians
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Length of one measurement
    #[arg(long, value_name = "N")]
    seconds: Option<u32>,
    /// Numbers of connections
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    connections: Vec<u32>,
    /// Which proxies
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    peers: Vec<Peer>,
    /// The program `sluice` to measure, instead of building it
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Print tables as Markdown
    #[arg(long)]
    markdown: bool,
    /// A short run that shows that it works; its numbers mean little
    #[arg(long)]
    quick: bool,
}

impl Common {
    fn rounds(&self, usual: u32) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { usual }).max(1)
    }

    fn seconds(&self, usual: u32) -> u32 {
        self.seconds.unwrap_or(if self.quick { 1 } else { usual }).max(1)
    }

    fn connections(&self, usual: &[u32]) -> Vec<u32> {
        if self.connections.is_empty() {
            usual.to_vec()
        } else {
            self.connections.clone()
        }
    }

    /// What the proxies of a run share, with a backend of xtask's own behind them that takes and gives bodies of any length.
    fn with_own_backend(&self, scratch: &Scratch) -> Result<(Setup, Started)> {
        let binary = host::sluice(self.binary.as_deref())?;
        let [http] = crate::host::free_ports()?;
        let setup = Setup::new(scratch.path(), binary, Backends { http, grpc: http })?;
        let mut backend = Started::new(&["backend", "--port", &http.to_string()], scratch.path())?;
        backend.wait("listening")?;
        Ok((setup, backend))
    }

    fn peers(&self) -> Vec<Peer> {
        if self.peers.is_empty() {
            Peer::ALL.to_vec()
        } else {
            self.peers.clone()
        }
    }
}

/// Runs one benchmark and prints its tables to standard output.
pub fn run(bench: &Bench) -> Result<()> {
    if !matches!(bench, Bench::Helper { .. }) {
        host::prepare()?;
    }
    match bench {
        Bench::Proxy(options) => proxy::run(options),
        Bench::Bulk(options) => bulk::run(options),
        Bench::Connections(options) => connections::run(options),
        Bench::Routes(options) => routes::run(options),
        Bench::Propagation(options) => propagation::run(options),
        Bench::Churn(options) => churn::run(options),
        Bench::Helper { helper } => helper::run(helper),
    }
}
