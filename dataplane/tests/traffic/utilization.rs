//! Endpoints that report their load get shares by it.

use futures::StreamExt;
use http::HeaderMap;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use sluice_config::v1;
use tokio_rustls::TlsAcceptor;

use super::cfg;
use super::support::backend::{Backend, Body, response};
use super::support::certificate::{acceptor, certificate};
use super::support::client::Http;
use super::support::{self, Proxy};

/// A backend that reports a load with each response, in its head or in trailers.
async fn reporting(name: &'static str, report: &'static str, in_trailers: bool) -> Backend {
    Backend::start(move |_| async move {
        let mut response = response(200, name);
        if !in_trailers {
            response
                .headers_mut()
                .insert("endpoint-load-metrics", report.parse().unwrap());
            return response;
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("endpoint-load-metrics", report.parse().unwrap());
        trailers.insert("x-own", "stays".parse().unwrap());
        let frames = [Frame::data(name.into()), Frame::trailers(trailers)];
        let body: Body = BodyExt::boxed(StreamBody::new(futures::stream::iter(frames.map(Ok))));
        response.map(|_: Body| body)
    })
    .await
}

async fn proxy(backends: &[&Backend], utilization: v1::BackendUtilization) -> (Proxy, u16) {
    // Over HTTP/1.1 there are trailers only for who asks for them.
    let config = v1::Backend {
        protocol: v1::BackendProtocol::H2c.into(),
        ..Default::default()
    };
    proxy_with(backends, utilization, config, Vec::new()).await
}

async fn proxy_with(
    backends: &[&Backend],
    utilization: v1::BackendUtilization,
    config: v1::Backend,
    others: Vec<v1::Resource>,
) -> (Proxy, u16) {
    let port = support::free_port();
    let config = v1::Backend {
        load_balancer: Some(v1::LoadBalancer {
            policy: v1::load_balancer::Policy::BackendUtilization.into(),
            utilization: Some(utilization),
            ..Default::default()
        }),
        ..config
    };
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let mut resources = cfg::backend_with("b", &addresses, config);
    resources.extend(others);
    resources.extend([
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ]);
    (Proxy::start(resources).await, port)
}

fn at_once() -> v1::BackendUtilization {
    v1::BackendUtilization {
        blackout_ms: Some(0),
        update_ms: 100,
        ..Default::default()
    }
}

/// Asks until reports have come to count, then says how a hundred requests are shared.
async fn share(client: &Http, backends: [&Backend; 2]) -> (usize, usize) {
    for _ in 0..4 {
        assert_eq!(client.get("/").await.status, 200);
    }
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    let before = backends.map(Backend::hits);
    for _ in 0..100 {
        assert_eq!(client.get("/").await.status, 200);
    }
    (backends[0].hits() - before[0], backends[1].hits() - before[1])
}

#[tokio::test]
async fn who_has_less_to_do_gets_more() {
    let reports = [
        (
            "TEXT cpu_utilization=0.1,rps_fractional=10",
            "TEXT cpu_utilization=0.9,rps_fractional=10",
        ),
        (
            r#"JSON {"cpu_utilization": 0.1}"#,
            r#"JSON {"cpu_utilization": 0.9}"#,
        ),
    ];
    for (n, (low, high)) in reports.into_iter().enumerate() {
        let in_trailers = n == 1;
        let (low, high) = (
            reporting("low", low, in_trailers).await,
            reporting("high", high, in_trailers).await,
        );
        let (_proxy, port) = proxy(&[&low, &high], at_once()).await;
        let (low, high) = share(&Http::h2(port), [&low, &high]).await;
        assert!((85..=95).contains(&low) && low + high == 100, "{low}, {high}");
    }
}

#[tokio::test]
async fn reports_do_not_count_before_their_time() {
    let (low, high) = (
        reporting("low", "TEXT cpu=0.1", false).await,
        reporting("high", "TEXT cpu=0.9", false).await,
    );
    let patient = v1::BackendUtilization {
        blackout_ms: Some(3_600_000),
        ..at_once()
    };
    let (_proxy, port) = proxy(&[&low, &high], patient).await;
    assert_eq!(share(&Http::new(port), [&low, &high]).await, (50, 50));
}

#[tokio::test]
async fn clients_are_told_of_the_load_only_if_the_policy_says_so() {
    let head = reporting("a", "TEXT cpu=0.5", false).await;
    let trailers = reporting("a", "TEXT cpu=0.5", true).await;
    for keep_response_headers in [false, true] {
        let utilization = v1::BackendUtilization {
            keep_response_headers,
            ..at_once()
        };
        let (_proxy, port) = proxy(&[&head], utilization.clone()).await;
        let got = Http::h2(port).get("/").await;
        assert_eq!(
            got.headers.contains_key("endpoint-load-metrics"),
            keep_response_headers
        );
        let (_proxy, port) = proxy(&[&trailers], utilization).await;
        let got = Http::h2(port).get("/").await.trailers.unwrap();
        assert_eq!(got.contains_key("endpoint-load-metrics"), keep_response_headers);
        assert_eq!(got.get("x-own").unwrap(), "stays");
    }
}

/// A backend that reports its load when it is asked, and something else in responses.
async fn asked(name: &'static str, cpu: f64, tls: Option<TlsAcceptor>) -> Backend {
    Backend::start_tls(tls, move |request| async move {
        if request.uri().path() != "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics" {
            let mut response = response(200, name);
            let misleading = "TEXT cpu_utilization=0.5".parse().unwrap();
            response.headers_mut().insert("endpoint-load-metrics", misleading);
            return response;
        }
        // A report's first field, a double.
        let mut frame = vec![0, 0, 0, 0, 9, 0x09];
        frame.extend(cpu.to_le_bytes());
        let first = futures::stream::iter([Ok(Frame::data(frame.into()))]);
        let body: Body = BodyExt::boxed(StreamBody::new(first.chain(futures::stream::pending())));
        response(200, "").map(|_: Body| body)
    })
    .await
}

#[tokio::test]
async fn endpoints_are_asked_for_their_load() {
    let (low, high) = (asked("low", 0.1, None).await, asked("high", 0.9, None).await);
    let utilization = v1::BackendUtilization {
        out_of_band: Some(v1::backend_utilization::OutOfBand {
            period_ms: 500,
            authority: "load.example".into(),
            ..Default::default()
        }),
        ..at_once()
    };
    let (_proxy, port) = proxy(&[&low, &high], utilization).await;
    support::eventually("both are asked", || low.hits() > 0 && high.hits() > 0).await;
    let (low, high) = share(&Http::new(port), [&low, &high]).await;
    assert!((85..=95).contains(&low) && low + high == 100, "{low}, {high}");
}

#[tokio::test]
async fn endpoints_with_tls_are_asked_in_tls() {
    let own = certificate("backend.example");
    let tls = || Some(acceptor(&own, &[b"h2", b"http/1.1"]));
    let (low, high) = (asked("low", 0.1, tls()).await, asked("high", 0.9, tls()).await);
    let utilization = v1::BackendUtilization {
        out_of_band: Some(v1::backend_utilization::OutOfBand {
            period_ms: 500,
            ..Default::default()
        }),
        ..at_once()
    };
    let config = cfg::in_tls("backend.example");
    let others = vec![cfg::trust("ca", &own.pem)];
    let (_proxy, port) = proxy_with(&[&low, &high], utilization, config, others).await;
    support::eventually("both are asked", || low.hits() > 0 && high.hits() > 0).await;
    let (low, high) = share(&Http::new(port), [&low, &high]).await;
    assert!((85..=95).contains(&low) && low + high == 100, "{low}, {high}");
}
