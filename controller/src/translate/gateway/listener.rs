//! One listener by itself, of a Gateway or a ListenerSet: what it asks for, and what is wrong with it.
//!
//! What becomes of it beside others is a matter of [`super::conflict`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_config::{key, v1};
use sluice_crds::gateway::{
    AllowedRoutes, FromNamespaces, Gateway, Listener, ListenerFilterType, ProtocolType, TLSModeType,
};

use super::ports::Port;
use super::tls;
use crate::engine::{Unit, View};
use crate::store::{Kind, ObjectRef};
use crate::translate::fault::Fault;
use crate::translate::model::{AllowedNamespaces, BackendTls, Protocol, RoutingType};
use crate::translate::policy::envoy::client::ClientPolicy;
use crate::translate::route;

/// What a listener gets from its Gateway.
pub struct Surroundings<'a, 'v> {
    /// Read access.
    pub view: &'a View<'v>,
    /// The Gateway.
    pub gateway: &'a Gateway,
    /// Its name.
    pub reference: &'a ObjectRef,
    /// How Services are reached.
    pub routing: RoutingType,
    /// What is said of TLS to backends.
    pub backend_tls: &'a BackendTls,
}

/// A listener in translation.
pub struct Draft {
    /// Key of its resource.
    pub key: Arc<str>,
    /// The Gateway or ListenerSet that declares it.
    pub parent: ObjectRef,
    /// Its name there.
    pub name: Arc<str>,
    /// Its port.
    pub port: u16,
    /// `None`: one that is not supported.
    pub protocol: Option<Protocol>,
    /// Lower case; `None`: any.
    pub hostname: Option<Arc<str>>,
    /// Route kinds that may attach.
    pub kinds: Vec<Kind>,
    /// Namespaces from which routes may attach.
    pub namespaces: AllowedNamespaces,
    /// Why it is not accepted.
    pub accepted: Option<Fault>,
    /// What is wrong with its references.
    pub resolved: Option<Fault>,
    /// With what it conflicts.
    pub conflict: Option<Fault>,
    /// With what its TLS settings overlap.
    pub overlap: Option<String>,
    /// TLS, if it terminates it and has a certificate.
    pub tls: Option<v1::TlsTermination>,
    /// Its filters.
    pub filters: Vec<v1::Filter>,
    /// Units that its configuration needs.
    pub needs: Vec<Unit>,
    /// How its clients are treated.
    pub client: Option<v1::ClientSettings>,
    /// The ClientTrafficPolicy for it.
    pub client_policy: Option<ObjectRef>,
    /// Whether another listener's settings hold for its connections, in spite of that policy.
    pub overruled: bool,
    /// Whether it serves HTTP/3, on the UDP port of the same number.
    pub http3: bool,
    /// Resources that belong to its configuration.
    pub resources: Vec<(String, v1::resource::Body)>,
    /// False if it is not even known what it asks for: then it stands in nobody's way.
    pub well_formed: bool,
}

impl Draft {
    /// The draft of one listener of `parent`.
    pub fn new(around: &Surroundings<'_, '_>, parent: &ObjectRef, spec: &Listener) -> Self {
        let mut draft = Self::claim(parent, spec);
        if draft.terminates() {
            draft.read_tls(around, spec);
        }
        draft.read_kinds(spec.allowed_routes.as_ref());
        draft.read_filters(around, spec);
        draft
    }

    /// What the listener asks for, without what it names.
    pub fn claim(parent: &ObjectRef, spec: &Listener) -> Self {
        let mut draft = Self::plain(parent, spec);
        draft.read_protocol(spec);
        draft.read_hostname(spec);
        draft.well_formed = draft.accepted.is_none();
        draft
    }

    fn plain(parent: &ObjectRef, spec: &Listener) -> Self {
        let namespaces = spec
            .allowed_routes
            .as_ref()
            .and_then(|allowed| allowed.namespaces.as_ref());
        let from = namespaces.and_then(|n| n.from).unwrap_or(FromNamespaces::Same);
        Self {
            key: key::listener(parent.kind.as_str(), &parent.namespace, &parent.name, &spec.name).into(),
            parent: parent.clone(),
            name: spec.name.as_str().into(),
            port: spec.port,
            protocol: None,
            hostname: None,
            kinds: Vec::new(),
            namespaces: AllowedNamespaces::read(from, namespaces.and_then(|n| n.selector.as_ref())),
            accepted: None,
            resolved: None,
            conflict: None,
            overlap: None,
            tls: None,
            filters: Vec::new(),
            needs: Vec::new(),
            client: None,
            client_policy: None,
            overruled: false,
            http3: false,
            resources: Vec::new(),
            well_formed: false,
        }
    }

    fn read_protocol(&mut self, spec: &Listener) {
        if spec.port == 0 {
            self.refuse(Fault::new("PortUnavailable", "port: 0 is not a port"));
        }
        let mode = spec
            .tls
            .as_ref()
            .and_then(|tls| tls.mode.as_ref())
            .unwrap_or(&TLSModeType::Terminate);
        self.protocol = match (&spec.protocol, mode) {
            (ProtocolType::Http, _) => Some(Protocol::Http),
            (ProtocolType::Tcp, _) => Some(Protocol::Tcp),
            (ProtocolType::Udp, _) => Some(Protocol::Udp),
            (ProtocolType::Https, TLSModeType::Terminate) => Some(Protocol::Https),
            (ProtocolType::Tls, TLSModeType::Terminate) => Some(Protocol::TlsTerminate),
            (ProtocolType::Tls, TLSModeType::Passthrough) => Some(Protocol::TlsPassthrough),
            (ProtocolType::Https | ProtocolType::Tls, mode) => {
                let why = format_args!("{mode} does not go with protocol {}", spec.protocol);
                self.refuse(Fault::unsupported(format_args!("tls.mode"), why));
                None
            }
            (ProtocolType::Other(other), _) => {
                let message = format!("protocol: {other:?} is not supported");
                self.refuse(Fault::new("UnsupportedProtocol", message));
                None
            }
        };
    }

    fn read_hostname(&mut self, spec: &Listener) {
        let Some(hostname) = spec.hostname() else { return };
        if matches!(self.protocol, Some(Protocol::Tcp | Protocol::Udp)) {
            return;
        }
        let hostname = hostname.to_ascii_lowercase();
        if is_hostname(&hostname) {
            self.hostname = Some(hostname.into());
        } else {
            self.refuse(Fault::unsupported(
                format_args!("hostname"),
                format_args!("{hostname:?} is not a hostname"),
            ));
        }
    }

    fn read_tls(&mut self, around: &Surroundings<'_, '_>, spec: &Listener) {
        let is_https = self.protocol == Some(Protocol::Https);
        let validation = tls::validation_for(around.gateway, self.port).filter(|_| is_https);
        let found = tls::terminate(
            around.view,
            &self.parent,
            spec.tls.as_ref(),
            around.reference,
            validation,
        );
        self.tls = found.config;
        self.needs.extend(found.needs);
        self.resolved = found.resolved;
        if let Some(fault) = found.accepted {
            self.refuse(fault);
        }
    }

    fn read_kinds(&mut self, allowed: Option<&AllowedRoutes>) {
        let supported = self.protocol.map(route_kinds).unwrap_or_default();
        let named = allowed
            .map(|allowed| allowed.kinds.as_slice())
            .unwrap_or_default();
        if named.is_empty() {
            self.kinds = supported.to_vec();
            return;
        }
        for (index, named) in named.iter().enumerate() {
            let kind = Kind::parse(named.group(), &named.kind).filter(|kind| supported.contains(kind));
            match kind {
                Some(kind) if !self.kinds.contains(&kind) => self.kinds.push(kind),
                Some(_) => {}
                None => {
                    let field = format_args!("allowedRoutes.kinds[{index}]");
                    let why = format_args!(
                        "{} of group {:?} does not go with the protocol",
                        named.kind,
                        named.group()
                    );
                    self.resolved
                        .get_or_insert(Fault::at("InvalidRouteKinds", field, why));
                }
            }
        }
    }

    fn read_filters(&mut self, around: &Surroundings<'_, '_>, spec: &Listener) {
        let filters = spec
            .filters
            .as_ref()
            .map(|filters| filters.requests.as_slice())
            .unwrap_or_default();
        if filters.is_empty() {
            return;
        }
        if !matches!(self.protocol, Some(Protocol::Http | Protocol::Https)) {
            let why = "only listeners of protocol HTTP and HTTPS have filters";
            self.refuse(Fault::unsupported(format_args!("filters"), why));
            return;
        }
        let parent = self.parent.clone();
        let mut context = route::Context::new(around.view, &parent, around.routing, Some(around.backend_tls));
        for (index, filter) in filters.iter().enumerate() {
            let field = format_args!("filters.requests[{index}]");
            let translated = match (&filter.type_, &filter.external_auth) {
                (ListenerFilterType::ExternalAuth, Some(spec)) => {
                    route::external_auth(&mut context, spec, format_args!("{field}.externalAuth"))
                }
                (other, _) => Err(Fault::unsupported(
                    format_args!("{field}.type"),
                    format_args!("{other}"),
                )),
            };
            match translated {
                Ok(filter) => self.filters.push(v1::Filter { filter: Some(filter) }),
                Err(fault) => self.refuse(fault),
            }
        }
        if let Some(fault) = context.problems.first_unresolved() {
            self.resolved.get_or_insert_with(|| fault.clone());
        }
        self.needs.extend(context.needs);
    }

    /// Has a ClientTrafficPolicy applied. One that cannot be honoured says so itself; a listener whose clients it would
    /// have to show certificates serves nobody then.
    pub fn apply(&mut self, policy: &ObjectRef, found: ClientPolicy) {
        self.client_policy = Some(policy.clone());
        let demands = found.validation.is_some() && self.terminates();
        if let Some(fault) = found.faults.first() {
            if demands {
                self.tls = None;
                let message = format!("{policy}: {}", fault.message);
                self.resolved
                    .get_or_insert(Fault::new("InvalidClientCertificateRef", message));
            }
            return;
        }
        self.http3 = found.settings.http3 && self.protocol == Some(Protocol::Https);
        let settings = v1::ClientSettings {
            http3: self.http3,
            ..found.settings
        };
        self.client = Some(settings).filter(|settings| *settings != v1::ClientSettings::default());
        if let Some(tls) = &mut self.tls {
            tls.parameters = found.tls;
            if found.validation.is_some() {
                tls.client_validation = found.validation;
            }
        }
        self.needs.extend(found.needs);
        self.resources.extend(found.resources);
    }

    /// Notes why the listener is not accepted; the first reason counts.
    pub fn refuse(&mut self, fault: Fault) {
        self.accepted.get_or_insert(fault);
    }

    /// Whether it terminates TLS.
    pub fn terminates(&self) -> bool {
        matches!(self.protocol, Some(Protocol::Https | Protocol::TlsTerminate))
    }

    /// Whether it takes its place on its port, be it able to serve or not.
    pub fn holds_port(&self) -> bool {
        self.well_formed && self.conflict.is_none()
    }

    /// Whether it can serve.
    pub fn serves(&self) -> bool {
        self.holds_port()
            && self.accepted.is_none()
            && !self.kinds.is_empty()
            && (self.tls.is_some() || !self.terminates())
    }

    /// The ports that it holds.
    pub fn ports(&self) -> impl Iterator<Item = Port> {
        let held = [Some(self.transport()), self.http3.then(|| self.quic())];
        let holds = self.holds_port();
        held.into_iter().flatten().filter(move |_| holds)
    }

    /// The port of HTTP/3, where it is served.
    pub fn quic(&self) -> Port {
        Port {
            number: self.port,
            udp: true,
        }
    }

    /// Its port with the transport protocol.
    pub fn transport(&self) -> Port {
        Port {
            number: self.port,
            udp: self.protocol == Some(Protocol::Udp),
        }
    }

    /// Keys of the resources that its configuration consists of.
    pub fn resource_keys(&self) -> BTreeSet<&str> {
        let tls = self.tls.iter();
        let secrets = tls.flat_map(|tls| {
            let ca = tls
                .client_validation
                .iter()
                .flat_map(|validation| &validation.ca_secrets);
            tls.certificate_secrets.iter().chain(ca)
        });
        secrets.map(String::as_str).chain([&*self.key]).collect()
    }
}

/// The kinds of routes that go with a protocol.
fn route_kinds(protocol: Protocol) -> &'static [Kind] {
    match protocol {
        Protocol::Http | Protocol::Https => &[Kind::HTTPRoute, Kind::GRPCRoute],
        Protocol::TlsPassthrough => &[Kind::TLSRoute],
        Protocol::TlsTerminate => &[Kind::TLSRoute, Kind::TCPRoute],
        Protocol::Tcp => &[Kind::TCPRoute],
        Protocol::Udp => &[Kind::UDPRoute],
    }
}

/// Whether it is a name of the DNS (RFC 1123), perhaps with a wildcard label in front, in lower case.
fn is_hostname(hostname: &str) -> bool {
    let name = hostname.strip_prefix("*.").unwrap_or(hostname);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    hostname.len() <= 253 && name.split('.').all(is_label) && name.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::is_hostname;

    #[test]
    fn hostnames() {
        for good in ["a", "example.com", "*.example.com", "x-1.example"] {
            assert!(is_hostname(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "*.",
            "a..b",
            "-a.b",
            "a_b",
            "1.2.3.4",
            "foo.*.com",
            "Example.com",
        ] {
            assert!(!is_hostname(bad), "{bad}");
        }
    }
}
