//! Which requests are traced, and whose span it is.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use sluice_config::v1;
use sluice_dataplane::telemetry::AccessLogTarget;

use super::cfg;
use super::support::backend::Backend;
use super::support::client::Http;
use super::support::{self, Proxy, eventually};
use super::telemetry::{Collector, receiver};

async fn proxy(collector: &Collector, tracing: v1::Tracing) -> (Proxy, Backend, u16) {
    let backend = Backend::echo("b").await;
    let port = support::free_port();
    let settings = v1::Settings {
        telemetry: Some(v1::Telemetry {
            tracing: Some(v1::Tracing {
                receiver: Some(receiver()),
                span_name: "%REQ(:path)% %STREAM_ID%".into(),
                ..tracing
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut resources = vec![
        cfg::settings(settings),
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ];
    resources.extend(cfg::backend("b", &[backend.address]));
    resources.extend(cfg::backend("collector", &[collector.backend.address]));
    let proxy = Proxy::with_log(resources, AccessLogTarget::Off).await;
    (proxy, backend, port)
}

/// Names of the spans that have been told.
fn told(collector: &Collector) -> Vec<String> {
    let all = collector.messages::<ExportTraceServiceRequest>("TraceService/Export");
    let scopes = all
        .into_iter()
        .flat_map(|message| message.resource_spans)
        .flat_map(|resource| resource.scope_spans);
    scopes
        .flat_map(|scope| scope.spans)
        .map(|span| span.name)
        .collect()
}

const YES: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NO: &str = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

#[tokio::test]
async fn samplers_decide() {
    // Who is told of: what the one before has taken, what he has passed over, what begins here.
    for (share, parent_based, expected) in [
        (1_000_000, false, [true, true, true]),
        (0, false, [false, false, false]),
        (1_000_000, true, [true, false, true]),
        (0, true, [true, false, false]),
        // The lower halves of both identifiers are above a half.
        (500_000, false, [false, false, false]),
    ] {
        let collector = Collector::start().await;
        let tracing = v1::Tracing {
            provider: v1::tracing::Provider::OpenTelemetry.into(),
            sampler: Some(v1::Sampler { share, parent_based }),
            ..Default::default()
        };
        let (proxy, _backend, port) = proxy(&collector, tracing).await;
        let client = Http::new(port);
        let mut sampled = Vec::new();
        for parent in [Some(YES), Some(NO), None] {
            let headers: Vec<_> = parent.map(|parent| ("traceparent", parent)).into_iter().collect();
            if parent.is_none() && share == 500_000 {
                // Chance decides.
                sampled.push(false);
                continue;
            }
            let seen = client.get_with("/a", &headers).await.seen();
            sampled.push(seen.header("traceparent").unwrap().ends_with("-01"));
        }
        assert_eq!(sampled, expected, "{share} {parent_based}");
        proxy.dataplane.drain().await;
        let count = expected.iter().filter(|told| **told).count();
        assert_eq!(told(&collector).len(), count, "{share} {parent_based}");
    }
}

#[tokio::test]
async fn identifiers_of_requests_draw_and_tell_of_it() {
    let collector = Collector::start().await;
    let tracing = v1::Tracing {
        provider: v1::tracing::Provider::OpenTelemetry.into(),
        sampling: Some(v1::Sampling {
            random: 500_000,
            client: 1_000_000,
            overall: 1_000_000,
        }),
        request_ids: Some(v1::RequestIds {
            sample: true,
            pack: true,
        }),
        ..Default::default()
    };
    let (proxy, _backend, port) = proxy(&collector, tracing).await;
    let client = v1::ClientSettings {
        headers: Some(v1::ClientHeaders {
            request_id: v1::client_headers::RequestId::Preserve.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let listener = v1::Listener {
        port: port.into(),
        bind_port: port.into(),
        protocol: v1::Protocol::Http.into(),
        client: Some(client),
        ..Default::default()
    };
    proxy.apply(vec![cfg::listener("l", listener)]);
    let client = Http::new(port);
    let (drawn, passed) = (
        "00001387-0000-4000-8000-000000000000",
        "00001388-0000-4000-8000-000000000000",
    );
    let noted = drawn.replace("-4", "-9");
    for (sent, got) in [(drawn, &*noted), (passed, passed), (&*noted, &*noted)] {
        let seen = client.get_with("/a", &[("x-request-id", sent)]).await.seen();
        assert_eq!(seen.header("x-request-id"), Some(got));
    }
    eventually("two spans", || told(&collector).len() >= 2).await;
    assert_eq!(told(&collector), [format!("/a {noted}"), format!("/a {noted}")]);
}

#[tokio::test]
async fn spans_of_zipkin_are_shared_with_who_has_sent_the_request() {
    let collector = Collector::start().await;
    let tracing = v1::Tracing {
        provider: v1::tracing::Provider::Zipkin.into(),
        shared_spans: true,
        ..Default::default()
    };
    let (proxy, _backend, port) = proxy(&collector, tracing).await;
    let client = Http::new(port);
    let b3 = [
        ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
        ("x-b3-spanid", "e457b5a2e4d86bd1"),
        ("x-b3-parentspanid", "05e3ac9a4f6e3b90"),
        ("x-b3-sampled", "1"),
    ];
    let seen = client.get_with("/joined", &b3).await.seen();
    for (name, value) in b3 {
        assert_eq!(seen.header(name), Some(value));
    }
    client.get("/own").await;
    proxy.dataplane.drain().await;
    let spans: Vec<_> = collector
        .at("/api/v2/spans")
        .iter()
        .flat_map(|body| serde_json::from_slice::<Vec<serde_json::Value>>(body).unwrap())
        .collect();
    let of = |path: &str| {
        let found = spans
            .iter()
            .find(|span| span["name"].as_str().unwrap().starts_with(path));
        found.unwrap()
    };
    let joined = of("/joined");
    assert_eq!(
        (&joined["id"], &joined["parentId"], &joined["shared"]),
        (&b3[1].1.into(), &b3[2].1.into(), &true.into())
    );
    assert!(of("/own").get("shared").is_none() && of("/own").get("parentId").is_none());
}
