//! The walk: one request from the client through node port, proxy, Service and pod, checked at every hop.
//!
//! Twice: with the proxy balancing over endpoints, and with the proxy dialling the Service's ClusterIP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::load::Load;
use super::{hops, install};
use crate::cluster::Cluster;
use crate::cmd::Run;
use crate::netns::{CLIENT_IP, NODE_IP, Netns};
use crate::progress::{say, wait_for};

const NODE_PORT: u16 = 30080;
/// Listener port 80 is bound as 10080 in the proxy's pod.
const PROXY_PORT: u16 = 10080;
const BACKEND_PORT: u16 = 3000;
const NAMESPACE: &str = "default";
/// The proxy's Deployment and Service: Gateway `web` of class `sluice`.
const PROXY: &str = "web-sluice";
const LIMIT: Duration = Duration::from_mins(2);

/// How the proxy is told to reach the backend.
#[derive(Clone, Copy, Debug)]
enum Routing {
    Endpoint,
    Service,
}

/// One answered request.
struct Answer {
    /// What the backend saw.
    seen: Value,
    request_id: String,
}

/// Installs Sluice and the example, and walks.
pub fn run(cluster: &Cluster) -> Result<()> {
    install::crds(cluster)?;
    install::chart(cluster, &["walk"])?;
    for file in ["echo", "gateway", "route"] {
        install::apply_file(cluster, &format!("examples/kubernetes/{file}.yaml"))?;
    }
    install::wait_deployment(cluster, NAMESPACE, "echo")?;
    wait_for("Gateway default/web Programmed", LIMIT, || {
        let gateway = cluster.get(&["gateway", "web", "--namespace", NAMESPACE])?;
        let state = install::condition(&gateway["status"]["conditions"], "Programmed");
        Ok(state.is_some_and(|(status, _)| status).then_some(()))
    })?;
    install::wait_deployment(cluster, NAMESPACE, PROXY)?;
    walk(cluster, Routing::Endpoint)?;
    // The change of routing is under way while requests come in, and none may fail.
    let load = Load::start(SocketAddr::new(NODE_IP.parse()?, NODE_PORT), "/");
    install::chart(cluster, &["walk-service"])?;
    walk(cluster, Routing::Service)?;
    load.finish("the change from endpoints to the ClusterIP")?;
    // Leave the example as a user would have it.
    install::chart(cluster, &["walk"])
}

fn walk(cluster: &Cluster, routing: Routing) -> Result<()> {
    say(format!("the walk, routingType {routing:?}"));
    let pod = only_pod(cluster, "app=echo")?;
    let service = cluster.get(&["service", "echo", "--namespace", NAMESPACE])?;
    let cluster_ip = text(&service["spec"]["clusterIP"]);
    let upstream = match routing {
        Routing::Endpoint => format!("{}:{BACKEND_PORT}", pod.ip),
        Routing::Service => format!("{cluster_ip}:{BACKEND_PORT}"),
    };
    // The change reaches the proxy on its own; until then requests go the old way, and none may fail.
    let (answer, proxy, line) = wait_for(&format!("a request that goes to {upstream}"), LIMIT, || {
        let proxy = only_pod(cluster, "gateway.networking.k8s.io/gateway-name=web")?;
        let answer = request(cluster)?;
        let line = access_log(cluster, &proxy, &answer.request_id)?;
        Ok((line["upstream_host"] == upstream.as_str()).then_some((answer, proxy, line)))
    })?;

    hop(
        "1 client",
        &format!("{CLIENT_IP}: curl http://{NODE_IP}:{NODE_PORT}/ answers 200 with"),
    );
    println!("{}", serde_json::to_string_pretty(&answer.seen)?);
    check_seen(&answer.seen, &pod.name)?;

    let nat = Netns::Node.command("iptables-save").args(["-t", "nat"]).text()?;
    let path = hops::node_port(&nat, NODE_PORT)?;
    hop(
        "2 node port",
        &format!("{NODE_IP}:{NODE_PORT}, by kube-proxy's rules"),
    );
    path.rules.iter().for_each(|rule| println!("    {rule}"));
    let target = format!("{}:{PROXY_PORT}", proxy.ip);
    ensure!(
        path.targets == [target.clone()],
        "node port {NODE_PORT} leads to {:?}, not {target}",
        path.targets
    );

    hop(
        "3 proxy",
        &format!("pod {NAMESPACE}/{} at {target}, access log:", proxy.name),
    );
    println!("    {line}");
    check_line(&line, &proxy)?;

    let how = match routing {
        Routing::Endpoint => "bypassed: the proxy dials its endpoint",
        Routing::Service => "dialled by the proxy, kube-proxy chooses the pod",
    };
    hop(
        "4 backend Service",
        &format!("{NAMESPACE}/echo {cluster_ip}:{BACKEND_PORT}, {how} ({upstream})"),
    );

    let wanted = format!("Echoing back request made to / to client ({}:", proxy.ip);
    let log = cluster
        .kubectl(["logs", "--namespace", NAMESPACE, &pod.name, "--tail=20"])
        .text()?;
    let seen = log
        .lines()
        .rev()
        .find(|line| line.starts_with("Echoing back request made to / "));
    hop(
        "5 backend pod",
        &format!("{NAMESPACE}/{} at {}:{BACKEND_PORT}, log:", pod.name, pod.ip),
    );
    println!("    {}", seen.unwrap_or("(nothing)"));
    ensure!(
        seen.is_some_and(|line| line.starts_with(&wanted)),
        "the backend's log does not hold `{wanted}`"
    );
    Ok(())
}

/// A pod's name and address.
struct Pod {
    name: String,
    ip: String,
}

/// The one running pod with a label, the newest if an older one is still ending.
fn only_pod(cluster: &Cluster, label: &str) -> Result<Pod> {
    let pods = cluster.get(&["pods", "--namespace", NAMESPACE, "--selector", label])?;
    let live: Vec<&Value> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running")
        .collect();
    let [pod] = live[..] else {
        bail!("{} running pods with {label} instead of one", live.len())
    };
    Ok(Pod {
        name: text(&pod["metadata"]["name"]),
        ip: text(&pod["status"]["podIP"]),
    })
}

/// `curl` from the client's namespace; anything but 200 fails.
fn request(cluster: &Cluster) -> Result<Answer> {
    let url = format!("http://{NODE_IP}:{NODE_PORT}/");
    let output = cluster
        .command_from(Netns::Client, "curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "10",
            "--write-out",
            "\n%{http_code}",
            &url,
        ])
        .text()?;
    let (body, status) = output.rsplit_once('\n').context("curl printed nothing")?;
    ensure!(status == "200", "curl {url}: status {status}, body {body}");
    let seen: Value = serde_json::from_str(body).with_context(|| format!("curl {url}: no JSON: {body}"))?;
    let request_id = header(&seen, "X-Request-Id").context("the backend saw no x-request-id")?;
    Ok(Answer { seen, request_id })
}

/// Exactly what the backend must have seen.
fn check_seen(seen: &Value, pod: &str) -> Result<()> {
    let id = header(seen, "X-Request-Id").context("the backend saw no x-request-id")?;
    let uuid = uuid::Uuid::parse_str(&id).with_context(|| format!("x-request-id {id} is no UUID"))?;
    ensure!(
        uuid.get_version_num() == 4,
        "x-request-id {id} is no version 4 UUID"
    );
    for (field, wanted) in [
        ("path", "/"),
        ("host", &format!("{NODE_IP}:{NODE_PORT}")),
        ("method", "GET"),
        ("proto", "HTTP/1.1"),
        ("namespace", NAMESPACE),
        ("pod", pod),
    ] {
        ensure!(
            seen[field] == wanted,
            "the backend saw {field} {} instead of {wanted}",
            seen[field]
        );
    }
    let headers = headers(seen);
    let agent = headers.get("User-Agent").cloned().unwrap_or_default();
    ensure!(agent.starts_with("curl/"), "the backend saw user-agent {agent}");
    let wanted: BTreeMap<String, String> = [
        ("Accept", "*/*"),
        ("User-Agent", &agent),
        ("X-Envoy-Internal", "true"),
        ("X-Forwarded-For", CLIENT_IP),
        ("X-Forwarded-Proto", "http"),
        ("X-Request-Id", &id),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    ensure!(
        headers == wanted,
        "the backend saw headers {headers:#?} instead of {wanted:#?}"
    );
    Ok(())
}

/// The access log's line for a request, which the proxy writes after the answer.
fn access_log(cluster: &Cluster, proxy: &Pod, request_id: &str) -> Result<Value> {
    wait_for(
        &format!("the access log line of {request_id}"),
        Duration::from_secs(10),
        || {
            let log = cluster
                .kubectl(["logs", "--namespace", NAMESPACE, &proxy.name, "--tail=500"])
                .text()?;
            let mut lines = log
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            Ok(lines.find(|line| line["x-request-id"] == request_id))
        },
    )
}

fn check_line(line: &Value, proxy: &Pod) -> Result<()> {
    for (field, wanted) in [
        ("method", Value::from("GET")),
        ("x-envoy-origin-path", Value::from("/")),
        ("protocol", Value::from("HTTP/1.1")),
        ("response_code", Value::from(200)),
        ("response_flags", Value::from("-")),
        (":authority", Value::from(format!("{NODE_IP}:{NODE_PORT}"))),
        ("x-forwarded-for", Value::from(CLIENT_IP)),
        (
            "downstream_local_address",
            Value::from(format!("{}:{PROXY_PORT}", proxy.ip)),
        ),
    ] {
        ensure!(
            line[field] == wanted,
            "access log: {field} is {} instead of {wanted}",
            line[field]
        );
    }
    let peer = text(&line["downstream_remote_address"]);
    ensure!(
        peer.starts_with(&format!("{CLIENT_IP}:")),
        "access log: downstream_remote_address is {peer}"
    );
    Ok(())
}

fn headers(seen: &Value) -> BTreeMap<String, String> {
    let values = |value: &Value| {
        value
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let headers = seen["headers"].as_object();
    headers
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), values(value)))
        .collect()
}

fn header(seen: &Value, name: &str) -> Option<String> {
    headers(seen).remove(name)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn hop(name: &str, what: &str) {
    println!("hop {name}: {what}");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen() -> Value {
        json!({
            "path": "/", "host": "192.168.88.243:30080", "method": "GET", "proto": "HTTP/1.1",
            "namespace": "default", "pod": "echo-1",
            "headers": {
                "Accept": ["*/*"], "User-Agent": ["curl/8.0"], "X-Envoy-Internal": ["true"],
                "X-Forwarded-For": ["192.168.88.250"], "X-Forwarded-Proto": ["http"],
                "X-Request-Id": ["0195b9b4-2fb4-4b1e-9f7c-0d8d3c5a1e11"],
            },
        })
    }

    #[test]
    fn the_expected_request_passes() {
        check_seen(&seen(), "echo-1").unwrap();
    }

    #[test]
    fn each_difference_is_found() {
        let edits: [(&str, Value); 6] = [
            ("/host", json!("192.168.88.243")),
            ("/pod", json!("echo-2")),
            ("/headers/X-Forwarded-For", json!(["10.42.0.1"])),
            ("/headers/X-Forwarded-Proto", json!(["https"])),
            ("/headers/X-Envoy-Internal", json!(["false"])),
            (
                "/headers/X-Request-Id",
                json!(["0195b9b4-2fb4-7b1e-9f7c-0d8d3c5a1e11"]),
            ),
        ];
        for (pointer, value) in edits {
            let mut seen = seen();
            *seen.pointer_mut(pointer).unwrap() = value;
            assert!(check_seen(&seen, "echo-1").is_err(), "{pointer}");
        }
        let mut more = seen();
        more["headers"]["X-Envoy-External-Address"] = json!(["192.168.88.250"]);
        assert!(check_seen(&more, "echo-1").is_err());
    }
}
