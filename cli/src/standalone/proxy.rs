//! The proxy of one Gateway in this process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sluice_config::v1::resource::Body;
use sluice_config::{key, v1};
use sluice_controller::engine::{ConfigChange, Event, GatewayRef, ProxyReport};
use sluice_dataplane::admin::Admin;
use sluice_dataplane::telemetry::AccessLogTarget;
use sluice_dataplane::{Dataplane, Options};
use tokio::net::TcpListener;

use super::ports::Ports;
use crate::args;

/// How long requests have to end when the process stops or the Gateway goes.
const DRAIN: Duration = Duration::from_secs(5);

pub(super) struct Proxy {
    gateway: GatewayRef,
    address: String,
    dataplane: Dataplane,
    nonce: u64,
    /// Resources that are not served, with the reason.
    rejected: BTreeMap<String, String>,
    /// Listeners whose port another Gateway has.
    blocked: BTreeMap<String, Arc<v1::Resource>>,
}

impl Proxy {
    /// Starts a proxy without configuration; the first one answers at the admin address, if there is one.
    pub(super) async fn start(
        gateway: GatewayRef,
        args: &args::Standalone,
        first: bool,
    ) -> anyhow::Result<Self> {
        let access_log = if args.access_log {
            AccessLogTarget::Stdout
        } else {
            AccessLogTarget::Off
        };
        let dataplane = Dataplane::start(Options {
            workers: args.workers,
            bind: args.bind,
            unready_delay: Duration::ZERO,
            drain_delay: Duration::ZERO,
            drain_timeout: DRAIN,
            access_log,
            name_servers: Vec::new(),
            zone: String::new(),
        })?;
        if let Some(address) = args.admin_address.filter(|_| first) {
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("--admin-address {address}"))?;
            tokio::spawn(Admin::new(dataplane.clone()).serve(listener));
        }
        let address = if args.bind.is_ipv6() {
            format!("[{}]", args.bind)
        } else {
            args.bind.to_string()
        };
        Ok(Self {
            gateway,
            address,
            dataplane,
            nonce: 0,
            rejected: BTreeMap::new(),
            blocked: BTreeMap::new(),
        })
    }

    /// Applies a change; an event says what has been refused, if that is news.
    pub(super) fn apply(&mut self, change: &ConfigChange, ports: &mut Ports) -> Option<Event> {
        let before = self.rejected.clone();
        for key in &change.removes {
            ports.release(&self.gateway, key);
            self.rejected.remove(key);
            self.blocked.remove(key);
        }
        let mut upserts: Vec<_> = change.upserts.values().cloned().collect();
        upserts.sort_by_key(|resource| key::rank(&resource.key));
        self.upsert(upserts, change.removes.iter().cloned().collect(), ports);
        self.news(&before)
    }

    /// Tries anew the listeners whose port was taken.
    pub(super) fn retry_blocked(&mut self, ports: &mut Ports) -> Option<Event> {
        if self.blocked.is_empty() {
            return None;
        }
        let before = self.rejected.clone();
        let blocked = std::mem::take(&mut self.blocked);
        self.upsert(blocked.into_values().collect(), Vec::new(), ports);
        self.news(&before)
    }

    fn news(&self, before: &BTreeMap<String, String>) -> Option<Event> {
        let report = ProxyReport {
            rejected: self.rejected.clone(),
        };
        (*before != self.rejected).then(|| Event::Proxies(self.gateway.clone(), report))
    }

    fn upsert(&mut self, resources: Vec<Arc<v1::Resource>>, removes: Vec<String>, ports: &mut Ports) {
        let mut upserts = Vec::new();
        for resource in resources {
            let key = resource.key.clone();
            self.rejected.remove(&key);
            if let Some(Body::Listener(listener)) = &resource.body
                && let Err(owner) = ports.claim(&self.gateway, &key, listener)
            {
                self.rejected.insert(
                    key.clone(),
                    format!("port {} is taken by Gateway {owner}", listener.port),
                );
                self.blocked.insert(key, resource);
                continue;
            }
            upserts.push(v1::Resource::clone(&resource));
        }
        if upserts.is_empty() && removes.is_empty() {
            return;
        }
        self.nonce += 1;
        let update = v1::Update {
            nonce: self.nonce,
            upserts,
            removes,
            synced: true,
        };
        let ack = self.dataplane.apply(&update);
        self.rejected.extend(
            ack.rejected
                .into_iter()
                .map(|rejection| (rejection.key, rejection.reason)),
        );
        for resource in &update.upserts {
            if let Some(Body::Listener(listener)) = &resource.body
                && !self.rejected.contains_key(&resource.key)
            {
                println!("listening on {}", self.url(listener));
            }
        }
    }

    fn url(&self, listener: &v1::Listener) -> String {
        let scheme = match listener.protocol() {
            v1::Protocol::Https => "https",
            v1::Protocol::Tls => "tls",
            v1::Protocol::Tcp => "tcp",
            v1::Protocol::Udp => "udp",
            v1::Protocol::Http | v1::Protocol::Unspecified => "http",
        };
        let host = if listener.hostname.is_empty() {
            String::new()
        } else {
            format!(" for {}", listener.hostname)
        };
        format!(
            "{scheme}://{}:{}{host} ({})",
            self.address, listener.bind_port, listener.name
        )
    }

    /// Lets what is under way end.
    pub(super) async fn drain(&self) {
        self.dataplane.drain().await;
    }
}
