//! What runs for each Gateway: Deployment (or DaemonSet), Service, ServiceAccount, ConfigMap with the controller's CA,
//! and on demand an autoscaler and a disruption budget, all in the Gateway's namespace and owned by it. What the Gateways
//! of a class share (`mergeGateways`) runs in the controller's namespace and is owned by the class.
//!
//! [`render()`] is pure: [`Infra`](crate::engine::Infra) in, objects out. [`Fleet`] applies them server-side while this
//! replica leads, removes what is not wanted any more, and repairs what somebody changed or deleted.

mod apply;
mod drift;
mod fleet;
mod name;
pub mod pods;
mod render;
mod strategic;

pub use fleet::Fleet;
pub use name::{deployment_name, is_daemon_set, name, service_name};
pub use pods::PodServices;
pub(crate) use render::is_ours;
pub use render::{Child, ChildKind, RenderError, Settings, account_name, check, render};

/// Port of the proxy's health checks and metrics.
pub const ADMIN_PORT: u16 = 19001;
