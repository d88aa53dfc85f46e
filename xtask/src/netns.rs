//! The two network namespaces: the node, and a client outside the cluster. They are joined by one link and have no
//! way out.
//!
//! Programs enter by `nsenter --net`, never by `ip netns exec`: the latter's private mount namespace would hide the
//! kubelet's mounts from containerd.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cmd::Run;

/// One of the harness's network namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Netns {
    /// Where the cluster's only node runs.
    Node,
    /// Where a client outside the cluster runs.
    Client,
}

/// The node's address.
pub const NODE_IP: &str = "192.168.88.243";
/// The outside client's address.
pub const CLIENT_IP: &str = "192.168.88.250";
/// The load balancer's addresses, 192.168.88.200 to .239, as prefixes for routes.
const LB_ROUTES: [&str; 3] = ["192.168.88.200/29", "192.168.88.208/28", "192.168.88.224/28"];

impl Netns {
    /// The name that `ip netns` knows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "sluice-node",
            Self::Client => "sluice-client",
        }
    }

    /// The file that holds the namespace open.
    pub fn path(self) -> PathBuf {
        PathBuf::from("/run/netns").join(self.name())
    }

    /// A command that runs `program` in the namespace.
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg(program);
        command
    }

    /// Runs `work` on a thread of its own whose sockets belong to the namespace.
    pub fn run<T: Send>(self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                work()
            });
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread in {} panicked", self.name()))?
        })
    }

    /// Moves the calling thread, and only it, into the namespace for good.
    pub fn enter(self) -> Result<()> {
        let path = self.path();
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter {}", path.display()))
    }
}

/// Makes both namespaces and the link between them.
pub fn create() -> Result<()> {
    let (node, client) = (Netns::Node.name(), Netns::Client.name());
    ip(&format!("netns add {node}"))?;
    ip(&format!("netns add {client}"))?;
    ip(&format!(
        "link add eth0 netns {node} type veth peer name eth0 netns {client}"
    ))?;
    for (name, address) in [(node, NODE_IP), (client, CLIENT_IP)] {
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} addr add {address}/24 dev eth0"))?;
        ip(&format!("-n {name} link set eth0 up"))?;
    }
    // Several components refuse to start without a default route; packets that take it end at the client.
    ip(&format!("-n {node} route add default via {CLIENT_IP}"))?;
    for route in LB_ROUTES {
        ip(&format!("-n {client} route add {route} via {NODE_IP}"))?;
    }
    Netns::Node
        .command("sysctl")
        .args(["-qw", "net.ipv4.ip_forward=1"])
        .text()?;
    // Without it a pod that calls a Service backed by a pod on the same bridge gets its answer past conntrack. The
    // kernel may lack the module, and then it filters no bridge at all.
    Netns::Node
        .command("sysctl")
        .args(["-qw", "net.bridge.bridge-nf-call-iptables=1"])
        .succeeds();
    Ok(())
}

/// Removes both namespaces, as far as they exist.
pub fn remove() -> Result<()> {
    for netns in [Netns::Node, Netns::Client] {
        if netns.path().exists() {
            ip(&format!("netns del {}", netns.name()))?;
        }
    }
    Ok(())
}

fn ip(arguments: &str) -> Result<()> {
    Command::new("ip").args(arguments.split(' ')).text().map(drop)
}
