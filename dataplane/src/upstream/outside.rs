//! Hosts that no resource names: those of URLs that another host has told. Trust comes from the system alone.
//!
//! Owns how such a host becomes a backend. What is reached lives as long as someone holds it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_config::v1;

use super::resolve::{Followed, Resolver};
use super::{Backend, EndpointSet, EndpointSlot, Slot};
use crate::telemetry::Metrics;
use crate::tls::client::ClientTls;
use crate::tls::material::root_store;

/// How often it is looked whether a name has been resolved.
const LOOK: Duration = Duration::from_millis(20);

/// The way to hosts by their names.
#[derive(Clone)]
pub struct Outside {
    resolver: Option<Resolver>,
    metrics: Arc<Metrics>,
}

/// A host that can be asked.
#[derive(Debug)]
pub struct Reached {
    /// Its place; filled.
    pub slot: Arc<Slot>,
    endpoints: Arc<EndpointSlot>,
    names: Option<Followed>,
}

impl Outside {
    /// Names are looked up by `resolver`; without it only addresses can be reached.
    pub fn new(resolver: Option<Resolver>, metrics: Arc<Metrics>) -> Self {
        Self { resolver, metrics }
    }

    /// Makes a backend of a host.
    ///
    /// # Errors
    /// If the host is none, or there is nothing to look it up with.
    pub fn reach(&self, host: &str, port: u16, https: bool) -> Result<Reached, String> {
        let plain = host.trim_start_matches('[').trim_end_matches(']');
        let mut endpoint = v1::Endpoint {
            port: u32::from(port),
            ..v1::Endpoint::default()
        };
        let is_address = plain.parse::<IpAddr>().is_ok();
        if is_address {
            plain.clone_into(&mut endpoint.address);
        } else {
            plain.clone_into(&mut endpoint.hostname);
        }
        let config = v1::Endpoints {
            endpoints: vec![endpoint],
        };
        let endpoints = Arc::<EndpointSlot>::default();
        let names = if is_address {
            endpoints.store(Arc::new(EndpointSet::build(&config, &EndpointSet::default())?));
            None
        } else {
            let resolver = self.resolver.as_ref();
            let resolver = resolver.ok_or("hostnames cannot be looked up here")?;
            Some(resolver.follow(&config, Arc::clone(&endpoints))?)
        };
        let name = format!("{host}:{port}");
        let tls = https.then(|| {
            let config = v1::UpstreamTls {
                hostname: plain.to_owned(),
                system_ca: true,
                ..v1::UpstreamTls::default()
            };
            ClientTls::build(&config, root_store(Vec::new()), None).map(Arc::new)
        });
        let metrics = self.metrics.backend(&name);
        let config = v1::Backend {
            name,
            ..v1::Backend::default()
        };
        let backend = Backend::new(
            &config,
            Arc::clone(&endpoints),
            tls.transpose()?,
            metrics,
            None,
            "",
        )?;
        let slot = Arc::<Slot>::default();
        slot.store(Some(Arc::new(backend)));
        Ok(Reached {
            slot,
            endpoints,
            names,
        })
    }
}

impl Reached {
    /// Waits for the first answer to the look-up of its name. It may never come: the caller bounds the time.
    pub async fn looked_up(&self) {
        while self.names.is_some() && self.endpoints.load().is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside").finish_non_exhaustive()
    }
}
