//! Services that proxies ask by themselves (authorizers, processors, key sets, identity providers): which backends they are,
//! and what `backendSettings` ask of them. What the settings come to is what a BackendTrafficPolicy says: see [`cluster`].

use std::fmt::Write;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use sluice_config::v1;
use sluice_config::v1::resource::Body;
use sluice_crds::envoy::{BackendCluster, BackendTrafficPolicySpec, ClusterSettings};

use super::reader::Reader;
use super::{cluster, traffic};
use crate::engine::{BackendUsage, Output, Unit, View};
use crate::store::{Kind, ObjectRef};
use crate::translate::fault::Fault;
use crate::translate::model::{LookUp, RoutingType};
use crate::translate::route::{Context, millis};

/// What is asked of one's own calls to a backend: `ClusterSettings` that are not empty, as JSON, so that backends of which
/// the same is asked are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Settings(Arc<str>);

/// Several backends that stand for one, or all hosts of the Internet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// The backends. Empty: the host that a call names, with TLS.
    members: Vec<Member>,
    settings: Option<Settings>,
}

/// One of several backends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Member {
    key: String,
    weight: u32,
    fallback: bool,
}

impl Settings {
    /// `None`: nothing is asked.
    fn of(from: &ClusterSettings) -> Option<Self> {
        let text = serde_json::to_string(from).ok()?;
        (text != "{}").then(|| Self(text.into()))
    }

    /// Tells apart backends by them.
    pub fn digest(&self) -> String {
        hex(self.0.as_bytes())
    }

    fn read(&self) -> ClusterSettings {
        // It was written from one.
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// Adds what they ask of a backend; says how its names are looked up, if they do. What is wrong with them has been told
    /// where they stand.
    pub fn apply(&self, view: &View<'_>, owner: &ObjectRef, backend: &mut v1::Backend) -> Option<LookUp> {
        let context = Context::new(view, owner, RoutingType::default(), None);
        apply(&mut Reader::new(&context, String::new()), &self.read(), backend)
    }
}

impl Destination {
    /// Key of its resource.
    fn key(&self) -> String {
        format!("backend/own/{}", hex(format!("{self:?}").as_bytes()))
    }

    /// Translates it.
    pub fn translate(&self, view: &View<'_>) -> Output {
        let key = self.key();
        let mut backend = v1::Backend {
            // Nothing is counted under it: its members, or its hosts, have names of their own.
            name: key.trim_start_matches("backend/").to_owned(),
            ..v1::Backend::default()
        };
        if self.members.is_empty() {
            backend.dynamic = Some(v1::DynamicResolver {
                allow_local: view.environment().allows_local_endpoints(),
                ..v1::DynamicResolver::default()
            });
            backend.tls = Some(v1::UpstreamTls {
                system_ca: true,
                ..v1::UpstreamTls::default()
            });
        }
        // It has no owner: what is the same for several is one.
        let owner = ObjectRef::new(Kind::Service, "", "");
        let settings = self.settings.as_ref();
        let look_up = settings.and_then(|settings| settings.apply(view, &owner, &mut backend));
        if let Some(dynamic) = &mut backend.dynamic {
            dynamic.dns = look_up.map(Into::into);
        }
        if !self.members.is_empty() {
            // What is asked of connections is asked of those to its members.
            backend = v1::Backend {
                name: backend.name,
                own_calls: backend.own_calls,
                ..v1::Backend::default()
            };
        }
        let member = |member: &Member| v1::WeightedBackend {
            backend: member.key.clone(),
            weight: member.weight,
            fallback: member.fallback,
            ..v1::WeightedBackend::default()
        };
        if !self.members.is_empty() {
            let own = backend.own_calls.get_or_insert_default();
            own.members = self.members.iter().map(member).collect();
        }
        let mut output = Output::default();
        output.shared.add(key, Body::Backend(backend));
        output
    }
}

impl Reader<'_, '_, '_> {
    /// Key of the backend that a service of the proxy's own is asked at.
    pub fn backend(
        &mut self,
        owner: &ObjectRef,
        cluster: &BackendCluster,
        usage: BackendUsage,
        field: &str,
    ) -> Option<String> {
        let settings = self.settings(cluster, field);
        let single = cluster.backend_ref.iter().map(|object| (object, 1, false));
        let several = cluster.backend_refs.iter().map(|backend| {
            let weight = backend.weight.unwrap_or(1);
            (&backend.object, weight, backend.fallback == Some(true))
        });
        let mut context = self.context.of(owner);
        context.settings.clone_from(&settings);
        let mut members = Vec::new();
        let mut weights = Vec::new();
        for (i, (object, weight, fallback)) in single.chain(several).enumerate() {
            let at = format_args!("spec.{field}.backendRefs[{i}]");
            weights.push(weight);
            let fallback = fallback || context.is_fallback(object);
            members.extend(context.backend(object, usage, at).map(|key| Member {
                key,
                weight: u32::try_from(weight).unwrap_or_default(),
                fallback,
            }));
        }
        let problem = context.problems.first_unresolved().cloned();
        let needs = std::mem::take(&mut context.needs);
        self.needs.extend(needs);
        if let Some(problem) = problem {
            self.faults.push(Fault::new("Invalid", problem.message));
        }
        for weight in &weights {
            self.number(*weight, format_args!("{field}.backendRefs[].weight"));
        }
        match members.len() {
            0 if weights.is_empty() => {
                self.fault(field, "it names no backend");
                None
            }
            0 => None,
            1 => members.pop().map(|member| member.key),
            _ => Some(self.destination(Destination { members, settings })),
        }
    }

    /// Key of a backend for a host of the Internet; `name` tells it apart from others of the same scope.
    pub fn host(
        &mut self,
        name: &str,
        (host, port, https): (&str, u16, bool),
        cluster: &BackendCluster,
        field: &str,
    ) -> String {
        let plain = host.trim_start_matches('[').trim_end_matches(']');
        let mut endpoint = v1::Endpoint {
            port: u32::from(port),
            ..v1::Endpoint::default()
        };
        if plain.parse::<std::net::IpAddr>().is_ok() {
            plain.clone_into(&mut endpoint.address);
        } else {
            host.clone_into(&mut endpoint.hostname);
        }
        let tls = https.then(|| v1::UpstreamTls {
            hostname: plain.to_owned(),
            system_ca: true,
            ..v1::UpstreamTls::default()
        });
        let mut backend = v1::Backend {
            name: format!("{host}:{port}"),
            tls,
            ..v1::Backend::default()
        };
        if let Some(settings) = self.settings(cluster, field) {
            let look_up = settings.apply(self.context.view, self.context.referrer, &mut backend);
            endpoint.dns = look_up.filter(|_| !endpoint.hostname.is_empty()).map(Into::into);
        }
        let endpoints = Body::Endpoints(v1::Endpoints {
            endpoints: vec![endpoint],
        });
        backend.endpoints = self.resource("endpoints/host", name, endpoints);
        self.resource("backend/host", name, Body::Backend(backend))
    }

    /// Key of a backend for any host, by HTTPS; `None`: nothing is asked of it that would need one.
    pub fn hosts(&mut self, cluster: &BackendCluster, field: &str) -> Option<String> {
        let settings = Some(self.settings(cluster, field)?);
        let members = Vec::new();
        Some(self.destination(Destination { members, settings }))
    }

    fn destination(&mut self, destination: Destination) -> String {
        let key = destination.key();
        self.needs.push(Unit::Destination(destination));
        key
    }

    /// What is asked of a service. What is wrong is told here; where it is applied nobody would hear of it.
    pub fn settings(&mut self, cluster: &BackendCluster, field: &str) -> Option<Settings> {
        let from = cluster.backend_settings.as_ref()?;
        let outer = std::mem::replace(&mut self.prefix, format!("{field}.backendSettings."));
        apply(self, from, &mut v1::Backend::default());
        self.prefix = outer;
        Settings::of(&without_bounds(from))
    }
}

/// How long a call may take in milliseconds, if the settings say so.
pub fn timeout(cluster: &BackendCluster) -> Option<u64> {
    let http = cluster
        .backend_settings
        .as_ref()?
        .timeout
        .as_ref()?
        .http
        .as_ref()?;
    let bounds = [http.request_timeout, http.max_stream_duration];
    bounds
        .into_iter()
        .flatten()
        .map(millis)
        .filter(|ms| *ms != 0)
        .min()
}

/// The settings but for what the question itself carries.
fn without_bounds(from: &ClusterSettings) -> ClusterSettings {
    let mut settings = from.clone();
    if let Some(timeout) = &mut settings.timeout
        && let Some(http) = &mut timeout.http
    {
        (http.request_timeout, http.max_stream_duration) = (None, None);
    }
    settings
}

fn apply(
    reader: &mut Reader<'_, '_, '_>,
    settings: &ClusterSettings,
    backend: &mut v1::Backend,
) -> Option<LookUp> {
    let spec = BackendTrafficPolicySpec {
        cluster: settings.clone(),
        ..BackendTrafficPolicySpec::default()
    };
    let look_up = cluster::apply(reader, &spec, backend);
    let retry = settings.retry.as_ref();
    let http = settings
        .timeout
        .as_ref()
        .and_then(|timeout| timeout.http.as_ref());
    let own = v1::OwnCalls {
        members: Vec::new(),
        retry: retry.and_then(|from| traffic::retry(reader, from)),
        idle_timeout_ms: http
            .and_then(|http| http.stream_idle_timeout)
            .map(millis)
            .unwrap_or_default(),
    };
    backend.own_calls = (own != v1::OwnCalls::default()).then_some(own);
    look_up
}

fn hex(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().take(12).fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
