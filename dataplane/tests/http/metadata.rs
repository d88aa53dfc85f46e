//! What processors and authorizers say of requests, and who makes use of it.

use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use prost::Message;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use sluice_config::v1;
use sluice_dataplane::filter::auth::proto as auth;
use sluice_dataplane::filter::ext_proc::proto::{self, Answer, Shown};
use sluice_dataplane::telemetry::AccessLogTarget;
use v1::external_auth::Protocol;
use v1::external_processor::BodyMode;

use super::ext_proc::{both, nothing, processor};
use super::support::backend::Backend;
use super::support::client::Http;
use super::support::{self, Proxy, eventually};
use super::{auth as authorizers, cfg};

const DAY: u64 = 24 * 3600;

pub fn fields(pairs: &[(&str, Kind)]) -> Struct {
    let pair = |(name, kind): &(&str, Kind)| {
        let value = Value {
            kind: Some(kind.clone()),
        };
        ((*name).to_owned(), value)
    };
    Struct {
        fields: pairs.iter().map(pair).collect(),
    }
}

pub fn number(number: f64) -> Kind {
    Kind::NumberValue(number)
}

pub fn object(pairs: &[(&str, Kind)]) -> Kind {
    Kind::StructValue(fields(pairs))
}

fn text(text: &str) -> Kind {
    Kind::StringValue(text.into())
}

/// Says that requests cost 3 and their responses 5, and what it must not say.
pub fn usage(message: &proto::ProcessingRequest, answers: &mut Vec<proto::ProcessingResponse>) {
    let (answer, said) = match message.request.as_ref().unwrap() {
        Shown::RequestHeaders(_) => (
            Answer::RequestHeaders(nothing()),
            [
                ("usage", object(&[("cost", number(3.0))])),
                ("envoy.filters.http.ext_authz", object(&[("admin", number(1.0))])),
            ],
        ),
        Shown::ResponseHeaders(_) => (
            Answer::ResponseHeaders(nothing()),
            [
                ("usage", object(&[("tokens", text("5"))])),
                ("usage-of-others", object(&[("tokens", number(99.0))])),
            ],
        ),
        other => panic!("{other:?}"),
    };
    answers.push(proto::ProcessingResponse {
        response: Some(answer),
        dynamic_metadata: Some(fields(&said)),
        ..Default::default()
    });
}

#[expect(clippy::unnecessary_wraps, reason = "the message's field is optional")]
pub fn key(namespace: &str, key: &str) -> Option<v1::MetadataKey> {
    Some(v1::MetadataKey {
        namespace: namespace.into(),
        key: key.into(),
    })
}

fn rule_of(requests: u64) -> v1::RateLimitRule {
    v1::RateLimitRule {
        bucket: "metadata".into(),
        requests,
        unit_seconds: DAY,
        ..Default::default()
    }
}

fn logged(path: &std::path::Path, format: &str) -> v1::Resource {
    let sink = v1::log_sink::Sink::File(path.to_string_lossy().into_owned());
    let log = v1::AccessLog {
        format: Some(v1::LogFormat {
            text: Some(format.into()),
            ..Default::default()
        }),
        sinks: vec![v1::LogSink { sink: Some(sink) }],
        ..Default::default()
    };
    cfg::settings(v1::Settings {
        telemetry: Some(v1::Telemetry {
            access_logs: Some(v1::AccessLogs { logs: vec![log] }),
            ..Default::default()
        }),
        ..Default::default()
    })
}

async fn proxy(rule: v1::HttpRule, others: Vec<v1::Resource>) -> (Proxy, Backend, Http) {
    let backend = Backend::echo("b").await;
    let port = support::free_port();
    let mut resources = vec![cfg::http_listener("l", port), cfg::route("r", "l", vec![rule])];
    resources.extend(cfg::backend("b", &[backend.address]));
    resources.extend(others);
    let proxy = Proxy::with_log(resources, AccessLogTarget::Off).await;
    (proxy, backend, Http::new(port))
}

#[tokio::test]
async fn what_a_processor_says_is_logged_and_counted() {
    let address = processor(usage).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = Some(v1::Policy {
        external_processors: vec![v1::ExternalProcessor {
            writes_metadata: vec!["usage".into()],
            ..both(BodyMode::Unspecified)
        }],
        rate_limit: Some(v1::RateLimit {
            rules: vec![v1::RateLimitRule {
                cost_from: key("usage", "cost"),
                response_cost_from: key("usage", "tokens"),
                ..rule_of(20)
            }],
        }),
        ..Default::default()
    });
    let format = "%DYNAMIC_METADATA(usage:cost)% %DYNAMIC_METADATA(usage:tokens)% \
                  %DYNAMIC_METADATA(usage-of-others:tokens)% %DYNAMIC_METADATA(envoy.filters.http.ext_authz:admin)% \
                  %CEL(metadata.filter_metadata['usage'].cost)%";
    let mut others = cfg::h2c("processor", &[address]);
    others.push(logged(&path, format));
    let (_proxy, _backend, http) = proxy(rule, others).await;
    let left = http.get("/").await;
    assert_eq!(left.header("x-ratelimit-remaining"), Some("17"));
    eventually("the line", || {
        std::fs::read_to_string(&path).is_ok_and(|lines| lines == "3 5 - - 3\n")
    })
    .await;
    let left = http.get("/").await;
    assert_eq!(left.header("x-ratelimit-remaining"), Some("9"), "20 - 3 - 5 - 3");
}

/// An authorizer that says who may how much, and hears which route it is asked about.
#[tokio::test]
async fn an_authorizer_is_told_of_the_route_and_says_the_limit() {
    let heard = Arc::<Mutex<Vec<auth::Metadata>>>::default();
    let list = Arc::clone(&heard);
    let authorizer = Backend::start(move |request| {
        let list = Arc::clone(&list);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let check = auth::CheckRequest::decode(&body[5..]).unwrap();
            let context = check.attributes.unwrap().route_metadata_context;
            list.lock().unwrap().extend(context);
            let tier = object(&[("requests_per_unit", number(2.0)), ("unit", text("DAY"))]);
            authorizers::answered(&auth::CheckResponse {
                status: Some(auth::Status::default()),
                dynamic_metadata: Some(fields(&[("tier", tier)])),
                ..Default::default()
            })
        }
    })
    .await;
    let shown = Arc::<Mutex<Vec<proto::Metadata>>>::default();
    let list = Arc::clone(&shown);
    let address = processor(move |message, answers| {
        list.lock().unwrap().extend(message.metadata_context.clone());
        answers.push(super::ext_proc::answer(Answer::RequestHeaders(nothing())));
    })
    .await;
    let namespace = "envoy.filters.http.ext_authz";
    let mut rule = cfg::rule("/", &["b"]);
    rule.name = "first".into();
    rule.annotations = [("team".to_owned(), "blue".to_owned())].into();
    rule.policy = Some(v1::Policy {
        external_auth: Some(v1::ExternalAuth {
            protocol: Protocol::Grpc.into(),
            backend: "backend/auth".into(),
            include_route_metadata: true,
            ..Default::default()
        }),
        external_processors: vec![v1::ExternalProcessor {
            reads_metadata: vec![namespace.into(), "none".into()],
            ..super::ext_proc::config(BodyMode::Unspecified)
        }],
        rate_limit: Some(v1::RateLimit {
            rules: vec![v1::RateLimitRule {
                limit_from: key(namespace, "tier"),
                ..rule_of(1000)
            }],
        }),
        ..Default::default()
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut others = cfg::backend("auth", &[authorizer.address]);
    others.extend(cfg::h2c("processor", &[address]));
    others.push(logged(
        &path,
        "%METADATA(ROUTE:envoy-gateway:resources)% %CEL(xds.route_metadata.filter_metadata['envoy-gateway']['resources'][0]['name'])%",
    ));
    let (_proxy, _backend, http) = proxy(rule, others).await;
    let statuses = [
        http.get("/").await.status,
        http.get("/").await.status,
        http.get("/").await.status,
    ];
    assert_eq!(statuses, [200, 200, 429]);
    let heard = heard.lock().unwrap()[0].clone();
    let expected = fields(&[
        ("kind", text("HTTPRoute")),
        ("namespace", text("test")),
        ("name", text("r")),
        ("sectionName", text("first")),
        ("annotations", object(&[("team", text("blue"))])),
    ]);
    let list = Kind::ListValue(prost_types::ListValue {
        values: vec![Value {
            kind: Some(Kind::StructValue(expected)),
        }],
    });
    assert_eq!(
        heard.filter_metadata["envoy-gateway"],
        fields(&[("resources", list)])
    );
    let shown = shown.lock().unwrap()[0].clone();
    assert_eq!(shown.filter_metadata.keys().collect::<Vec<_>>(), [namespace]);
    assert!(shown.filter_metadata[namespace].fields.contains_key("tier"));
    eventually("the lines", || {
        let lines = std::fs::read_to_string(&path).unwrap_or_default();
        lines.lines().count() == 3
            && lines
                .lines()
                .all(|line| line.starts_with("[{") && line.ends_with("}] r"))
    })
    .await;
}
