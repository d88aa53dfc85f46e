//! The load balancer: gives each Service of type LoadBalancer an address and writes it into its status. kube-proxy
//! does the rest; the client's routes to the addresses lead to the node.
//!
//! A Service may ask for an address with `spec.loadBalancerIP`. Asked-for addresses may be shared by Services that
//! use different ports, as on real clusters; addresses given by default are not.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::access::Cluster;
use crate::cmd::Run;
use crate::progress::say;

/// Given to whoever asks for nothing.
const FIRST: Ipv4Addr = Ipv4Addr::new(192, 168, 88, 200);
const LAST_FREE: Ipv4Addr = Ipv4Addr::new(192, 168, 88, 231);
/// The end of the whole range: those above `LAST_FREE` go only to Services that ask for them by name.
const LAST: Ipv4Addr = Ipv4Addr::new(192, 168, 88, 239);

/// Watches Services for as long as the process lives.
pub fn serve() -> Result<()> {
    let cluster = Cluster::own()?;
    // It outlives a watch: nobody's address may be given away while the list is read anew.
    let mut pool = Pool::default();
    loop {
        if let Err(error) = watch(&cluster, &mut pool) {
            say(format!("load balancer: {error:#}; watching anew"));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn watch(cluster: &Cluster, pool: &mut Pool) -> Result<()> {
    let mut child = cluster
        .kubectl([
            "get",
            "services",
            "-A",
            "-o",
            "json",
            "--watch",
            "--output-watch-events",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start kubectl")?;
    let stdout = child.stdout.take().context("no standard output")?;
    let mut events = serde_json::Deserializer::from_reader(BufReader::new(stdout)).into_iter::<Value>();
    let result = events.try_for_each(|event| {
        handle(cluster, pool, &event?);
        Ok(())
    });
    // The watch has ended or is useless by now.
    let _ = child.kill();
    let _ = child.wait();
    result
}

fn handle(cluster: &Cluster, pool: &mut Pool, event: &Value) {
    let service = &event["object"];
    let key = format!(
        "{}/{}",
        service["metadata"]["namespace"].as_str().unwrap_or_default(),
        service["metadata"]["name"].as_str().unwrap_or_default()
    );
    let wants = event["type"] != "DELETED" && service["spec"]["type"] == "LoadBalancer";
    if !wants {
        pool.release(&key);
        return;
    }
    let current = service["status"]["loadBalancer"]["ingress"][0]["ip"]
        .as_str()
        .and_then(|ip| ip.parse().ok());
    let request = service["spec"]["loadBalancerIP"]
        .as_str()
        .filter(|ip| !ip.is_empty());
    let asked = request.and_then(|ip| ip.parse().ok()).filter(in_range);
    if let Some(other) = request.filter(|_| asked.is_none()) {
        say(format!(
            "load balancer: {key} asks for {other}, which is not ours to give"
        ));
        pool.release(&key);
        return;
    }
    match pool.assign(&key, asked, current) {
        None => say(format!("load balancer: no address left for {key}")),
        Some(ip) if current == Some(ip) => {}
        Some(ip) => match set(cluster, service, ip) {
            Ok(()) => say(format!("load balancer: {ip} for {key}")),
            // Most likely it has just been deleted; the next event tells.
            Err(error) => say(format!("load balancer: {key}: {error:#}")),
        },
    }
}

fn set(cluster: &Cluster, service: &Value, ip: Ipv4Addr) -> Result<()> {
    let metadata = &service["metadata"];
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": ip, "ipMode": "VIP" }] } } });
    cluster
        .kubectl([
            "patch",
            "service",
            metadata["name"].as_str().unwrap_or_default(),
            "--subresource=status",
        ])
        .args([
            "--type=merge",
            "--namespace",
            metadata["namespace"].as_str().unwrap_or_default(),
        ])
        .args(["--patch", &status.to_string()])
        .text()
        .map(drop)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that Option::filter wants"
)]
fn in_range(ip: &Ipv4Addr) -> bool {
    (FIRST..=LAST).contains(ip)
}

/// Who has which address.
#[derive(Debug, Default)]
struct Pool {
    held: BTreeMap<String, Ipv4Addr>,
}

impl Pool {
    fn release(&mut self, key: &str) {
        self.held.remove(key);
    }

    /// The address for a Service: the one it asks for, else the one it has, else a free one.
    fn assign(&mut self, key: &str, asked: Option<Ipv4Addr>, current: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let taken: BTreeSet<Ipv4Addr> = self
            .held
            .iter()
            .filter(|(holder, _)| *holder != key)
            .map(|(_, ip)| *ip)
            .collect();
        let kept = self
            .held
            .get(key)
            .copied()
            .or(current)
            .filter(in_range)
            .filter(|ip| !taken.contains(ip));
        let free = || {
            (u32::from(FIRST)..=u32::from(LAST_FREE))
                .map(Ipv4Addr::from)
                .find(|candidate| !taken.contains(candidate))
        };
        let ip = asked.or(kept).or_else(free)?;
        self.held.insert(key.to_owned(), ip);
        Some(ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 88, last)
    }

    #[test]
    fn each_service_gets_an_address_of_its_own_and_keeps_it() {
        let mut pool = Pool::default();
        assert_eq!(pool.assign("a/a", None, None), Some(ip(200)));
        assert_eq!(pool.assign("a/b", None, None), Some(ip(201)));
        assert_eq!(pool.assign("a/a", None, None), Some(ip(200)));
        pool.release("a/a");
        assert_eq!(pool.assign("a/c", None, None), Some(ip(200)));
    }

    #[test]
    fn an_address_from_an_earlier_watch_stays() {
        let mut pool = Pool::default();
        assert_eq!(pool.assign("a/a", None, Some(ip(207))), Some(ip(207)));
        assert_eq!(pool.assign("a/b", None, Some(ip(207))), Some(ip(200)));
        assert_eq!(
            pool.assign("a/c", None, Some(Ipv4Addr::new(10, 0, 0, 1))),
            Some(ip(201))
        );
    }

    #[test]
    fn a_request_wins_and_the_last_addresses_are_for_requests_alone() {
        let mut pool = Pool::default();
        assert_eq!(pool.assign("a/a", Some(ip(239)), Some(ip(200))), Some(ip(239)));
        for number in 200..=231 {
            assert_eq!(pool.assign(&format!("b/{number}"), None, None), Some(ip(number)));
        }
        assert_eq!(pool.assign("b/more", None, None), None);
    }
}
