//! Gateways with their ListenerSets: to listeners, statuses, infrastructure, and the model that routes read.
//!
//! ```text
//! Gateway, ListenerSets --listener--> drafts --conflict--> drafts --+--> configuration, model, infrastructure
//! GatewayClass, EnvoyProxy --parameters-----------------------------|
//! Service, Deployment, proxies --programming------------------------'--> status
//! ```
//! Routes are not looked at: they read the model. Counts of attached routes are the engine's.

mod address;
mod conflict;
mod geo;
mod listener;
pub mod parameters;
mod ports;
mod programming;
mod sets;
mod status;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_config::v1::resource::Body;
use sluice_config::{key, v1};
use sluice_crds::envoy::{ClientTrafficPolicy, EnvoyProxySpec, RoutingType as EnvoyRoutingType};
use sluice_crds::gateway::Gateway;

use super::class;
use super::fault::Fault;
use super::model::{GatewayModel, ListenerModel, Protocol, RoutingType};
use super::policy::envoy::{Candidates, ParentPolicies, Policies, client};
use super::telemetry::{self, Told};
use crate::engine::{Bundle, GatewayRef, Infra, InfraPort, Infrastructure, Mode, Output, Status, View};
use crate::infra;
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
        let shown = client_certificate.as_ref().ok().and_then(Option::as_ref);
        let listeners = self.listeners(shown);
        let own = listeners.of(&self.reference);
        let no_listener = status::no_listener_accepted(own);
        let serves = no_listener.is_none();
        let not_accepted = self.refused.clone().or(no_listener);
        let is_accepted = not_accepted.is_none();
        let (class, proxy) = (&self.object.spec.gateway_class_name, &self.parameters.proxy);
        let mut programming = Programming::of(self.view, self.gateway, class, proxy, &self.requested);
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
            model: Some(Arc::new(self.model(&listeners, serves, shown))),
            infra: self.infra(&listeners),
            ..Output::default()
        }
    }

    fn listeners(&self, client_certificate: Option<&ObjectRef>) -> Listeners {
        let around = Surroundings {
            view: self.view,
            gateway: &self.object,
            reference: &self.reference,
            routing: self.routing(),
            client_certificate,
        };
        let sets = sets::of(self.view, &self.reference, &self.object);
        let own = self
            .object
            .spec
            .listeners
            .iter()
            .map(|spec| Draft::new(&around, &self.reference, spec));
        let theirs = sets.iter().filter(|set| set.allowed).flat_map(|set| {
            set.object
                .spec
                .listeners
                .iter()
                .map(|spec| Draft::new(&around, &set.reference, spec))
        });
        let mut drafts: Vec<_> = own.chain(theirs).collect();
        self.apply_client_policies(&sets, &mut drafts);
        conflict::settle(&mut drafts);
        let bound = self.bind(&mut drafts);
        conflict::mark_overlaps(&mut drafts);
        Listeners { drafts, sets, bound }
    }

    /// Has the ClientTrafficPolicies applied: that of a listener goes before that of its ListenerSet or Gateway.
    fn apply_client_policies(&self, sets: &[Set], drafts: &mut [Draft]) {
        let of =
            |object: &ObjectRef, labels| Candidates::<ClientTrafficPolicy>::of(self.view, object, labels);
        let own = of(&self.reference, self.object.metadata.labels.as_ref());
        let of_sets: BTreeMap<_, _> = sets
            .iter()
            .map(|set| {
                (
                    &set.reference,
                    of(&set.reference, set.object.metadata.labels.as_ref()),
                )
            })
            .collect();
        for draft in drafts {
            let closest = of_sets.get(&draft.parent);
            let policy = match closest {
                Some(of_set) => of_set
                    .most_specific(Some(&draft.name))
                    .or_else(|| own.winner(None)),
                None => own.most_specific(Some(&draft.name)),
            };
            if let Some(policy) = policy {
                let hostname = draft.hostname.clone();
                let found = client::translate(self.view, policy, &draft.key, hostname.as_deref());
                draft.apply(&ObjectRef::of(policy.as_ref()), found);
            }
        }
    }

    fn bind(&self, drafts: &mut [Draft]) -> BTreeMap<Port, u16> {
        let ports: BTreeSet<_> = drafts
            .iter()
            .filter(|d| d.holds_port())
            .map(Draft::transport)
            .collect();
        let kubernetes = self
            .parameters
            .proxy
            .provider
            .as_ref()
            .and_then(|p| p.kubernetes.as_ref());
        let as_is = matches!(self.view.environment().mode, Mode::Standalone(_))
            || kubernetes.is_some_and(|k| k.use_listener_port_as_container_port == Some(true));
        if as_is {
            return ports.into_iter().map(|port| (port, port.number)).collect();
        }
        let mut bound = ports::bind(&ports);
        if self.refused.is_some() {
            bound.extend(self.served(&ports));
        }
        for draft in drafts
            .iter_mut()
            .filter(|d| d.holds_port() && !bound.contains_key(&d.transport()))
        {
            let message = format!("port {}: the pod has no port left to bind it as", draft.port);
            draft.refuse(Fault::new("PortUnavailable", message));
        }
        bound
    }

    /// How the Service that is there says that these ports are bound.
    fn served(&self, ports: &BTreeSet<Port>) -> BTreeMap<Port, u16> {
        let name = infra::service_name(
            self.gateway,
            &self.object.spec.gateway_class_name,
            &self.parameters.proxy,
        );
        let service = self.view.get::<Service>(&self.gateway.namespace, &name);
        let theirs = service
            .as_ref()
            .and_then(|service| service.spec.as_ref()?.ports.as_ref());
        let bound = |port: &ServicePort| {
            let Some(IntOrString::Int(target)) = port.target_port else {
                return None;
            };
            let of = Port {
                number: u16::try_from(port.port).ok()?,
                udp: port.protocol.as_deref() == Some("UDP"),
            };
            Some((of, u16::try_from(target).ok()?)).filter(|(of, _)| ports.contains(of))
        };
        theirs.into_iter().flatten().filter_map(bound).collect()
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
            bundle.add(draft.key.to_string(), Body::Listener(resource(draft, *bind_port)));
        }
        BTreeMap::from([(self.gateway.clone(), bundle)])
    }

    fn model(
        &self,
        listeners: &Listeners,
        serves: bool,
        client_certificate: Option<&ObjectRef>,
    ) -> GatewayModel {
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
                serving: serves && draft.serves(),
            })
        };
        GatewayModel {
            gateway: self.gateway.clone(),
            listeners: listeners.drafts.iter().filter_map(listener).collect(),
            routing: self.routing(),
            backend_client_certificate: client_certificate.cloned(),
            policies: policies.clone(),
        }
    }

    /// What has to run. A port stays while its listener cannot serve, so that a missing Secret costs nobody his address;
    /// all of it stays while the Gateway is refused or has no usable listener.
    fn infra(&self, listeners: &Listeners) -> Infrastructure {
        if self.view.environment().mode != Mode::Cluster {
            return Infrastructure::None;
        }
        let infrastructure = self.object.spec.infrastructure.clone().unwrap_or_default();
        let port = |(port, bind_port): (&Port, &u16)| InfraPort {
            port: port.number,
            bind_port: *bind_port,
            udp: port.udp,
        };
        let infra = Infra {
            gateway: self.gateway.clone(),
            uid: self.object.metadata.uid.clone().unwrap_or_default(),
            class: self.object.spec.gateway_class_name.as_str().into(),
            labels: infrastructure.labels,
            annotations: infrastructure.annotations,
            ports: listeners.bound.iter().map(port).collect(),
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

fn resource(draft: &Draft, bind_port: u16) -> v1::Listener {
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
        client: draft.client.clone(),
    }
}
