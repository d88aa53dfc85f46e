//! What proxies are to tell of traffic, as EnvoyProxies and BackendTrafficPolicies ask for it.
//!
//! What cannot be honoured is left out and named; it never keeps a Gateway from being served.

mod logs;
mod metrics;
mod tracing;

use serde_json::Value;
use sluice_config::v1::resource::Body;
use sluice_config::{operators, v1};
use sluice_crds::envoy::{BackendCluster, OpenTelemetrySink, ProxyTelemetry, Raw};
use sluice_crds::gateway::HTTPHeader;

use super::gateway::parameters::Telling;
use super::model::RoutingType;
use super::policy::envoy::Reader;
use super::policy::envoy::destination::{self, Settings};
use super::route::Context;
use crate::engine::{BackendUsage, Unit, View};

pub use self::metrics::backend_stat_name;
pub use self::tracing::{of_route, texts};

/// Where collectors of OpenTelemetry listen.
const OTLP_PORT: u16 = 4317;

/// What it comes to.
#[derive(Debug, Default)]
pub struct Told {
    /// For proxies.
    pub config: Option<v1::Telemetry>,
    /// Units that it needs.
    pub needs: Vec<Unit>,
    /// Resources that go with it.
    pub resources: Vec<(String, Body)>,
    /// What has no effect, and why.
    pub remarks: Vec<String>,
}

/// What the EnvoyProxy says that `telling` names.
pub fn of_proxy(
    view: &View<'_>,
    telling: &Telling,
    raw: Option<&Raw<ProxyTelemetry>>,
    routing: RoutingType,
) -> Told {
    let Some(raw) = raw else { return Told::default() };
    let mut context = Context::new(view, &telling.proxy, routing, None);
    context.is_of_class = telling.is_of_class;
    let mut translation = Translation {
        context,
        told: Told::default(),
    };
    match raw.parse() {
        Ok(telemetry) => {
            if let Ok(known) = serde_json::to_value(&telemetry) {
                unknown(&raw.value, &known, "telemetry", &mut translation.told.remarks);
            }
            translation.told.config = Some(translation.telemetry(&telemetry));
        }
        Err(error) => translation.remark("telemetry", error),
    }
    translation.told
}

/// Names fields that are there and were not read.
fn unknown(all: &Value, known: &Value, path: &str, remarks: &mut Vec<String>) {
    match (all, known) {
        (Value::Object(all), Value::Object(known)) => {
            for (name, value) in all {
                let path = format!("{path}.{name}");
                match known.get(name) {
                    Some(known) => unknown(value, known, &path, remarks),
                    None if value.is_null() || *value == Value::Bool(false) => {}
                    None => remarks.push(path),
                }
            }
        }
        (Value::Array(all), Value::Array(known)) => {
            for (i, (value, known)) in all.iter().zip(known).enumerate() {
                unknown(value, known, &format!("{path}[{i}]"), remarks);
            }
        }
        _ => {}
    }
}

struct Translation<'v, 'w> {
    context: Context<'v, 'w>,
    told: Told,
}

impl Translation<'_, '_> {
    fn remark(&mut self, field: impl std::fmt::Display, why: impl std::fmt::Display) {
        self.told.remarks.push(format!("{field} ({why})"));
    }

    fn telemetry(&mut self, from: &ProxyTelemetry) -> v1::Telemetry {
        let access_logs = from.access_log.as_ref().and_then(|from| {
            if from.disable {
                return Some(v1::AccessLogs::default());
            }
            let settings = from.settings.iter().enumerate();
            let logs: Vec<_> = settings.filter_map(|(i, setting)| self.log(setting, i)).collect();
            (!logs.is_empty()).then_some(v1::AccessLogs { logs })
        });
        v1::Telemetry {
            access_logs,
            tracing: from
                .tracing
                .as_ref()
                .and_then(|tracing| self.tracing(tracing, from.request_id.as_ref())),
            metrics: from.metrics.as_ref().map(|from| self.metrics(from)),
            health_check_log: from.health_check_log.as_ref().map(|from| self.checks(from)),
        }
    }

    fn operators(&mut self, text: &str, field: &str) {
        for name in operators::unknown(text) {
            self.remark(
                field,
                format_args!("operator %{name}% is not known: it has no value"),
            );
        }
    }

    fn otlp(&mut self, from: &OpenTelemetrySink, field: &str) -> Option<v1::Receiver> {
        let host = from
            .host
            .as_deref()
            .map(|host| (host, from.port.unwrap_or(OTLP_PORT)));
        self.receiver(&from.cluster, host, BackendUsage::Grpc, &from.headers, field)
    }

    /// Somebody who is told; `None`, with a remark, if he cannot be found.
    fn receiver(
        &mut self,
        cluster: &BackendCluster,
        host: Option<(&str, u16)>,
        usage: BackendUsage,
        headers: &[HTTPHeader],
        field: &str,
    ) -> Option<v1::Receiver> {
        let first = cluster.backend_ref.as_ref();
        let first = first.or_else(|| cluster.backend_refs.first().map(|backend| &backend.object));
        let mut reader = Reader::new(&self.context, String::new());
        let owner = self.context.referrer;
        let named = first.map(|first| {
            let key = reader.backend(owner, cluster, usage, field);
            (key, first.name.clone())
        });
        let settings = match (&named, host) {
            (Some(_), _) => None,
            (None, Some(_)) => reader.settings(cluster, field),
            (None, None) => {
                reader.fault(field, "it names nobody");
                None
            }
        };
        let (needs, faults) = (reader.needs, reader.faults);
        self.told.needs.extend(needs);
        let is_valid = faults.is_empty();
        let remarks = faults.into_iter().map(|fault| fault.message);
        self.told.remarks.extend(remarks);
        let found = match (named, host) {
            (Some((key, name)), _) => key.map(|key| (key, name)),
            (None, Some((host, port))) => Some((self.host(host, port, usage, settings), host.to_owned())),
            (None, None) => None,
        };
        let found = found.filter(|_| is_valid);
        let (backend, host) = found?;
        Some(v1::Receiver {
            backend,
            host,
            timeout_ms: destination::timeout(cluster).unwrap_or_default(),
            headers: headers
                .iter()
                .map(|header| v1::MetadataEntry {
                    name: header.name.to_ascii_lowercase(),
                    value: header.value.clone(),
                })
                .collect(),
        })
    }

    /// A backend for a host and its port, of which this is asked.
    fn host(&mut self, host: &str, port: u16, usage: BackendUsage, settings: Option<Settings>) -> String {
        let mut endpoint = v1::Endpoint {
            port: port.into(),
            ..v1::Endpoint::default()
        };
        if host.parse::<std::net::IpAddr>().is_ok() {
            host.clone_into(&mut endpoint.address);
        } else {
            host.clone_into(&mut endpoint.hostname);
        }
        let grpc = usage == BackendUsage::Grpc;
        let mut name = format!("telemetry/{}/{host}:{port}", if grpc { "grpc" } else { "http" });
        let protocol = if grpc {
            v1::BackendProtocol::H2c
        } else {
            v1::BackendProtocol::Http1
        };
        let mut backend = v1::Backend {
            name: format!("{host}:{port}"),
            protocol: protocol.into(),
            ..v1::Backend::default()
        };
        if let Some(settings) = settings {
            let look_up = settings.apply(self.context.view, self.context.referrer, &mut backend);
            endpoint.dns = look_up.filter(|_| !endpoint.hostname.is_empty()).map(Into::into);
            name = format!("{name}/{}", settings.digest());
        }
        let endpoints = format!("endpoints/{name}");
        backend.endpoints.clone_from(&endpoints);
        let key = format!("backend/{name}");
        if !self.told.resources.iter().any(|(other, _)| *other == key) {
            let body = v1::Endpoints {
                endpoints: vec![endpoint],
            };
            self.told.resources.push((endpoints, Body::Endpoints(body)));
            self.told.resources.push((key.clone(), Body::Backend(backend)));
        }
        key
    }
}

fn resource(from: &OpenTelemetrySink) -> std::collections::BTreeMap<String, String> {
    let mut all = from.resources.clone();
    all.extend(from.resource_attributes.clone());
    all
}
