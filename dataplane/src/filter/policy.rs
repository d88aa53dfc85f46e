//! The parts of a rule's policy, and the one place that knows in which order they run.

use std::net::IpAddr;
use std::time::Duration;

use sluice_config::v1;

use super::bandwidth::Bandwidth;
use super::compress::Compressors;
use super::overrides::Overrides;
use super::{
    ApiKeyAuth, Authorization, BasicAuth, Cors, ExternalAuth, Fault, Filter, Jwt, Lookup, RateLimit, field,
    status,
};

/// All filters of a rule in the order in which they run: those of its policy, then its own. A Cors filter of its own
/// runs where the policy's would, so that a preflight request needs no credentials.
///
/// # Errors
/// `field: reason` of what cannot be honoured. A part that this version does not know is never left out.
pub fn chain(
    policy: Option<&v1::Policy>,
    own: &[v1::Filter],
    lookup: &mut dyn Lookup,
) -> Result<Vec<Filter>, String> {
    let own = Filter::compile_all(own, lookup)?;
    let Some(policy) = policy else { return Ok(own) };
    let (cors, own): (Vec<_>, Vec<_>) = own
        .into_iter()
        .partition(|filter| matches!(filter, Filter::Cors(_)));
    let mut chain = before_routes(policy, cors, lookup).map_err(|e| format!("policy.{e}"))?;
    chain.extend(own);
    Ok(chain)
}

fn before_routes(
    policy: &v1::Policy,
    own_cors: Vec<Filter>,
    lookup: &mut dyn Lookup,
) -> Result<Vec<Filter>, String> {
    let mut chain = Vec::new();
    if let Some(refuse) = &policy.refuse {
        chain.push(Filter::FixedResponse(field(
            "refuse.status",
            status(refuse.status),
        )?));
    }
    if let Some(fault) = &policy.fault {
        chain.push(Filter::Fault(Box::new(field("fault", Fault::compile(fault))?)));
    }
    if let Some(cors) = &policy.cors {
        chain.push(Filter::Cors(Box::new(field("cors", Cors::compile(cors))?)));
    }
    chain.extend(own_cors);
    if let Some(auth) = &policy.external_auth {
        let auth = field("external_auth", ExternalAuth::compile(auth, lookup))?;
        chain.push(Filter::ExternalAuth(Box::new(auth)));
    }
    if let Some(auth) = &policy.api_key_auth {
        let auth = field("api_key_auth", ApiKeyAuth::compile(auth, lookup))?;
        chain.push(Filter::ApiKeyAuth(Box::new(auth)));
    }
    if let Some(auth) = &policy.basic_auth {
        let auth = field("basic_auth", BasicAuth::compile(auth, lookup))?;
        chain.push(Filter::BasicAuth(Box::new(auth)));
    }
    if let Some(jwt) = &policy.jwt {
        chain.push(Filter::Jwt(Box::new(field("jwt", Jwt::compile(jwt, lookup))?)));
    }
    if let Some(buffer) = &policy.request_buffer {
        let limit = usize::try_from(buffer.limit).unwrap_or(usize::MAX);
        chain.push(Filter::RequestBuffer(limit));
    }
    if let Some(authorization) = &policy.authorization {
        let authorization = field("authorization", Authorization::compile(authorization))?;
        chain.push(Filter::Authorization(Box::new(authorization)));
    }
    if let Some(limit) = &policy.rate_limit {
        let limit = field("rate_limit", RateLimit::compile(limit, lookup))?;
        chain.push(Filter::RateLimit(Box::new(limit)));
    }
    Ok(chain)
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
        if policy.admission_control.is_some() {
            return Err("admission_control: not known to this version".into());
        }
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
            max_duration: (policy.max_stream_duration_ms != 0)
                .then(|| Duration::from_millis(policy.max_stream_duration_ms)),
            idle: policy.stream_idle_timeout_ms.map(Duration::from_millis),
        };
        let asks = !extras.overrides.is_empty()
            || !extras.compressors.is_empty()
            || extras.bandwidth.is_some()
            || extras.upgrades.is_some()
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
