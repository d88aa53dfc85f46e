//! Gateways with their ListenerSets: to listeners, statuses, infrastructure, and the model that routes read.
//!
//! ```text
//! Gateway, ListenerSets --listener--> drafts --conflict--> drafts --+--> configuration, model, infrastructure
//! GatewayClass, EnvoyProxy --parameters-----------------------------|
//! Service, Deployment, proxies --programming------------------------'--> status
//! ```
//! Where the Gateways of a class share one fleet, conflicts and infrastructure are settled for all together, by [`fleet`].
//!
//! Routes are not looked at: they read the model. Counts of attached routes are the engine's.

mod address;
mod binding;
mod clients;
mod conflict;
pub mod fleet;
mod geo;
mod listener;
mod order;
pub mod parameters;
pub mod ports;
mod programming;
mod sets;
mod status;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_config::v1::resource::Body;
use sluice_config::{key, v1};
use sluice_crds::envoy::{ClientTrafficPolicy, EnvoyProxySpec, RoutingType as EnvoyRoutingType};
use sluice_crds::gateway::Gateway;

use super::class;
use super::fault::Fault;
use super::model::{BackendTls, GatewayModel, ListenerModel, Protocol, RoutingType, Share};
use super::policy::envoy::{ParentPolicies, Policies, client};
use super::telemetry::{self, Told};
use crate::engine::{Bundle, GatewayRef, Infra, InfraPort, Infrastructure, Mode, Output, Status, View};
use crate::store::ObjectRef;
use address::Requested;
use listener::{Draft, Surroundings};
use parameters::Parameters;
use ports::Port;
use programming::Programming;
use sets::Set;

/// Translates a Gateway; gives nothing if its class is not ours.
pub fn translate(gateway: &GatewayRef, view: &View<'_>) -> Output {
    let Some(object) = view.get::<Gateway>(&gateway.namespace, &gateway.name) else {
        return Output::default();
    };
    let Some(class) = class::ours(view, &object.spec.gateway_class_name) else {
        return Output::default();
    };
    let parameters = parameters::of_gateway(view, &object, &class);
    let requested = Requested::read(&object.spec.addresses);
    let (requested, unsupported) = match requested {
        Ok(requested) => (requested, None),
        Err(fault) => (Requested::default(), Some(fault)),
    };
    let read = Read {
        view,
        gateway,
        reference: gateway.object(),
        parameters: parameters.parameters,
        share: parameters.fleet.as_ref().map(|_| {
            view.share(&object.spec.gateway_class_name, gateway)
                .unwrap_or_default()
        }),
        fleet: parameters.fleet.unwrap_or_else(|| gateway.clone()),
        requested,
        refused: parameters.fault.or(unsupported),
        object,
    };
    read.output()
}

/// A Gateway and what its spec comes to by itself.
struct Read<'a, 'v> {
    view: &'a View<'v>,
    gateway: &'a GatewayRef,
    reference: ObjectRef,
    object: Arc<Gateway>,
    parameters: Parameters,
    /// Its own fleet, or the one that it shares with the others of its class.
    fleet: GatewayRef,
    /// What it has of a fleet that it shares.
    share: Option<Arc<Share>>,
    requested: Requested,
    /// Why it is not accepted, whatever its listeners are. Proxies that run already go on serving them.
    refused: Option<Fault>,
}

/// All its listeners.
struct Listeners {
    /// In order of precedence: its own, then those of each ListenerSet.
    drafts: Vec<Draft>,
    sets: Vec<Set>,
    /// How each port is bound.
    bound: BTreeMap<Port, u16>,
}

impl Listeners {
    fn of(&self, parent: &ObjectRef) -> &[Draft] {
        let start = self
            .drafts
            .iter()
            .position(|draft| draft.parent == *parent)
            .unwrap_or(self.drafts.len());
        let own = self.drafts.get(start..).unwrap_or_default();
        let end = own
            .iter()
            .position(|draft| draft.parent != *parent)
            .unwrap_or(own.len());
        own.get(..end).unwrap_or_default()
    }
}

impl Read<'_, '_> {
    fn output(&self) -> Output {
        let client_certificate = tls::client_certificate(self.view, &self.object);
        let mut backend_tls = self.parameters.backend_tls.clone();
        if let Ok(Some(own)) = &client_certificate {
            backend_tls.certificate = Some(own.clone());
        }
        let listeners = self.listeners(&backend_tls);
        let own = listeners.of(&self.reference);
        let no_listener = status::no_listener_accepted(own);
        let serves = no_listener.is_none();
        let not_accepted = self.refused.clone().or(no_listener);
        let is_accepted = not_accepted.is_none();
        let (class, proxy) = (&self.object.spec.gateway_class_name, &self.parameters.proxy);
        let mut programming = Programming::of(self.view, &self.fleet, class, proxy, &self.requested);
        if let Some(fault) = &not_accepted {
            programming.refuse(fault);
        }
        let told = self.told();
        let mut statuses = Vec::with_capacity(1 + listeners.sets.len());
        let mut attached = 0;
        for set in &listeners.sets {
            let (status, accepted) =
                status::listener_set(set, listeners.of(&set.reference), is_accepted, &programming);
            statuses.push((set.reference.clone(), status));
            attached += i32::from(accepted);
        }
        let conditions = status::gateway_conditions(
            own,
            not_accepted.as_ref(),
            &self.parameters.remark(&told.remarks),
            client_certificate.as_ref().err(),
            &tls::insecure_fields(&self.object),
            &programming,
        );
        let status = Status::Gateway {
            generation: self.object.metadata.generation.unwrap_or_default(),
            conditions,
            listeners: own
                .iter()
                .map(|draft| status::listener(draft, is_accepted, &programming))
                .collect(),
            addresses: programming.addresses,
            attached_listener_sets: attached,
        };
        statuses.push((self.reference.clone(), status));
        Output {
            for_gateway: self.configuration(&listeners, serves, told),
            statuses,
            model: Some(Arc::new(self.model(&listeners, serves, backend_tls))),
            infra: self.infra(&listeners),
            ..Output::default()
        }
    }

    fn listeners(&self, backend_tls: &BackendTls) -> Listeners {
        let around = Surroundings {
            view: self.view,
            gateway: &self.object,
            reference: &self.reference,
            routing: self.routing(),
            backend_tls,
        };
        let sets = sets::of(self.view, &self.reference, &self.object);
        let mut drafts = sets::drafts(&self.reference, &self.object, &sets, |parent, spec| {
            Draft::new(&around, parent, spec)
        });
        let apply = |draft: &mut Draft, policy: &Arc<ClientTrafficPolicy>| {
            let hostname = draft.hostname.clone();
            let found = client::translate(self.view, policy, &draft.key, hostname.as_deref());
            draft.apply(&ObjectRef::of(policy.as_ref()), found);
        };
        clients::policies(
            self.view,
            &self.reference,
            &self.object,
            &sets,
            &mut drafts,
            apply,
        );
        let bound = self.settle(&mut drafts);
        conflict::mark_overlaps(&mut drafts);
        if let Some(share) = &self.share {
            clients::share_with_others(self.view, &mut drafts, &share.clients);
        }
        clients::share_connections(&mut drafts);
        Listeners { drafts, sets, bound }
    }

    /// Settles which of them hold their ports, and says how these are bound.
    fn settle(&self, drafts: &mut [Draft]) -> BTreeMap<Port, u16> {
        let bound = if let Some(share) = &self.share {
            for draft in &mut *drafts {
                draft.conflict = share.conflicts.get(&draft.key).cloned();
            }
            clients::settle_http3(drafts);
            share.bound.clone()
        } else {
            conflict::settle(drafts);
            clients::settle_http3(drafts);
            let held = drafts.iter().flat_map(Draft::ports);
            binding::bind(
                self.view,
                &self.fleet,
                &self.object.spec.gateway_class_name,
                &self.parameters.proxy,
                self.refused.is_some(),
                &held.collect(),
            )
        };
        for draft in &mut *drafts {
            draft.http3 &= bound.contains_key(&draft.quic());
        }
        let unbound = |draft: &&mut Draft| draft.holds_port() && !bound.contains_key(&draft.transport());
        for draft in drafts.iter_mut().filter(unbound) {
            let message = format!("port {}: the pod has no port left to bind it as", draft.port);
            draft.refuse(Fault::new("PortUnavailable", message));
        }
        bound
    }

    fn routing(&self) -> RoutingType {
        match self.parameters.proxy.routing_type {
            Some(EnvoyRoutingType::Service) => RoutingType::Service,
            _ => RoutingType::Endpoint,
        }
    }

    /// What its proxies are to tell.
    fn told(&self) -> Told {
        let owner = self.parameters.telemetry.as_ref();
        owner.map_or_else(Told::default, |owner| {
            telemetry::of_proxy(
                self.view,
                owner,
                self.parameters.proxy.telemetry.as_ref(),
                self.routing(),
            )
        })
    }

    fn configuration(&self, listeners: &Listeners, serves: bool, told: Told) -> BTreeMap<GatewayRef, Bundle> {
        let mut bundle = Bundle::default();
        let xff_trusted_hops = self.view.environment().xff_trusted_hops;
        bundle.add(
            key::SETTINGS,
            Body::Settings(v1::Settings {
                xff_trusted_hops,
                geo: self.parameters.proxy.geo_ip.as_ref().map(geo::databases),
                telemetry: told.config,
            }),
        );
        bundle.needs.extend(told.needs);
        for (key, body) in told.resources {
            bundle.add(key, body);
        }
        for draft in listeners.drafts.iter().filter(|draft| serves && draft.serves()) {
            let Some(bind_port) = listeners.bound.get(&draft.transport()) else {
                continue;
            };
            bundle.needs.extend(draft.needs.iter().cloned());
            for (key, body) in &draft.resources {
                bundle.add(key.clone(), body.clone());
            }
            let quic = listeners.bound.get(&draft.quic()).filter(|_| draft.http3);
            let listener = resource(draft, *bind_port, quic.copied());
            bundle.add(draft.key.to_string(), Body::Listener(listener));
        }
        BTreeMap::from([(self.gateway.clone(), bundle)])
    }

    fn model(&self, listeners: &Listeners, serves: bool, backend_tls: BackendTls) -> GatewayModel {
        let own = ParentPolicies::of(self.view, &self.reference, self.object.metadata.labels.as_ref());
        let policies = own.whole();
        let mut parents = BTreeMap::from([(&self.reference, own)]);
        for set in &listeners.sets {
            let labels = set.object.metadata.labels.as_ref();
            let of_set = ParentPolicies::of(self.view, &set.reference, labels);
            parents.insert(&set.reference, of_set);
        }
        let listener = |draft: &Draft| {
            let outer = if draft.parent == self.reference {
                Policies::default()
            } else {
                policies.clone()
            };
            Some(ListenerModel {
                policies: parents.get(&draft.parent)?.at(&draft.name, &outer),
                key: draft.key.clone(),
                parent: draft.parent.clone(),
                name: draft.name.clone(),
                port: draft.port,
                protocol: draft.protocol?,
                hostname: draft.hostname.clone(),
                kinds: draft.kinds.clone(),
                namespaces: draft.namespaces.clone(),
                http3: draft.http3,
                client_policy: draft.client_policy.clone(),
                overruled: draft.overruled,
                serving: serves && draft.serves(),
            })
        };
        GatewayModel {
            gateway: self.gateway.clone(),
            fleet: self.fleet.clone(),
            listeners: listeners.drafts.iter().filter_map(listener).collect(),
            routing: self.routing(),
            keeps_route_order: self.parameters.proxy.preserve_route_order == Some(true),
            filter_order: order::steps(&self.parameters.proxy.filter_order).unwrap_or_default(),
            backend_stat_name: self
                .parameters
                .proxy
                .telemetry
                .as_ref()
                .and_then(telemetry::backend_stat_name),
            backend_tls,
            geo: self
                .parameters
                .proxy
                .geo_ip
                .as_ref()
                .map(geo::known)
                .unwrap_or_default(),
            policies: policies.clone(),
        }
    }

    /// What has to run. A port stays while its listener cannot serve, so that a missing Secret costs nobody his address;
    /// all of it stays while the Gateway is refused or has no usable listener. What Gateways share is their class's.
    fn infra(&self, listeners: &Listeners) -> Infrastructure {
        if self.view.environment().mode != Mode::Cluster || self.share.is_some() {
            return Infrastructure::None;
        }
        let infrastructure = self.object.spec.infrastructure.clone().unwrap_or_default();
        let infra = Infra {
            gateway: self.gateway.clone(),
            uid: self.object.metadata.uid.clone().unwrap_or_default(),
            class: self.object.spec.gateway_class_name.as_str().into(),
            labels: infrastructure.labels,
            annotations: infrastructure.annotations,
            ports: InfraPort::all(&listeners.bound),
            addresses: self.requested.ips(),
            cluster_only: self.requested.cluster_only(),
            proxy: Arc::<EnvoyProxySpec>::clone(&self.parameters.proxy),
        };
        if self.refused.is_some() || infra.ports.is_empty() {
            Infrastructure::Keep(infra)
        } else {
            Infrastructure::Wanted(infra)
        }
    }
}

fn resource(draft: &Draft, bind_port: u16, quic: Option<u16>) -> v1::Listener {
    let client = draft.client.clone().map(|client| v1::ClientSettings {
        http3: quic.is_some(),
        ..client
    });
    let protocol = match draft.protocol {
        Some(Protocol::Http) => v1::Protocol::Http,
        Some(Protocol::Https) => v1::Protocol::Https,
        Some(Protocol::TlsPassthrough | Protocol::TlsTerminate) => v1::Protocol::Tls,
        Some(Protocol::Tcp) => v1::Protocol::Tcp,
        Some(Protocol::Udp) => v1::Protocol::Udp,
        None => v1::Protocol::Unspecified,
    };
    v1::Listener {
        name: format!("{}/{}/{}", draft.parent.namespace, draft.parent.name, draft.name),
        port: u32::from(draft.port),
        bind_port: u32::from(bind_port),
        protocol: protocol.into(),
        hostname: draft.hostname.as_deref().unwrap_or_default().to_owned(),
        tls: draft.tls.clone(),
        filters: draft.filters.clone(),
        client,
        http3_bind_port: quic.map(u32::from).unwrap_or_default(),
    }
}
