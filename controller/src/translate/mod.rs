//! From objects to configuration: one pure function for each [`Unit`].
//!
//! No I/O, no clock, no global state: the same objects give the same [`Output`]. What a unit read is recorded by the
//! [`View`], and only that decides when it is translated anew.

mod backend;
mod class;
pub mod condition;
mod fault;
pub mod features;
mod gateway;
mod grant;
pub mod model;
mod namespaces;
pub(crate) mod policy;
mod precedence;
mod route;
mod secret;
pub mod telemetry;

use crate::engine::{Output, Unit, View};
use crate::store::Kind;

/// Translates one unit.
pub fn translate(unit: &Unit, view: &View<'_>) -> Output {
    match unit {
        Unit::Class(name) => class::translate(name, view),
        Unit::Gateway(gateway) => gateway::translate(gateway, view),
        Unit::Route(route) => route::translate(route, view),
        Unit::Backend(backend) => backend::translate(backend, view),
        Unit::Endpoints(endpoints) => backend::endpoints::translate(endpoints, view),
        Unit::Secret(secret) => secret::translate(secret, view),
        Unit::Data(object) => secret::data(object, view),
        Unit::RateLimitService => backend::rate_limit::translate(view),
        Unit::Destination(destination) => destination.translate(view),
        Unit::Policy(object) if object.kind == Kind::XBackend => backend::x_backend::translate(object, view),
        Unit::Policy(object) if object.kind == Kind::Backend => backend::envoy::translate(object, view),
        Unit::Policy(policy) => policy::translate(policy, view),
    }
}
