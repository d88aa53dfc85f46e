//! What a route (or a listener's filter) refers to: backends, by kind, permission, existence and protocol.
//!
//! Owns the decision whether a reference to a backend is valid, and the collection of the units that it needs.

use std::fmt;

use k8s_openapi::api::core::v1::Service;
use sluice_config::v1;
use sluice_crds::envoy::Backend;
use sluice_crds::gateway::{BackendObjectReference, XBackend};

use super::problems::Problems;
use super::session;
use crate::engine::{BackendId, BackendUsage, Unit, View};
use crate::store::{Kind, ObjectRef};
use crate::translate::backend::{self, protocol, service};
use crate::translate::fault::Fault;
use crate::translate::grant;
use crate::translate::model::{BackendTls, RoutingType};
use crate::translate::policy::envoy::destination::Settings;
use crate::translate::policy::envoy::{Governing, Policies, RoutePolicies};
use crate::translate::policy::{backend_tls, backend_traffic};

/// Where references are resolved from, and what came of it.
pub struct Context<'v, 'w> {
    /// Read access.
    pub view: &'v View<'w>,
    /// The object that holds the references.
    pub referrer: &'v ObjectRef,
    /// What was wrong.
    pub problems: Problems,
    /// Units that the configuration made here needs.
    pub needs: Vec<Unit>,
    routing: RoutingType,
    routing_of_rule: Option<RoutingType>,
    tls: Option<&'v BackendTls>,
    /// Resources that belong to the configuration made here.
    pub resources: Vec<(String, v1::resource::Body)>,
    /// Sets of cookies, of which all of one must match, that filters of the rule at hand ask for.
    pub cookies: Vec<Vec<v1::ValueMatch>>,
    /// Tells apart what one route comes to at different listeners.
    pub variant: String,
    /// The policies for the route, and those that it inherits.
    pub policies: Option<(&'v RoutePolicies, &'v Policies)>,
    /// BackendTrafficPolicies of the rule at hand; see [`BackendId::traffic`].
    pub traffic: Vec<ObjectRef>,
    /// What is asked of calls that proxies make for themselves; see [`BackendId::settings`].
    pub settings: Option<Settings>,
    /// True: the references are those of who runs the class, and need no grant in other namespaces.
    pub is_of_class: bool,
    /// Pattern of the name by which metrics know requests to a rule's backends; `None`: each backend's.
    pub stat_name: Option<&'v str>,
}

impl<'v, 'w> Context<'v, 'w> {
    /// A context for a gateway that reaches Services by `routing` and speaks `tls` to backends.
    pub fn new(
        view: &'v View<'w>,
        referrer: &'v ObjectRef,
        routing: RoutingType,
        tls: Option<&'v BackendTls>,
    ) -> Self {
        Self {
            view,
            referrer,
            problems: Problems::default(),
            needs: Vec::new(),
            routing,
            routing_of_rule: None,
            tls,
            resources: Vec::new(),
            cookies: Vec::new(),
            variant: String::new(),
            policies: None,
            traffic: Vec::new(),
            settings: None,
            is_of_class: false,
            stat_name: None,
        }
    }

    /// Names what is translated here in keys.
    pub fn scope(&self) -> String {
        let (kind, namespace, name) = (self.referrer.kind, &self.referrer.namespace, &self.referrer.name);
        format!("{kind}/{namespace}/{name}{}", self.variant)
    }

    /// Enters a rule: its backends are used as the policies say that govern it.
    pub fn enter(&mut self, rule: Option<&str>) -> Option<Governing> {
        let (own, inherited) = self.policies?;
        let governing = Governing::of(self.view, own, inherited, rule);
        self.cookies.clear();
        self.traffic = governing.traffic();
        self.routing_of_rule = governing.routing();
        Some(governing)
    }

    /// A context for references that `referrer` holds, to backends that are reached as this one's are.
    pub fn of<'s>(&'s self, referrer: &'s ObjectRef) -> Context<'s, 'w> {
        Context {
            is_of_class: self.is_of_class,
            ..Context::new(self.view, referrer, self.routing, self.tls)
        }
    }

    /// Key of the backend that `reference` names; `None`, with a note of why, if it must not be used.
    pub fn backend(
        &mut self,
        reference: &BackendObjectReference,
        usage: BackendUsage,
        field: fmt::Arguments<'_>,
    ) -> Option<String> {
        let (target, port) = match self.resolve(reference, usage, field) {
            Ok(found) => found,
            Err(problem) => {
                self.problems.unresolved(problem);
                return None;
            }
        };
        let problem = self.problem(&target, port, usage, field);
        let tls = self.tls.filter(|_| backend::uses_tls_policy(usage)).cloned();
        let kind = target.kind;
        let id = BackendId {
            target,
            port,
            usage,
            // Only a Service has an address of its own.
            routing: match kind {
                Kind::Service => self.routing_of_rule.unwrap_or(self.routing),
                _ => RoutingType::Endpoint,
            },
            tls: tls.unwrap_or_default(),
            traffic: self.traffic.clone(),
            settings: self.settings.clone(),
        };
        let key = backend::key(&id);
        // Needed also if it must not be connected to: statuses of XBackends and policies name the Gateways that use it.
        self.needs.push(Unit::Backend(id));
        match problem {
            None => Some(key),
            Some(problem) => {
                self.problems.unresolved(problem);
                None
            }
        }
    }

    /// True if requests go to the backend only as far as the others are not healthy enough.
    pub fn is_fallback(&self, reference: &BackendObjectReference) -> bool {
        if Kind::parse(reference.group(), reference.kind()) != Some(Kind::Backend) {
            return false;
        }
        let namespace = reference.namespace(&self.referrer.namespace);
        let found = self.view.get::<Backend>(namespace, reference.name.as_str());
        found.is_some_and(|backend| backend.spec.fallback == Some(true))
    }

    /// Session persistence that this backend asks for, or else a policy on it. One that is not valid has its own status.
    pub fn backend_session(&self, reference: &BackendObjectReference) -> Option<v1::SessionPersistence> {
        let kind = Kind::parse(reference.group(), reference.kind())?;
        let target = ObjectRef::new(
            kind,
            reference.namespace(&self.referrer.namespace),
            reference.name.as_str(),
        );
        if kind == Kind::XBackend {
            let object = self.view.get::<XBackend>(&target.namespace, &target.name)?;
            if let Some(from) = backend::x_backend::session_persistence(&object) {
                let field = format_args!("spec.sessionPersistence");
                return session::translate(from, format_args!("{target}"), field).ok();
            }
        }
        let policy = backend_traffic(self.view, &target)?;
        let from = policy.spec.session_persistence.as_ref()?;
        session::translate(
            from,
            format_args!("{target}"),
            format_args!("spec.sessionPersistence"),
        )
        .ok()
    }

    fn resolve(
        &self,
        reference: &BackendObjectReference,
        usage: BackendUsage,
        field: fmt::Arguments<'_>,
    ) -> Result<(ObjectRef, u16), Fault> {
        let namespace = reference.namespace(&self.referrer.namespace);
        let (group, kind, name) = (reference.group(), reference.kind(), reference.name.as_str());
        let Some(kind @ (Kind::Service | Kind::XBackend | Kind::Backend)) = Kind::parse(group, kind) else {
            let why = format!("{kind} of group {group:?} is not a kind of backend that is supported");
            return Err(Fault::at("InvalidKind", field, why));
        };
        // Before existence, so that nobody learns what is in a namespace that is closed to him.
        let target = ObjectRef::new(kind, namespace, name);
        if !self.is_of_class {
            grant::permit(self.view, self.referrer, &target)
                .map_err(|why| Fault::at("RefNotPermitted", field, why))?;
        }
        let port = match kind {
            Kind::XBackend => self.x_backend(&target, field)?,
            Kind::Backend => {
                let found = self.view.get::<Backend>(&target.namespace, &target.name);
                let why = format_args!("{target} does not exist");
                found.ok_or_else(|| Fault::at("BackendNotFound", field, why))?;
                // Each of its endpoints has its own.
                0
            }
            _ => self.service(&target, reference.port, usage, field)?,
        };
        Ok((target, port))
    }

    fn service(
        &self,
        target: &ObjectRef,
        port: Option<u16>,
        usage: BackendUsage,
        field: fmt::Arguments<'_>,
    ) -> Result<u16, Fault> {
        let not_found = |why: fmt::Arguments<'_>| Fault::at("BackendNotFound", field, why);
        let Some(object) = self.view.get::<Service>(&target.namespace, &target.name) else {
            return Err(not_found(format_args!("{target} does not exist")));
        };
        if service::is_external_name(&object) {
            // A name outside the cluster may point anywhere (CVE-2021-25740).
            return Err(Fault::unsupported(
                field,
                format_args!("{target} is of type ExternalName"),
            ));
        }
        let Some(number) = port else {
            return Err(Fault::unsupported(
                field,
                format_args!("a reference to {target} needs a port"),
            ));
        };
        let udp = usage == BackendUsage::Udp;
        let Some(port) = service::port(&object, number, udp) else {
            return Err(if service::port(&object, number, !udp).is_some() {
                let protocol = if udp { "UDP" } else { "TCP" };
                Fault::at(
                    "UnsupportedProtocol",
                    field,
                    format_args!("port {number} of {target} is not a {protocol} port"),
                )
            } else {
                not_found(format_args!("{target} has no port {number}"))
            });
        };
        let tls = || backend_tls(self.view, target, port.name.as_deref()).is_some();
        protocol::of_service(usage, port.app_protocol.as_deref(), tls).map_err(|why| {
            Fault::at(
                "UnsupportedProtocol",
                field,
                format_args!("port {number} of {target}: {why}"),
            )
        })?;
        Ok(number)
    }

    fn x_backend(&self, target: &ObjectRef, field: fmt::Arguments<'_>) -> Result<u16, Fault> {
        let Some(object) = self.view.get::<XBackend>(&target.namespace, &target.name) else {
            return Err(Fault::at(
                "BackendNotFound",
                field,
                format_args!("{target} does not exist"),
            ));
        };
        Ok(backend::x_backend::port(&object))
    }

    /// Why a backend that is there must not be connected to: least of all in cleartext if the TLS that it asks for, or a
    /// policy, cannot be had.
    fn problem(
        &self,
        target: &ObjectRef,
        port: u16,
        usage: BackendUsage,
        field: fmt::Arguments<'_>,
    ) -> Option<Fault> {
        if target.kind == Kind::XBackend {
            let object = self.view.get::<XBackend>(&target.namespace, &target.name)?;
            let fault = backend::x_backend::speech(self.view, &object, usage).err()?;
            let why = format_args!("{target}: {}", fault.message);
            return Some(Fault::at(fault.reason, field, why));
        }
        if target.kind == Kind::Backend {
            let object = self.view.get::<Backend>(&target.namespace, &target.name)?;
            let fault = backend::envoy::reach(self.view, &object, usage).err()?;
            let reason = match fault.reason {
                "Invalid" => "UnsupportedValue",
                reason => reason,
            };
            return Some(Fault::at(
                reason,
                field,
                format_args!("{target}: {}", fault.message),
            ));
        }
        if !backend::uses_tls_policy(usage) {
            return None;
        }
        let object = self.view.get::<Service>(&target.namespace, &target.name)?;
        let port = service::port(&object, port, false)?;
        let tls = backend_tls(self.view, target, port.name.as_deref())?;
        let why = tls.config.err()?;
        Some(Fault::at(
            "InvalidBackendTLSPolicy",
            field,
            format_args!("{}: {why}", tls.policy),
        ))
    }
}
