//! The GatewayClass keeps its name and gets another controller: there, back again, and there for good.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{HOST, OF_GATEWAY, OURS, THEIRS, World};
use crate::cmd::Run;
use crate::e2e::load::Load;
use crate::e2e::site::{LIMIT, START};
use crate::progress::wait_for;

/// A header that the route `outside` adds for the backend; its value tells which version of the route is served.
const MARK: &str = "x-version";

pub(super) fn there_and_back(world: &World) -> Result<()> {
    let old = world.address("eg")?;
    let new = there(world, old)?;
    back(world, old, new)?;
    let new = there(world, old)?;
    let load = Load::for_host(new, HOST, "/");
    world.follow("The old proxies")?;
    world.serves(new)?;
    load.finish("the removal of the old proxies")
}

/// Sluice gets the class; gives its proxies' address. The old proxies serve on.
fn there(world: &World, old: SocketAddr) -> Result<SocketAddr> {
    let load = Load::for_host(old, HOST, "/");
    world
        .guide
        .follow(&world.cluster, &world.directory(), "In place", |_| {
            world.change_class(OURS)
        })?;
    let new = wait_for("another address of Gateway eg", START, || {
        Ok(Some(world.address("eg")?).filter(|address| *address != old))
    })?;
    world.serves(new)?;
    world.serves(old)?;
    for (kind, name) in OF_GATEWAY {
        world.accepted(kind, name, "eg", OURS)?;
    }
    load.finish("the change of the class")?;
    Ok(new)
}

/// Envoy Gateway gets the class again, and tells its proxies what has changed meanwhile. Sluice leaves nothing.
fn back(world: &World, old: SocketAddr, new: SocketAddr) -> Result<()> {
    world.mark("1")?;
    world.marked(new, Some("1"))?;
    // Nobody tells Envoy's.
    world.marked(old, None)?;
    let to_old = Load::for_host(old, HOST, "/");
    let mut to_new = Some(Load::for_host(new, HOST, "/"));
    world
        .guide
        .follow(&world.cluster, &world.directory(), "Back, in place", |what| {
            if what.starts_with("In class.yaml") {
                return world.change_class(THEIRS);
            }
            ensure!(what.starts_with("Cut over"), "what is this: {what}");
            let address = world.address("eg")?;
            ensure!(address == old, "Gateway eg has the address {address}, not {old}");
            world.marked(old, Some("1"))?;
            world.mark("2")?;
            world.marked(old, Some("2"))?;
            world.serves(new)?;
            let load = to_new.take().context("a second cut-over")?;
            load.finish("the way back, to Sluice's proxies")
        })?;
    ensure!(to_new.is_none(), "nothing says when to cut over");
    world.serves(old)?;
    for (kind, name) in OF_GATEWAY {
        world.accepted(kind, name, "eg", THEIRS)?;
        world.withdrawn(kind, name)?;
    }
    world.withdrawn("httproute", "outside")?;
    to_old.finish("the way back, to Envoy's proxies")
}

impl World {
    /// Changes the route `outside`.
    fn mark(&self, value: &str) -> Result<()> {
        let filter = json!({
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": {"set": [{"name": MARK, "value": value}]},
        });
        let patch = json!([{"op": "add", "path": "/spec/rules/0/filters", "value": [filter]}]);
        self.cluster
            .kubectl(["patch", "httproute", "outside", "--type=json", "--patch"])
            .arg(patch.to_string())
            .text()
            .map(drop)
    }

    /// Waits until this version of the route `outside` is served.
    fn marked(&self, address: SocketAddr, value: Option<&str>) -> Result<()> {
        let what = format!("{MARK} {value:?} from {address}");
        wait_for(&what, LIMIT, || {
            self.get(address, "/outside", &[])?
                .seen()?
                .expect(MARK, value)
                .map(Some)
        })
    }

    /// Waits until nothing of Sluice is in a status.
    fn withdrawn(&self, kind: &str, name: &str) -> Result<()> {
        wait_for(
            &format!("nothing of {OURS} in the status of {kind} {name}"),
            LIMIT,
            || {
                let status = self.status(kind, name)?.to_string();
                ensure!(!status.contains(OURS), "it is {status}");
                Ok(Some(()))
            },
        )
    }
}
