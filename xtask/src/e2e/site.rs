//! Checks against one Gateway `main` in a namespace of their own, and what they have in common.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::install;
use crate::checks::{self, Check};
use crate::cluster::{self, Cluster};
use crate::cmd::{Run, tail};
use crate::curl::{self, Answer};
use crate::netns::Netns;
use crate::progress::{long, say, wait_for};

/// How long a check waits for what it expects.
pub const LIMIT: Duration = Duration::from_mins(1);
/// Images come from the node's own store, but a small machine starts the pods one after another.
pub const START: Duration = Duration::from_mins(3);

/// Checks that share a namespace, and what they are given.
pub trait Suite: Sized + 'static {
    /// The namespace, which the run makes and removes.
    const NAMESPACE: &'static str;
    /// Values of the chart: the names of files in e2e/values, the later go before the earlier.
    const VALUES: &'static [&'static str];
    /// All checks, by subject.
    const CHECKS: &'static [&'static [Check<Self>]];

    /// Archives of the images that the checks need besides those of every cluster.
    fn images() -> Result<Vec<PathBuf>>;

    /// Brings up what the chart counts on with these values.
    fn before(_cluster: &Cluster) -> Result<()> {
        Ok(())
    }

    /// Brings up what all checks count on.
    fn prepare(cluster: &Cluster) -> Result<Self>;

    /// Deletes what a run leaves, or an earlier one has left.
    fn remove(cluster: &Cluster) -> Result<()>;

    /// Every check.
    fn checks() -> impl Iterator<Item = &'static Check<Self>> {
        Self::CHECKS.iter().copied().flatten()
    }
}

/// Installs Sluice, runs the checks, and removes what they have made.
pub fn run<S: Suite>(cluster: &Cluster, checks: &[&Check<S>]) -> Result<()> {
    install::crds(cluster)?;
    cluster::load_images(cluster, &S::images()?)?;
    let remove = || long("removing what the checks make", || S::remove(cluster));
    remove()?;
    S::before(cluster)?;
    install::chart(cluster, S::VALUES)?;
    let result = long("preparing the checks", || S::prepare(cluster))
        .and_then(|world| checks::run(checks, |check| (check.run)(&world)));
    if result.is_err() {
        logs(cluster, S::NAMESPACE);
    }
    result.and(remove())
}

/// Deletes objects, those of a namespace with it, and waits until they are gone.
pub fn delete(cluster: &Cluster, kind: &str, names: &[&str]) -> Result<()> {
    let mut delete = cluster.kubectl(["delete", "--ignore-not-found", "--timeout=120s", kind]);
    delete.args(names).text().map(drop)
}

/// Where the checks look.
pub struct Site {
    pub cluster: Cluster,
    pub namespace: &'static str,
    /// The address of the Gateway `main`.
    pub gateway: String,
}

impl Site {
    /// Waits until the Gateway `main` of the namespace is programmed and has an address.
    pub fn ready(cluster: &Cluster, namespace: &'static str) -> Result<Self> {
        Ok(Self {
            cluster: cluster.clone(),
            namespace,
            gateway: address(cluster, namespace, "main")?,
        })
    }

    /// A request from the client's namespace to the Gateway `main`, with further arguments for curl.
    pub fn get(&self, path: &str, arguments: &[&str]) -> Result<Answer> {
        let url = format!("http://{}{path}", self.gateway);
        curl::send(&self.cluster, Netns::Client, &url, arguments)
    }

    /// Sends until the answer has this status.
    pub fn wait_status(&self, path: &str, arguments: &[&str], status: u16) -> Result<Answer> {
        wait_status(path, status, || self.get(path, arguments))
    }

    /// An object of the checks' namespace.
    pub fn object(&self, kind: &str, name: &str) -> Result<Value> {
        self.cluster.get(&[kind, name, "--namespace", self.namespace])
    }

    /// Waits until a policy's status says of the Gateway `main` that these conditions are true.
    pub fn wait_policy(&self, kind: &str, name: &str, conditions: &[&str]) -> Result<()> {
        conditions
            .iter()
            .try_for_each(|condition| self.wait_condition(kind, name, condition, true).map(drop))
    }

    /// Waits until a policy's status says this of the Gateway `main`; gives the condition's reason.
    pub fn wait_condition(&self, kind: &str, name: &str, condition: &str, status: bool) -> Result<String> {
        let what = format!("{kind} {name}: {condition} {status} for Gateway main");
        wait_for(&what, LIMIT, || {
            let policy = self.object(kind, name)?;
            let ancestors = policy["status"]["ancestors"].as_array();
            let entry = ancestors
                .into_iter()
                .flatten()
                .find(|entry| {
                    entry["ancestorRef"]["name"] == "main" && entry["ancestorRef"]["kind"] == "Gateway"
                })
                .context("Gateway main is no ancestor")?;
            let found = install::condition(&entry["conditions"], condition);
            ensure!(
                found.is_some_and(|(is, _)| is == status),
                "{condition} is {found:?}"
            );
            Ok(found.map(|(_, reason)| reason.to_owned()))
        })
    }
}

/// Sends until the answer has this status; `what` says whose answer.
pub fn wait_status(what: &str, status: u16, send: impl Fn() -> Result<Answer>) -> Result<Answer> {
    wait_for(&format!("status {status} from {what}"), LIMIT, || {
        let answer = send()?;
        ensure!(
            answer.status == status,
            "it answers {}: {}",
            answer.status,
            answer.body
        );
        Ok(Some(answer))
    })
}

/// Waits until a Gateway is programmed; gives its address.
pub fn address(cluster: &Cluster, namespace: &str, name: &str) -> Result<String> {
    let what = format!("Gateway {name} Programmed, with an address");
    wait_for(&what, START, || {
        let gateway = cluster.get(&["gateway", name, "--namespace", namespace])?;
        let programmed = install::condition(&gateway["status"]["conditions"], "Programmed");
        ensure!(
            programmed.is_some_and(|(status, _)| status),
            "it is {programmed:?}"
        );
        Ok(gateway["status"]["addresses"][0]["value"]
            .as_str()
            .map(str::to_owned))
    })
}

/// Prints the proxies' last words before they are deleted.
fn logs(cluster: &Cluster, namespace: &str) {
    let queries: [&[&str]; 2] = [
        &["get", "pods,services,gateways", "--output=wide"],
        &[
            "logs",
            "--selector=app.kubernetes.io/name=sluice-proxy",
            "--tail=40",
        ],
    ];
    for query in queries {
        match cluster.kubectl(query).args(["--namespace", namespace]).text() {
            Ok(text) => eprintln!("{}", tail(&text, 12_000)),
            Err(error) => say(format!("{error:#}")),
        }
    }
}
