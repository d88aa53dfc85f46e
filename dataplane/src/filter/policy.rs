//! The parts of a rule's policy; [`super::order`] knows in which order they run.

use std::net::IpAddr;
use std::time::Duration;

use sluice_config::v1;

use super::admission::Admission;
use super::bandwidth::Bandwidth;
use super::compress::Compressors;
use super::ext_proc::Processor;
use super::order::{Order, Rank, Stage};
use super::overrides::Overrides;
use super::{
    ApiKeyAuth, Authorization, BasicAuth, Cors, Csrf, ExternalAuth, Fault, Filter, GlobalRateLimit, Jwt,
    Lookup, Oidc, RateLimit, field, status,
};

/// All filters of a rule.
#[derive(Debug, Default)]
pub struct Chain {
    /// In the order in which they run.
    pub filters: Vec<Filter>,
    /// The place of each in its order.
    ranks: Vec<Rank>,
}

impl Chain {
    /// Puts the filters of a rule's policy and the rule's own in order. A Cors filter of its own runs where the policy's would, so
    /// that a preflight request needs no credentials.
    ///
    /// # Errors
    /// `field: reason` of what cannot be honoured. A part that this version does not know is never left out.
    pub fn compile(
        rule: &v1::HttpRule,
        route: &str,
        order: &Order,
        lookup: &mut dyn Lookup,
    ) -> Result<Self, String> {
        let own = Filter::compile_all(&rule.filters, lookup)?;
        let mut all = match &rule.policy {
            Some(policy) => of_policy(policy, route, lookup).map_err(|e| format!("policy.{e}"))?,
            None => Vec::new(),
        };
        if rule.session_persistence.is_some() {
            all.push((Stage::Session, Filter::Session));
        }
        all.extend(own.into_iter().map(|filter| (stage(&filter), filter)));
        let mut all: Vec<_> = all
            .into_iter()
            .map(|(stage, filter)| (order.rank(stage), filter))
            .collect();
        all.sort_by_key(|(rank, _)| *rank);
        let (ranks, filters) = all.into_iter().unzip();
        Ok(Self { filters, ranks })
    }

    /// The rank of the filter at this place.
    pub fn rank(&self, at: usize) -> Option<Rank> {
        self.ranks.get(at).copied()
    }

    /// The place of the first filter after `rank`.
    pub fn after(&self, rank: Rank) -> usize {
        self.ranks.partition_point(|known| *known <= rank)
    }
}

/// The stage of a rule's own filter.
fn stage(own: &Filter) -> Stage {
    match own {
        Filter::Cors(_) => Stage::Cors,
        Filter::CredentialInjection(_) => Stage::CredentialInjection,
        _ => Stage::Own,
    }
}

fn of_policy(
    policy: &v1::Policy,
    route: &str,
    lookup: &mut dyn Lookup,
) -> Result<Vec<(Stage, Filter)>, String> {
    let mut all = Vec::new();
    if !policy.response_overrides.is_empty() {
        all.push((Stage::ResponseOverrides, Filter::ResponseOverrides));
    }
    if !policy.compressors.is_empty() {
        all.push((Stage::Compression, Filter::Compression));
    }
    if let Some(refuse) = &policy.refuse {
        let status = field("refuse.status", status(refuse.status))?;
        all.push((Stage::Refuse, Filter::FixedResponse(status)));
    }
    if let Some(fault) = &policy.fault {
        let fault = field("fault", Fault::compile(fault))?;
        all.push((Stage::Fault, Filter::Fault(fault.into())));
    }
    if let Some(cors) = &policy.cors {
        let cors = field("cors", Cors::compile(cors))?;
        all.push((Stage::Cors, Filter::Cors(cors.into())));
    }
    if let Some(csrf) = &policy.csrf {
        let csrf = field(
            "csrf",
            Csrf::compile(csrf, lookup.route_metrics(counted_as(Some(policy), route))),
        )?;
        all.push((Stage::Csrf, Filter::Csrf(csrf.into())));
    }
    if let Some(auth) = &policy.external_auth {
        let auth = field("external_auth", ExternalAuth::compile(auth, lookup))?;
        all.push((Stage::ExternalAuth, Filter::ExternalAuth(auth.into())));
    }
    if let Some(auth) = &policy.api_key_auth {
        let auth = field("api_key_auth", ApiKeyAuth::compile(auth, lookup))?;
        all.push((Stage::ApiKeyAuth, Filter::ApiKeyAuth(auth.into())));
    }
    if let Some(auth) = &policy.basic_auth {
        let auth = field("basic_auth", BasicAuth::compile(auth, lookup))?;
        all.push((Stage::BasicAuth, Filter::BasicAuth(auth.into())));
    }
    if let Some(oidc) = &policy.oidc {
        let oidc = field("oidc", Oidc::compile(oidc, lookup))?;
        all.push((Stage::Oidc, Filter::Oidc(oidc.into())));
    }
    if let Some(jwt) = &policy.jwt {
        let jwt = field("jwt", Jwt::compile(jwt, lookup))?;
        all.push((Stage::Jwt, Filter::Jwt(jwt.into())));
    }
    if let Some(buffer) = &policy.request_buffer {
        let limit = usize::try_from(buffer.limit).unwrap_or(usize::MAX);
        all.push((Stage::RequestBuffer, Filter::RequestBuffer(limit)));
    }
    if !policy.external_processors.is_empty() {
        let processors = Processor::compile_all(&policy.external_processors, lookup)
            .map_err(|e| format!("external_processors{e}"))?;
        all.push((Stage::ExtProc, Filter::ExtProc(processors)));
    }
    if let Some(rules) = &policy.authorization {
        let rules = field("authorization", Authorization::compile(rules))?;
        all.push((Stage::Authorization, Filter::Authorization(rules.into())));
    }
    if let Some(limit) = &policy.rate_limit {
        let limit = field("rate_limit", RateLimit::compile(limit, lookup))?;
        all.push((Stage::RateLimit, Filter::RateLimit(limit.into())));
    }
    if let Some(limit) = &policy.global_rate_limit {
        let limit = field("global_rate_limit", GlobalRateLimit::compile(limit, lookup))?;
        all.push((Stage::GlobalRateLimit, Filter::GlobalRateLimit(limit.into())));
    }
    Ok(all)
}

/// The name by which metrics know requests of a rule of `route`.
pub fn counted_as<'a>(policy: Option<&'a v1::Policy>, route: &'a str) -> &'a str {
    let name = policy.map_or("", |policy| policy.stat_name.as_str());
    if name.is_empty() { route } else { name }
}

/// How CONNECT is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunnel {
    /// It goes on to the backend, which says whether there is a tunnel.
    Pass,
    /// The tunnel ends here; its bytes go to the backend.
    Terminate,
}

/// What a policy asks for besides filters.
#[derive(Debug)]
pub struct Extras {
    /// Responses in the place of others.
    pub overrides: Overrides,
    /// Codings that bodies of responses may get.
    pub compressors: Compressors,
    /// Limits on the pace of bodies.
    pub bandwidth: Option<Bandwidth>,
    /// Protocols that a connection may go on with, in lower case; `None`: any.
    pub upgrades: Option<Box<[Box<str>]>>,
    /// Set if CONNECT is served.
    pub tunnel: Option<Tunnel>,
    /// Turns requests away while the backend fails.
    pub admission: Option<Admission>,
    /// Bound on the time from the request's head to the end of the response.
    pub max_duration: Option<Duration>,
    /// Bound on the time in which nothing moves. `None`: the listener's; zero: none.
    pub idle: Option<Duration>,
}

impl Extras {
    /// Reads the resource; `None` if it asks for nothing of the kind.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(policy: &v1::Policy) -> Result<Option<Box<Self>>, String> {
        let upgrades = policy.upgrades.as_ref().map(|upgrades| {
            let names = upgrades.protocols.iter();
            names.map(|name| name.to_ascii_lowercase().into()).collect()
        });
        let extras = Self {
            overrides: Overrides::compile(&policy.response_overrides)
                .map_err(|e| format!("response_overrides{e}"))?,
            compressors: Compressors::compile(&policy.compressors).map_err(|e| format!("compressors{e}"))?,
            bandwidth: policy
                .bandwidth_limit
                .as_ref()
                .map(Bandwidth::compile)
                .transpose()
                .map_err(|e| format!("bandwidth_limit.{e}"))?,
            upgrades,
            tunnel: policy
                .upgrades
                .as_ref()
                .and_then(|upgrades| upgrades.connect)
                .map(|connect| {
                    if connect.terminate {
                        Tunnel::Terminate
                    } else {
                        Tunnel::Pass
                    }
                }),
            admission: policy
                .admission_control
                .as_ref()
                .map(Admission::compile)
                .transpose()
                .map_err(|e| format!("admission_control.{e}"))?,
            max_duration: (policy.max_stream_duration_ms != 0)
                .then(|| Duration::from_millis(policy.max_stream_duration_ms)),
            idle: policy.stream_idle_timeout_ms.map(Duration::from_millis),
        };
        let asks = !extras.overrides.is_empty()
            || !extras.compressors.is_empty()
            || extras.bandwidth.is_some()
            || extras.upgrades.is_some()
            || extras.admission.is_some()
            || extras.max_duration.is_some()
            || extras.idle.is_some();
        Ok(asks.then(|| Box::new(extras)))
    }

    /// True if a connection may go on with this protocol.
    pub fn allows_upgrade(&self, protocol: &[u8]) -> bool {
        self.upgrades.as_ref().is_none_or(|names| {
            names
                .iter()
                .any(|name| name.as_bytes().eq_ignore_ascii_case(protocol))
        })
    }
}

/// Says who may connect, by address alone.
#[derive(Debug)]
pub struct AddressRules(Authorization);

impl AddressRules {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::Authorization) -> Result<Self, String> {
        Authorization::compile(config).map(Self)
    }

    /// True if a connection from this address may pass.
    pub fn allows(&self, client: IpAddr) -> bool {
        self.0.allows_address(client)
    }
}
