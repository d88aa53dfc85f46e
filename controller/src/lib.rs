//! The Sluice controller: Gateway API objects in; proxy configuration, statuses and infrastructure out.
//!
//! ```text
//! API server --watch--> store --translate--> publish --gRPC--> proxies
//!                                  |-------> status  --apply--> API server (leader only)
//!                                  '-------> infra   --apply--> API server (leader only)
//! ```
//! `store`, `engine` and `translate` do no I/O and are all that standalone mode needs; `watch`, `publish`, `status`
//! and `infra` talk to the outside; `run` wires them.

pub mod engine;
pub mod infra;
pub mod leader;
pub mod login_key;
pub mod metrics;
pub mod publish;
pub mod run;
pub mod status;
pub mod store;
pub mod translate;
pub mod watch;
mod work;

pub use run::{Options, RunError, run};
