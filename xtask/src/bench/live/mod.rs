//! A real cluster for benchmarks: Sluice installed by its chart, a Gateway, backends and as many routes as are wanted.

pub mod api;
pub mod load;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::client::Client;
use crate::build::images::ECHO_IMAGE;
use crate::cluster::Cluster;
use crate::cmd::Run;
use crate::e2e::install::{self, ImageOptions};
use crate::netns::Netns;
use crate::progress::{long, say, wait_for};
use api::Api;

/// Where everything is.
pub const NAMESPACE: &str = "sluice-bench";
/// The Gateway.
pub const GATEWAY: &str = "bench";
/// The collection that routes are in.
pub const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/sluice-bench/httproutes";
/// The name on the HTTPS listener, and that of the route that load takes.
pub const LOADED: &str = "loaded.bench.test";
/// The Secret of the HTTPS listener.
pub const SECRET: &str = "tls";
const LIMIT: Duration = Duration::from_mins(3);
/// Requests to the API server that are under way at once.
const WRITERS: u32 = 8;

/// The cluster as it has been set up; what was made goes with this value.
pub struct World {
    pub cluster: Cluster,
    /// Where clients outside the cluster reach the Gateway.
    pub outside: IpAddr,
    /// The proxy's pod, by its plain listener, for connections from the node.
    pub pod: SocketAddr,
    /// The controller's metrics.
    metrics: SocketAddr,
    /// The CA that the Gateway's certificate is issued by.
    authority: Authority,
}

/// What certificates are issued by.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Result<Self> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = rcgen::CertificateParams::new(Vec::new())?;
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "bench CA");
        let pem = params.self_signed(&key)?.pem();
        let issuer = rcgen::Issuer::new(params, key);
        Ok(Self { issuer, pem })
    }

    /// A Secret with a new certificate.
    fn secret(&self) -> Result<Value> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let params = rcgen::CertificateParams::new(vec![LOADED.to_owned()])?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": { "name": SECRET, "namespace": NAMESPACE },
            "stringData": { "tls.crt": certificate, "tls.key": key.serialize_pem() },
        }))
    }
}

impl World {
    /// Sets it up with `routes` routes besides the loaded one, and waits until all is served and stated.
    pub fn new(image: &ImageOptions, routes: u32) -> Result<Self> {
        let cluster = Cluster::open(None)?;
        cluster.need_own("a benchmark of the control plane")?;
        install::image(&cluster, image)?;
        install::crds(&cluster)?;
        install::chart(&cluster, &["conformance"])?;
        remove(&cluster)?;
        let authority = Authority::new()?;
        cluster.apply(&base(&authority)?)?;
        install::wait_deployment(&cluster, NAMESPACE, "echo")?;
        let outside = wait_for("an address of the Gateway", LIMIT, || {
            let gateway = cluster.get(&["gateway", GATEWAY, "--namespace", NAMESPACE])?;
            let address = gateway["status"]["addresses"][0]["value"]
                .as_str()
                .map(str::parse);
            Ok(address.transpose()?)
        })?;
        let proxy = wait_for("the proxy's pod", LIMIT, || {
            pod(
                &cluster,
                NAMESPACE,
                "gateway.networking.k8s.io/gateway-name=bench",
            )
        })?;
        let controller = wait_for("the controller's pod", LIMIT, || {
            pod(
                &cluster,
                install::NAMESPACE,
                "app.kubernetes.io/name=sluice-controller",
            )
        })?;
        let world = Self {
            cluster,
            outside,
            pod: (proxy, 10080).into(),
            metrics: (controller, 19001).into(),
            authority,
        };
        long(&format!("{routes} routes"), || world.fill(routes))?;
        Ok(world)
    }

    fn fill(&self, routes: u32) -> Result<()> {
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    scope.spawn(move || {
                        Netns::Node.enter()?;
                        let mut api = Api::open(&self.cluster)?;
                        (writer..routes)
                            .step_by(WRITERS as usize)
                            .try_for_each(|i| api.create(ROUTES, &route(&format!("r{i}"), "")))
                    })
                })
                .collect();
            writers
                .into_iter()
                .try_for_each(|writer| writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?)
        })?;
        let last = routes
            .checked_sub(1)
            .map_or_else(|| LOADED.to_owned(), |last| host(&format!("r{last}")));
        Netns::Node.run(|| {
            for host in [LOADED, &last] {
                wait_for(&format!("{host} to be served"), LIMIT, || {
                    let answer = Client::connect(self.pod)?.get(host, "/")?;
                    Ok((answer.status == 200).then_some(()))
                })?;
            }
            Ok(())
        })?;
        wait_for("all statuses", LIMIT, || {
            Ok((self.metric("sluice_controller_status_waiting")? < 1.0).then_some(()))
        })
    }

    /// A value among the controller's metrics.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text =
            Netns::Node.run(|| Ok(Client::connect(self.metrics)?.get("controller", "/metrics")?.body))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.with_context(|| format!("the controller has no metric {name}"))?;
        Ok(value.trim().parse()?)
    }

    /// A Secret with a new certificate for the HTTPS listener.
    pub fn secret(&self) -> Result<Value> {
        self.authority.secret()
    }

    /// The PEM certificate that clients trust.
    pub fn trusted(&self) -> &str {
        &self.authority.pem
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.cluster) {
            say(format!("namespace {NAMESPACE} is left behind: {error:#}"));
        }
    }
}

fn remove(cluster: &Cluster) -> Result<()> {
    long(&format!("removing namespace {NAMESPACE}"), || {
        let delete = [
            "delete",
            "namespace",
            NAMESPACE,
            "--ignore-not-found",
            "--timeout=180s",
        ];
        cluster.kubectl(delete).text().map(drop)
    })
}

/// The address of the only running pod with a label.
fn pod(cluster: &Cluster, namespace: &str, label: &str) -> Result<Option<IpAddr>> {
    let pods = cluster.get(&["pods", "--namespace", namespace, "--selector", label])?;
    let running: Vec<&Value> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|pod| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null())
        .collect();
    ensure!(running.len() < 2, "{} pods have {label}", running.len());
    let address = running.first().and_then(|pod| pod["status"]["podIP"].as_str());
    Ok(address.map(str::parse).transpose()?)
}

/// The host of a route of this name.
pub fn host(name: &str) -> String {
    format!("{name}.bench.test")
}

/// A route on a host of its own; its answers say `version` in the header `x-version` unless that is empty.
pub fn route(name: &str, version: &str) -> Value {
    route_to(name, version, "echo", 3000)
}

/// The same to another Service.
pub fn route_to(name: &str, version: &str, service: &str, port: u16) -> Value {
    let filters = match version {
        "" => json!([]),
        value => json!([{
            "type": "ResponseHeaderModifier",
            "responseHeaderModifier": { "set": [{ "name": "x-version", "value": value }] },
        }]),
    };
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "parentRefs": [{ "name": GATEWAY }],
            "hostnames": [host(name)],
            "rules": [{ "filters": filters, "backendRefs": [{ "name": service, "port": port }] }],
        },
    })
}

/// The listeners of the Gateway, with one more for HTTP if `more` names its port.
pub fn listeners(more: Option<u16>) -> Value {
    let mut listeners = vec![
        json!({ "name": "http", "port": 80, "protocol": "HTTP" }),
        json!({
            "name": "https", "port": 443, "protocol": "HTTPS",
            "tls": { "certificateRefs": [{ "name": SECRET }] },
        }),
    ];
    listeners.extend(more.map(|port| json!({ "name": "more", "port": port, "protocol": "HTTP" })));
    listeners.into()
}

/// Namespace, certificate, Gateway, three backends and the loaded route. The backends keep serving while their end gets
/// about, as those of careful people do.
fn base(authority: &Authority) -> Result<String> {
    let named = |kind: &str, version: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": NAMESPACE }, "spec": spec,
        })
    };
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let labels = json!({ "app": "echo" });
    let container = json!({
        "name": "echo", "image": ECHO_IMAGE,
        "env": [
            { "name": "POD_NAME", "valueFrom": field("metadata.name") },
            { "name": "NAMESPACE", "valueFrom": field("metadata.namespace") },
        ],
        "ports": [{ "name": "http", "containerPort": 3000 }],
        "readinessProbe": { "httpGet": { "path": "/health", "port": "http" }, "periodSeconds": 1 },
        "lifecycle": { "preStop": { "sleep": { "seconds": 3 } } },
    });
    let deployment = json!({
        "replicas": 3,
        "selector": { "matchLabels": labels },
        "strategy": { "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
        "template": {
            "metadata": { "labels": labels },
            "spec": { "containers": [container], "terminationGracePeriodSeconds": 10 },
        },
    });
    let objects = [
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }),
        authority.secret()?,
        named("Deployment", "apps/v1", "echo", deployment),
        named(
            "Service",
            "v1",
            "echo",
            json!({ "selector": labels, "ports": [{ "name": "http", "port": 3000, "targetPort": "http" }] }),
        ),
        named(
            "Gateway",
            "gateway.networking.k8s.io/v1",
            GATEWAY,
            json!({ "gatewayClassName": install::CLASS, "listeners": listeners(None) }),
        ),
        route("loaded", ""),
    ];
    Ok(objects.map(|object| object.to_string()).join("\n---\n"))
}

/// The time since an instant, in nanoseconds.
pub fn nanoseconds(since: Instant, until: Instant) -> u64 {
    u64::try_from(until.saturating_duration_since(since).as_nanos()).unwrap_or(u64::MAX)
}
