//! What the proxy says about itself and its traffic: access logs, metrics and traces.
//!
//! Owns counters and log lines. It never decides anything about a request; those who do hold the handles and count.

pub mod access_log;
mod cells;
pub mod details;
pub mod export;
mod exposition;
pub mod metrics;
pub mod settings;
pub mod trace;

pub use access_log::{AccessLog, AccessLogTarget};
pub use metrics::{BackendMetrics, ConfigMetrics, ListenerMetrics, Metrics, RouteMetrics};
