//! What collectors are told of requests.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use prost::Message;
use sluice_config::v1;
use sluice_dataplane::telemetry::AccessLogTarget;
use sluice_dataplane::telemetry::export::als::StreamAccessLogsMessage;

use super::cfg;
use super::support::backend::{self, Backend};
use super::support::client::Http;
use super::support::{self, Proxy};

/// A collector that takes everything, and what it was told: path, authorization, body.
pub struct Collector {
    pub backend: Backend,
    told: Arc<Mutex<Vec<(String, String, Bytes)>>>,
}

impl Collector {
    pub async fn start() -> Self {
        let told = Arc::<Mutex<Vec<_>>>::default();
        let list = Arc::clone(&told);
        let backend = Backend::start(move |request| {
            let list = Arc::clone(&list);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let token = head.headers.get("authorization");
                let token = token.map_or("", |token| token.to_str().unwrap()).to_owned();
                list.lock()
                    .unwrap()
                    .push((head.uri.path().to_owned(), token, body));
                if head.version != http::Version::HTTP_2 {
                    return backend::response(202, "");
                }
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                // An empty message.
                let body = Full::new(Bytes::from_static(&[0; 5]));
                let body = body.with_trailers(async move { Some(Ok(trailers)) }).boxed();
                http::Response::builder()
                    .header("content-type", "application/grpc")
                    .body(body)
                    .unwrap()
            }
        })
        .await;
        Self { backend, told }
    }

    /// Bodies of the calls at a path.
    pub fn at(&self, path: &str) -> Vec<Bytes> {
        let told = self.told.lock().unwrap();
        told.iter()
            .filter(|(at, ..)| at.contains(path))
            .map(|(.., body)| body.clone())
            .collect()
    }

    /// The first message of each call at a path.
    pub fn messages<M: Message + Default>(&self, path: &str) -> Vec<M> {
        self.at(path)
            .iter()
            .map(|body| M::decode(&body[5..]).unwrap())
            .collect()
    }
}

pub fn receiver() -> v1::Receiver {
    v1::Receiver {
        backend: "backend/collector".into(),
        host: "collector".into(),
        headers: vec![v1::MetadataEntry {
            name: "authorization".into(),
            value: "Bearer secret".into(),
        }],
        ..Default::default()
    }
}

async fn proxy(
    telemetry: v1::Telemetry,
    log: AccessLogTarget,
    collector: &Collector,
) -> (Proxy, Backend, u16) {
    let backend = Backend::echo("b").await;
    let port = support::free_port();
    let settings = v1::Settings {
        telemetry: Some(telemetry),
        ..Default::default()
    };
    let mut traced = cfg::rule("/special", &["b"]);
    traced.policy = Some(v1::Policy {
        tracing: Some(v1::RouteTracing {
            sampling: None,
            tags: vec![tag(
                "kind",
                v1::span_tag::Value::Text("special %REQ(:method)%".into()),
                "",
            )],
            span_name: "%REQ(:path)%".into(),
        }),
        ..Default::default()
    });
    let mut resources = vec![
        cfg::settings(settings),
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![traced, cfg::rule("/a", &["b"])]),
    ];
    resources.extend(cfg::backend("b", &[backend.address]));
    resources.extend(cfg::backend("collector", &[collector.backend.address]));
    (Proxy::with_log(resources, log).await, backend, port)
}

fn tag(name: &str, value: v1::span_tag::Value, default: &str) -> v1::SpanTag {
    v1::SpanTag {
        name: name.into(),
        default_value: default.into(),
        value: Some(value),
    }
}

fn tracing(provider: v1::tracing::Provider) -> v1::Tracing {
    use v1::span_tag::Value;
    v1::Tracing {
        provider: provider.into(),
        receiver: Some(receiver()),
        service_name: "edge".into(),
        tags: vec![
            tag("user", Value::RequestHeader("x-user".into()), "nobody"),
            tag("kind", Value::Text("usual".into()), ""),
        ],
        ..Default::default()
    }
}

fn attribute(all: &[KeyValue], name: &str) -> String {
    let found = all.iter().find(|pair| pair.key == name);
    match found.and_then(|pair| pair.value.clone()?.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

#[tokio::test]
async fn traces_by_otlp() {
    let collector = Collector::start().await;
    let telemetry = v1::Telemetry {
        tracing: Some(tracing(v1::tracing::Provider::OpenTelemetry)),
        ..Default::default()
    };
    let (proxy, _backend, port) = proxy(telemetry, AccessLogTarget::Off, &collector).await;
    let client = Http::new(port);
    let unsampled = client
        .send_with("GET", "/a", &[("traceparent", UNSAMPLED)], "")
        .await;
    let passed = unsampled.seen();
    let passed = passed.header("traceparent").unwrap();
    assert!(
        passed.starts_with(&UNSAMPLED[..35]) && passed.ends_with("-00"),
        "{passed}"
    );
    let got = client
        .send_with("GET", "/a?q=1", &[("traceparent", PARENT), ("x-user", "ann")], "")
        .await;
    let seen = got.seen();
    let forwarded = seen.header("traceparent").unwrap().to_owned();
    client.get("/special").await;
    client.get("/nowhere").await;
    let spans = || -> Vec<_> {
        let all = collector.messages::<ExportTraceServiceRequest>("TraceService/Export");
        let resources = all.into_iter().flat_map(|message| message.resource_spans);
        let scopes = resources.flat_map(|resource| {
            assert_eq!(
                attribute(&resource.resource.unwrap().attributes, "service.name"),
                "edge"
            );
            resource.scope_spans
        });
        scopes.flat_map(|scope| scope.spans).collect()
    };
    support::eventually("three spans", || spans().len() >= 3).await;
    let spans = spans();
    assert_eq!(spans.len(), 3);
    let hex = |bytes: &[u8]| {
        let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.concat()
    };
    let first = &spans[0];
    assert_eq!(
        forwarded,
        format!("00-{}-{}-01", hex(&first.trace_id), hex(&first.span_id))
    );
    assert!(forwarded.starts_with(&PARENT[..35]));
    assert_eq!(hex(&first.parent_span_id), "b7ad6b7169203331");
    assert_eq!(first.name, "GET HTTPRoute/test/r");
    assert!(first.end_time_unix_nano >= first.start_time_unix_nano);
    for (name, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/a"),
        ("url.query", "q=1"),
        ("http.response.status_code", "200"),
        ("upstream_cluster", "test/b:80"),
        ("user", "ann"),
        ("kind", "usual"),
    ] {
        assert_eq!(attribute(&first.attributes, name), value, "{name}");
    }
    assert_eq!(spans[1].name, "/special");
    assert_eq!(attribute(&spans[1].attributes, "kind"), "special GET");
    assert_eq!(attribute(&spans[1].attributes, "user"), "nobody");
    assert_eq!(
        attribute(&spans[2].attributes, "http.response.status_code"),
        "404"
    );
    assert!(
        collector
            .told
            .lock()
            .unwrap()
            .iter()
            .all(|(_, token, _)| token == "Bearer secret")
    );
    let dump = proxy.dataplane.dump().to_string();
    assert!(dump.contains("authorization") && !dump.contains("Bearer secret"));
    let counted = || {
        let metrics = proxy.dataplane.metrics().encode();
        metrics.contains("sluice_telemetry_sent_total 3")
    };
    support::eventually("three spans are counted", counted).await;
}

#[tokio::test]
async fn traces_by_json() {
    use v1::tracing::Provider;
    for (provider, path) in [
        (Provider::Zipkin, "/api/v2/spans"),
        (Provider::Datadog, "/v0.4/traces"),
    ] {
        let collector = Collector::start().await;
        let telemetry = v1::Telemetry {
            tracing: Some(tracing(provider)),
            ..Default::default()
        };
        let (_proxy, _backend, port) = proxy(telemetry, AccessLogTarget::Off, &collector).await;
        let b3 = [("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1")];
        let got = Http::new(port).send_with("GET", "/a", &b3, "").await;
        support::eventually("a span", || !collector.at(path).is_empty()).await;
        let told: serde_json::Value = serde_json::from_slice(&collector.at(path)[0]).unwrap();
        let seen = got.seen();
        if provider == Provider::Zipkin {
            let span = &told[0];
            assert_eq!(span["traceId"], "80f198ee56343ba864fe8b2a57d3eff7");
            assert_eq!(span["parentId"], "e457b5a2e4d86bd1");
            assert_eq!(span["id"], seen.header("x-b3-spanid").unwrap());
            assert_eq!(span["localEndpoint"]["serviceName"], "edge");
            assert_eq!(span["tags"]["http.response.status_code"], "200");
        } else {
            let span = &told[0][0];
            assert_eq!(span["trace_id"], 0x64fe_8b2a_57d3_eff7_u64);
            assert_eq!(span["parent_id"], 0xe457_b5a2_e4d8_6bd1_u64);
            assert_eq!(
                span["span_id"].to_string(),
                seen.header("x-datadog-parent-id").unwrap()
            );
            assert_eq!(span["service"], "edge");
        }
    }
}

#[tokio::test]
async fn logs_to_all_sinks() {
    let collector = Collector::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = (dir.path().join("own.log"), dir.path().join("other.log"));
    let sink = |sink| v1::LogSink { sink: Some(sink) };
    let text = v1::LogFormat {
        text: Some("%REQ(:method)% %REQ(X-USER)% %RESPONSE_CODE% %RESP(backend)%".into()),
        json: [
            ("code".to_owned(), "%RESPONSE_CODE%".to_owned()),
            ("none".to_owned(), "%REQ(x-none)%".to_owned()),
        ]
        .into(),
    };
    let only_text = v1::LogFormat {
        json: std::collections::BTreeMap::new(),
        ..text.clone()
    };
    let log = |format, matches: &[&str], sinks| v1::AccessLog {
        format,
        matches: matches.iter().map(ToString::to_string).collect(),
        sinks,
        ..Default::default()
    };
    let telemetry = v1::Telemetry {
        access_logs: Some(v1::AccessLogs {
            logs: vec![
                log(
                    Some(only_text),
                    &["response.code >= 400", "'x-user' in request.headers"],
                    vec![sink(v1::log_sink::Sink::File(
                        other.to_string_lossy().into_owned(),
                    ))],
                ),
                v1::AccessLog {
                    routes_only: true,
                    ..log(
                        None,
                        &[],
                        vec![sink(v1::log_sink::Sink::File("/dev/stdout".into()))],
                    )
                },
                log(
                    Some(text),
                    &[],
                    vec![
                        sink(v1::log_sink::Sink::Otlp(v1::OtlpLogs {
                            receiver: Some(receiver()),
                            resource: [("k8s.pod.name".to_owned(), "p".to_owned())].into(),
                        })),
                        sink(v1::log_sink::Sink::Als(v1::AlsLogs {
                            receiver: Some(receiver()),
                            log_name: "mine".into(),
                            tcp: false,
                            request_headers: vec!["x-user".into()],
                            response_headers: vec!["backend".into()],
                            response_trailers: Vec::new(),
                        })),
                    ],
                ),
            ],
        }),
        ..Default::default()
    };
    let (_proxy, _backend, port) = proxy(telemetry, AccessLogTarget::File(own.clone()), &collector).await;
    let client = Http::new(port);
    client.get("/a").await;
    client.send_with("GET", "/a", &[("x-user", "ann")], "").await;
    client.get("/nowhere").await;
    let lines = |path| {
        std::fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    support::eventually("two lines each", || {
        lines(&other).len() == 2 && lines(&own).len() == 2
    })
    .await;
    assert_eq!(lines(&other), ["GET ann 200 b", "GET - 404 -"]);
    let own: serde_json::Value = serde_json::from_str(&lines(&own)[1]).unwrap();
    assert_eq!(
        (own["response_code"].as_u64(), own["route_name"].as_str()),
        (Some(200), Some("HTTPRoute/test/r"))
    );

    let records = || -> Vec<_> {
        let all = collector
            .messages::<ExportLogsServiceRequest>("LogsService/Export")
            .into_iter();
        let resources = all.flat_map(|message| message.resource_logs);
        let scopes = resources.flat_map(|resource| {
            assert_eq!(
                attribute(&resource.resource.unwrap().attributes, "k8s.pod.name"),
                "p"
            );
            resource.scope_logs
        });
        scopes.flat_map(|scope| scope.log_records).collect()
    };
    support::eventually("three records", || records().len() >= 3).await;
    let second = &records()[1];
    let Some(any_value::Value::StringValue(body)) = second.body.clone().unwrap().value else {
        panic!()
    };
    assert_eq!(body, "GET ann 200 b");
    assert_eq!(attribute(&second.attributes, "code"), "200");
    assert_eq!(second.attributes.len(), 1);

    let entries = || -> Vec<_> {
        let all = collector
            .messages::<StreamAccessLogsMessage>("StreamAccessLogs")
            .into_iter();
        all.flat_map(|message| {
            assert_eq!(message.identifier.unwrap().log_name, "mine");
            message.http_logs.unwrap().log_entry
        })
        .collect()
    };
    support::eventually("three entries", || entries().len() >= 3).await;
    let entries = entries();
    let (request, response) = (
        entries[1].request.clone().unwrap(),
        entries[1].response.clone().unwrap(),
    );
    assert_eq!((request.request_method, request.path.as_str()), (1, "/a"));
    assert_eq!(request.request_headers["x-user"], "ann");
    assert_eq!(
        (
            response.response_code,
            response.response_headers["backend"].as_str()
        ),
        (Some(200), "b")
    );
    let common = entries[2].common_properties.clone().unwrap();
    assert!(common.response_flags.unwrap().no_route_found);
}

#[tokio::test]
async fn nothing_is_logged_where_logs_are_off() {
    let collector = Collector::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let off = v1::Telemetry {
        access_logs: Some(v1::AccessLogs::default()),
        ..Default::default()
    };
    let (proxy, _backend, port) = proxy(off, AccessLogTarget::File(path.clone()), &collector).await;
    let client = Http::new(port);
    client.get("/a").await;
    proxy.apply(vec![cfg::settings(v1::Settings::default())]);
    client.get("/nowhere").await;
    let text = || std::fs::read_to_string(&path).unwrap();
    support::eventually("a line", || !text().is_empty()).await;
    assert!(text().contains("/nowhere") && text().lines().count() == 1);
}

#[tokio::test]
async fn metrics_by_otlp() {
    let collector = Collector::start().await;
    let telemetry = v1::Telemetry {
        metrics: Some(v1::Metrics {
            sinks: vec![v1::OtlpMetrics {
                receiver: Some(receiver()),
                interval_ms: 10,
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let (_proxy, _backend, port) = proxy(telemetry, AccessLogTarget::Off, &collector).await;
    Http::new(port).get("/a").await;
    let counted = || {
        let all = collector.messages::<ExportMetricsServiceRequest>("MetricsService/Export");
        let resources = all.into_iter().flat_map(|message| message.resource_metrics);
        let mut metrics = resources
            .flat_map(|r| r.scope_metrics)
            .flat_map(|scope| scope.metrics);
        metrics.any(|metric| {
            metric.name == "sluice_route_requests" && format!("{metric:?}").contains("HTTPRoute/test/r")
        })
    };
    support::eventually("the route's requests", counted).await;
}
