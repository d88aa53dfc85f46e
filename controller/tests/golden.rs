//! Golden tests of translation: `golden/NAME.yaml` holds objects, `golden/NAME.out.yaml` what follows from them:
//! statuses, infrastructure, and each Gateway's configuration. `UPDATE_GOLDEN=1` rewrites the latter.
//!
//! Each case is also fed to the engine object by object, in the file's order and backwards, and each object is taken
//! away and put back: what follows must not depend on the way. Nor must anything stay when all objects are gone.
//!
//! Words in the files:
//! - `{{cert:NAME}}`, `{{key:NAME}}`: a certificate of the name and its key, in base64 for a Secret's `data`.
//! - `{{ca}}`, `{{ca64}}`: a CA certificate, as a YAML string and in base64.
//! - a document of kind `Proxies` (`metadata` as the Gateway's, `rejected: {KEY: REASON}`): what proxies reported.
//! - a first line `# standalone ADDRESS`: not in a cluster.
//! - a line `# rate-limit-service HOST`: there is one, at port 8081.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sluice_controller::engine::{
    Changes, Engine, Environment, Event, GatewayRef, Infra, Infrastructure, Mode, PodService, ProxyReport,
    RateLimitService, Status,
};
use sluice_controller::login_key::LoginKey;
use sluice_controller::store::{self, Object, ObjectRef};

const CONTROLLER: &str = "sluice.dev/gateway-controller";

#[test]
fn golden() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let only = std::env::var("GOLDEN").unwrap_or_default();
    let mut cases: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml") && !is_output(path))
        .filter(|path| path.to_string_lossy().contains(&only))
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    let material = Material::new();
    let failed: Vec<_> = cases
        .iter()
        .filter_map(|path| run(path, &material).err())
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

fn is_output(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".out.yaml")
}

fn run(path: &Path, material: &Material) -> Result<(), String> {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let case = Case::read(path, material).map_err(|e| format!("{name}: {e}"))?;
    let output = case.at_once();
    case.check_increments(&output)
        .map_err(|e| format!("{name}: {e}"))?;
    let golden = path.with_extension("out.yaml");
    let text = serde_yaml_ng::to_string(&output).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, text).unwrap();
        return Ok(());
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    if text == expected {
        return Ok(());
    }
    let kept = difference(&expected, &text);
    Err(format!(
        "{name}: not what {} says (UPDATE_GOLDEN=1 rewrites it):\n{kept}",
        golden.display()
    ))
}

/// Lines that only one of the two has, with their numbers.
fn difference(expected: &str, actual: &str) -> String {
    let (expected, actual): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let start = expected.iter().zip(&actual).take_while(|(e, a)| e == a).count();
    let end = expected[start..]
        .iter()
        .rev()
        .zip(actual[start..].iter().rev())
        .take_while(|(e, a)| e == a)
        .count();
    let show = |sign: &str, lines: &[&str]| {
        let lines = lines[start..lines.len() - end].iter();
        lines
            .map(|line| format!("{sign} {line}"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    format!(
        "from line {}:\n{}\n{}",
        start + 1,
        show("-", &expected),
        show("+", &actual)
    )
}

struct Case {
    environment: Environment,
    objects: Vec<Object>,
    reports: Vec<(GatewayRef, ProxyReport)>,
}

impl Case {
    fn read(path: &Path, material: &Material) -> Result<Self, String> {
        let text = fs::read_to_string(path).unwrap();
        let standalone = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# standalone "));
        let mode = standalone.map_or(Mode::Cluster, |address| {
            Mode::Standalone(address.trim().to_owned())
        });
        let text = material.fill(&text);
        let (reports, documents): (Vec<_>, Vec<_>) = text
            .split("\n---\n")
            .partition(|document| document.contains("kind: Proxies"));
        let (documents, problems) = store::parse(&documents.join("\n---\n"));
        if let Some(problem) = problems.first() {
            return Err(problem.to_string());
        }
        let objects = documents.into_iter().map(|document| document.object).collect();
        Ok(Self {
            environment: Environment {
                controller_name: CONTROLLER.to_owned(),
                namespace: "sluice-system".to_owned(),
                mode,
                xff_trusted_hops: 1,
                allow_local_backends: text.lines().any(|line| line == "# allow-loopback-backends"),
                login_key: LoginKey::new(&[7; 32]),
                rate_limit: text
                    .lines()
                    .find_map(|line| line.strip_prefix("# rate-limit-service "))
                    .map(|host| RateLimitService {
                        host: host.trim().to_owned(),
                        port: 8081,
                        timeout_ms: 0,
                        fail_closed: false,
                    }),
            },
            objects,
            reports: reports.into_iter().map(report).collect(),
        })
    }

    fn events(&self) -> Vec<Event> {
        let objects = self.objects.iter().cloned().map(Event::Upsert);
        let reports = self
            .reports
            .iter()
            .cloned()
            .map(|(gateway, report)| Event::Proxies(gateway, report));
        objects.chain(reports).collect()
    }

    fn at_once(&self) -> Value {
        let mut run = Run::new(&self.environment);
        run.apply(self.events());
        run.state()
    }

    fn check_increments(&self, expected: &Value) -> Result<(), String> {
        let backwards = self.events().into_iter().rev().collect();
        for (way, events) in [
            ("object by object", self.events()),
            ("object by object, backwards", backwards),
        ] {
            let mut run = Run::new(&self.environment);
            for event in events {
                run.apply(vec![event]);
            }
            run.agrees(expected, way)?;
            for object in &self.objects {
                run.apply(vec![Event::Delete(object.reference().clone())]);
                run.apply(vec![Event::Upsert(object.clone())]);
                run.agrees(
                    expected,
                    &format!("{way}, then {} taken away and put back", object.reference()),
                )?;
            }
            for object in &self.objects {
                run.apply(vec![Event::Delete(object.reference().clone())]);
            }
            run.agrees(
                &Run::new(&self.environment).state(),
                &format!("{way}, then all taken away"),
            )?;
        }
        Ok(())
    }
}

fn report(document: &str) -> (GatewayRef, ProxyReport) {
    let value: Value = serde_yaml_ng::from_str(document).unwrap();
    let part = |field: &str| value["metadata"][field].as_str().unwrap().to_owned();
    let rejected = serde_json::from_value(value["rejected"].clone()).unwrap();
    (
        GatewayRef::new(part("namespace"), part("name")),
        ProxyReport { rejected },
    )
}

/// An engine, and what one would know who only saw its changes.
struct Run {
    engine: Engine,
    config: BTreeMap<String, BTreeMap<String, Value>>,
    statuses: BTreeMap<String, Value>,
    infra: BTreeMap<String, Value>,
    pods: BTreeMap<String, Value>,
}

impl Run {
    fn new(environment: &Environment) -> Self {
        let engine = Engine::new(environment.clone());
        Self {
            engine,
            config: BTreeMap::new(),
            statuses: BTreeMap::new(),
            infra: BTreeMap::new(),
            pods: BTreeMap::new(),
        }
    }

    fn apply(&mut self, events: Vec<Event>) {
        let Changes {
            config,
            statuses,
            infra,
            pods,
            ..
        } = self.engine.apply(events);
        for (gateway, change) in config {
            let held = self.config.entry(gateway.to_string()).or_default();
            for (key, resource) in change.upserts {
                held.insert(key, body(&resource));
            }
            for key in change.removes {
                assert!(held.remove(&key).is_some(), "{key} is removed and was not there");
            }
            if held.is_empty() {
                self.config.remove(&gateway.to_string());
            }
        }
        for (object, status) in statuses {
            match status {
                Some(status) => self.statuses.insert(object.to_string(), shown(&object, &status)),
                None => self.statuses.remove(&object.to_string()),
            };
        }
        for (backend, pods) in pods {
            if pods == PodService::default() {
                self.pods.remove(&backend.to_string());
            } else {
                self.pods.insert(backend.to_string(), pod_service(&pods));
            }
        }
        for (gateway, infra) in infra {
            match infra {
                Infrastructure::Wanted(infra) => {
                    self.infra.insert(gateway.to_string(), infrastructure(&infra));
                }
                Infrastructure::Keep(_) => {}
                Infrastructure::None => _ = self.infra.remove(&gateway.to_string()),
            }
        }
    }

    /// What follows, as one has it who only saw the changes.
    fn seen(&self) -> Value {
        whole(
            json!({ "statuses": self.statuses, "infra": self.infra, "config": self.config }),
            &self.pods,
        )
    }

    /// What follows, as the engine has it.
    fn state(&self) -> Value {
        let gateways: Vec<_> = self.engine.fleets().cloned().collect();
        let config = gateways.iter().map(|gateway| {
            let resources = self.engine.config(gateway).into_iter();
            let resources: BTreeMap<_, _> = resources.map(|(key, r)| (key.to_owned(), body(r))).collect();
            (gateway.to_string(), resources)
        });
        let config: BTreeMap<_, _> = config.filter(|(_, resources)| !resources.is_empty()).collect();
        let statuses: BTreeMap<_, _> = self
            .engine
            .statuses()
            .map(|(object, status)| (object.to_string(), shown(object, &status)))
            .collect();
        let infra: BTreeMap<_, _> = self
            .engine
            .infra()
            .filter_map(|(gateway, infra)| Some((gateway.to_string(), infrastructure(infra.wanted()?))))
            .collect();
        let pods = self.engine.pods();
        let pods = pods.map(|(backend, pods)| (backend.to_string(), pod_service(pods)));
        whole(
            json!({ "statuses": statuses, "infra": infra, "config": config }),
            &pods.collect(),
        )
    }

    fn agrees(&self, expected: &Value, way: &str) -> Result<(), String> {
        for (whose, state) in [
            ("the engine's state", self.state()),
            ("the sum of changes", self.seen()),
        ] {
            if state != *expected {
                let text = |value: &Value| serde_yaml_ng::to_string(value).unwrap();
                return Err(format!(
                    "{way}: {whose} differs {}",
                    difference(&text(expected), &text(&state))
                ));
            }
        }
        Ok(())
    }
}

/// Services that find pods are shown where there are any.
fn whole(mut state: Value, pods: &BTreeMap<String, Value>) -> Value {
    if !pods.is_empty() {
        state["pods"] = json!(pods);
    }
    state
}

fn pod_service(pods: &PodService) -> Value {
    let wanted = pods.wanted.as_ref();
    let wanted = wanted.map(|w| json!({ "uid": w.uid, "labels": w.labels, "port": w.port }));
    json!({ "wanted": wanted, "found": pods.found.iter().cloned().collect::<BTreeMap<_, _>>() })
}

/// A resource's content. Versions depend on key material, which differs from run to run.
fn body(resource: &sluice_config::v1::Resource) -> Value {
    let mut value = serde_json::to_value(&resource.body).unwrap();
    redact(&mut value);
    value
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if field.is_array()
                    && matches!(
                        name.as_str(),
                        "certificate_chain_pem" | "trust_bundle" | "TrustBundle"
                    )
                {
                    *field = "[redacted]".into();
                } else {
                    redact(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

/// A status with its conditions in short: `Accepted: True, Accepted`.
fn shown(_: &ObjectRef, status: &Status) -> Value {
    let mut value = serde_json::to_value(status).unwrap();
    shorten(&mut value);
    value
}

fn shorten(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::Array(conditions)) = fields.get("conditions") {
                let short = conditions.iter().map(short).collect::<serde_json::Map<_, _>>();
                fields.insert("conditions".to_owned(), Value::Object(short));
            }
            // The list says what is tested elsewhere, at length.
            if let Some(Value::Array(features)) = fields.get("supportedFeatures") {
                let count = format!("{} features", features.len());
                assert!(!features.is_empty());
                fields.insert("supportedFeatures".to_owned(), count.into());
            }
            fields.values_mut().for_each(shorten);
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        _ => {}
    }
}

fn short(condition: &Value) -> (String, Value) {
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    let status = if condition["status"] == true {
        "True"
    } else {
        "False"
    };
    let mut says = format!("{status}, {}", text("reason"));
    if !text("message").is_empty() {
        says = format!("{says}: {}", text("message"));
    }
    (text("type").to_owned(), says.into())
}

fn infrastructure(infra: &Infra) -> Value {
    let ports = infra.ports.iter().map(|port| {
        let transport = if port.udp { "UDP" } else { "TCP" };
        format!("{transport} {} as {}", port.port, port.bind_port)
    });
    json!({
        "class": &*infra.class,
        "labels": infra.labels,
        "annotations": infra.annotations,
        "ports": ports.collect::<Vec<_>>(),
        "addresses": infra.addresses,
        "clusterOnly": infra.cluster_only,
        "proxy": &*infra.proxy,
    })
}

/// Key material, made anew in every run.
struct Material {
    pairs: BTreeMap<&'static str, (String, String)>,
    ca: String,
}

impl Material {
    fn new() -> Self {
        let pair = |name: &'static str| {
            let made = rcgen::generate_simple_self_signed([format!("{name}.example")]).unwrap();
            (name, (made.cert.pem(), made.signing_key.serialize_pem()))
        };
        let pairs: BTreeMap<_, _> = ["a", "b"].map(pair).into();
        let ca = pairs["a"].0.clone();
        Self { pairs, ca }
    }

    fn fill(&self, text: &str) -> String {
        let mut text = text.replace("{{ca64}}", &BASE64_STANDARD.encode(&self.ca));
        text = text.replace("{{ca}}", &serde_json::to_string(&self.ca).unwrap());
        for (name, (certificate, key)) in &self.pairs {
            text = text.replace(
                &format!("{{{{cert:{name}}}}}"),
                &BASE64_STANDARD.encode(certificate),
            );
            text = text.replace(&format!("{{{{key:{name}}}}}"), &BASE64_STANDARD.encode(key));
        }
        text
    }
}
