//! The ways of docs/migrate-from-envoy-gateway.md on a real cluster: the commands are read from the document, and what is moved
//! away from is Envoy Gateway itself, with Envoy as its proxy.
//!
//! Clients go on sending meanwhile, and none of their requests may fail.

mod envoy;
mod guide;
mod in_place;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};

use self::guide::Guide;
use super::install;
use super::load::Load;
use super::site::{self, LIMIT};
use crate::build::images;
use crate::checks::{self, Check as AnyCheck};
use crate::cluster::{self, Cluster};
use crate::curl::{self, Answer};
use crate::netns::Netns;
use crate::progress::{long, wait_for};
use crate::scratch::Scratch;

type Check = AnyCheck<World>;

/// Both ways, each from the beginning.
pub const CHECKS: [Check; 2] = [
    Check {
        name: "MigrationBeside",
        run: beside,
    },
    Check {
        name: "MigrationInPlace",
        run: in_place::there_and_back,
    },
];

/// The routes' host.
const HOST: &str = "www.example.com";
/// Envoy Gateway's name in statuses, and ours.
const THEIRS: &str = "gateway.envoyproxy.io/gatewayclass-controller";
const OURS: &str = "sluice.dev/gateway-controller";
/// Policies that the Gateway `eg` has.
const OF_GATEWAY: [(&str, &str); 2] = [
    ("clienttrafficpolicy", "clients"),
    ("backendtrafficpolicy", "answers"),
];

/// Where a user of Envoy Gateway is before he moves.
pub struct World {
    cluster: Cluster,
    guide: Guide,
    scratch: Scratch,
    /// The certificate and its key that the Gateway `eg` has for the host.
    certificate: CertifiedKey<rcgen::KeyPair>,
}

/// Runs the checks.
pub fn run(cluster: &Cluster, checks: &[&Check]) -> Result<()> {
    let archives = [images::ENVOY_GATEWAY.ensure()?, images::envoy()?];
    cluster::load_images(cluster, &archives)?;
    let world = World {
        cluster: cluster.clone(),
        guide: Guide::read()?,
        scratch: Scratch::new()?,
        certificate: generate_simple_self_signed(vec![HOST.to_owned()])?,
    };
    fs::write(world.authority(), world.certificate.cert.pem()).context("cannot write the certificate")?;
    let result = checks::run(checks, |check| {
        long("Envoy Gateway and what a user has with it", || world.begin())?;
        (check.run)(&world)
    });
    if result.is_err() {
        envoy::logs(cluster);
    }
    result.and(long("removing what was moved", || envoy::remove(cluster)))
}

fn beside(world: &World) -> Result<()> {
    let old = world.address("eg")?;
    let load = Load::for_host(old, HOST, "/");
    world.follow("1.")?;
    let class = world.status("gatewayclass", "eg")?;
    world.follow("2.")?;
    world
        .guide
        .follow(&world.cluster, &world.directory(), "3.", |_| world.copy_gateway())?;
    let new = world.address("main")?;
    ensure!(old != new, "both Gateways have the address {old}");
    for (kind, name) in OF_GATEWAY {
        world.accepted(kind, name, "eg", THEIRS)?;
        world.accepted(kind, name, "main", OURS)?;
    }
    world.wait(new, "/", &[], 404)?;

    world.follow("4.")?;
    world.serves(new)?;
    world.serves(old)?;
    world.accepted("securitypolicy", "login", "main", OURS)?;
    ensure!(
        world.status("gatewayclass", "eg")? == class,
        "Envoy Gateway's class has changed: {class}"
    );
    world.follow("Back")?;
    world.wait(new, "/", &[], 404)?;
    world.wait(new, "/admin", &[], 404)?;
    world.serves(old)?;
    world.follow("4.")?;
    world.serves(new)?;
    load.finish("the steps before the cut-over")?;

    let load = Load::for_host(new, HOST, "/");
    world.follow("6.")?;
    world.serves(new)?;
    for route in ["backend", "admin", "outside"] {
        let status = world.status("httproute", route)?;
        let parents = status["parents"].as_array().context("no parents")?;
        // Envoy Gateway leaves its own entry behind.
        let mut ours = parents.iter().filter(|parent| parent["controllerName"] == OURS);
        let name = ours.next().map(|parent| &parent["parentRef"]["name"]);
        ensure!(
            name.is_some_and(|name| name == "main") && ours.next().is_none(),
            "{route}: {status}"
        );
    }
    load.finish("the removal of Envoy Gateway")
}

impl World {
    /// The file that has the certificate.
    fn authority(&self) -> PathBuf {
        self.scratch.path().join("ca.crt")
    }

    fn directory(&self) -> PathBuf {
        self.scratch.path().join("reader")
    }

    /// Starts over: nothing of Sluice, Envoy Gateway with a Gateway that serves.
    fn begin(&self) -> Result<()> {
        guide::desk(&self.cluster, &self.directory())?;
        envoy::remove(&self.cluster)?;
        envoy::install(&self.cluster, self.scratch.path())?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "www-example-com", "namespace": "default"},
            "stringData": {
                "tls.crt": self.certificate.cert.pem(),
                "tls.key": self.certificate.signing_key.serialize_pem(),
            },
        });
        self.cluster.apply(&secret.to_string())?;
        install::apply_file(&self.cluster, "e2e/manifests/migrate.yaml")?;
        install::wait_deployment(&self.cluster, "default", "backend")?;
        self.serves(self.address("eg")?)
    }

    fn follow(&self, heading: &str) -> Result<()> {
        self.guide
            .follow(&self.cluster, &self.directory(), heading, |what| {
                anyhow::bail!("nobody knows how to do this by hand: {what}")
            })
    }

    /// Where a Gateway serves.
    fn address(&self, gateway: &str) -> Result<SocketAddr> {
        let address = site::address(&self.cluster, "default", gateway)?;
        let address: IpAddr = address.parse().with_context(|| format!("address {address}"))?;
        Ok(SocketAddr::new(address, 80))
    }

    fn get(&self, address: SocketAddr, path: &str, arguments: &[&str]) -> Result<Answer> {
        self.ask(address, 80, &format!("http://{HOST}{path}"), arguments)
    }

    fn ask(&self, address: SocketAddr, port: u16, url: &str, arguments: &[&str]) -> Result<Answer> {
        let resolve = format!("{HOST}:{port}:{}", address.ip());
        let arguments = [&["--resolve", &resolve], arguments].concat();
        curl::send(&self.cluster, Netns::Client, url, &arguments)
    }

    fn wait(&self, address: SocketAddr, path: &str, arguments: &[&str], status: u16) -> Result<Answer> {
        site::wait_status(&format!("{address} for {path}"), status, || {
            self.get(address, path, arguments)
        })
    }

    /// Each route is served, with the policies of the route and of the Gateway; by TLS too.
    fn serves(&self, address: SocketAddr) -> Result<()> {
        let answer = self.wait(address, "/", &["--header", "X-Internal: 1"], 200)?;
        answer.seen()?.expect("x-internal", None)?;
        let refused = self.wait(address, "/admin", &[], 401)?;
        ensure!(refused.body == "log in first", "the answer is {refused:?}");
        self.wait(address, "/admin", &["--user", "foo:bar"], 200)?
            .seen()?;
        self.wait(address, "/outside", &[], 200)?.seen()?;
        let authority = self.authority();
        let trust = ["--cacert", &*authority.to_string_lossy()];
        site::wait_status(&format!("{address} by TLS"), 200, || {
            self.ask(address, 443, &format!("https://{HOST}/"), &trust)
        })?
        .seen()
        .map(drop)
    }

    fn status(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(self.cluster.get(&[kind, name])?["status"].take())
    }

    /// A controller accepts a policy for a Gateway, in an entry of its own.
    fn accepted(&self, kind: &str, name: &str, gateway: &str, controller: &str) -> Result<()> {
        wait_for(&format!("{kind} {name} accepted by {controller}"), LIMIT, || {
            let status = self.status(kind, name)?;
            let entry = status["ancestors"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|entry| {
                    entry["controllerName"] == controller && entry["ancestorRef"]["name"] == gateway
                })
                .with_context(|| format!("no entry for {gateway}: {status}"))?;
            let found = install::condition(&entry["conditions"], "Accepted");
            ensure!(found.is_some_and(|(accepted, _)| accepted), "it is {found:?}");
            Ok(Some(()))
        })
    }

    /// What the guide asks for by hand: the Gateway under another name.
    fn copy_gateway(&self) -> Result<()> {
        self.edit("main.yaml", |gateway| {
            gateway["metadata"]["name"] = json!("main");
            gateway["spec"]["gatewayClassName"] = json!("sluice");
            gateway["spec"]["infrastructure"] = json!({"parametersRef": {
                "group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": "custom-proxy-config",
            }});
        })
    }

    /// What the guide asks for by hand: the class with another controller.
    fn change_class(&self, controller: &str) -> Result<()> {
        self.edit("class.yaml", |class| {
            class["spec"]["controllerName"] = json!(controller);
        })
    }

    /// Edits a file of the reader's, and takes away what belongs to the old object alone.
    fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let path = self.directory().join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {file}"))?;
        let mut object: Value =
            serde_yaml_ng::from_str(&text).with_context(|| format!("{file} is no YAML"))?;
        let fields = object
            .as_object_mut()
            .with_context(|| format!("{file} holds no object"))?;
        fields.remove("status");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|name, _| matches!(name.as_str(), "name" | "namespace" | "labels"));
        }
        change(&mut object);
        fs::write(&path, serde_json::to_string(&object)?).with_context(|| format!("cannot write {file}"))
    }
}

/// How long the removal of what stands in the way may take.
const REMOVAL: Duration = Duration::from_mins(3);
