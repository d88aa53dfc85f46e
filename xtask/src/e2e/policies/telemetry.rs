//! What an EnvoyProxy has the proxies tell OpenTelemetry's collector.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Check, MONITORING, NAMESPACE, World};
use crate::cmd::Run;
use crate::curl;
use crate::e2e::site::{self, LIMIT};
use crate::netns::Netns;
use crate::progress::wait_for;

pub const CHECKS: [Check; 3] = [
    Check {
        name: "EnvoyProxyAccessLogOpenTelemetry",
        run: |world| {
            told(
                world,
                &[
                    "k8s.cluster.name: Str(cluster-1)",
                    "\"GET /told?x=1 HTTP/1.1\" 200 ",
                ],
            )
        },
    },
    Check {
        name: "EnvoyProxyTracingOpenTelemetry",
        run: |world| {
            let tags = ["provider: Str(otel)", "header1: Str(one)", "k8s.pod.name: Str("];
            told(world, &[&[TRACE], &tags[..]].concat())
        },
    },
    Check {
        name: "EnvoyProxyMetricsOpenTelemetry",
        run: |world| told(world, &["Name: sluice_route_requests"]),
    },
];

/// The class whose parameters ask for it, as in the guides.
pub const CLASS: &str = "sluice-policies-told";
/// Trace of the request, as its client has named it.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
/// Metrics are told in intervals.
const PATIENCE: Duration = Duration::from_mins(2);

/// After a request the collector has been told all of these.
fn told(world: &World, expected: &[&str]) -> Result<()> {
    let url = format!(
        "http://{}/told?x=1",
        site::address(&world.cluster, NAMESPACE, "told")?
    );
    let parent = format!("traceparent: 00-{TRACE}-b7ad6b7169203331-01");
    let headers = ["--header", &parent, "--header", "X-Header-1: one"];
    wait_for(&format!("an answer from {url}"), LIMIT, || {
        let answer = curl::send(&world.cluster, Netns::Client, &url, &headers)?;
        answer.seen().map(Some)
    })?;
    wait_for("what the collector is told", PATIENCE, || {
        let log = ["logs", "deployment/otel-collector", "--namespace", MONITORING];
        let log = world.cluster.kubectl(log).text()?;
        let missing = expected.iter().find(|text| !log.contains(**text));
        ensure!(missing.is_none(), "it lacks {missing:?}");
        Ok(Some(()))
    })
}
