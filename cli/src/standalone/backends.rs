//! Echo backends for trying things out: an EndpointSlice with the annotation `sluice.dev/echo: "true"` has one at each of
//! its loopback addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use sluice_controller::store::{Kind, Object, Store};
use tokio::task::AbortHandle;

use crate::echo;

const ANNOTATION: &str = "sluice.dev/echo";

/// The echo backends that run.
#[derive(Debug, Default)]
pub(super) struct EchoBackends(BTreeMap<SocketAddr, AbortHandle>);

impl EchoBackends {
    /// Starts and stops backends until they are those that the slices ask for.
    pub(super) async fn follow(&mut self, store: &Store) {
        let slices = store
            .list(Kind::EndpointSlice)
            .filter_map(Object::downcast::<EndpointSlice>);
        let wanted: BTreeSet<_> = slices
            .filter(|slice| is_annotated(slice))
            .flat_map(|slice| addresses(&slice))
            .collect();
        self.0.retain(|address, backend| {
            let stays = wanted.contains(address);
            if !stays {
                backend.abort();
            }
            stays
        });
        for address in wanted {
            if self.0.contains_key(&address) {
                continue;
            }
            match echo::bind(address).await {
                Ok(listener) => {
                    println!("echo backend on http://{address}");
                    self.0
                        .insert(address, tokio::spawn(echo::serve(listener)).abort_handle());
                }
                Err(error) => println!("{error:#}"),
            }
        }
    }
}

fn is_annotated(slice: &EndpointSlice) -> bool {
    slice
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(ANNOTATION))
        .is_some_and(|value| value == "true")
}

fn addresses(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let ports = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| u16::try_from(port.port?).ok());
    let ports: Vec<_> = ports.collect();
    let ips = slice
        .endpoints
        .iter()
        .flatten()
        .flat_map(|endpoint| &endpoint.addresses)
        .filter_map(|ip| ip.parse::<IpAddr>().ok());
    ips.filter(IpAddr::is_loopback)
        .flat_map(|ip| ports.iter().map(move |port| SocketAddr::new(ip, *port)))
        .collect()
}
