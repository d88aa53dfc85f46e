//! Checks against one Gateway `main` in a namespace of their own, and what they have in common.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::install;
use crate::cluster::Cluster;
use crate::cmd::{Run, tail};
use crate::curl::{self, Answer};
use crate::netns::Netns;
use crate::progress::{say, wait_for};

/// How long a check waits for what it expects.
pub const LIMIT: Duration = Duration::from_mins(1);
/// Images come from the node's own store, but a small machine starts the pods one after another.
pub const START: Duration = Duration::from_mins(3);

/// Where the checks look.
pub struct Site<'a> {
    pub cluster: &'a Cluster,
    pub namespace: &'static str,
    /// The address of the Gateway `main`.
    pub gateway: String,
}

impl<'a> Site<'a> {
    /// Waits until the Gateway `main` of the namespace is programmed and has an address.
    pub fn ready(cluster: &'a Cluster, namespace: &'static str) -> Result<Self> {
        let gateway = wait_for("Gateway main Programmed, with an address", START, || {
            let gateway = cluster.get(&["gateway", "main", "--namespace", namespace])?;
            let programmed = install::condition(&gateway["status"]["conditions"], "Programmed");
            ensure!(
                programmed.is_some_and(|(status, _)| status),
                "it is {programmed:?}"
            );
            Ok(gateway["status"]["addresses"][0]["value"]
                .as_str()
                .map(str::to_owned))
        })?;
        Ok(Self {
            cluster,
            namespace,
            gateway,
        })
    }

    /// A request from the client's namespace to the Gateway `main`, with further arguments for curl.
    pub fn get(&self, path: &str, arguments: &[&str]) -> Result<Answer> {
        let url = format!("http://{}{path}", self.gateway);
        curl::send(self.cluster, Netns::Client, &url, arguments)
    }

    /// Sends until the answer has this status.
    pub fn wait_status(&self, path: &str, arguments: &[&str], status: u16) -> Result<Answer> {
        wait_for(&format!("status {status} from {path}"), LIMIT, || {
            let answer = self.get(path, arguments)?;
            ensure!(
                answer.status == status,
                "it answers {}: {}",
                answer.status,
                answer.body
            );
            Ok(Some(answer))
        })
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

/// Runs every check; those that fail are told together at the end.
pub fn check_all<'c>(checks: impl Iterator<Item = (&'c str, Result<()>)>) -> Result<()> {
    let mut failed = Vec::new();
    for (name, result) in checks {
        match result {
            Ok(()) => println!("ok      {name}"),
            Err(error) => {
                println!("FAILED  {name}: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Prints the proxies' last words before they are deleted.
pub fn logs(cluster: &Cluster, namespace: &str) {
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
