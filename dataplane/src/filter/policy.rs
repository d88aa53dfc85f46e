//! The parts of a rule's policy, and the one place that knows in which order they run.

use std::net::IpAddr;

use sluice_config::v1;

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
    if let Some(authorization) = &policy.authorization {
        let authorization = field("authorization", Authorization::compile(authorization))?;
        chain.push(Filter::Authorization(Box::new(authorization)));
    }
    if let Some(limit) = &policy.rate_limit {
        let limit = field("rate_limit", RateLimit::compile(limit, lookup))?;
        chain.push(Filter::RateLimit(Box::new(limit)));
    }
    unknown(policy)?;
    Ok(chain)
}

/// Refuses what is not served yet.
fn unknown(policy: &v1::Policy) -> Result<(), String> {
    let parts = [
        ("request_buffer", policy.request_buffer.is_some()),
        ("bandwidth_limit", policy.bandwidth_limit.is_some()),
        ("compressors", !policy.compressors.is_empty()),
        ("response_overrides", !policy.response_overrides.is_empty()),
        ("upgrades", policy.upgrades.is_some()),
        ("admission_control", policy.admission_control.is_some()),
        ("max_stream_duration_ms", policy.max_stream_duration_ms != 0),
        ("stream_idle_timeout_ms", policy.stream_idle_timeout_ms.is_some()),
    ];
    match parts.iter().find(|(_, is_set)| *is_set) {
        Some((name, _)) => Err(format!("{name}: not known to this version")),
        None => Ok(()),
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
