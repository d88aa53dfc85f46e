//! What proxies are to tell of traffic, as EnvoyProxies and BackendTrafficPolicies ask for it.
//!
//! What cannot be honoured is left out and named; it never keeps a Gateway from being served.

use serde_json::Value;
use sluice_config::v1::resource::Body;
use sluice_config::{operators, v1};
use sluice_crds::envoy::{
    AlsSink, BackendCluster, CustomTag, CustomTagType, OpenTelemetrySink, ProxyAccessLogSetting,
    ProxyMetrics, ProxyTelemetry, ProxyTracing, Raw, Tracing,
};
use sluice_crds::gateway::{Fraction, HTTPHeader};

use super::gateway::parameters::Telling;
use super::model::RoutingType;
use super::policy::envoy::destination::{self, Settings};
use super::policy::envoy::{Reader, expression};
use super::route::Context;
use crate::engine::{BackendUsage, Unit, View};

/// Where collectors of OpenTelemetry listen.
const OTLP_PORT: u16 = 4317;
const MILLION: u64 = 1_000_000;

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
            tracing: from.tracing.as_ref().and_then(|from| self.tracing(from)),
            metrics: from.metrics.as_ref().map(|from| self.metrics(from)),
        }
    }

    fn log(&mut self, from: &ProxyAccessLogSetting, index: usize) -> Option<v1::AccessLog> {
        let field = format!("telemetry.accessLog.settings[{index}]");
        // A gap, and noted as such.
        if from.type_.as_deref() == Some("Upstream") {
            return None;
        }
        let format = from.format.as_ref().map(|format| v1::LogFormat {
            text: format.text.clone(),
            json: format.json.clone(),
        });
        for text in format
            .iter()
            .flat_map(|format| format.text.iter().chain(format.json.values()))
        {
            self.operators(text, &format!("{field}.format"));
        }
        let mut sinks = Vec::new();
        for (i, sink) in from.sinks.iter().enumerate() {
            let field = format!("{field}.sinks[{i}]");
            let sink = match (&sink.file, &sink.open_telemetry, &sink.als) {
                (Some(file), ..) => Some(v1::log_sink::Sink::File(file.path.clone())),
                (_, Some(otlp), _) => self.otlp_logs(otlp, &field),
                (.., Some(als)) => self.als(als, &field),
                _ => {
                    self.remark(&field, "it names no sink");
                    None
                }
            };
            sinks.extend(sink.map(|sink| v1::LogSink { sink: Some(sink) }));
        }
        let mut matches = from.matches.clone();
        matches.retain(|text| match expression::check(text) {
            Ok(()) => true,
            // It is passed over, as the API has it.
            Err(why) => {
                self.remark(format!("{field}.matches"), format_args!("{text:?}: {why}"));
                false
            }
        });
        (!sinks.is_empty()).then(|| v1::AccessLog {
            format,
            matches,
            sinks,
            routes_only: from.type_.as_deref() == Some("Route"),
            connections: from.type_.as_deref() == Some("Listener"),
        })
    }

    fn operators(&mut self, text: &str, field: &str) {
        for name in operators::unknown(text) {
            self.remark(
                field,
                format_args!("operator %{name}% is not known: it has no value"),
            );
        }
    }

    fn otlp_logs(&mut self, from: &OpenTelemetrySink, field: &str) -> Option<v1::log_sink::Sink> {
        Some(v1::log_sink::Sink::Otlp(v1::OtlpLogs {
            receiver: Some(self.otlp(from, &format!("{field}.openTelemetry"))?),
            resource: resource(from),
        }))
    }

    fn otlp(&mut self, from: &OpenTelemetrySink, field: &str) -> Option<v1::Receiver> {
        let host = from
            .host
            .as_deref()
            .map(|host| (host, from.port.unwrap_or(OTLP_PORT)));
        self.receiver(&from.cluster, host, BackendUsage::Grpc, &from.headers, field)
    }

    fn als(&mut self, from: &AlsSink, field: &str) -> Option<v1::log_sink::Sink> {
        let field = format!("{field}.als");
        let http = from.http.clone().unwrap_or_default();
        Some(v1::log_sink::Sink::Als(v1::AlsLogs {
            receiver: Some(self.receiver(&from.cluster, None, BackendUsage::Grpc, &[], &field)?),
            log_name: from.log_name.clone().unwrap_or_default(),
            tcp: from.type_.as_deref() == Some("TCP"),
            request_headers: lower(&http.request_headers),
            response_headers: lower(&http.response_headers),
            response_trailers: lower(&http.response_trailers),
        }))
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

    fn tracing(&mut self, from: &ProxyTracing) -> Option<v1::Tracing> {
        use v1::tracing::Provider;
        let to = &from.provider;
        let (provider, usage, port) = match to.type_.as_deref() {
            None | Some("OpenTelemetry") => (Provider::OpenTelemetry, BackendUsage::Grpc, OTLP_PORT),
            Some("Zipkin") => (Provider::Zipkin, BackendUsage::Http, 9411),
            Some("Datadog") => (Provider::Datadog, BackendUsage::Http, 8126),
            Some(other) => {
                self.remark(
                    "telemetry.tracing.provider.type",
                    format_args!("{other:?} is not known"),
                );
                return None;
            }
        };
        let settings = to.open_telemetry.clone().unwrap_or_default();
        let host = to.host.as_deref().map(|host| (host, to.port.unwrap_or(port)));
        let field = "telemetry.tracing.provider";
        let receiver = self.receiver(&to.cluster, host, usage, &settings.headers, field)?;
        for text in from
            .tracing
            .tags
            .values()
            .chain(from.tracing.span_name.as_ref().map(|name| &name.server))
        {
            self.operators(text, "telemetry.tracing");
        }
        let mut sampling = sampling(&from.tracing);
        if let Some(rate) = from.sampling_rate {
            let whole = v1::Sampling {
                random: 0,
                client: share(None),
                overall: share(None),
            };
            sampling.get_or_insert(whole).random = rate.min(100) * 10_000;
        }
        let wide = to
            .zipkin
            .as_ref()
            .is_some_and(|zipkin| zipkin.enable_128_bit_trace_id);
        Some(v1::Tracing {
            provider: provider.into(),
            receiver: Some(receiver),
            service_name: to.service_name.clone().unwrap_or_default(),
            resource: settings.resource_attributes,
            sampling,
            tags: tags(&from.tracing),
            span_name: span_name(&from.tracing),
            short_trace_ids: provider == Provider::Zipkin && !wide,
        })
    }

    fn metrics(&mut self, from: &ProxyMetrics) -> v1::Metrics {
        if !from.matches.is_empty() {
            self.remark("telemetry.metrics.matches", "all metrics are there");
        }
        let mut sinks = Vec::new();
        for (i, sink) in from.sinks.iter().enumerate() {
            let field = format!("telemetry.metrics.sinks[{i}].openTelemetry");
            let Some(sink) = &sink.open_telemetry else {
                self.remark(field, "not set");
                continue;
            };
            let Some(receiver) = self.otlp(sink, &field) else {
                continue;
            };
            sinks.push(v1::OtlpMetrics {
                receiver: Some(receiver),
                resource: resource(sink),
                interval_ms: 0,
                delta_counters: sink.report_counters_as_deltas,
                delta_histograms: sink.report_histograms_as_deltas,
            });
        }
        let prometheus = from.prometheus.as_ref();
        v1::Metrics {
            no_prometheus: prometheus.is_some_and(|prometheus| prometheus.disable),
            compress: prometheus.is_some_and(|prometheus| prometheus.compression.is_some()),
            sinks,
        }
    }
}

/// What a BackendTrafficPolicy says of the traces of a route.
pub fn of_route(from: &Tracing) -> v1::RouteTracing {
    v1::RouteTracing {
        sampling: sampling(from),
        tags: tags(from),
        span_name: span_name(from),
    }
}

/// Texts in it that may hold operators.
pub fn texts(from: &Tracing) -> impl Iterator<Item = &String> {
    from.tags
        .values()
        .chain(from.span_name.as_ref().map(|name| &name.server))
}

fn resource(from: &OpenTelemetrySink) -> std::collections::BTreeMap<String, String> {
    let mut all = from.resources.clone();
    all.extend(from.resource_attributes.clone());
    all
}

fn lower(names: &[String]) -> Vec<String> {
    names.iter().map(|name| name.to_ascii_lowercase()).collect()
}

fn sampling(from: &Tracing) -> Option<v1::Sampling> {
    let all = [
        &from.sampling_fraction,
        &from.client_sampling_fraction,
        &from.overall_sampling_fraction,
    ];
    all.iter()
        .any(|fraction| fraction.is_some())
        .then(|| v1::Sampling {
            random: share(from.sampling_fraction.as_ref()),
            client: share(from.client_sampling_fraction.as_ref()),
            overall: share(from.overall_sampling_fraction.as_ref()),
        })
}

/// Millionths; all if nothing is said.
fn share(fraction: Option<&Fraction>) -> u32 {
    let share = fraction.map_or(MILLION, |fraction| {
        u64::from(fraction.numerator) * MILLION / u64::from(fraction.denominator().max(1))
    });
    u32::try_from(share.min(MILLION)).unwrap_or_default()
}

fn tags(from: &Tracing) -> Vec<v1::SpanTag> {
    use v1::span_tag::Value;
    let texts = from.tags.iter().map(|(name, text)| v1::SpanTag {
        name: name.clone(),
        default_value: String::new(),
        value: Some(Value::Text(text.clone())),
    });
    let custom = from.custom_tags.iter().filter_map(|(name, tag)| {
        let (value, default) = custom(tag)?;
        Some(v1::SpanTag {
            name: name.clone(),
            default_value: default.unwrap_or_default(),
            value: Some(value),
        })
    });
    custom.chain(texts).collect()
}

fn custom(tag: &CustomTag) -> Option<(v1::span_tag::Value, Option<String>)> {
    use v1::span_tag::Value;
    match &tag.type_ {
        CustomTagType::Literal => {
            // Percent signs in it are no operators.
            let literal = tag.literal.as_ref()?.value.replace('%', "%%");
            Some((Value::Text(literal), None))
        }
        CustomTagType::Environment => {
            let from = tag.environment.as_ref()?;
            Some((Value::Environment(from.name.clone()), from.default_value.clone()))
        }
        CustomTagType::RequestHeader => {
            let from = tag.request_header.as_ref()?;
            Some((
                Value::RequestHeader(from.name.to_ascii_lowercase()),
                from.default_value.clone(),
            ))
        }
        CustomTagType::Other(_) => None,
    }
}

fn span_name(from: &Tracing) -> String {
    from.span_name
        .as_ref()
        .map(|name| name.server.clone())
        .unwrap_or_default()
}
