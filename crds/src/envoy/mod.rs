//! `gateway.envoyproxy.io/v1alpha1`: the kinds of Envoy Gateway that Sluice reads.

/// API group of Envoy Gateway's kinds.
pub const GROUP: &str = "gateway.envoyproxy.io";

mod envoy_proxy;
mod kubernetes;
mod raw;

pub use envoy_proxy::*;
pub use kubernetes::*;
pub use raw::Raw;
