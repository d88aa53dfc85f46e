//! The HTTP request path, end to end: the real dataplane on loopback between real clients and real backends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod access_log;
mod auth;
mod authorization;
mod bandwidth;
mod bodies;
mod config;
mod destinations;
mod details;
mod ext_proc;
mod ext_proc_more;
mod filter_order;
mod filters;
mod global_limits;
mod grpc;
mod headers;
mod http2;
mod jwt;
mod jwt_lenient;
mod logs;
mod malformed;
mod metadata;
mod names;
mod oidc;
mod order;
mod own_calls;
mod own_calls_grpc;
mod policies;
mod rate_limits;
mod responses;
mod retries;
mod sampling;
mod sessions;
mod stats;
mod telemetry;
mod tls;
mod tries;
mod tunnels;
mod tunnels_tls;
mod upgrades;

use support::Proxy;
use support::backend::Backend;
use support::config as cfg;

/// A proxy with one listener and one route of all paths to one backend.
async fn simple(backend: &Backend) -> (Proxy, u16) {
    with_rule(&[("b", backend)], cfg::rule("/", &["b"])).await
}

/// A proxy with one rule of all paths to one echoing backend, this policy on it, and what else it needs.
async fn with_policy(
    policy: sluice_config::v1::Policy,
    others: Vec<sluice_config::v1::Resource>,
) -> (Proxy, Backend, u16) {
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = Some(policy);
    with_others(rule, others).await
}

/// A proxy with one listener and one rule, its backend `b`, and what else the rule needs.
async fn with_others(
    rule: sluice_config::v1::HttpRule,
    others: Vec<sluice_config::v1::Resource>,
) -> (Proxy, Backend, u16) {
    let backend = Backend::echo("b").await;
    let port = support::free_port();
    let mut resources = vec![cfg::http_listener("l", port), cfg::route("r", "l", vec![rule])];
    resources.extend(cfg::backend("b", &[backend.address]));
    resources.extend(others);
    (Proxy::start(resources).await, backend, port)
}

/// A proxy with one listener and one rule, and these backends.
async fn with_rule(backends: &[(&str, &Backend)], rule: sluice_config::v1::HttpRule) -> (Proxy, u16) {
    let port = support::free_port();
    let mut resources = vec![cfg::http_listener("l", port), cfg::route("r", "l", vec![rule])];
    for (name, backend) in backends {
        resources.extend(cfg::backend(name, &[backend.address]));
    }
    (Proxy::start(resources).await, port)
}
