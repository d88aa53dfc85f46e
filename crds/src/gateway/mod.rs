//! Gateway API v1.7.0, experimental channel: `gateway.networking.k8s.io/v1` and `gateway.networking.x-k8s.io/v1alpha1`.
//!
//! Field names follow the Go types. What several kinds share is declared once, in [`common`], so that one code path
//! can serve all route kinds through [`Route`].

mod backend;
mod backend_tls_policy;
mod backend_traffic_policy;
mod common;
#[expect(
    clippy::module_inception,
    reason = "the file is named for its kind, like the others"
)]
mod gateway;
mod gateway_class;
mod grpc_route;
mod http_filters;
mod http_route;
mod l4_routes;
mod listener_set;
mod reference_grant;
mod references;
mod route;

pub use backend::*;
pub use backend_tls_policy::*;
pub use backend_traffic_policy::*;
pub use common::*;
pub use gateway::*;
pub use gateway_class::*;
pub use grpc_route::*;
pub use http_filters::*;
pub use http_route::*;
pub use l4_routes::*;
pub use listener_set::*;
pub use reference_grant::*;
pub use references::*;
pub use route::Route;

pub use crate::duration::{Duration, DurationError};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};

/// API group of Gateway API.
pub const GROUP: &str = "gateway.networking.k8s.io";
/// API group of Gateway API's experimental kinds.
pub const X_GROUP: &str = "gateway.networking.x-k8s.io";
