//! `bench churn`: whether any request fails while routes, listeners, certificates and backends change, on a real cluster.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::json;

use super::Common;
use super::client::Client;
use super::live::api::Api;
use super::live::load::{Kind, Load};
use super::live::{GATEWAY, LOADED, NAMESPACE, ROUTES, SECRET, World, listeners, route};
use super::stats::Table;
use crate::cmd::Run;
use crate::e2e::install::ImageOptions;
use crate::netns::Netns;
use crate::progress::{long, say, wait_for};

/// Between two changes of routes.
const APART: Duration = Duration::from_millis(50);
/// Between two changes of listeners or certificates: time for connections to meet each.
const LONGER: Duration = Duration::from_millis(300);
/// The listener that comes and goes.
const PORT: u16 = 8088;
/// Load goes on after the last change.
const AFTER: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_mins(1);

/// Options of `bench churn`.
#[derive(Debug, Args)]
pub struct Options {
    /// Routes that are there beforehand
    #[arg(long, value_name = "N", default_value_t = 500)]
    routes: u32,
    /// Changes of the loaded route; of listeners and certificates there are a tenth
    #[arg(long, value_name = "N", default_value_t = 200)]
    changes: u32,
    #[command(flatten)]
    image: ImageOptions,
    #[command(flatten)]
    common: Common,
}

/// A sort of change: what it is, how often it happens, and what does it.
type Sort<'a> = (&'a str, u32, &'a dyn Fn(u32) -> Result<()>);

/// Runs it and prints its table; fails if a request has.
pub fn run(options: &Options) -> Result<()> {
    let quick = options.common.quick;
    let changes = if quick { 20 } else { options.changes };
    let few = (changes / 10).max(2);
    let world = World::new(&options.image, if quick { 20 } else { options.routes })?;
    let mut table = Table::new(
        "Churn: requests, and how many of them failed, while the configuration changes",
        &["change", "number", "load", "requests", "failed"],
    );
    let sorts: [Sort<'_>; 4] = [
        ("the route", changes, &|number| routes(&world, number)),
        ("a listener comes and goes", few, &|number| {
            listener(&world, number)
        }),
        ("the certificate", few, &|number| certificates(&world, number)),
        ("rollout of the backends", 2, &|number| rollouts(&world, number)),
    ];
    let mut failed = 0;
    for (sort, number, change) in sorts {
        let load = Load::start(&Kind::ALL, world.outside, world.trusted())?;
        let changed = long(&format!("{sort}, {number} times"), || change(number));
        std::thread::sleep(AFTER);
        for (kind, seen) in load.finish()? {
            if seen.failed > 0 {
                say(format!("{sort}: {kind}: {:?}", seen.told));
            }
            failed += seen.failed;
            table.row([
                sort.to_owned(),
                number.to_string(),
                kind.to_string(),
                (seen.answered + seen.failed).to_string(),
                seen.failed.to_string(),
            ]);
        }
        changed?;
    }
    table.print(options.common.markdown);
    ensure!(failed == 0, "{failed} requests failed");
    Ok(())
}

fn routes(world: &World, number: u32) -> Result<()> {
    Netns::Node.run(|| {
        let mut api = Api::open(&world.cluster)?;
        let mut client = Client::connect(world.pod)?;
        for i in 0..number {
            let changed = route("loaded", &format!("v{i}"));
            api.merge(&format!("{ROUTES}/loaded"), &json!({ "spec": changed["spec"] }))?;
            std::thread::sleep(APART);
        }
        let last = format!("v{}", number.saturating_sub(1));
        wait_for("the last change of the route", LIMIT, || {
            Ok(client.get(LOADED, "/")?.says("x-version", &last).then_some(()))
        })
    })
}

fn listener(world: &World, number: u32) -> Result<()> {
    let path = format!("/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/gateways/{GATEWAY}");
    let mut port = world.pod;
    port.set_port(PORT);
    Netns::Node.run(|| {
        let mut api = Api::open(&world.cluster)?;
        for _ in 0..number {
            for more in [Some(PORT), None] {
                api.merge(&path, &json!({ "spec": { "listeners": listeners(more) } }))?;
                wait_for("the listener", LIMIT, || {
                    let serves = Client::connect(port).and_then(|mut client| client.get(LOADED, "/"));
                    Ok((serves.is_ok() == more.is_some()).then_some(()))
                })?;
                std::thread::sleep(LONGER);
            }
        }
        Ok(())
    })
}

fn certificates(world: &World, number: u32) -> Result<()> {
    Netns::Node.run(|| {
        let mut api = Api::open(&world.cluster)?;
        for _ in 0..number {
            let secret = world.secret()?;
            let patch = json!({ "stringData": secret["stringData"] });
            api.merge(
                &format!("/api/v1/namespaces/{NAMESPACE}/secrets/{SECRET}"),
                &patch,
            )?;
            std::thread::sleep(LONGER);
        }
        Ok(())
    })
}

fn rollouts(world: &World, number: u32) -> Result<()> {
    let start = Instant::now();
    for _ in 0..number {
        for action in ["restart", "status"] {
            let mut rollout =
                world
                    .cluster
                    .kubectl(["rollout", action, "deployment/echo", "--namespace", NAMESPACE]);
            if action == "status" {
                rollout.arg("--timeout=120s");
            }
            rollout.text()?;
        }
    }
    // The last pods of the old kind are still ending.
    std::thread::sleep(Duration::from_secs(5));
    say(format!("rollouts took {} s", start.elapsed().as_secs()));
    Ok(())
}
