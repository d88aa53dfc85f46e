//! What runs for each Gateway.

mod name;

pub use name::{deployment_name, is_daemon_set, name, service_name};
