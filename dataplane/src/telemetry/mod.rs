//! What the proxy says about itself: the access log and the metrics.
//!
//! Owns counters and log lines. It never decides anything about a request; those who do hold the handles and count.

pub mod access_log;
mod cells;
mod exposition;
pub mod metrics;

pub use access_log::{AccessLog, AccessLogTarget};
pub use metrics::{BackendMetrics, ConfigMetrics, ListenerMetrics, Metrics, RouteMetrics};
