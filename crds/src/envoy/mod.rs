//! `gateway.envoyproxy.io/v1alpha1`: the kinds of Envoy Gateway that Sluice reads.
//!
//! Fields are those of Envoy Gateway's API reference (v1.9). What is read and not honoured is known to the controller's
//! `translate::policy::envoy`, and `docs/envoy-gateway.md` lists it.

/// API group of Envoy Gateway's kinds.
pub const GROUP: &str = "gateway.envoyproxy.io";

mod admission_control;
mod authentication;
mod authorization;
mod backend;
mod backend_traffic;
mod client_headers;
mod client_tls;
mod client_traffic;
mod cluster;
mod connection;
mod dynamic_module;
mod envoy_proxy;
mod extension;
mod filter_position;
mod geo_ip;
mod health_check;
mod http_filter;
mod kubernetes;
mod kubernetes_schema;
mod load_balancer;
mod oidc;
mod patch;
mod policy;
mod proxy_telemetry;
mod rate_limit;
mod raw;
mod response;
mod rules;
mod security;
mod telemetry;

pub use admission_control::*;
pub use authentication::*;
pub use authorization::*;
pub use backend::*;
pub use backend_traffic::*;
pub use client_headers::*;
pub use client_tls::*;
pub use client_traffic::*;
pub use cluster::*;
pub use connection::*;
pub use dynamic_module::*;
pub use envoy_proxy::*;
pub use extension::*;
pub use filter_position::*;
pub use geo_ip::*;
pub use health_check::*;
pub use http_filter::*;
pub use kubernetes::*;
pub use load_balancer::*;
pub use oidc::*;
pub use patch::*;
pub use policy::*;
pub use proxy_telemetry::*;
pub use rate_limit::*;
pub use raw::Raw;
pub use response::*;
pub use security::*;
pub use telemetry::*;
